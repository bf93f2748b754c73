"""The guarantee: kept as often as it says, exact where it can be reckoned by hand, and never given where nothing shows it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.measure.guarantee import NONE, THRESHOLDS, Tried, find_threshold, least, needed, tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 20_000
SAMPLES = 400


def table(
    chance: np.random.Generator, cheap: float, dear: float, calibrated: float
) -> tuple[NDArray[Any], ...]:
    """Make a table: scores, and whether each model is right; how far the score tells of the cheap one is given from 0 to 1."""
    scores = chance.beta(6, 1.2, ROWS)
    by_score = np.clip(scores / scores.mean() * cheap, 0, 1)
    right = chance.random(ROWS) < calibrated * by_score + (1 - calibrated) * cheap
    return scores, right, chance.random(ROWS) < dear


@pytest.mark.parametrize(
    ("cheap", "dear", "calibrated", "guarantee", "sample"),
    [
        (0.80, 0.98, 1.0, 0.93, 300),
        (0.90, 0.97, 1.0, 0.95, 300),
        (0.90, 0.97, 0.0, 0.95, 300),  # the score says nothing
        (0.85, 0.955, 0.5, 0.95, 1000),  # the dear model is hardly good enough
        (0.60, 0.90, 1.0, 0.80, 100),
        (0.94, 0.94, 0.3, 0.95, 300),  # none of them is
    ],
)
def test_the_promise_is_kept_in_95_of_100_samples(
    cheap: float, dear: float, calibrated: float, guarantee: float, sample: int
) -> None:
    """Of 400 samples of one table at most 5 of 100 (and what chance adds to that) give a threshold that breaks it."""
    chance = np.random.default_rng(23)
    scores, by_cheap, by_dear = table(chance, cheap, dear, calibrated)
    broken = 0
    for _ in range(SAMPLES):
        places = chance.choice(ROWS, sample, replace=False)
        rows = [Tried(float(scores[i]), bool(by_cheap[i]), bool(by_dear[i])) for i in places]
        found = find_threshold(rows, guarantee, 0.95)
        if found.met:
            share = np.where(scores >= found.threshold, by_cheap, by_dear).mean()
            broken += bool(share < guarantee)
    assert broken <= SAMPLES * 0.05 + 3 * math.sqrt(SAMPLES * 0.05 * 0.95)


def test_it_saves_where_the_score_tells() -> None:
    """With a good score most rows stay with the cheap model; without any trust in it none does, and the promise stands."""
    chance = np.random.default_rng(5)
    scores, by_cheap, by_dear = table(chance, 0.9, 0.99, 1.0)
    rows = [Tried(float(scores[i]), bool(by_cheap[i]), bool(by_dear[i])) for i in range(600)]
    found = find_threshold(rows, 0.9, 0.95)
    assert found.met
    assert found.kept > 300
    never = [Tried(-math.inf, cheap=False, dear=True)] * 300
    found = find_threshold(never, 0.9, 0.95)
    assert (found.threshold, found.rows, found.right, found.kept, found.met) == (0.0, 300, 300, 0, True)
    assert found.least == pytest.approx(0.05 ** (1 / 300))


def test_the_bound_by_hand() -> None:
    """All of n right: the bound is the n-th root of 1 - sure. 29 of 30 right: by the two terms of the binomial sum."""
    assert least(59, 59, 0.95) == pytest.approx(0.05 ** (1 / 59))
    assert least(59, 59, 0.95) > 0.95 > least(58, 58, 0.95)  # the rule of 59
    share = Fraction(85, 100)
    by_hand = share**30 + 30 * share**29 * (1 - share)
    assert tail(29, 30, 0.85) == pytest.approx(float(by_hand), rel=1e-9)
    assert least(29, 30, 0.95) == pytest.approx(0.8514, abs=5e-4)  # of tables of the one-sided exact limit
    assert least(0, 10, 0.95) == 0.0
    assert tail(0, 10, 0.5) == pytest.approx(1.0)


def test_where_it_cannot_be_met_it_is_not() -> None:
    """Too few rows, or a dear model that is too bad; and how many rows would do is said only where any would."""
    few = [Tried(1.0, cheap=True, dear=True)] * 40
    found = find_threshold(few, 0.95, 0.95)
    assert (found.met, found.threshold, found.right) == (False, NONE, 40)
    enough = needed(40, 40, 0.95, 0.95)
    assert enough is not None
    assert find_threshold(few[:1] * enough, 0.95, 0.95).met
    bad = [Tried(0.5, cheap=False, dear=n % 10 > 0) for n in range(1000)]
    assert not find_threshold(bad, 0.95, 0.95).met
    assert needed(900, 1000, 0.95, 0.95) is None
    assert not find_threshold([], 0.5, 0.5).met


def test_the_order_is_fixed_from_trusting_none_to_trusting_all() -> None:
    """No answer has a say in it."""
    assert THRESHOLDS[0] == NONE
    assert THRESHOLDS[-1] == 0
    assert list(THRESHOLDS) == sorted(THRESHOLDS, reverse=True)
    assert len(set(THRESHOLDS)) == len(THRESHOLDS)


@given(st.integers(1, 400), st.floats(0.01, 0.99), st.floats(0.5, 0.99), st.data())
def test_the_test_and_the_bound_are_one(
    rows: int, guarantee: float, sure: float, data: st.DataObject
) -> None:
    """What passes the test has its bound at the guarantee or above, and the other way round."""
    right = data.draw(st.integers(0, rows))
    bound = least(right, rows, sure)
    if abs(bound - guarantee) > 1e-6:
        assert (bound > guarantee) == (tail(right, rows, guarantee) <= 1 - sure)
