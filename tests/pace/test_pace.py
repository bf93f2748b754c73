"""The pace on a virtual clock, against simulated servers: nothing waits, nothing is timed."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.config import LimitsConfig, WindowConfig
from enrich.pace.pace import Pace
from enrich.pace.windows import Window
from tests.helpers.gym import Gym, gym, lognormal, simulate
from tests.helpers.servers import (
    Bucket,
    Bursts,
    Cap,
    FixedWindow,
    Neighbour,
    PerModel,
    RandomRefusals,
    SlidingWindow,
)
from tests.helpers.virtual import (
    TokenBucketLimit,
    busiest,
    unlimited,
)

if TYPE_CHECKING:
    from tests.helpers.gym import RetryAfter
    from tests.helpers.servers import Server


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


@pytest.mark.parametrize("retry_after", ["none", "second", "whole", "exact"])
@pytest.mark.parametrize("latency", [0.02, 0.05, 0.2])
def test_an_unknown_rate_is_found(latency: float, retry_after: str) -> None:
    """300 a second with a burst of 30, not told: all but 6 % of it is used, at most 2 % of the requests are refused."""
    ran, pace, fastest = gym(
        Bucket(300, 30), 6000, service=lognormal(latency), retry_after=retry_after, concurrency=256
    )
    assert ran.seconds <= 1.06 * fastest
    assert ran.rejected <= 0.02
    assert pace.found() == ["limited to about 300/s"]


def test_requests_that_shrink_are_not_taken_for_a_limit_on_tokens() -> None:
    """What is reserved for a request falls as answers come in, while most is refused at first: the limit is a rate."""
    falling = itertools.count(2000, -1)
    _, pace, _ = gym(Bucket(40, 4), 400, service=lognormal(0.02), tokens=lambda _: float(next(falling)))
    assert pace.found()[0].startswith("limited to about ")
    assert pace.found()[0].endswith("/s")


@pytest.mark.parametrize("burst", [1, 5, 100, 300])
def test_whatever_goes_at_once(burst: int) -> None:
    """The rate is found whether the server lets one request through at once or a second's worth."""
    ran, pace, fastest = gym(Bucket(300, burst), 12_000, service=lognormal(0.1))
    known = pace.limit("m").rate.known
    assert known is not None
    assert 240 <= known <= 330
    assert ran.seconds <= 1.25 * fastest
    assert ran.rejected <= 0.02


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize(
    ("share", "retry_after", "slower"),
    [
        (0.005, "none", 1.1),
        (0.02, "none", 1.12),
        (0.02, "second", 1.35),
        (0.1, "none", 1.2),
        (0.3, "none", 1.5),
    ],
)
def test_refusals_that_no_rate_explains_slow_nobody(
    share: float, retry_after: str, slower: float, seed: int
) -> None:
    """A share that is refused by chance costs the requests that it meets their wait, and the run next to nothing."""
    server = RandomRefusals(share)
    ran, pace, fastest = gym(
        server, 12_000, service=lognormal(0.08), retry_after=retry_after, concurrency=64, seed=seed
    )
    assert ran.seconds <= slower * fastest
    assert ran.rejected <= 1.2 * share + 0.005
    said = " ".join(pace.found())
    assert share < 0.02 or "refused, whatever the rate" in said


def test_chance_on_top_of_a_limit() -> None:
    """Where two in a hundred are refused by chance and the rest by a rate, both are found."""
    ran, pace, fastest = gym(RandomRefusals(0.02, Bucket(300, 30)), 12_000, service=lognormal(0.05))
    assert ran.seconds <= 1.06 * fastest
    assert ran.rejected <= 0.08
    assert any(said.startswith("limited to about ") for said in pace.found())


@pytest.mark.parametrize(
    ("server", "rows", "slower"),
    [
        (FixedWindow(1200, 10.0), 6000, 1.06),
        (FixedWindow(600, 60.0, offset=13.0), 3000, 1.03),
        (FixedWindow(300, 1.0), 6000, 1.25),
        (SlidingWindow(300, 1.0), 6000, 1.25),
        (SlidingWindow(600, 60.0), 3000, 1.3),
    ],
    ids=["ten seconds", "a minute", "a second", "sliding second", "sliding minute"],
)
def test_windows_are_found(server: Server, rows: int, slower: float) -> None:
    """So many requests per span of time are used as a window: to its end, each time, without a storm at its end."""
    ran, _, fastest = gym(server, rows, service=lognormal(0.05), retry_after="whole")
    assert ran.seconds <= slower * fastest
    assert ran.rejected <= 0.06


