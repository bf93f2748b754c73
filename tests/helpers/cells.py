"""The cells of the gym: every model of a server × how long its answers take × what its refusals say × how many at a time."""

from __future__ import annotations

import copy
import heapq
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from enrich.config import LimitsConfig
from enrich.pace.pace import Pace
from tests.helpers.gym import RETRY_AFTER, SEND, TRIP, Gym, Ran, equal, lognormal
from tests.helpers.servers import (
    Arrival,
    Bucket,
    Bursts,
    Cap,
    FixedWindow,
    Neighbour,
    PerModel,
    Queue,
    RandomRefusals,
    SlidingWindow,
    Unlimited,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    from tests.helpers.gym import RetryAfter, Row
    from tests.helpers.servers import Server

LATENCIES: Final = (0.02, 0.2, 2.0, 20.0)  # seconds
CONCURRENCIES: Final = (16, 128, 1024)
SECONDS: Final = 40.0  # that a cell lasts, about
ANSWERS: Final = (
    20.0  # times an answer's, the same at least: what it takes to learn of them is not all of the run
)
GIVEN_UP: Final = 10.0  # times the oracle's seconds at which a cell ends in any case
FEWEST, MOST = 100, 100_000  # rows
TOKENS: Final = 800.0  # of a row, on average
LONGEST: Final = 20.0  # times that

# Per model of a server: makes it, and says how many requests a second it lets through, given a rate that is half of
# what so many at a time could send, how many those are, and the seconds that each takes.
MODELS: Final[dict[str, Callable[[float, int, float], tuple[Server, float]]]] = {
    "no limit": lambda _, most, each: (Unlimited(), most / each),
    "token bucket": lambda rate, *_: (Bucket(rate, max(1.0, rate / 10)), rate),
    "token bucket, a second's worth at once": lambda rate, *_: (Bucket(rate, max(1.0, rate)), rate),
    "60 a minute, 20 at once": lambda rate, *_: (Bucket(min(1.0, rate), 20), min(1.0, rate)),
    "fixed window of 1 s": lambda rate, *_: (FixedWindow(math.ceil(rate), 1.0), math.ceil(rate)),
    "fixed window of 10 s": lambda rate, *_: (FixedWindow(math.ceil(10 * rate), 10.0, 4.0), rate),
    "fixed window of 60 s": lambda rate, *_: (FixedWindow(math.ceil(60 * rate), 60.0, 13.0), rate),
    "sliding window of 1 s": lambda rate, *_: (SlidingWindow(math.ceil(rate), 1.0), math.ceil(rate)),
    "sliding window of 60 s": lambda rate, *_: (SlidingWindow(math.ceil(60 * rate), 60.0), rate),
    "cap in flight": lambda _, most, each: (Cap(most // 2), most / 2 / each),
    "tokens": lambda rate, *_: (
        Bucket(TOKENS * rate, TOKENS * max(LONGEST, rate), by_tokens=True),
        rate,
    ),
    "0.5 % at random": lambda _, most, each: (RandomRefusals(0.005), most / each),
    "2 % at random": lambda _, most, each: (RandomRefusals(0.02), most / each),
    "10 % at random": lambda _, most, each: (RandomRefusals(0.1), most / each),
    "30 % at random": lambda _, most, each: (RandomRefusals(0.3), most / each),
    "all refused for 5 s of 20": lambda _, most, each: (Bursts(5.0, 5.0, 20.0), 0.75 * most / each),
    "2 % at random on a bucket": lambda rate, *_: (
        RandomRefusals(0.02, Bucket(rate, max(1.0, rate / 10))),
        rate,
    ),
    "neighbour that comes and goes": lambda rate, *_: (
        Neighbour(rate, max(1.0, rate / 10), 0.5, 10.0, 10.0),
        0.75 * rate,
    ),
    "limit that falls and rises": lambda rate, *_: (
        Bucket(rate, max(1.0, rate / 10), changes=((12.0, rate / 3), (24.0, rate))),
        0.8 * rate,
    ),
    "two models": lambda rate, *_: (
        PerModel({"a": Bucket(rate / 4, max(1.0, rate / 40)), "b": Bucket(rate, max(1.0, rate / 10))}),
        rate / 2,
    ),
    "queue": lambda _, most, each: (Queue(most // 4), most / 4 / each),
    "queue whose slots halve": lambda _, most, each: (
        Queue(most // 4, slow=(12.0, 24.0)),
        0.85 * (most / 4) / each,
    ),
}
FASTEST: Final = 300.0  # requests per second that a server with a limit lets through, at most


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the gym.

    Attributes:
        latency: seconds that a row takes, the median.
        spread: of the lognormal distribution; 0 where all take the same.
        most: requests that may be in flight.
        seconds: that it lasts, about.
    """

    model: str
    latency: float
    spread: float
    retry_after: RetryAfter
    most: int
    seconds: float = SECONDS
    seed: int = 1

    def __str__(self) -> str:
        form = "equal" if not self.spread else "lognormal"
        return f"{self.model}; {self.latency:g} s, {form}; Retry-After: {self.retry_after}; {self.most} at a time"

    def run(self) -> Result:
        """Send its rows, and reckon what a client that knows the server would take."""
        each = self.latency * math.exp(self.spread**2 / 2) + TRIP
        rate = min(FASTEST, self.most / each / 2)
        server, lets = MODELS[self.model](rate, self.most, each)
        lasts = max(self.seconds, ANSWERS * self.latency)
        rows = min(MOST, max(FEWEST, int(lasts * min(lets, 0.8 / SEND))))
        gym = Gym(
            lambda clock: Pace(LimitsConfig(concurrency=self.most), monotonic=clock),
            copy.deepcopy(server),
            rows,
            service=lognormal(self.latency, self.spread) if self.spread else equal(self.latency),
            retry_after=self.retry_after,
            models=("a", "b") if isinstance(server, PerModel) else ("m",),
            tokens=_tokens if self.model == "tokens" else lambda _: 0.0,
            seed=self.seed,
        )
        oracle = knowing(server, gym.rows, self.most, gym.random)
        gym.limit = GIVEN_UP * oracle
        return Result(self, gym.run(), oracle, gym.pace.found())


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a cell; ``oracle`` is the seconds of a client that knows the server."""

    cell: Cell
    ran: Ran
    oracle: float
    found: list[str]

    @property
    def ratio(self) -> float:
        """Give the makespan ÷ the oracle's."""
        return self.ran.seconds / self.oracle


def cells(models: Sequence[str] = (), seconds: float = SECONDS, seed: int = 1) -> Iterator[Cell]:
    """Give every cell of some models, or of all."""
    for model, latency, spread, retry_after, most in itertools.product(
        models or MODELS, LATENCIES, (0.0, 0.5), RETRY_AFTER, CONCURRENCIES
    ):
        if model in ("no limit", "queue", "queue whose slots halve") and retry_after != "none":
            continue  # it refuses nothing
        yield Cell(model, latency, spread, retry_after, most, seconds, seed)


def knowing(server: Server, rows: Sequence[Row], most: int, source: random.Random) -> float:
    """Give the seconds of a client that sends each row, in their order, at the first moment at which it is taken.

    Refusals that come by chance cost it a request each, as they do everybody, and no wait.
    """
    spacing = SEND
    if isinstance(server, RandomRefusals):
        spacing, server = SEND / (1 - server.share), server.behind
    if isinstance(server, PerModel):
        return max(
            knowing(own, [row for row in rows if row.model == name], most, source)
            for name, own in server.models.items()
        )
    running: list[float] = []
    room = min(most, server.most) if isinstance(server, Cap) else most
    at = last = 0.0
    for row in rows:
        if len(running) >= room:
            at = max(at, heapq.heappop(running))
        while not (verdict := server.arrive(Arrival(at, row.model, row.tokens, row.service), source)).taken:
            at += max(1e-6, verdict.waits or 0.0)
        if isinstance(server, Cap):
            server.running = 0  # there is room: so many are let go at a time and no more
        ends = at + verdict.queued + row.service + TRIP
        heapq.heappush(running, ends)
        last = max(last, ends)
        at += spacing
    return last


def _tokens(source: random.Random) -> float:
    """Give the tokens of a row: of very unequal length."""
    return min(LONGEST * TOKENS, TOKENS * math.exp(source.gauss(0, 1) - 0.5))
