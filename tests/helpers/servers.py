"""Servers with limits, as small classes on a virtual clock: when they take a request, and what an omniscient client would need.

A server answers `arrive` with a `Verdict`. Times are seconds of the simulation's clock. Each says what the fastest
possible run takes (`fastest`): the oracle that a pace is held against.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a server does with a request.

    Attributes:
        taken: whether it is let through.
        waits: seconds until a refused one would have been let through, as far as the server knows.
        queued: seconds that a request that was let through waits before it is worked on.
    """

    taken: bool
    waits: float | None = None
    queued: float = 0.0


TAKEN = Verdict(True)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as the server sees it: when it comes, its model, its tokens, how long it takes once worked on."""

    at: float
    model: str = "m"
    tokens: float = 0.0
    service: float = 0.0


class Server(Protocol):
    """A server with limits of some kind."""

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Take a request or refuse it."""

    def left(self, request: Arrival) -> None:
        """Note that a request that was let through has been answered."""

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give the seconds that a client that knows everything needs at least.

        Args:
            rows: to be answered.
            each: mean seconds that one takes.
            concurrency: the most that it may have in flight.
        """


class Plain:
    """What most servers have in common: nothing happens when a request leaves."""

    def left(self, request: Arrival) -> None:
        """Note that a request that was let through has been answered."""


@dataclass
class Unlimited(Plain):
    """Lets everything through."""

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Take it."""
        return TAKEN

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give the seconds that the requests take, so many at a time."""
        return max(rows * each / concurrency, each)


@dataclass
class Bucket(Plain):
    """So many requests a second and so many at once; ``changes`` are (from second, rate), in order."""

    rate: float
    burst: float
    changes: tuple[tuple[float, float], ...] = ()
    by_tokens: bool = False
    level: float = field(init=False)
    at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.level = self.burst

    def _rate(self, at: float) -> float:
        return next((rate for start, rate in reversed(self.changes) if at >= start), self.rate)

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Take tokens if there are enough."""
        rate = self._rate(request.at)
        self.level = min(self.burst, self.level + (request.at - self.at) * rate)
        self.at = request.at
        cost = request.tokens if self.by_tokens else 1.0
        if self.level < cost:
            return Verdict(False, (cost - self.level) / rate)
        self.level -= cost
        return TAKEN

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give the seconds until the bucket has yielded so much."""
        left, at = rows - self.burst, 0.0
        for start, _ in (*self.changes, (math.inf, 0.0)):
            if left <= (start - at) * self._rate(at):
                break
            left -= (start - at) * self._rate(at)
            at = start
        return max(at + max(0.0, left) / self._rate(at) + each, rows * each / concurrency)


@dataclass
class FixedWindow(Plain):
    """So many requests in each window of so many seconds; ``offset`` is how far the first one is gone at the start."""

    amount: int
    seconds: float
    offset: float = 0.0
    window: int = -1
    used: int = 0

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Count it if this window has room."""
        window = int((request.at + self.offset) // self.seconds)
        if window != self.window:
            self.window, self.used = window, 0
        if self.used >= self.amount:
            return Verdict(False, (window + 1) * self.seconds - self.offset - request.at)
        self.used += 1
        return TAKEN

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give the seconds until the window begins in which the last ones fit, and those that they take."""
        windows = math.ceil(rows / self.amount) - 1
        begun = windows * self.seconds - self.offset if windows else 0.0
        last = rows - windows * self.amount
        return max(begun + max(last * each / concurrency, each), rows * each / concurrency)


@dataclass
class SlidingWindow(Plain):
    """At most so many requests in any span of so many seconds."""

    amount: int
    seconds: float
    times: deque[float] = field(default_factory=deque)

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Count it if the last span has room."""
        while self.times and self.times[0] <= request.at - self.seconds:
            self.times.popleft()
        if len(self.times) >= self.amount:
            return Verdict(False, self.times[0] + self.seconds - request.at)
        self.times.append(request.at)
        return TAKEN

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give the seconds of a client that fills each span at its beginning."""
        spans = math.ceil(rows / self.amount) - 1
        last = rows - spans * self.amount
        return max(spans * self.seconds + max(last * each / concurrency, each), rows * each / concurrency)


@dataclass
class Cap:
    """At most so many requests at a time."""

    most: int
    running: int = 0

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Take it if there is room."""
        if self.running >= self.most:
            return Verdict(False)
        self.running += 1
        return TAKEN

    def left(self, request: Arrival) -> None:
        """Make room."""
        self.running -= 1

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give the seconds that the requests take, so many at a time."""
        return max(rows * each / min(concurrency, self.most), each)


@dataclass
class RandomRefusals:
    """Refuses a share of the requests whatever their rate, before another server sees them."""

    share: float
    behind: Server = field(default_factory=Unlimited)

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Refuse by chance."""
        if source.random() < self.share:
            return Verdict(False)
        return self.behind.arrive(request, source)

    def left(self, request: Arrival) -> None:
        """Tell the server behind."""
        self.behind.left(request)

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give what the server behind needs: a refusal takes no time of its own."""
        return self.behind.fastest(rows, each, concurrency)


@dataclass
class Bursts(Plain):
    """Refuses everything for some seconds, again and again."""

    first: float
    lasts: float
    every: float

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Refuse it while it is such a time."""
        phase = (request.at - self.first) % self.every
        if request.at >= self.first and phase < self.lasts:
            return Verdict(False, self.lasts - phase)
        return TAKEN

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give the seconds of work and of the times between in which nothing goes."""
        work = rows * each / concurrency
        open_for = self.every - self.lasts
        spells = 0 if work <= self.first else 1 + math.floor((work - self.first) / open_for)
        return max(work + spells * self.lasts, each)


@dataclass
class Neighbour(Plain):
    """A bucket of which another client takes a share, from one second to another, again and again."""

    rate: float
    burst: float
    takes: float
    comes: float
    stays: float
    bucket: Bucket = field(init=False)

    def __post_init__(self) -> None:
        times = [self.comes + n * 2 * self.stays for n in range(500)]
        left = self.rate * (1 - self.takes)
        changes = [c for t in times for c in ((t, left), (t + self.stays, self.rate))]
        self.bucket = Bucket(self.rate, self.burst, tuple(changes))

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Take what the other one leaves."""
        return self.bucket.arrive(request, source)

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give the seconds that what is left needs."""
        return self.bucket.fastest(rows, each, concurrency)


@dataclass
class PerModel:
    """A server of its own for each model."""

    models: dict[str, Server]

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Ask the model's own."""
        return self.models[request.model].arrive(request, source)

    def left(self, request: Arrival) -> None:
        """Tell the model's own."""
        self.models[request.model].left(request)

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give what the slowest model needs for its share."""
        part = math.ceil(rows / len(self.models))
        return max(server.fastest(part, each, concurrency) for server in self.models.values())


@dataclass
class Queue(Plain):
    """Never refuses: so many slots work, the rest waits its turn; ``slow`` halves the slots from one second to another."""

    slots: int
    slow: tuple[float, float] = (math.inf, math.inf)
    free: list[float] = field(default_factory=list)

    def arrive(self, request: Arrival, source: random.Random) -> Verdict:
        """Take it and let it wait for a slot."""
        slots = self.slots // 2 if self.slow[0] <= request.at < self.slow[1] else self.slots
        while self.free and self.free[0] <= request.at:
            heapq.heappop(self.free)
        if len(self.free) < slots:
            heapq.heappush(self.free, request.at + request.service)
            return TAKEN
        busy = sorted(self.free)
        start = max(request.at, busy[len(busy) - slots])
        heapq.heappush(self.free, start + request.service)
        return Verdict(True, queued=start - request.at)

    def load(self, now: float) -> tuple[int, int]:
        """Give how many are worked on and how many wait, as an engine's gauges would."""
        there = sum(end > now for end in self.free)
        slots = self.slots // 2 if self.slow[0] <= now < self.slow[1] else self.slots
        return min(there, slots), max(0, there - slots)

    def fastest(self, rows: int, each: float, concurrency: float) -> float:
        """Give the seconds that the work takes in the slots."""
        rate = min(self.slots, concurrency) / each
        slow, length = self.slow[0], self.slow[1] - self.slow[0]
        if math.isinf(slow) or rows <= slow * rate:
            return max(rows / rate, each)
        halved = length * rate / 2
        after = rows - slow * rate - halved
        return max(slow + (length + after / rate if after > 0 else (rows - slow * rate) / rate * 2), each)