def test_a_window_is_named() -> None:
    """What it was found to be is said."""
    ran, pace, _ = gym(FixedWindow(1200, 10.0), 6000, service=lognormal(0.05), retry_after="whole")
    assert ran.rejected <= 0.02
    assert pace.found() == ["window: 1,201 per 10 s"] or pace.found() == ["window: 1,200 per 10 s"]


def test_a_limit_that_falls_and_rises_is_followed() -> None:
    """300 a second that are 100 for six seconds: both ways within about two seconds."""
    server = Bucket(300, 30, changes=((6.0, 100.0), (12.0, 300.0)))
    ran, _, fastest = gym(server, 6000, service=lognormal(0.05), retry_after="second")
    assert ran.seconds <= 1.1 * fastest
    assert ran.rejected <= 0.03
    assert 90 * 2 <= sum(8 <= at < 10 for at in ran.sent) <= 110 * 2
    assert sum(15 <= at < 17 for at in ran.sent) >= 0.9 * 600


def test_a_neighbour_comes_and_goes() -> None:
    """Another client takes half of the limit for five seconds, again and again: what it leaves is used."""
    ran, _, fastest = gym(Neighbour(300, 30, 0.5, 5.0, 5.0), 6000, service=lognormal(0.05))
    assert ran.seconds <= 1.2 * fastest
    assert ran.rejected <= 0.03


@pytest.mark.parametrize("retry_after", ["none", "second", "whole"])
def test_refusals_that_come_in_bursts(retry_after: str) -> None:
    """Everything is refused for five seconds, then nothing is: probes tell, no limit is learned from it."""
    ran, _, fastest = gym(
        Bursts(5.0, 5.0, 20.0), 20_000, service=lognormal(0.08), concurrency=64, retry_after=retry_after
    )
    assert ran.seconds <= 1.1 * fastest
    assert ran.rejected <= 0.01


@pytest.mark.parametrize(("latency", "slower"), [(0.2, 1.05), (2.0, 1.1)])
def test_a_cap_on_requests_in_flight_is_found(latency: float, slower: float) -> None:
    """A server that refuses the twenty-first request at a time is found to do so, and used to the full."""
    ran, pace, fastest = gym(Cap(20), int(2000 / (1 + latency)), service=lognormal(latency))
    assert ran.seconds <= slower * fastest
    assert ran.rejected <= 0.08
    assert pace.found() == ["limited to 20 at a time"]


def test_a_slow_limit_is_found() -> None:
    """Sixty a minute with twenty of them at once: the twenty go, the rest follows at one a second."""
    ran, pace, fastest = gym(Bucket(1, 20), 100, service=lognormal(0.2), retry_after="second")
    assert ran.seconds <= 1.1 * fastest
    assert any(said.startswith("limited to about ") for said in pace.found())


def test_one_models_refusals_do_not_slow_another() -> None:
    """Two models with limits of their own: each is used as if it were alone."""
    server = PerModel({"a": Bucket(100, 30), "b": Bucket(300, 30)})
    ran, pace, fastest = gym(server, 6000, service=lognormal(0.2), models=("a", "b"))
    assert ran.seconds <= 1.05 * fastest
    assert ran.rejected <= 0.02
    assert pace.found() == ["a: limited to about 100/s", "b: limited to about 300/s"]


def test_retry_after_binds_the_request_that_got_it() -> None:
    """While a refused one waits for its second, the others go on at the limit."""
    ran, _, _ = gym(Bucket(50, 10), 600, service=lognormal(0.01), retry_after="second")
    gaps = [later - earlier for earlier, later in zip(ran.sent, ran.sent[1:], strict=False)]
    assert max(gaps[:-10]) < 0.5


@pytest.mark.parametrize("retry_after", ["none", "second"])
@pytest.mark.parametrize(("rate", "latency", "rows"), [(300, 0.05, 9_000), (50, 0.2, 2_000), (10, 2.0, 600)])
def test_a_limit_on_tokens_is_found_for_what_it_is(
    rate: float, latency: float, rows: int, retry_after: RetryAfter
) -> None:
    """Refusals that follow the tokens, rows of very unequal length: the limit is used, and said to be one on tokens."""
    server = Bucket(800 * rate, 800 * max(20, rate), by_tokens=True)
    run = Gym(
        lambda clock: Pace(LimitsConfig(concurrency=128), monotonic=clock),
        server,
        rows,
        service=lognormal(latency),
        tokens=lambda source: min(16_000.0, 800 * math.exp(source.gauss(0, 1) - 0.5)),
        retry_after=retry_after,
        limit=1e4,
    )
    ran = run.run()
    fastest = (sum(row.tokens for row in run.rows) - 800 * max(20, rate)) / (800 * rate)
    assert ran.seconds <= 1.3 * fastest
    (said,) = run.pace.found()
    assert said.endswith(" tokens a minute")
    told = float(said.removeprefix("limited to about ").split()[0].replace(",", ""))
    assert 0.7 <= told / (60 * 800 * rate) <= 1.3


