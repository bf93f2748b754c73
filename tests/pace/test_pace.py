"""The pace on a virtual clock, against simulated servers: nothing waits, nothing is timed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.config import LimitsConfig, WindowConfig
from enrich.pace.pace import Pace
from enrich.pace.windows import Window
from tests.helpers.virtual import (
    ConcurrencyLimit,
    FixedWindowLimit,
    Run,
    Simulation,
    SlidingWindowLimit,
    TokenBucketLimit,
    VirtualLoop,
    busiest,
    run_virtually,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.helpers.virtual import Limit


def unlimited() -> TokenBucketLimit:
    """Give a server that lets everything through."""
    return TokenBucketLimit(1e9, 1e9)


def lognormal(median: float, spread: float = 0.5) -> Callable[[random.Random], float]:
    """Give latencies of so many seconds."""
    return lambda source: median * math.exp(spread * source.gauss(0, 1))


def simulate(
    limit: Limit, rows: int, limits: LimitsConfig, learned: dict[str, Any] | None = None, **options: Any
) -> tuple[Run, Pace]:
    """Send rows to a server through a pace; gives what happened, and the pace."""

    async def main(loop: VirtualLoop) -> tuple[Run, Pace]:
        pace = Pace(limits, learned=learned, monotonic=loop.time)
        return await Simulation(pace, limit, rows, **options).go(), pace

    result: tuple[Run, Pace] = run_virtually(main)
    return result


# --- limits that are given -----------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    windows=st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from([0.5, 1.0, 5.0, 60.0])), min_size=1, max_size=3
    ),
    latency=st.sampled_from([0.0, 0.02, 0.5]),
)
def test_no_request_window_is_ever_exceeded(windows: list[tuple[int, float]], latency: float) -> None:
    """Whatever windows hold at once, no span of any of them sees more requests than it allows."""
    given_windows = [WindowConfig(requests=amount, seconds=seconds) for amount, seconds in windows]
    limits = LimitsConfig(concurrency=500, windows=given_windows)
    run, _ = simulate(unlimited(), 300, limits, latency=lambda _: latency)
    for amount, seconds in windows:
        assert busiest(run.times, seconds) <= amount


def test_a_given_window_is_used() -> None:
    """Two windows at once, 10 a second and 300 a minute: the tighter one is used to 95 % and more."""
    windows = [WindowConfig(requests=10, seconds=1), WindowConfig(requests=300, seconds=60)]
    run, _ = simulate(unlimited(), 1500, LimitsConfig(windows=windows))
    assert busiest(run.times, 1) <= 10
    assert busiest(run.times, 60) <= 300
    assert 1500 / run.seconds >= 0.95 * 5


def test_a_limit_set_just_below_the_servers_meets_no_429() -> None:
    """A limit 2 % below the server's is used to 97 % and more, and none of its requests is refused."""
    limits = LimitsConfig(concurrency=256, requests_per_minute=300 * 60 * 0.98)
    run, _ = simulate(TokenBucketLimit(300, 30), 6000, limits)
    assert run.refused == 0
    assert 6000 / run.seconds >= 0.97 * 300 * 0.98


def test_the_start_is_smooth() -> None:
    """A limit per minute is no allowance for the first second: it sees a sixtieth of it and 5 %."""
    run, _ = simulate(unlimited(), 600, LimitsConfig(concurrency=600, requests_per_minute=6000))
    assert sum(at - run.times[0] <= 1 for at in run.times) <= 1.05 * 100 + 1


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_a_token_window_holds_answers_of_unequal_length(spread: float) -> None:
    """Tokens in any minute stay within the limit though lengths are only known afterwards; 95 % of it is used."""
    limit = 120_000
    limits = LimitsConfig(concurrency=64, adaptive=False, tokens_per_minute=limit)
    run, _ = simulate(
        unlimited(),
        4000,
        limits,
        latency=lognormal(0.5),
        tokens=lambda source: 50 + int(100 * math.exp(spread * source.gauss(0, 1))),
        estimate=lambda simulation: simulation.mean_tokens or 200.0,
    )
    start, held, most = 0, 0, 0
    for at, used in run.tokens:
        held += used
        while run.tokens[start][0] <= at - 60:
            held -= run.tokens[start][1]
            start += 1
        most = max(most, held)
    total = sum(used for _, used in run.tokens)
    assert most <= limit
    assert total / run.seconds * 60 >= 0.95 * limit


