"""Agreement: the figures are those of published examples."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from enrich.measure.agreement import alpha, alpha_of_pairs, alpha_of_table, kappa, share

NAN = math.nan
# Krippendorff, Computing Krippendorff's alpha-reliability (2011), section C: four observers, twelve units.
FOUR_OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
# The same, section A: two observers, ten units, two values.
BINARY = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], dtype=float)
# The same, section B: two observers, twelve units, the names a to e.
NAMES = ("aabbdcccedda", "babbbccceddd")


def table(first: str, second: str) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Count how often two say what."""
    names = sorted({*first, *second})
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for a, b in zip(first, second, strict=True):
        counts[names.index(a), names.index(b)] += 1
    return counts


def test_kappa_is_that_of_fleiss_levin_and_paik() -> None:
    """Statistical Methods for Rates and Proportions (2003), table 18.1: two raters, three diagnoses, 0.68."""
    diagnoses = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
    assert share(diagnoses) == pytest.approx(0.89)
    assert kappa(diagnoses) == pytest.approx(0.676, abs=5e-4)


def test_kappa_of_two_readers_is_as_published() -> None:
    """Fifty proposals, 20 both yes, 15 both no, 5 and 10 apart: 0.4."""
    assert kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)


def test_kappa_tells_apart_what_the_share_does_not() -> None:
    """With the same agreement of 60 %: 0.1304 and 0.2593 (Sim and Wright, Physical Therapy 85, 2005)."""
    assert kappa(np.array([[45, 15], [25, 15]])) == pytest.approx(0.1304, abs=5e-5)
    assert kappa(np.array([[25, 35], [5, 35]])) == pytest.approx(0.2593, abs=5e-5)


def test_alpha_of_four_observers_is_as_published() -> None:
    """With values missing: 0.743 for names, 0.849 for numbers."""
    assert alpha(FOUR_OBSERVERS) == pytest.approx(0.743, abs=5e-4)
    assert alpha(FOUR_OBSERVERS, "interval") == pytest.approx(0.849, abs=5e-4)


def test_alpha_of_two_observers_is_as_published() -> None:
    """Of two values 0.095, of names 0.692; by the table as by the rows."""
    assert alpha(BINARY) == pytest.approx(0.095, abs=5e-4)
    assert alpha_of_table(table(*NAMES)) == pytest.approx(0.692, abs=5e-4)
    names = [[float(ord(c)) for c in line] for line in NAMES]
    assert alpha(np.array(names)) == pytest.approx(float(alpha_of_table(table(*NAMES))))


def test_kappa_by_hand() -> None:
    """20 both yes, 15 both no: 35 of 50 agree; by chance 25 * 30 + 25 * 20 of 2,500 do; 0.4 is what is left of it."""
    observed, chance = Fraction(20 + 15, 50), Fraction(25 * 30 + 25 * 20, 50 * 50)
    by_hand = (observed - chance) / (1 - chance)
    assert by_hand == Fraction(2, 5)
    assert kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(float(by_hand), abs=1e-12)
    diagnoses = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]  # rows add up to 80, 10 and 10, columns to 80, 5 and 15
    observed, chance = Fraction(89, 100), Fraction(80 * 80 + 10 * 5 + 10 * 15, 10_000)
    assert kappa(np.array(diagnoses)) == pytest.approx(float((observed - chance) / (1 - chance)), abs=1e-12)


def test_alpha_by_hand() -> None:
    """1 - (n - 1) * disagreeing pairs / pairs of unlike values: of two values, of names, and of numbers by their squares."""
    zeros, ones, apart = 14, 6, 4  # of the twenty values; four of the ten units are told apart
    by_hand = 1 - Fraction((20 - 1) * apart, zeros * ones)
    assert alpha(BINARY) == pytest.approx(float(by_hand), abs=1e-12)
    each = {name: sum(line.count(name) for line in NAMES) for name in "abcde"}  # of 24 values
    assert sum(each.values()) == 24
    same = sum(2 for a, b in zip(*NAMES, strict=True) if a == b)  # ordered pairs within a unit that agree
    by_chance = sum(count * (count - 1) for count in each.values())
    by_hand = Fraction((24 - 1) * same - by_chance, 24 * 23 - by_chance)
    assert alpha_of_table(table(*NAMES)) == pytest.approx(float(by_hand), abs=1e-12)
    first, second = [1, 2, 3, 4], [1, 3, 3, 6]
    values = [*first, *second]
    observed = Fraction(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)), 4)
    expected = Fraction(sum((a - b) ** 2 for a in values for b in values), 8 * 7)
    found = alpha_of_pairs(np.array(first, dtype=float), np.array(second, dtype=float))
    assert found == pytest.approx(float(1 - observed / expected), abs=1e-12)


def test_alpha_for_numbers_is_the_same_by_both_ways() -> None:
    """Two judges without gaps: the short formula and the general one."""
    chance = np.random.default_rng(5)
    first = chance.normal(size=40)
    second = first + chance.normal(size=40)
    assert alpha_of_pairs(first, second) == pytest.approx(alpha(np.stack([first, second]), "interval"))


def test_where_chance_explains_everything_nothing_is_said() -> None:
    """One value alone gives no agreement beyond chance."""
    assert np.isnan(kappa(np.array([[9]])))
    assert np.isnan(alpha_of_table(np.array([[9]])))
    assert np.isnan(alpha_of_pairs(np.ones(4), np.ones(4)))


def test_a_stack_of_tables_gives_a_number_for_each() -> None:
    """As resampling needs it."""
    one = np.array([[20, 5], [10, 15]])
    assert kappa(np.stack([one, one.T])).tolist() == pytest.approx([0.4, 0.4])
    assert alpha_of_table(np.stack([one, one])).shape == (2,)
