"""What a column of answers holds: labels, numbers, lengths, nulls."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.report.facts import Spread
from enrich.report.values import MOST_BARS, Values

HUGE = 1e290  # the edge of a bar beyond still is a number


def spread(*batches: pa.Array[Any]) -> Spread:
    """Read a column in these pieces."""
    values = Values("s_x")
    for batch in batches:
        values.add(batch, len(batch))
    return values.spread()


def test_labels_are_counted_over_all_rows_with_nulls_beside_them() -> None:
    """Each value with its rows, the commonest first; null is a count of its own."""
    found = spread(pa.array(["a", "b", None]).dictionary_encode(), pa.array(["a"]).dictionary_encode())
    assert (found.total, found.nulls, found.values) == (4, 1, (("a", 2), ("b", 1)))
    assert found.histogram is None


@given(
    st.lists(
        st.lists(st.floats(-HUGE, HUGE) | st.sampled_from([math.nan, math.inf, -math.inf])),
        min_size=1,
        max_size=4,
    ),
)
def test_a_histogram_holds_every_finite_number(parts: list[list[float]]) -> None:
    """Whatever the numbers, each is in a bar, least and most are right, and bars are few."""
    every = [number for part in parts for number in part if math.isfinite(number)]
    values = Values("s_x")
    for part in parts:
        values.add(pa.array(part, pa.float64()), len(part))
    shown = values._bars.histogram()
    if not every:
        assert shown is None
        return
    assert shown is not None
    assert (sum(shown.counts), shown.least, shown.most) == (len(every), min(every), max(every))
    assert len(shown.counts) <= MOST_BARS
    assert shown.begin <= min(every)
    assert max(every) <= shown.begin + len(shown.counts) * shown.width


@pytest.mark.parametrize(
    "numbers",
    [
        pa.array(range(100), pa.int64()),
        pa.array([number / 7 for number in range(100)]),
        pa.array([Decimal(number) / 4 for number in range(100)], pa.decimal128(20, 2)),
    ],
)
def test_many_numbers_are_a_histogram(numbers: pa.Array[Any]) -> None:
    """Integers, floats and decimals; a bar of integers is never narrower than one."""
    found = spread(numbers.slice(0, 60), numbers.slice(60))
    assert found.values == ()
    assert found.histogram is not None
    assert sum(found.histogram.counts) == 100
    assert 13 <= len(found.histogram.counts) <= MOST_BARS
    if pa.types.is_integer(numbers.type):
        assert found.histogram.width >= 1


def test_few_numbers_and_booleans_are_told_one_by_one() -> None:
    """Stars from one to five are labels."""
    assert spread(pa.array([1, 5, 5, 3])).values[0] == ("5", 2)
    assert dict(spread(pa.array([True, False, True])).values) == {"true": 2, "false": 1}


def test_free_texts_and_lists_are_told_by_their_lengths() -> None:
    """Nobody reads a table of texts that all differ."""
    texts = spread(pa.array([f"a reply of some words, to customer number {number}" for number in range(99)]))
    assert texts.values == ()
    assert texts.unit == "characters"
    assert texts.histogram is not None
    assert texts.histogram.most == 44
    lists = spread(pa.array([[1, 2], [3], None, []]))
    assert (lists.unit, lists.nulls) == ("items", 1)
    assert lists.histogram is not None
    assert (lists.histogram.least, lists.histogram.most) == (0, 2)


def test_what_has_no_length_says_nothing_but_its_nulls() -> None:
    """A struct, and a column of nulls alone, do not stop a report."""
    assert spread(pa.array([{"a": 1}, None])) == Spread("s_x", 2, 2, (), 1)
    assert spread(pa.nulls(3)) == Spread("s_x", 3, 3, (), 3)
