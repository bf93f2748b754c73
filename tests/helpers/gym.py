"""One run of a pace against a simulated server, event by event on a clock of its own: no task, no loop, no waiting."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from enrich.config import LimitsConfig
from enrich.engine.gauging import LATER, SOON
from enrich.engine.retry import BASE_WAIT, LIMITED_WAIT, SPREAD
from enrich.pace.pace import Pace
from tests.helpers.servers import Arrival
from tests.helpers.virtual import Simulation, VirtualLoop, run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from enrich.pace.sent import Sent
    from tests.helpers.servers import Server
    from tests.helpers.virtual import Limit, Run

SEND = 0.0003  # seconds that this machine needs to send a request
TRIP = 0.002  # seconds to the server and back
RetryAfter = Literal["none", "second", "whole", "exact"]  # what a refusal says of when to come again
RETRY_AFTER: Final[tuple[RetryAfter, ...]] = get_args(RetryAfter)


@dataclass(slots=True)
class Row:
    """One request on its way."""

    model: str
    service: float
    tokens: float
    attempts: int = 0


@dataclass
class Ran:
    """How a run went.

    Attributes:
        seconds: until the last row was answered.
        sent: when each request was sent.
        refused: when each refused one was sent.
        in_flight: the most there were.
        slowest: seconds that the slowest answer took.
    """

    seconds: float = 0.0
    sent: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    in_flight: int = 0
    slowest: float = 0.0

    @property
    def rejected(self) -> float:
        """Give the share of requests that were refused."""
        return len(self.refused) / max(1, len(self.sent))

    @property
    def stubborn(self) -> float:
        """Give the share of rows that needed more than five attempts."""
        return sum(n > 5 for n in self.attempts) / max(1, len(self.attempts))


def equal(seconds: float) -> Callable[[random.Random], float]:
    """Give requests that all take the same time."""
    return lambda _: seconds


def lognormal(median: float, sigma: float = 0.5) -> Callable[[random.Random], float]:
    """Give requests of unequal length."""
    return lambda source: median * math.exp(sigma * source.gauss(0, 1))


class Gym:
    """Sends rows through a pace to a server, as the engine does.

    Args:
        make: gives the pace, held to the clock it is given.
        server: what it meets.
        rows: how many.
        service: seconds that each takes, once worked on.
        retry_after: what a refusal says: nothing, one second, the true wait in whole seconds, the true wait.
        models: which the rows ask, in turn.
        tokens: that each costs.
        refusal: seconds until a refusal is back.
        limit: seconds after which the run is given up.
        gauges: gives at a second how many requests are worked on and how many wait, where the server tells it.
    """

    def __init__(
        self,
        make: Callable[[Callable[[], float]], Pace],
        server: Server,
        rows: int,
        *,
        service: Callable[[random.Random], float],
        retry_after: RetryAfter = "none",
        models: Sequence[str] = ("m",),
        tokens: Callable[[random.Random], float] = lambda _: 0.0,
        refusal: float = TRIP,
        seed: int = 1,
        limit: float = 1e5,
        gauges: Callable[[float], tuple[int, int]] | None = None,
    ) -> None:
        self.now = 0.0
        self.pace = make(lambda: 1000.0 + self.now)
        self.server = server
        self.random = random.Random(seed)
        self.retry_after = retry_after
        self.refusal = refusal
        self.limit = limit
        self.rows = [
            Row(models[n % len(models)], service(self.random), tokens(self.random)) for n in range(rows)
        ]
        self.ran = Ran()
        self._ready: dict[str, deque[Row]] = {model: deque() for model in models}
        for row in self.rows:
            self._ready[row.model].append(row)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake = math.inf
        self._busy_until = 0.0
        self._left = rows
        if gauges is not None:
            self._look(gauges)

    @property
    def work(self) -> float:
        """Give the mean seconds that a row takes."""
        return sum(row.service for row in self.rows) / len(self.rows) + TRIP

    def run(self) -> Ran:
        """Send until every row is answered."""
        self._dispatch()
        while self._left and self.now < self.limit:
            if not self._events:
                raise RuntimeError(f"nothing is left to happen at {self.now:.3f} s: {self._left} rows wait")
            self.now, _, happen = heapq.heappop(self._events)
            happen()
            self._dispatch()
        self.ran.seconds = self.now
        self.ran.attempts = [row.attempts for row in self.rows]
        return self.ran

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happen))

    def _look(self, gauges: Callable[[float], tuple[int, int]]) -> None:
        """Look at the server's gauges, again and again."""
        if self.pace.in_flight:
            self.pace.gauged(*gauges(self.now))
        self._at(self.now + (SOON if self.pace.growing else LATER), lambda: self._look(gauges))

    def _dispatch(self) -> None:
        """Send what may go now, one at a time; come again when the next one may."""
        if self.now < self._busy_until:
            return
        soonest = math.inf
        for model, ready in self._ready.items():
            if not ready or self.pace.in_flight >= self.pace.ceiling:
                continue
            wait = self.pace.wait(model)
            if wait <= 0:
                self._send(ready.popleft())
                return
            soonest = min(soonest, wait)
        when = self.now + soonest
        if when < self._wake - 1e-9 or self._wake <= self.now:
            self._wake = when
            if not math.isinf(when):
                self._at(when, lambda: None)

    def _send(self, row: Row) -> None:
        now = self.now
        sent = self.pace.sent(row.model, row.tokens)
        row.attempts += 1
        self.ran.sent.append(now)
        self.ran.in_flight = max(self.ran.in_flight, self.pace.in_flight)
        arrival = Arrival(now, row.model, row.tokens, row.service)
        verdict = self.server.arrive(arrival, self.random)
        if verdict.taken:
            takes = verdict.queued + row.service
            self._at(now + takes, lambda: self.server.left(arrival))
            self._at(now + takes + TRIP, lambda: self._answered(row, sent, takes))
        else:
            self.ran.refused.append(now)
            self._at(now + self.refusal, lambda: self._refused(row, sent, verdict.waits))
        self._busy_until = now + SEND
        self._at(self._busy_until, lambda: None)

    def _answered(self, row: Row, sent: Sent, takes: float) -> None:
        self._left -= 1
        self.ran.slowest = max(self.ran.slowest, takes)
        self.pace.answered(sent, used=row.tokens or None)

    def _refused(self, row: Row, sent: Sent, waits: float | None) -> None:
        after = self._says(waits)
        self.pace.limited(sent, after)
        if after is None:
            wait = self.random.random() * min(LIMITED_WAIT, BASE_WAIT * 2.0 ** min(row.attempts - 1, 10))
        else:
            wait = after * (1 + SPREAD * self.random.random())
        self._at(self.now + wait, lambda: self._ready[row.model].appendleft(row))

    def _says(self, waits: float | None) -> float | None:
        match self.retry_after:
            case "none":
                return None
            case "second":
                return 1.0
            case "whole":
                return float(math.ceil(waits)) if waits is not None else 1.0
            case "exact":
                return waits if waits is not None else 1.0


def gym(
    server: Server,
    rows: int,
    *,
    concurrency: int = 128,
    learned: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Ran, Pace, float]:
    """Send rows to a server; gives what happened, the pace, and the seconds that a client that knows all needs."""
    limits = LimitsConfig(concurrency=concurrency)
    run = Gym(
        lambda clock: Pace(limits, monotonic=clock, learned=learned), server, rows, limit=1e4, **options
    )
    return run.run(), run.pace, server.fastest(rows, run.work, concurrency)


def simulate(
    limit: Limit, rows: int, limits: LimitsConfig, learned: dict[str, Any] | None = None, **options: Any
) -> tuple[Run, Pace]:
    """Send rows to a server through a pace; gives what happened, and the pace."""

    async def main(loop: VirtualLoop) -> tuple[Run, Pace]:
        pace = Pace(limits, learned=learned, monotonic=loop.time)
        return await Simulation(pace, limit, rows, **options).go(), pace

    result: tuple[Run, Pace] = run_virtually(main)
    return result
