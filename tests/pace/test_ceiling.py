"""How many requests may be in flight: found from the time that answers take, or from the endpoint's own gauges."""

from __future__ import annotations

import pytest

from enrich.config import LimitsConfig
from enrich.pace.ceiling import Ceiling
from enrich.pace.pace import Pace
from tests.helpers.gym import equal, gym, lognormal, simulate
from tests.helpers.servers import Queue
from tests.helpers.virtual import unlimited


@pytest.mark.parametrize(("rows", "slower"), [(2_560, 1.25), (25_600, 1.05)])
def test_what_only_queues_is_no_reason_to_send_more(rows: int, slower: float) -> None:
    """A server that works on 256 at a time and lets the rest wait: that many are found, and not many more."""
    ran, pace, fastest = gym(Queue(256), rows, service=equal(1.0), concurrency=10_000)
    assert ran.seconds <= slower * fastest
    assert ran.slowest <= 4
    assert 256 <= pace.ceiling <= 640


def test_the_second_run_has_as_many_in_flight_at_once() -> None:
    """What a run found out of a queue is where the next one begins."""
    _, pace, _ = gym(Queue(256), 25_600, service=equal(1.0), concurrency=10_000)
    ran, _, fastest = gym(Queue(256), 2_560, service=equal(1.0), concurrency=10_000, learned=pace.learned())
    assert ran.seconds <= 1.1 * fastest


def test_a_server_that_slows_down_gets_fewer() -> None:
    """When half of its slots are gone for a while, so is what waits for them."""
    ran, _, fastest = gym(Queue(64, slow=(10.0, 30.0)), 4000, service=lognormal(1.0), concurrency=10_000)
    assert ran.seconds <= 1.1 * fastest
    assert ran.slowest <= 20


def test_a_long_queue_of_slow_answers_costs_no_time_outs() -> None:
    """Eight slots of twenty seconds: nothing waits for longer than the default time-out."""
    ran, _, fastest = gym(Queue(8), 256, service=equal(20.0), concurrency=10_000)
    assert ran.seconds <= 1.05 * fastest
    assert ran.slowest < 120


def test_the_ramp_costs_little_where_there_is_no_limit() -> None:
    """The cautious start takes at most 3 % longer than going to the full concurrency at once."""
    cautious, _ = simulate(unlimited(), 10_000, LimitsConfig(concurrency=256), latency=lognormal(0.2))
    bold, _ = simulate(
        unlimited(), 10_000, LimitsConfig(concurrency=256, adaptive=False), latency=lognormal(0.2)
    )
    assert cautious.seconds <= 1.03 * bold.seconds


def test_answers_that_take_longer_for_another_reason_do_not_slow_the_run() -> None:
    """Where answers become three times as long without a queue, as many are in flight as before."""
    ceiling = Ceiling(100)
    number, now = 0, 0.0
    for seconds in (1.0, 1.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0):
        for _ in range(2):
            count = ceiling.value
            numbers = range(number + 1, number + count + 1)
            number = ceiling.last = number + count
            now += seconds
            for each in numbers:
                ceiling.answered(each, in_flight=count, sent_at=now - seconds, now=now)
    assert ceiling.value >= 80


def test_trouble_stops_growth() -> None:
    """While the endpoint answers 5xx, answers to what was in flight by then do not raise the ceiling."""
    pace = Pace(LimitsConfig(concurrency=1000))
    sent = [pace.sent("m") for _ in range(60)]
    before = pace.ceiling
    pace.failed(sent[0], trouble=True)
    for each in sent[1:]:
        pace.answered(each)
    assert pace.ceiling == before


def test_a_time_out_halves_what_is_in_flight() -> None:
    """An answer that did not come in time waited too long: fewer are sent."""
    pace = Pace(LimitsConfig(concurrency=1000))
    before = pace.ceiling
    pace.failed(pace.sent("m"), timed_out=True)
    assert pace.ceiling == before // 2


@pytest.mark.parametrize("slots", [8, 64, 256])
def test_gauges_shorten_the_search(slots: int) -> None:
    """An engine that tells how many it works on and how many wait: its slots are full within two looks, and stay so."""
    server = Queue(slots)
    ran, pace, fastest = gym(server, 10 * slots, service=equal(1.0), concurrency=10_000, gauges=server.load)
    assert ran.seconds <= 1.1 * fastest
    assert slots <= pace.ceiling <= max(1.7 * slots, 40)


def test_gauges_of_an_engine_that_slows_down() -> None:
    """When half of its slots are gone for a while, fewer wait for it; when they are back, they are used."""
    server = Queue(64, slow=(10.0, 30.0))
    ran, _, fastest = gym(server, 4000, service=lognormal(1.0), concurrency=10_000, gauges=server.load)
    assert ran.seconds <= 1.06 * fastest
    assert ran.slowest <= 12


def test_what_is_being_taken_in_is_not_in_a_queue() -> None:
    """An engine that takes in a burst bit by bit, more at each look, is not thought to be full."""
    ceiling = Ceiling(1000)
    for now, (working, waiting) in enumerate([(20, 20), (30, 10), (40, 0)]):
        ceiling.gauged(working, waiting, in_flight=40, now=now / 4)
    assert ceiling.value > 40


def test_others_at_the_same_engine_count() -> None:
    """Where the queue is mostly somebody else's, this run keeps its part of what is worked on."""
    ceiling = Ceiling(1000, start=100)
    for now in (0.0, 0.25):
        ceiling.gauged(200, 200, in_flight=100, now=now)
    assert ceiling.value == 63  # a quarter of what is out is ours: 50 worked on, and a quarter more


def test_without_news_from_gauges_the_answers_count_again() -> None:
    """Gauges that went silent hold nothing up: the time that answers take is looked at as before."""
    ceiling = Ceiling(1000)
    ceiling.gauged(5, 0, in_flight=5, now=0.0)
    for number in range(1, 41):
        ceiling.last = number
        ceiling.answered(number, in_flight=40, sent_at=9.0, now=10.0)
    assert ceiling.value > 40