def test_refusals_of_rows_of_unequal_length_need_not_be_for_their_tokens() -> None:
    """Where a tenth is refused by chance, rows of unequal length make that no limit on tokens."""
    run = Gym(
        lambda clock: Pace(LimitsConfig(concurrency=128), monotonic=clock),
        RandomRefusals(0.1),
        6_000,
        service=lognormal(0.05),
        tokens=lambda source: 800 * math.exp(source.gauss(0, 1)),
    )
    run.run()
    assert "tokens" not in " ".join(run.pace.found())


# --- from one run to the next ----------------------------------------------------------------------------


def test_tomorrow_starts_from_what_today_learned() -> None:
    """A second run with what the first one learned has next to nothing refused."""
    first, pace, _ = gym(Bucket(300, 30), 3000, service=lognormal(0.02))
    second, _, _ = gym(Bucket(300, 30), 3000, service=lognormal(0.02), learned=pace.learned())
    assert len(second.refused) <= len(first.refused)


@pytest.mark.parametrize(("before", "now"), [(300, 900), (300, 100), (300, 1e6)])
def test_what_was_learned_is_never_worse_than_starting_anew(before: float, now: float) -> None:
    """A limit that has changed since is found as fast as by a run that knows nothing, and a bit."""
    _, pace, _ = gym(Bucket(before, 30), 3000, service=lognormal(0.02))
    anew, _, _ = gym(Bucket(now, 30), 12_000, service=lognormal(0.02))
    ran, _, _ = gym(Bucket(now, 30), 12_000, service=lognormal(0.02), learned=pace.learned())
    assert ran.seconds <= 1.1 * anew.seconds + 1


@pytest.mark.parametrize(
    "learned",
    [
        {"at": 1e12, "ceiling": True, "models": {"m": {"rate": "fast", "cap": -1}}},
        {"at": 1.0, "ceiling": 5},
        {"ceiling": 5},
        {"at": "now"},
        {"at": 1e12, "models": []},
        {},
    ],
)
def test_a_note_that_makes_no_sense_is_ignored(learned: dict[str, Any]) -> None:
    """What an older version, or a hand, left in the ledger cannot break the pace; what is a day old is forgotten."""
    pace = Pace(LimitsConfig(concurrency=64), learned=learned)
    assert pace.wait("m") == 0
    assert pace.ceiling == Pace(LimitsConfig(concurrency=64)).ceiling


# --- what was told instead ---------------------------------------------------------------------------------


def test_adaptive_false_goes_to_the_concurrency_at_once() -> None:
    """Where the user says so, no limit is learned; only when all is refused, probes test when that is over."""
    pace = Pace(LimitsConfig(concurrency=500, adaptive=False))
    assert pace.ceiling == 500
    for sent in [pace.sent("m") for _ in range(20)]:
        pace.limited(sent, 5.0)
    assert pace.ceiling == 500
    assert pace.limit("m").rate.known is None
    assert pace.wait("m") > 0


def test_retry_after_are_explained(caplog: pytest.LogCaptureFixture) -> None:
    """With -v what was found out is said."""
    caplog.set_level("INFO", "enrich")
    gym(FixedWindow(1200, 10.0), 6000, service=lognormal(0.05), retry_after="whole")
    assert "limited to 1201 requests per 10" in caplog.text


def test_answers_without_usage_under_a_limit_on_tokens(caplog: pytest.LogCaptureFixture) -> None:
    """What was reserved for them stays counted, and that is said once."""
    now = [0.0]
    pace = Pace(LimitsConfig(tokens_per_minute=6_000), monotonic=lambda: now[0])
    for _ in range(3):
        pace.answered(pace.sent("m", 100.0), used=None)
    assert [record.getMessage() for record in caplog.records] == [
        "answers tell no usage: the limit on tokens goes by about 100 a request"
    ]
