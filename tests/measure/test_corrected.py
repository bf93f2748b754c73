"""Corrected counts: right as often as they say, exact where everything is known."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from enrich.measure.corrected import Stratum, accuracy, corrected_counts, needed
from enrich.runs.cohort import stratified

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 5000


def table(
    chance: np.random.Generator, shares: tuple[float, ...], right: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make the truth of a table, and answers that are right so often."""
    truth = chance.choice(len(shares), ROWS, p=shares)
    off = (chance.random(ROWS) > right) * chance.integers(1, len(shares), ROWS)
    return truth, (truth + off) % len(shares)


def reviewed(
    truth: NDArray[Any], answers: NDArray[Any], by: NDArray[Any], places: NDArray[Any]
) -> list[Stratum]:
    """Make strata of a table of which these rows were labelled."""
    found = []
    for name in np.unique(by):
        here = np.flatnonzero(by == name)
        drawn = np.intersect1d(here, places)
        labelled = Counter((str(truth[i]), str(answers[i])) for i in drawn)
        found.append(Stratum(str(name), len(here), Counter(map(str, answers[here])), labelled))
    return found


@pytest.mark.parametrize(
    ("shares", "right", "size", "strata"),
    [
        ((0.6, 0.3, 0.1), 0.85, 200, "answer"),
        ((0.5, 0.5), 0.9, 200, "answer"),
        ((0.7, 0.3), 0.8, 150, "one"),
    ],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(
    shares: tuple[float, ...], right: float, size: int, strata: str
) -> None:
    """Of 1,000 samples of one table, between 93 and 97 of 100 intervals hold each label's count, and the accuracy."""
    chance = np.random.default_rng(17)
    truth, answers = table(chance, shares, right)
    by = answers if strata == "answer" else np.zeros(ROWS, dtype=int)
    true = {str(label): int((truth == label).sum()) for label in range(len(shares))}
    share = float((truth == answers).mean())
    held: Counter[str] = Counter()
    samples = 1000
    for _ in range(samples):
        places = stratified(by.astype(str).tolist(), size, chance, least=5)
        found = reviewed(truth, answers, by, places)
        low, high = accuracy(found).interval or (0, 0)
        held["accuracy"] += low <= share <= high
        for one in corrected_counts(found):
            low, high = one.interval or (0, 0)
            held[one.label] += low <= true[one.label] <= high
    assert {name: count for name, count in held.items() if not 0.93 <= count / samples <= 0.97} == {}


def test_a_biased_model_is_corrected() -> None:
    """It says "1" of 40 of 100 rows where 30 are; the labelled rows show by how much, and the interval leaves its count out."""
    chance = np.random.default_rng(4)
    truth = (chance.random(ROWS) < 0.3).astype(int)
    answers = np.where(chance.random(ROWS) < 0.15, 1, truth)
    places = stratified(answers.astype(str).tolist(), 400, chance, least=5)
    found = {one.label: one for one in corrected_counts(reviewed(truth, answers, answers, places))}
    low, high = found["1"].interval or (0, 0)
    assert low <= (truth == 1).sum() <= high
    assert high < found["1"].answered == (answers == 1).sum()


def test_the_correction_by_hand() -> None:
    """Of 800 "pos" ten of forty labelled are "neg", of 200 "neg" two of twenty "pos": 800 - 200 + 20 are "pos".

    The same is Rogan and Gladen's way for one class (American Journal of Epidemiology 107, 1978), where both rates are those
    of the answers: 800 * 0.75 + 200 * 0.1. The interval is that of two strata (Cochran, ch. 5), each with half a row more.
    """
    strata = [
        Stratum("pos", 800, {"pos": 800}, {("pos", "pos"): 30, ("neg", "pos"): 10}),
        Stratum("neg", 200, {"neg": 200}, {("neg", "neg"): 18, ("pos", "neg"): 2}),
    ]
    found = {one.label: one for one in corrected_counts(strata)}
    assert found["pos"].count == pytest.approx(800 * 0.75 + 200 * 0.1) == 620
    assert found["neg"].count == pytest.approx(380)
    shares = [(10 + 0.5) / 41, (2 + 0.5) / 21]
    variance = sum(
        (rows / 1000) ** 2 * share * (1 - share) / (n - 1) * (1 - n / rows)
        for share, rows, n in zip(shares, (800, 200), (40, 20), strict=True)
    )
    half = 1.959963985 * 1000 * variance**0.5
    assert found["pos"].interval == pytest.approx((620 - half, 620 + half), abs=1e-4)
    value = accuracy(strata)
    assert value.value == pytest.approx(0.8 * 30 / 40 + 0.2 * 18 / 20) == 0.78


def test_where_every_row_is_labelled_nothing_is_open() -> None:
    """The counts are the truth's, and the interval has no width."""
    truth = np.array([0, 0, 1, 1, 1])
    answers = np.array([0, 1, 1, 1, 0])
    strata = reviewed(truth, answers, answers, np.arange(5))
    counts = {one.label: (one.count, *(one.interval or ())) for one in corrected_counts(strata)}
    assert counts["0"] == pytest.approx((2, 2, 2))
    assert counts["1"] == pytest.approx((3, 3, 3))
    assert accuracy(strata).value == pytest.approx(0.6)


def test_a_stratum_that_nobody_looked_at_leaves_everything_open() -> None:
    """Nothing is made up of it."""
    strata = [Stratum("a", 5, {"x": 5}, {("x", "x"): 2}), Stratum("b", 5, {"y": 5}, {})]
    assert [one.count for one in corrected_counts(strata)] == [None, None]
    assert accuracy(strata).value is None


def test_few_rows_that_are_all_right_are_no_certainty() -> None:
    """Five of five leave room."""
    low, high = accuracy([Stratum("a", 1000, {"x": 1000}, {("x", "x"): 5})]).interval or (0, 0)
    assert low < 0.8
    assert high == 1


def test_half_the_width_needs_four_times_the_rows() -> None:
    """As everywhere."""
    assert needed(0.1, 0.05, 100) == 400
