"""What tests of the embedded ledger share: one on disk, requests and answers, and damage to its file."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from enrich.base.clock import SystemClock
from enrich.ledger.sqlite import SqliteLedger, open_ledger
from enrich.records import Ask, Failure, Fate, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


LOST = Failure("connection_reset", "lost", Fate.UNKNOWN)


class LaterClock(SystemClock):
    """The clocks of this machine, two days on."""

    def wall(self) -> float:
        """Give the wall seconds."""
        return super().wall() + 2 * 86_400


def make_ask(number: int, size: int = 20) -> Ask:
    """Make a request whose key is a function of its number."""
    body = b'{"prompt": "%d %b"}' % (number, b"q" * size)
    return Ask(uuid.uuid5(uuid.NAMESPACE_URL, str(number)).bytes, body, "auto")


def make_reply(number: int, size: int = 20) -> Reply:
    """Make the answer to a numbered request."""
    return Reply(b'{"answer": "%d %b"}' % (number, b"a" * size), f"req-{number}", 1.5)


@contextlib.asynccontextmanager
async def opened(path: Path, *, run: bool = True) -> AsyncIterator[SqliteLedger]:
    """Open a ledger, with a run unless told otherwise; the run ends dead."""
    ledger = await open_ledger(path)
    try:
        if run:
            await ledger.open_run({})
        yield ledger
    finally:
        await ledger.close()


async def fill(ledger: SqliteLedger, numbers: Sequence[int], size: int = 20) -> list[Ask]:
    """Claim and answer some requests."""
    asks = [make_ask(number, size) for number in numbers]
    await ledger.claim(asks)
    await asyncio.gather(
        *(ledger.answer(a.key, make_reply(n, size)) for a, n in zip(asks, numbers, strict=True))
    )
    return asks


def pages(path: Path) -> int:
    """Count the pages of a database."""
    return path.stat().st_size // 4_096


def start(script: str, path: Path) -> subprocess.Popen[str]:
    """Start a script of ours in a process of its own."""
    code = script.format(root=str(Path(__file__).parents[2]))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
