"""Turns for requests: windows over requests and tokens, held by this process for itself alone."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aiolimiter import AsyncLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config import LimitsConfig
    from enrich.pace.lease import Cut, Lease

SMOOTH = 0.05  # seconds' worth of requests that may go at once
SLACK = 0.005  # share of a window that may go at once, and that is kept back for it
TOGETHER = 0.02  # seconds within which requests go together: each wake-up costs as much as a request
TICK = 0.008  # the same where no limit was told: there the moments at which they go tell something
JITTER = 0.03  # seconds by which requests may draw together on their way
GUARDED = 1_000  # requests per window up to which the window is held to when they really went
TOKENS_KEPT = 0.025  # share of a token window that is kept back for estimates that were too low


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``amount`` requests or tokens in any span of ``seconds``."""

    amount: float
    seconds: float

    @property
    def burst(self) -> float:
        """Give how much may go at once: enough to make up for a late timer, too little to be a spike."""
        return 1 + min(SLACK * self.amount, SMOOTH * self.amount / self.seconds)

    @property
    def together(self) -> float:
        """Give the seconds after which those that may go by then go together: what they wait is no turn lost."""
        return min(TOGETHER, (self.burst - 1) / self.rate)

    @property
    def rate(self) -> float:
        """Give the units per second that, with the burst on top, stay within the window wherever it starts.

        A span of ``seconds`` in the server's books holds what left here within ``seconds + JITTER``, and that is
        at most ``burst + rate × (seconds + JITTER)``, which this makes ``amount + 1 − SLACK × amount``: below
        ``amount + 1``, and requests are whole.
        """
        sustained = max(self.amount * (1 - SLACK) - (self.burst - 1), self.amount / 2)
        return sustained / (self.seconds + JITTER)


def request_windows(limits: LimitsConfig) -> list[Window]:
    """List the windows that bound requests."""
    windows = [Window(w.requests, w.seconds) for w in limits.windows if w.requests is not None]
    if limits.requests_per_minute is not None:
        windows.append(Window(limits.requests_per_minute, 60.0))
    return windows


def token_windows(limits: LimitsConfig) -> list[Window]:
    """List the windows that bound tokens."""
    windows = [Window(w.tokens, w.seconds) for w in limits.windows if w.tokens is not None]
    if limits.tokens_per_minute is not None:
        windows.append(Window(limits.tokens_per_minute, 60.0))
    return windows


class Guard:
    """Holds a window to when its requests really went, which may be later than when they were let go.

    A limiter spaces the moments at which requests are let go. Where the process was held up in between, the next ones
    follow more closely than it meant. Large windows have room for that; small ones have not.
    """

    def __init__(self, window: Window, monotonic: Callable[[], float]) -> None:
        self._span = window.seconds + JITTER
        self._times: deque[float] = deque(maxlen=math.floor(window.amount))
        self._monotonic = monotonic

    def wait(self) -> float:
        """Give the seconds until one more request leaves the window within its limit."""
        times = self._times
        if len(times) < (times.maxlen or 0):
            return 0.0
        return max(0.0, times[0] + self._span - self._monotonic())

    def sent(self, now: float) -> None:
        """Note that a request goes now."""
        self._times.append(now)


class TokenBucket:
    """A leaky bucket whose level is corrected once the true amount is known.

    Reserve an estimate before sending, settle when the usage arrives: an answer that was longer than
    estimated delays the next request, a shorter one lets it go sooner. Over any span of the window's length
    no more is used than leaks out in it (``amount × (1 − SLACK − TOKENS_KEPT)``) and what the level can rise by: the
    capacity (``SLACK × amount``), one request, and by how much those in flight turn out longer than estimated.
    """

    def __init__(self, window: Window, monotonic: Callable[[], float]) -> None:
        self._rate = window.amount * (1 - SLACK - TOKENS_KEPT) / (window.seconds + JITTER)
        self._capacity = window.amount * SLACK
        self._monotonic = monotonic
        self._level = 0.0
        self._at = monotonic()

    def wait(self) -> float:
        """Give the seconds until the next request may reserve."""
        now = self._monotonic()
        self._level = max(0.0, self._level - (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (self._level - self._capacity) / self._rate)

    def settle(self, reserved: float, used: float) -> None:
        """Replace an estimate, or nothing (0), by what is reserved or was used."""
        self._level += used - reserved


class Slots(Protocol):
    """Where turns come from: this process's own windows, or a limit that it shares with others.

    Attributes:
        runs: live runs that share the limit, this one included.
    """

    runs: int

    @property
    def others(self) -> float:
        """Give the requests that all runs have sent per request of this one, since `mark`."""

    def listen(self, hear: Callable[[Lease, bool], None]) -> None:
        """Have what others learned told to ``hear``: a lease, and whether it answers a cut of this process."""

    async def take(self, tokens: float) -> None:
        """Wait until one request of about so many tokens may go."""

    def settle(self, reserved: float, used: float) -> None:
        """Replace an estimate of tokens by what was used."""

    def sent(self) -> None:
        """Note that a request goes now."""

    def mark(self) -> None:
        """Count `others` from here."""

    def cut(self, cut: Cut) -> None:
        """Tell the others what a 429 taught."""


class OwnSlots:
    """The windows of one process; there is nobody to tell anything."""

    runs = 1
    others = 1.0

    def __init__(self, limits: LimitsConfig, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limiters = [
            (AsyncLimiter(w.burst, w.burst / w.rate), w.together) for w in request_windows(limits)
        ]
        self._guards = [Guard(w, monotonic) for w in request_windows(limits) if 1 <= w.amount <= GUARDED]
        self._buckets = [TokenBucket(w, monotonic) for w in token_windows(limits)]
        self._monotonic = monotonic

    async def take(self, tokens: float) -> None:
        """Wait until one request of about so many tokens may go by every window."""
        for bucket in self._buckets:
            while (wait := bucket.wait()) > 0:  # noqa: ASYNC110  # the time is known, and may grow meanwhile
                await asyncio.sleep(wait)
        for limiter, together in self._limiters:
            if together and not limiter.has_capacity():
                await asyncio.sleep(together)
            await limiter.acquire()
        for guard in self._guards:
            while (wait := guard.wait()) > 0:  # noqa: ASYNC110  # the time is known
                await asyncio.sleep(wait)
        for bucket in self._buckets:
            bucket.settle(0.0, tokens)

    def settle(self, reserved: float, used: float) -> None:
        """Replace an estimate of tokens by what was used."""
        for bucket in self._buckets:
            bucket.settle(reserved, used)

    def sent(self) -> None:
        """Note that a request goes now."""
        for guard in self._guards:
            guard.sent(self._monotonic())

    def listen(self, hear: Callable[[Lease, bool], None]) -> None:
        """There is nothing to hear."""

    def mark(self) -> None:
        """There is nobody else to count."""

    def cut(self, cut: Cut) -> None:
        """There is nobody to tell."""
