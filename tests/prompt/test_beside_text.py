"""Dates, times and moments beside texts in expressions."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.prompt.cells import Cell, rows_of
from enrich.prompt.template import RowError, compile_condition, compile_template

DAY, MOMENT = dt.date(2026, 11, 23), dt.datetime(2026, 11, 23, 10, 30)  # noqa: DTZ001  # a wall clock's time
COMPARISONS = (
    *("x > '2026-11-22'", "x >= '2026-11-23'", "x < '2026-12-01T08:00'", "x == '2026-11-23'"),
    *("'2026-11-22' < x", "x != '2026-11-22'", "x in ['2026-11-22', '2026-11-23']", "x is gt '2026-11-22'"),
    *("x < '2026-11-23 11:00:00'", "x > '2026-11-23T09:00'", "'2026-01-01' <= x <= '2026-12-31'"),
)


def judged(expression: str, value: Any, kind: Any = None) -> bool:
    """Evaluate on a column of this value, or on a cell of a text file."""
    condition = compile_condition("{{ " + expression + " }}", "here")
    if isinstance(value, Cell):
        return condition.is_true({"x": value})
    (row,) = rows_of(pa.record_batch([pa.array([value], kind)], names=["x"]))
    return condition.is_true(row)


@pytest.mark.parametrize("expression", COMPARISONS)
@pytest.mark.parametrize("value", [DAY, MOMENT], ids=["day", "moment"])
def test_a_text_file_and_a_typed_one_are_judged_alike(expression: str, value: dt.date) -> None:
    """A cell of CSV, however its moment is written, and a column of dates or moments in any unit."""
    cells = {judged(expression, Cell(text)) for text in (str(value), value.isoformat())}
    kinds = (
        [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")] if value is MOMENT else [None, pa.date64()]
    )
    assert {judged(expression, value, kind) for kind in kinds} == cells
    assert len(cells) == 1


@given(one=st.datetimes(), other=st.datetimes(), sep=st.sampled_from(["T", " "]))
def test_every_order_is_that_of_the_moments(one: dt.datetime, other: dt.datetime, sep: str) -> None:
    """However the text separates day and time."""
    text = other.isoformat(sep)
    for sign, wanted in (("<", one < other), ("==", one == other), (">=", one >= other)):
        assert judged(f"x {sign} '{text}'", one) is wanted


def test_a_moment_in_a_zone_is_what_its_clocks_show() -> None:
    """Beside a text without a zone; beside one with a zone it is the moment itself."""
    zoned = (MOMENT.replace(tzinfo=dt.UTC), pa.timestamp("us", "Europe/Berlin"))  # 11:30 there
    assert judged("x > '2026-11-23 11:00:00'", *zoned)
    assert judged("x == '2026-11-23T10:30:00+00:00'", *zoned)


@pytest.mark.parametrize("days", [2**31 - 1, 10**7])
def test_dates_that_python_has_none_for_have_their_order(days: int) -> None:
    """The infinite one and those past 9999 lie after every text."""
    column = pa.array([days], pa.int32()).view(pa.date32())
    (row,) = rows_of(pa.record_batch([column], names=["x"]))
    assert compile_condition("{{ x > '2026-11-22' and not x < '9999-12-31' }}", "here").is_true(row)


def test_times_and_durations() -> None:
    """A time compares with texts by the clock, a duration is equal to its text."""
    assert judged("'09:00' < x < '10:31' and x == '10:30'", dt.time(10, 30))
    assert judged("x == '1 day, 0:00:03'", dt.timedelta(days=1, seconds=3))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("x > '22.11.2026'", DAY),
        ("x > 'now'", MOMENT),
        ("x < '9:00'", dt.time(10)),
        ("x > '1'", dt.timedelta(1)),
    ],
)
def test_a_text_of_another_kind_fails_the_row(expression: str, value: Any) -> None:
    """It is not ordered by its letters; the message says how it is written. It is equal to nothing."""
    with pytest.raises(RowError, match="says nothing of its kind; a date is written as 2026-11-22"):
        judged(expression, value)
    assert not judged(expression.replace("<", "==").replace(">", "=="), value)


def test_dates_among_themselves_are_as_before() -> None:
    """In comparisons, filters and conditions, also in lists."""
    (row,) = rows_of(
        pa.record_batch([pa.array([DAY]), pa.array([[DAY]]), pa.array([3])], names=["x", "l", "n"])
    )
    source = "{{ x in l }} {{ l | select('gt', '2026-11-22') | list | length }} {{ x == l[0] }} {{ n in [3] }} {{ n < 4 }}"
    assert compile_template(source, "here").render(row) == "True 1 True True True"
