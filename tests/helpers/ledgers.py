"""Ledgers that a test opens as often as it likes, on a clock that it turns; requests and answers to put into them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from enrich.ledger.sqlite import open_ledger
from enrich.records import Ask, Failure, Fate, Reply

if TYPE_CHECKING:
    from pathlib import Path

    from enrich.ledger.protocol import Ledger


@dataclass
class FakeClock:
    """A clock that stands still until it is turned."""

    wall_s: float = 1_800_000_000.0
    boot_s: float = 5_000.0
    boot: str = "boot-1"

    def wall(self) -> float:
        """Give the wall seconds."""
        return self.wall_s

    def boottime(self) -> float:
        """Give the seconds since boot."""
        return self.boot_s

    def boot_id(self) -> str:
        """Name this boot."""
        return self.boot

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall_s += seconds
        self.boot_s += seconds

    def reboot(self, seconds_off: float) -> None:
        """Start the machine anew, its wall clock so much further on."""
        self.wall_s += seconds_off
        self.boot_s = 20.0
        self.boot = f"{self.boot}+"


class Open(Protocol):
    """Opens the same ledger once more, as another process would."""

    async def __call__(self) -> Ledger:
        """Open it."""


@dataclass
class Opener:
    """The ledgers a test has open; ``kind`` is ``sqlite`` or a database's URL."""

    kind: str
    directory: Path
    clock: FakeClock
    opened: list[Ledger] = field(default_factory=list)

    async def __call__(self) -> Ledger:
        """Open it once more."""
        ledger: Ledger
        if self.kind == "sqlite":
            ledger = await open_ledger(self.directory / "ledger.db", clock=self.clock)
        else:
            from enrich.ledger import postgres

            ledger = await postgres.open_ledger(self.kind, clock=self.clock)
        self.opened.append(ledger)
        return ledger


def make_ask(text: str = "a", **changes: bytes | str | None) -> Ask:
    """Make a request whose key is a function of its text."""
    body = b'{"prompt": "%b"}' % text.encode()
    return replace(Ask(uuid.uuid5(uuid.NAMESPACE_URL, text).bytes, body, "auto"), **changes)  # type: ignore[arg-type]  # any field


REPLY = Reply(b'{"choices": []}', "req-1", 12.5)
REFUSED = Failure("rate_limited", "slow down", Fate.REFUSED, 429, True, "req-2", 1.5, b"{}")
LOST = Failure("connection_reset", "lost", Fate.UNKNOWN)
