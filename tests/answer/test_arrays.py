from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.answer.arrays import arrow_array, categorical

TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001  # Hypothesis adds the zone
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXTS),
    (pa.int64(), INTEGERS),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.float64(), st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)),
    (pa.bool_(), st.booleans()),
    (pa.date32(), st.dates()),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("us", tz="UTC"), MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))),
    (pa.decimal128(38, 9), st.decimals(-(10**28), 10**28, places=9)),
    (pa.list_(pa.list_(pa.int64())), st.lists(st.lists(INTEGERS | st.none(), max_size=3) | st.none(), max_size=3)),
    (
        pa.struct([pa.field("a", pa.string()), pa.field("b", pa.list_(pa.string()))]),
        st.fixed_dictionaries({"a": TEXTS | st.none()}, optional={"b": st.lists(TEXTS, max_size=2)}),
    ),
]  # fmt: skip


@given(
    st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind[0]), st.lists(kind[1] | st.none())))
)
def test_an_array_is_what_arrow_makes_of_the_same_values(made: tuple[pa.DataType, list[Any]]) -> None:
    """Nulls included, at every depth; and it is sound."""
    kind, values = made
    array = arrow_array(values, kind)
    array.validate(full=True)
    assert array.equals(pa.array(values, kind))


@pytest.mark.parametrize(
    ("value", "kind"),
    [(2**63, pa.int64()), (2**31, pa.int32()), ("1", pa.int64()), ("\ud800", pa.string()), (1, pa.string())],
)
def test_what_a_column_cannot_hold_is_refused(value: Any, kind: pa.DataType) -> None:
    """As Arrow refuses it."""
    for make in (arrow_array, pa.array):
        with pytest.raises((OverflowError, TypeError, ValueError, pa.ArrowException)):
            make([value], kind)


def test_other_types_are_left_to_arrow() -> None:
    """Such as moments of nanoseconds, which no answer's column has."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert arrow_array([moment], pa.timestamp("ns", tz="UTC")).equals(
        pa.array([moment], pa.timestamp("ns", tz="UTC"))
    )
    assert arrow_array([date(2026, 1, 2)], pa.date64()).to_pylist() == [date(2026, 1, 2)]
    assert arrow_array([Decimal(1)], pa.decimal256(50)).to_pylist() == [Decimal(1)]


def test_categories_are_all_there_whichever_occur() -> None:
    """Batches with the same ones stay in one piece of a file."""
    array: Any = categorical(["b", None], ("a", "b"))
    assert (array.dictionary.to_pylist(), array.to_pylist()) == (["a", "b"], ["b", None])
    assert categorical([], ("a",)).type == pa.dictionary(pa.int32(), pa.string())
