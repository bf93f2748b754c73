"""Arrow arrays of every type, with the values at the ends of what each type holds."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
from hypothesis import strategies as st

UNITS: tuple[Literal["s", "ms", "us", "ns"], ...] = ("s", "ms", "us", "ns")
ZONES = (
    "UTC",
    "+05:30",
    "-12:00",
    "Europe/Berlin",
    "Pacific/Auckland",
    "America/New_York",
    "EST5",
    "Mars/Base",
)
INTEGERS: tuple[pa.DataType, ...] = (
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
)
MOMENTS: tuple[pa.DataType, ...] = (
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
    *(pa.duration(unit) for unit in UNITS),
    *(pa.timestamp(unit) for unit in UNITS),
    *(pa.timestamp(unit, zone) for unit in UNITS for zone in ZONES),
)
DECIMALS: tuple[pa.DataType, ...] = (
    *(pa.decimal32(9, 2), pa.decimal64(18, 0), pa.decimal128(38, 10), pa.decimal128(5, -2)),
    *(pa.decimal256(76, 0), pa.decimal256(76, 76)),
)
FLOATS: tuple[pa.DataType, ...] = (pa.float16(), pa.float32(), pa.float64())
TEXTS: tuple[pa.DataType, ...] = (pa.string(), pa.large_string(), pa.string_view())
BINARY: tuple[pa.DataType, ...] = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2))
OTHERS: tuple[pa.DataType, ...] = (pa.bool_(), pa.null(), pa.month_day_nano_interval())
SCALAR_TYPES = (*INTEGERS, *FLOATS, *DECIMALS, *MOMENTS, *TEXTS, *BINARY, *OTHERS)

_TEXT = st.one_of(
    st.text(max_size=5), st.sampled_from(["", "null", "1e5", "{{ x }}", "<b>&'\"", "Ä\u2028\x00"])
)


@st.composite
def arrays(draw: st.DrawFn, depth: int = 2) -> pa.Array[Any]:
    """Draw an array of up to three values of any type, nested ones among them, perhaps a slice of a longer one."""
    length = draw(st.integers(0, 3))
    array = draw(_arrays(length + 2, depth))
    return array.slice(draw(st.integers(0, 2)), length)


def _arrays(length: int, depth: int) -> st.SearchStrategy[pa.Array[Any]]:
    scalars = st.sampled_from(SCALAR_TYPES).flatmap(lambda kind: scalar_arrays(kind, length))
    return st.one_of(scalars, _nested(length, depth - 1)) if depth else scalars


def scalar_arrays(kind: Any, length: int) -> st.SearchStrategy[pa.Array[Any]]:
    """Draw arrays of one type that is not nested."""
    if kind in MOMENTS:
        wide = kind.bit_width == 64
        bound = 2 ** (63 if wide else 31)
        ends = [-bound, 1 - bound, -1, 0, 1, bound - 1, 253402300799000000, -62135596800000001, 86400]
        ints = st.integers(-bound, bound - 1) | st.sampled_from(
            [end for end in ends if -bound <= end < bound]
        )
        if kind == pa.date64():
            ints = st.integers(-(10**11), 10**11).map(
                lambda days: days * 86_400_000
            )  # Arrow holds it to whole days
        raw = pa.int64() if wide else pa.int32()
        return _lists(ints, length).map(lambda items: pa.array(items, raw).view(kind))
    if kind in TEXTS and kind != pa.string_view():
        bytes_ = pa.large_binary() if kind == pa.large_string() else pa.binary()
        wild = _TEXT.map(lambda text: text.encode()) | st.just(
            b"\xff\xfea"
        )  # Parquet's readers check no UTF-8
        return _lists(wild, length).map(lambda items: pa.array(items, bytes_).view(kind))
    return _lists(_items(kind), length).map(lambda items: pa.array(items, kind))


def _items(kind: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911  # one for each kind of type
    if kind in INTEGERS:
        bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
        return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)
    if kind in FLOATS:
        return st.floats(width=kind.bit_width)
    if pa.types.is_decimal(kind):
        bound = 10 ** min(kind.precision, 28) - 1
        digits = st.integers(-bound, bound) | st.sampled_from([0, bound])
        return digits.map(
            lambda number: Decimal((number < 0, tuple(map(int, str(abs(number)))), -kind.scale))
        )
    if kind == pa.string_view():
        return _TEXT
    if kind in BINARY:
        return st.binary(min_size=2, max_size=2)
    if kind == pa.month_day_nano_interval():
        return st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2, st.integers(-(2**63), 2**63 - 1))
    return st.booleans() if kind == pa.bool_() else st.none()


def _lists(items: st.SearchStrategy[Any], length: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | items, min_size=length, max_size=length)


@st.composite
def _nested(draw: st.DrawFn, length: int, depth: int) -> Any:  # noqa: PLR0911  # one for each shape
    shape = draw(
        st.sampled_from(["struct", "list", "large_list", "fixed", "map", "dictionary", "runs", "view"])
    )
    mask = pa.array(draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    if shape == "struct":
        fields = [draw(_arrays(length, depth)) for _ in range(draw(st.integers(1, 2)))]
        return pa.StructArray.from_arrays(fields, names=["a", "b"][: len(fields)], mask=mask)
    if shape == "fixed":
        return pa.FixedSizeListArray.from_arrays(draw(_arrays(2 * length, depth)), 2, mask=mask)
    offsets = [0, *sorted(draw(st.lists(st.integers(0, 3), min_size=length, max_size=length)))]
    if shape == "map":
        keys = pa.array([f"k{number}" for number in range(3)])
        return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, draw(_arrays(3, depth)))  # type: ignore[call-overload]  # 32 bits it must be
    items = draw(_arrays(3, depth))
    if shape == "list":
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=mask)
    if shape == "large_list":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), items, mask=mask)
    if shape == "view":
        sizes = [end - start for start, end in itertools.pairwise(offsets)]
        return pa.ListViewArray.from_arrays(  # type: ignore[call-overload]  # any array will do
            pa.array(offsets[:-1], pa.int32()), pa.array(sizes, pa.int32()), items
        )
    if shape == "runs":
        ends = pa.array(range(1, length + 1), pa.int32())
        plain = st.sampled_from((*INTEGERS, pa.string_view(), pa.bool_()))  # it validates its values
        return pa.RunEndEncodedArray.from_arrays(
            ends, draw(plain.flatmap(lambda k: scalar_arrays(k, length)))
        )
    places = pa.array(
        draw(st.lists(st.none() | st.integers(0, 2), min_size=length, max_size=length)), pa.int32()
    )
    return pa.DictionaryArray.from_arrays(places, items)
