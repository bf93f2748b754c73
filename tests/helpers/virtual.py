"""A virtual clock for pacing: an event loop that never waits, servers with limits, a dispatcher like the engine's."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import selectors
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from enrich.pace.lease import Account, grant

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from enrich.pace.lease import Lease, LeaseRequest
    from enrich.pace.pace import Pace
    from enrich.pace.sent import Sent


class _Selector(selectors.SelectSelector):
    """Turns every wait into a step of the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing is left to happen")
        self.now += max(timeout, 1e-7)  # time passes in any case, as it does for a real loop
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everybody sleeps."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Give the virtual seconds."""
        return self._virtual.now


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on a virtual clock."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


class Limit(Protocol):
    """What a server lets through."""

    def admit(self, now: float) -> bool:
        """Say whether a request that comes now is let through."""


@dataclass
class TokenBucketLimit:
    """So many requests a second, and so many at once."""

    rate: float
    burst: float
    change: tuple[float, float] = (math.inf, 0.0)  # at this second the rate becomes that
    level: float = field(init=False)
    at: float | None = None

    def __post_init__(self) -> None:
        self.level = self.burst

    def admit(self, now: float) -> bool:
        """Take a token if there is one."""
        rate = self.change[1] if now >= self.change[0] else self.rate
        self.level = min(self.burst, self.level + (now - (self.at or now)) * rate)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


def unlimited() -> TokenBucketLimit:
    """Give a server that lets everything through."""
    return TokenBucketLimit(1e9, 1e9)


@dataclass
class FixedWindowLimit:
    """So many requests in each window of so many seconds, counted from zero."""

    amount: int
    seconds: float
    window: int = -1
    used: int = 0

    def admit(self, now: float) -> bool:
        """Count it if this window has room."""
        if int(now // self.seconds) != self.window:
            self.window, self.used = int(now // self.seconds), 0
        if self.used >= self.amount:
            return False
        self.used += 1
        return True


@dataclass
class SlidingWindowLimit:
    """At most so many requests in any span of so many seconds."""

    amount: int
    seconds: float
    times: deque[float] = field(default_factory=deque)

    def admit(self, now: float) -> bool:
        """Count it if the last span has room."""
        while self.times and self.times[0] <= now - self.seconds:
            self.times.popleft()
        if len(self.times) >= self.amount:
            return False
        self.times.append(now)
        return True


@dataclass
class ConcurrencyLimit:
    """At most so many requests at a time; the simulation tells it when one ends."""

    most: int
    running: int = 0

    def admit(self, now: float) -> bool:  # the time is no matter to it
        """Count it if there is room."""
        if self.running >= self.most:
            return False
        self.running += 1
        return True


@dataclass
class Chance:
    """Refuses a share of the requests, whatever their rate."""

    share: float
    source: random.Random = field(default_factory=lambda: random.Random(1))

    def admit(self, now: float) -> bool:  # the time is no matter to it
        """Count it unless chance will have it."""
        return self.source.random() >= self.share


@dataclass
class Run:
    """What came of a simulated run: seconds, requests let through and refused, when each was sent."""

    seconds: float = 0.0
    through: int = 0
    refused: int = 0
    times: list[float] = field(default_factory=list)
    tokens: list[tuple[float, int]] = field(default_factory=list)


@dataclass
class Simulation:
    """Sends rows through the real pace to a simulated server, as the engine does."""

    pace: Pace
    limit: Limit
    rows: int
    latency: Callable[[random.Random], float] = lambda _: 0.2
    refusal: float = 0.001  # seconds until a 429 is back
    retry_after: float | None = None
    tokens: Callable[[random.Random], int] = lambda _: 0
    estimate: Callable[[Simulation], float] = lambda _: 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.run = Run()
        self.in_flight = 0
        self.waiting = self.rows
        self.retries: list[float] = []
        self.changed = asyncio.Event()
        self.mean_tokens = 0.0

    async def go(self) -> Run:
        """Send every row until it is let through."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.run.through < self.rows:
            if (pause := self.pace.paused_for()) > 0:
                await asyncio.sleep(pause)
                continue
            due = self.waiting or (self.retries and self.retries[0] <= loop.time())
            if not due or self.in_flight >= self.pace.ceiling:
                await self._something(loop)
                continue
            if (wait := self.pace.wait("m")) > 0:
                await self._something(loop, wait)
                continue
            if self.waiting:
                self.waiting -= 1
            else:
                heapq.heappop(self.retries)
            reserved = self.estimate(self)
            await self.pace.turn(reserved)
            self._send(loop, reserved)
        self.run.seconds = loop.time() - began
        return self.run

    async def _something(self, loop: asyncio.AbstractEventLoop, wait: float = math.inf) -> None:
        self.changed.clear()
        if self.retries:
            wait = min(wait, max(0.001, self.retries[0] - loop.time()))
        timer = loop.call_later(min(wait, 1e6), self.changed.set)
        await self.changed.wait()
        timer.cancel()

    def _send(self, loop: asyncio.AbstractEventLoop, reserved: float) -> None:
        now = loop.time()
        sent = self.pace.sent("m", reserved)
        self.in_flight += 1
        through = self.limit.admit(now)
        self.run.times.append(now)
        used = self.tokens(self.random)
        if through:
            self.run.tokens.append((now, used))
        after = self.latency(self.random) if through else self.refusal
        loop.call_later(after, self._came, sent, through, used)

    def _came(self, sent: Sent, through: bool, used: int) -> None:  # a callback's arguments
        self.in_flight -= 1
        if through and isinstance(self.limit, ConcurrencyLimit):
            self.limit.running -= 1
        if through:
            self.run.through += 1
            self.mean_tokens += (used - self.mean_tokens) / min(self.run.through, 200)
            self.pace.answered(sent, used=used or None)
        else:
            self.run.refused += 1
            self.pace.limited(sent, self.retry_after)
            now = asyncio.get_running_loop().time()
            wait = self.random.random() / 2 if self.retry_after is None else self.retry_after
            heapq.heappush(self.retries, now + wait)
        self.changed.set()


@dataclass
class SimulatedLeases:
    """A database's leases, on the virtual clock, so many seconds away; each account that asks is the same one.

    Attributes:
        runs: that share it.
        away: seconds until the request is there, and again until the lease is back.
        down: from when to when the database answers nobody, in virtual seconds.
        trips: how often it was asked.
        skew: seconds by which its clock is ahead.
    """

    runs: int = 1
    away: float = 0.0005
    down: tuple[float, float] = (math.inf, math.inf)
    skew: float = 86_400.0
    account: Account = field(default_factory=Account)
    trips: int = 0
    started: float = 0.0

    async def fingerprint(self, *secrets: str) -> bytes:
        """Name the account."""
        return repr(secrets).encode()

    async def lease(self, account: bytes, request: LeaseRequest) -> Lease:
        """Give the next slots, when the database is there."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.away)
        if self.down[0] <= loop.time() < self.down[1]:
            await asyncio.sleep(self.down[1] - loop.time())
            self.started = self.down[1] + self.skew
        self.trips += 1
        self.account, lease = grant(
            self.account, request, now=loop.time() + self.skew, runs=self.runs, started=self.started
        )
        await asyncio.sleep(self.away)
        return lease


def busiest(times: list[float], seconds: float) -> int:
    """Give the most requests in any span of so many seconds."""
    most = start = 0
    for end, at in enumerate(times):
        while times[start] <= at - seconds:
            start += 1
        most = max(most, end - start + 1)
    return most
