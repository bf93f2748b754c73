"""How a running job is told to stop in good order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.errors import RunInterrupted

if TYPE_CHECKING:
    from collections.abc import Callable

DRAIN = 30.0  # seconds that what is in flight may take after a stop; the server keeps what comes later


class Interrupt:
    """Carries a signal to whatever is running; the first call counts."""

    def __init__(self) -> None:
        self.fired = False
        self.listener: Callable[[RunInterrupted], None] | None = None

    def fire(self) -> None:
        """Ask the run to stop in good order."""
        self.fired = True
        if self.listener is not None:
            self.listener(RunInterrupted())

    def check(self) -> None:
        """Raise when the run was asked to stop.

        Raises:
            RunInterrupted: it was.
        """
        if self.fired:
            raise RunInterrupted