@given(st.floats(1, 1e6), st.floats(0.1, 86_400))
def test_a_window_adds_up(amount: float, seconds: float) -> None:
    """What goes at once and what follows in a window's time is below one request more than it allows."""
    window = Window(math.floor(amount), seconds)
    assert window.burst + window.rate * seconds < math.floor(amount) + 1


# --- limits that are found -----------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0.001, 0.02, 0.2])
def test_an_unknown_rate_is_found(latency: float) -> None:
    """300 a second with a burst of 30, not told: 93 % of it is used, at most 2 % of the requests are refused."""
    limits = LimitsConfig(concurrency=256)
    run, _ = simulate(TokenBucketLimit(300, 30), 6000, limits, latency=lognormal(latency))
    assert 6000 / 300 / run.seconds >= 0.93
    assert run.refused <= 0.02 * 6000


@pytest.mark.parametrize("burst", [1, 5, 100, 300])
def test_whatever_goes_at_once(burst: int) -> None:
    """The rate is found whether the server lets one request through at once or a second's worth."""
    run, pace = simulate(
        TokenBucketLimit(300, burst), 12_000, LimitsConfig(concurrency=128), latency=lognormal(0.1)
    )
    assert pace.rate is not None
    assert 250 <= pace.rate <= 330
    assert 12_000 / 300 / run.seconds >= 0.8
    assert run.refused <= 0.02 * 12_000


@pytest.mark.parametrize(
    ("limit", "rate"),
    [
        (FixedWindowLimit(300, 1.0), 300),
        (SlidingWindowLimit(300, 1.0), 300),
        (FixedWindowLimit(600, 60.0), 10),
        (SlidingWindowLimit(600, 60.0), 10),
    ],
    ids=["fixed second", "sliding second", "fixed minute", "sliding minute"],
)
def test_servers_that_count_in_windows(limit: Limit, rate: float) -> None:
    """A limit per window is used well too, and a drought until its end costs a probe now and then."""
    run, _ = simulate(limit, 3000, LimitsConfig(concurrency=128), latency=lognormal(0.1))
    assert 3000 / rate / run.seconds >= 0.8
    assert run.refused <= 0.02 * 3000


@pytest.mark.parametrize(("before", "after"), [(300.0, 100.0), (100.0, 300.0)])
def test_a_limit_that_changes_is_followed(before: float, after: float) -> None:
    """When the limit falls or rises in the middle of a run, the run is at the new one before long."""
    limit = TokenBucketLimit(before, 30, change=(1010.0, after))
    run, pace = simulate(limit, 12_000, LimitsConfig(concurrency=128), latency=lognormal(0.1))
    assert pace.rate is not None
    assert 0.8 * after <= pace.rate <= 1.2 * after
    assert run.refused <= 0.02 * 12_000


def test_a_ceiling_on_requests_in_flight_is_found() -> None:
    """A server that refuses the twenty-first request at a time is used to two thirds and more."""
    run, _ = simulate(ConcurrencyLimit(20), 6000, LimitsConfig(concurrency=128), latency=lognormal(0.2))
    ideal = 6000 / 20 * 0.2 * math.exp(0.125)
    assert ideal / run.seconds >= 0.65
    assert run.refused <= 0.02 * 6000


def test_the_ramp_costs_little_where_there_is_no_limit() -> None:
    """The cautious start takes at most 3 % longer than going to the full concurrency at once."""
    cautious, _ = simulate(unlimited(), 10_000, LimitsConfig(concurrency=256), latency=lognormal(0.2))
    bold, _ = simulate(
        unlimited(), 10_000, LimitsConfig(concurrency=256, adaptive=False), latency=lognormal(0.2)
    )
    assert cautious.seconds <= 1.03 * bold.seconds


def test_retry_after_holds_everybody() -> None:
    """After a 429 that asks for a second, nothing is sent for a second."""
    run, _ = simulate(
        TokenBucketLimit(50, 10), 600, LimitsConfig(concurrency=64), latency=lognormal(0.01), retry_after=1.0
    )
    gaps = [later - earlier for earlier, later in zip(run.times, run.times[1:], strict=False)]
    assert max(gaps) >= 1.0
    assert run.through == 600


