from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.base.moments import Far, Unreadable
from enrich.base.texts import json_text, text_of
from enrich.base.values import values
from tests.helpers.arrow import MOMENTS, SCALAR_TYPES, arrays, scalar_arrays


def texts(array: pa.Array[Any]) -> list[str]:
    """Write each value of an array as a prompt does."""
    return [text_of(value) for value in values(array)]


def counted(kind: pa.DataType, *counts: int) -> pa.Array[Any]:
    """Make moments of the integers behind them."""
    wide = pa.array([], kind).type.bit_width == 64
    return pa.array(counts, pa.int64() if wide else pa.int32()).view(kind)


def readable(value: Any) -> bool:
    """Say whether a value, and all within it, can be had."""
    if isinstance(value, dict):
        return all(map(readable, value.values()))
    if isinstance(value, list):
        return all(map(readable, value))
    return not isinstance(value, Unreadable)


@given(arrays())
def test_every_value_of_every_type_can_be_had(array: pa.Array[Any]) -> None:
    """No type and no value of it fails: each is there, and has a text and a form in JSON, or says why not."""
    array.validate(full=False)
    found = values(array, null=None)
    assert len(found) == len(array)
    for value in found:
        if value is not None and readable(value):
            json.loads(json_text(value))
            if not isinstance(value, bytes):
                assert type(text_of(value)) is str


@given(arrays(), st.integers(0, 3), st.integers(0, 3))
def test_a_slice_has_its_own_values(array: pa.Array[Any], start: int, length: int) -> None:
    """What a value is does not hang on what stands beside it."""
    part = slice(start, start + length)
    assert repr_of(values(array.slice(start, length))) == repr_of(values(array)[part])


def repr_of(found: Any) -> str:
    """Give something that equal values share, NaN included."""
    if isinstance(found, Unreadable):
        return f"<{found.reason}>"
    if isinstance(found, list):
        return f"[{', '.join(map(repr_of, found))}]"
    return f"{{{', '.join(map(repr_of, found.values()))}}}" if isinstance(found, dict) else repr(found)


@given(st.sampled_from(SCALAR_TYPES).flatmap(lambda kind: scalar_arrays(kind, 2)))
def test_values_are_those_of_arrow(array: pa.Array[Any]) -> None:
    """Where Arrow itself can give a value without pandas, it is the same one."""
    kind = array.type
    if pa.types.is_floating(kind) or getattr(kind, "unit", "") == "ns" or pa.types.is_time(kind):
        return
    for scalar, value in zip(array, values(array), strict=True):
        with contextlib.suppress(
            ValueError, OverflowError, LookupError, pa.ArrowException
        ):  # a zone it lacks
            theirs = scalar.as_py()
            assert isinstance(value, Far | Unreadable) or value == theirs


def test_a_null_stands_for_itself() -> None:
    """What is to stand for null does so at any depth."""
    nested = pa.array([{"a": None, "b": [None, 1]}, None])
    assert values(nested, null="-") == [{"a": "-", "b": ["-", 1]}, "-"]


@given(st.floats(width=32))
def test_a_narrow_number_is_the_one_that_is_written(number: float) -> None:
    """Of float32 the shortest text that reads back as the same value: 19.99, not 19.989999771118164."""
    (value,) = values(pa.array([number], pa.float32()))
    assert math.isnan(value) if math.isnan(number) else pa.scalar(value, pa.float32()).as_py() == number
    assert texts(pa.array([19.99, 0.1, 1e-7, 3e38], pa.float32())) == ["19.99", "0.1", "1e-07", "3e+38"]
    assert texts(pa.array([19.98], pa.float16())) == ["19.98"]


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (counted(pa.date32(), 2**31 - 1), "infinity"),
        (counted(pa.date32(), -(2**31) + 1), "-infinity"),
        (counted(pa.date32(), 3_000_000), "10183-09-21"),
        (counted(pa.date32(), -1_000_000), "-0768-02-04"),
        (counted(pa.timestamp("us"), 2**63 - 1), "infinity"),
        (counted(pa.timestamp("us"), 253402300800000000), "10000-01-01 00:00:00"),
        (
            counted(pa.timestamp("us", "Pacific/Auckland"), 253402300799000000),
            "10000-01-01 12:59:59+13:00",
        ),
        (
            counted(pa.timestamp("s", "Europe/Berlin"), 2**40),
            "36812-02-20 01:36:16+01:00",
        ),
        (counted(pa.timestamp("ns"), 1), "1970-01-01 00:00:00.000000001"),
        (counted(pa.timestamp("ns", "+05:30"), 1500), "1970-01-01 05:30:00.000001500+05:30"),
        (counted(pa.timestamp("ns"), 1_500_000), "1970-01-01 00:00:00.001500"),
        (counted(pa.time64("us"), 86_400_000_000), "24:00:00"),
        (counted(pa.time64("ns"), 1), "00:00:00.000000001"),
        (counted(pa.duration("s"), 90_061), "1 day, 1:01:01"),
        (counted(pa.duration("us"), -3_600_000_000), "-1:00:00"),
        (counted(pa.duration("s"), 2**62), "53375995583650 days, 7:45:04"),
        (pa.array([Decimal("0E-10")], pa.decimal128(20, 10)), "0.0000000000"),
        (pa.array([Decimal(1200)], pa.decimal128(5, -2)), "1200"),
        (pa.array([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int8())), '{"a": 1, "b": null}'),
        (pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int8())), '[["a", 1], ["a", 2]]'),
        (pa.array([["Ä", "<b>", "it's"]]), '["Ä", "<b>", "it\'s"]'),
        (pa.array([[dt.date(2026, 1, 2)]]), '["2026-01-02"]'),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "[1, 2, 3]"),
        (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))), f"{'3030' * 2}-3030-3030-3030-{'3030' * 3}"),
    ],
)  # fmt: skip
def test_the_text_of_what_python_has_no_value_for(array: pa.Array[Any], text: str) -> None:
    """Infinities, far dates, nanoseconds, decimals and nested values have the text that a reader expects."""
    assert texts(array) == [text]


@given(st.sampled_from(MOMENTS).flatmap(lambda kind: scalar_arrays(kind, 2)))
def test_far_moments_keep_their_order(array: pa.Array[Any]) -> None:
    """A moment beyond Python's range is before or after all others as it should be."""
    first, second = values(array)
    counts = array.view(pa.int64() if array.type.bit_width == 64 else pa.int32()).to_pylist()
    beyond = isinstance(first, Far) or isinstance(second, Far)
    if beyond and first is not None and second is not None and counts[0] != counts[1]:
        before = (counts[0] or 0) < (counts[1] or 0)
        assert (first < second) is before
        assert (first >= second) is not before


def test_what_cannot_be_had_says_why() -> None:
    """A zone that the machine does not know and bytes that are no text are told when the value is used."""
    (moment,) = values(counted(pa.timestamp("us", "EST5"), 0))
    (text,) = values(pa.array([b"\xffa"], pa.binary()).view(pa.string()))
    with pytest.raises(ValueError, match="a value is in the zone 'EST5', which this machine does not know"):
        str(moment)
    with pytest.raises(ValueError, match="a value holds bytes that are no UTF-8"):
        bool(text)
    assert (moment.text, text.text) == ("1970-01-01 00:00:00+00:00", "\ufffda")
