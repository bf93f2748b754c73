"""Intervals: the same each time, of published width, and right as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from enrich.measure.agreement import kappa
from enrich.measure.intervals import of_proportion, of_rows, of_share, of_table


def test_the_same_rows_give_the_same_interval() -> None:
    """The seed is fixed."""
    table = np.array([[20, 5], [10, 15]])
    assert of_table(table, kappa) == of_table(table, kappa)


def test_the_interval_of_kappa_is_near_the_published_one() -> None:
    """Fleiss, Levin and Paik, table 18.1: the standard error is 0.087, the interval 0.51 to 0.85."""
    low, high = of_table(np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]]), kappa) or (0, 0)
    assert (low, high) == pytest.approx((0.51, 0.85), abs=0.04)


def test_wilsons_interval_is_as_published() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for part, whole, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert of_share(part, whole) == pytest.approx((low, high), abs=5e-5)


def test_rows_that_are_all_alike_are_no_certainty() -> None:
    """Ten of ten right may still be 72 of 100."""
    assert of_proportion(10, 10) == pytest.approx((0.7225, 1.0), abs=5e-5)
    assert of_proportion(0, 0) is None


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    """Of samples of a skewed distribution with mean 1, about 95 in 100 do."""
    chance = np.random.default_rng(11)
    held = 0
    for _ in range(200):
        low, high = of_rows(lambda values: values.mean(axis=-1), chance.exponential(size=120)) or (0, 0)
        held += low <= 1 <= high
    assert 180 <= held <= 199


def test_what_most_draws_do_not_define_has_no_interval() -> None:
    """Of one row there is no kappa, and no row has none either."""
    assert of_table(np.array([[1, 0], [0, 0]]), kappa) is None
    assert of_table(np.zeros((2, 2), dtype=int), kappa) is None
    assert of_rows(lambda values: values.mean(axis=-1), np.zeros(0)) is None