@pytest.mark.parametrize(("burst", "used"), [(1, 0.55), (30, 0.83), (300, 0.95)])
def test_an_unknown_rate_is_found_in_few_steps_where_each_costs_a_second(burst: int, used: float) -> None:
    """A server that says `Retry-After: 1` tells little by its first 429; the climb from there is steep."""
    limits = LimitsConfig(concurrency=128)
    run, _ = simulate(
        TokenBucketLimit(300, burst), 6000, limits, latency=lognormal(0.2), retry_after=1.0, refusal=0.005
    )
    assert 6000 / 300 / run.seconds >= used
    assert run.refused <= 0.02 * 6000


def test_tomorrow_starts_from_what_today_learned() -> None:
    """A second run with what the first one learned has next to nothing refused."""
    limits = LimitsConfig(concurrency=256)
    first, pace = simulate(TokenBucketLimit(300, 30), 3000, limits, latency=lognormal(0.02))
    second, _ = simulate(TokenBucketLimit(300, 30), 3000, limits, learned=pace.learned())
    assert first.refused > 20
    assert second.refused <= 10


@pytest.mark.parametrize(
    "learned", [{"rate": "fast"}, {"rate": -1}, {"ceiling": None}, {"ceiling": True}, {}]
)
def test_a_note_that_makes_no_sense_is_ignored(learned: dict[str, Any]) -> None:
    """What an older version, or a hand, left in the ledger cannot break the pace."""
    pace = Pace(LimitsConfig(concurrency=8), learned=learned)
    assert pace.rate is None
    assert pace.ceiling >= 1


def test_one_cut_per_episode() -> None:
    """Many 429s of requests sent together cut once; answers to them are no sign of recovery."""
    now = [100.0]
    pace = Pace(LimitsConfig(concurrency=64), monotonic=lambda: now[0])
    numbers = [pace.sent() for _ in range(40)]
    now[0] += 1.0
    pace.limited(numbers[20], None, in_flight=40, sent_at=100.5)
    rate, ceiling = pace.rate, pace.ceiling
    for number in numbers[21:]:
        pace.limited(number, None, in_flight=20, sent_at=100.5)
    pace.answered(numbers[0], in_flight=40)
    assert (pace.rate, pace.ceiling) == (rate, ceiling)


def test_trouble_stops_growth() -> None:
    """While the endpoint answers 5xx, answers to what was in flight by then do not raise the ceiling."""
    pace = Pace(LimitsConfig(concurrency=1000))
    numbers = [pace.sent() for _ in range(60)]
    before = pace.ceiling
    pace.troubled()
    for number in numbers:
        pace.answered(number, in_flight=60)
    assert pace.ceiling == before
    pace.answered(pace.sent(), in_flight=60)
    assert pace.ceiling > before


def test_what_was_on_its_way_when_the_429_came_is_no_second_episode() -> None:
    """Requests handed to workers before the cut go out after it: their 429s teach nothing new."""
    now = 100.0
    pace = Pace(LimitsConfig(concurrency=64), monotonic=lambda: now)
    before = [pace.sent() for _ in range(40)]
    now = 100.1
    pace.limited(before[30], 1.0, in_flight=40, sent_at=100.0)
    rate, ceiling = pace.rate, pace.ceiling
    late = [pace.sent() for _ in range(8)]
    for number in late:
        pace.limited(number, 1.0, in_flight=8, sent_at=now)
    assert rate is not None
    assert (pace.rate, pace.ceiling) == (rate, ceiling)
    now = 101.2
    pace.limited([pace.sent() for _ in range(20)][-1], 1.0, in_flight=5, sent_at=now)
    assert pace.rate != rate  # the next episode does


def test_adaptive_false_goes_to_the_concurrency_at_once() -> None:
    """Where the user says so, only pauses are kept, and no limit is learned."""
    pace = Pace(LimitsConfig(concurrency=500, adaptive=False))
    assert pace.ceiling == 500
    pace.limited(pace.sent(), 5.0, in_flight=1, sent_at=0.0)
    assert pace.ceiling == 500
    assert pace.rate is None
    assert pace.paused_for() > 4


def test_waits_are_explained(caplog: pytest.LogCaptureFixture) -> None:
    """With -v a pause says how long and why, and a cut says what was learned."""
    caplog.set_level("INFO", "enrich")
    simulate(TokenBucketLimit(300, 30), 1000, LimitsConfig(concurrency=64), latency=lognormal(0.01))
    assert "paused for 0.1 s: rate limited (429)" in caplog.text
    assert "requests/s, at most" in caplog.text
