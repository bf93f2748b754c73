"""Which rows are shown: evenly spread, and every answer among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from enrich.report.facts import Sample
from enrich.report.samples import OF_EACH, SPARE, Samples
from enrich.report.values import Values


def sample(row: int, label: str = "common") -> Sample:
    """Make a row that is shown."""
    return Sample(row, "s", "ok", "m", None, "", None, None, None, "", labels=(("s_x", label),))


@pytest.mark.parametrize("rows", [5, 40, 41, 1_000, 50_000])
def test_rows_are_spread_evenly_and_few_are_read(rows: int) -> None:
    """However many stream by: first and last part are there, gaps are alike, and hardly more are made than shown."""
    samples, made = Samples(40), 0
    for first in range(0, rows, 700):
        places = np.arange(min(700, rows - first))
        for ordinal, place in samples.evenly(places):
            samples.keep(ordinal, sample(first + place + 1))
            made += 1
    shown = [one.row or 0 for one in samples.chosen([])]
    assert len(shown) == min(rows, 40)
    gaps = np.diff(shown)
    assert gaps.max() <= 2 * gaps.min() + 1
    assert shown[0] == 1
    assert shown[-1] > rows * 0.94
    assert made <= SPARE * 40 * 2 * max(1.0, np.log2(rows))


def test_a_rare_answer_is_among_them() -> None:
    """Some rows of each answer that is counted are shown, whatever its share."""
    column: pa.Array[Any] = pa.array(["common"] * 5_000 + ["rare"] * 3 + ["common"] * 5_000)
    good = pa.array([True] * len(column))
    values, samples = Values("s_x"), Samples(10)
    values.add(column, len(column))
    rows = list(samples.of_each(values, column, good))
    assert [row for row in rows if row >= 5_000] == [5_000, 5_001]
    assert len(rows) == 2 * OF_EACH
    for row in rows:
        samples.keep_label(sample(row, column[row].as_py()))
    assert list(samples.of_each(values, column, good)) == []
    assert [one.row for one in samples.chosen([values]) if one.labels[0][1] == "rare"] == [5_000, 5_001]


def test_a_column_that_proved_to_hold_no_labels_has_none_shown_for_its_sake() -> None:
    """The first batch looks like labels, the second does not."""
    values, samples = Values("s_x"), Samples(1)
    values.add(pa.array(["a", "b"]), 2)
    for row in samples.of_each(values, pa.array(["a", "b"]), pa.array([True, True])):
        samples.keep_label(sample(row, "ab"[row]))
    assert len(samples.chosen([values])) == 2
    values.add(pa.array([f"text {number}" for number in range(100)]), 100)
    assert samples.chosen([values]) == []
