"""Floors for every model of a server: a part of the gym that takes seconds (`benchmarks/gym.py` runs all of it)."""

from __future__ import annotations

import pytest

from tests.helpers.cells import MODELS, SECONDS, Cell, cells

# Times the oracle's makespan, at most, at 0.2 s an answer with 128 at a time; 1.15 where nothing is said.
SLOWER = {
    "cap in flight": 1.05,
    "fixed window of 1 s": 1.25,
    "sliding window of 1 s": 1.25,
    "neighbour that comes and goes": 1.25,
    "two models": 1.25,
    "30 % at random": 1.3,
    "10 % at random": 1.25,
    "2 % at random on a bucket": 1.25,
}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_a_server(model: str) -> None:
    """Whatever holds the requests up, the run takes little longer than one that knows the server."""
    result = Cell(model, 0.2, 0.5, "none", 128).run()
    assert result.ratio <= SLOWER.get(model, 1.15)
    assert len(result.ran.attempts) == sum(n > 0 for n in result.ran.attempts)  # every row was asked


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("most", [16, 128])
def test_a_cap_in_flight_is_told_for_what_it_is(most: int, spread: float) -> None:
    """Half as many as may be in flight are taken at a time: that is said, and no rate."""
    found = Cell("cap in flight", 0.2, spread, "none", most).run().found
    assert any(f"limited to {near:,} at a time" in found for near in (most // 2, most // 2 + 1))


@pytest.mark.parametrize("model", [model for model in MODELS if "cap" not in model])
def test_no_other_server_is_taken_for_a_cap(model: str) -> None:
    """Refusals that follow a rate, a window, the tokens or nothing are told from those of a cap."""
    assert not any("at a time" in phrase for phrase in Cell(model, 0.2, 0.5, "none", 128).run().found)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_refusals_at_random_are_called_that_and_no_rate(seed: int) -> None:
    """One in ten is refused whatever the rate: no limit is named beside that, which would send the reader looking for one."""
    found = Cell("10 % at random", 0.2, 0.5, "whole", 128, seconds=10.0, seed=seed).run().found
    assert len(found) == 1
    assert "% refused, whatever the rate" in found[0]


def test_a_refusal_that_nothing_explains_does_not_take_a_slow_run_for_the_limit() -> None:
    """Thirty-five a second and 2 % at random, 16 at a time: what is refused by chance is not followed downwards for long."""
    ratios = [
        Cell("2 % at random on a bucket", 0.2, 0.5, "whole", 16, seed=seed).run().ratio
        for seed in range(1, 5)
    ]
    assert sum(ratios) / len(ratios) <= 1.25


@pytest.mark.parametrize("latency", [0.2, 2.0])
def test_a_limit_is_named_without_chance(latency: float) -> None:
    """Sixty a minute with twenty at once is a rate: what is refused above it is not put down to chance as well."""
    found = Cell("60 a minute, 20 at once", latency, 0.5, "none", 128).run().found
    assert len(found) == 1
    assert found[0].startswith("limited to about ")


@pytest.mark.parametrize("share", ["10 % at random", "30 % at random"])
@pytest.mark.parametrize("latency", [2.0, 20.0])
def test_chance_is_no_limit_where_requests_are_slow(share: str, latency: float) -> None:
    """Sixteen at a time, with answers of seconds: what is refused by chance brings the run to no crawl."""
    for seed in (1, 2):
        assert Cell(share, latency, 0.5, "none", 16, seed=seed).run().ratio <= 1.15


def test_a_window_is_not_held_for_longer_than_it_is() -> None:
    """Where answers take as long as two windows, two are taken for one at first, and not for the rest of the run."""
    assert all(
        Cell("fixed window of 10 s", 20.0, 0.5, "whole", 128, seed=n).run().ratio <= 1.2 for n in (1, 2, 3)
    )


def test_a_limit_below_one_a_second_is_used() -> None:
    """A request in two and a half seconds and nothing at once: the limit is found without a storm for most of the run."""
    result = Cell("token bucket", 20.0, 0.0, "none", 16).run()
    assert result.ratio <= 1.3


def test_the_oracle_is_no_slower_than_the_fastest_run_that_is_possible() -> None:
    """What each cell is held against is what the server lets through, not what some client makes of it."""
    for cell in cells(["token bucket", "fixed window of 10 s", "cap in flight"], SECONDS):
        if cell.latency == 0.2 and cell.most == 16 and cell.retry_after == "none":
            result = cell.run()
            assert 0.9 * result.oracle <= result.ran.seconds
