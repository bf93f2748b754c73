"""What held a run up: for how long the next request waited for what."""

from __future__ import annotations

import contextlib
import enum
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUSY: Final = 0.9  # of a core that the process takes where this machine is what holds the run up


class Cause(enum.Enum):
    """What the next request may wait for."""

    ENDPOINT = "endpoint"  # its limit, as 429s show it
    QUEUEING = "queueing"  # more in flight would only wait at the endpoint
    GROWING = "growing"  # it is still being found out how many may be in flight
    CONCURRENCY = "concurrency"  # as many are in flight as are allowed
    LIMITS = "limits"  # requests or tokens per span of time that were told
    SOURCE = "source"  # rows come too slowly
    MACHINE = "machine"  # this machine's CPU
    LEDGER = "ledger"  # answers become durable too slowly
    BUDGET = "budget"  # what may be spent is reserved for what is in flight
    OUTAGE = "outage"  # the endpoint is out of service
    END = "end"  # nothing is left to send


class Bound:
    """Adds up the seconds that the dispatcher waits, by cause.

    Attributes:
        seconds: by cause.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._began: float | None = None
        self._cpu = 0.0
        self._waiting: tuple[Cause, float, float] | None = None
        self.seconds: defaultdict[Cause, float] = defaultdict(float)

    def begin(self) -> None:
        """Count from here."""
        self._began, self._cpu = self._monotonic(), time.process_time()

    @contextlib.contextmanager
    def by(self, cause: Cause) -> Iterator[None]:
        """Count what the block waits for a cause; time in which there is nothing left to send does not count."""
        since = self._monotonic()
        cpu = time.process_time() if cause is Cause.END else 0.0  # a system call, in every request's way
        self._waiting = cause, since, cpu
        try:
            yield
        finally:
            self._waiting = None
            waited = self._monotonic() - since
            if cause is not Cause.END:
                self.seconds[cause] += waited
            elif self._began is not None:
                self._began += waited
                self._cpu += time.process_time() - cpu

    def worst(self) -> tuple[Cause, float] | None:
        """Give what held the run up longest and its share of the time; None when nothing did."""
        if self._began is None:
            return None
        seconds, now, cpu = self.seconds.copy(), self._monotonic(), time.process_time()
        if self._waiting is not None:
            cause, since, cpu_then = self._waiting
            if cause is Cause.END:
                now, cpu = since, cpu_then
            else:
                seconds[cause] += now - since
        elapsed = max(1e-3, now - self._began)
        if (busy := (cpu - self._cpu) / elapsed) > BUSY:
            return Cause.MACHINE, min(1.0, busy)
        seconds.pop(Cause.GROWING, None)
        cause, spent = max(seconds.items(), key=lambda item: item[1], default=(Cause.END, 0.0))
        return (cause, min(1.0, spent / elapsed)) if spent else None
