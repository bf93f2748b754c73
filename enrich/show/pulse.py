"""Notes in the ledger where a run stands, for whoever watches from another process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enrich.base.loops import meanwhile
from enrich.errors import RunStopped
from enrich.show.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from enrich.ledger.protocol import Ledger
    from enrich.show.watch import Watch


PULSE_EVERY = 2.0  # seconds between notes in the ledger, for `status --watch`


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a run notes in the ledger every now and then, for whoever watches from elsewhere.

    Attributes:
        run: its number in the ledger.
        at: wall-clock seconds since the epoch.
        ended: whether this was the last one.
    """

    run: int
    at: float
    ended: bool
    snapshot: Snapshot

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Pulse:
        """Read a note."""
        return cls(value["run"], value["at"], value["ended"], Snapshot.from_dict(value["snapshot"]))


def pulse_name(output: str) -> str:
    """Name the note of the run that writes an output."""
    return f"pulse:{output}"


@contextlib.asynccontextmanager
async def pulsing(watch: Watch, ledger: Ledger, *, run: int, output: str) -> AsyncIterator[None]:
    """Note in the ledger where a run stands, while the block runs."""

    async def note(*, ended: bool = False) -> None:
        value = {"run": run, "at": time.time(), "ended": ended, "snapshot": watch.snapshot().to_dict()}
        await ledger.remember(pulse_name(output), value)

    async def beat() -> None:
        with contextlib.suppress(RunStopped):  # a full disk: the run has more to say about that
            while True:
                await note()
                await asyncio.sleep(PULSE_EVERY)

    async with meanwhile(beat(), "beatra-pulse"):
        yield
    with contextlib.suppress(RunStopped):
        await note(ended=True)
