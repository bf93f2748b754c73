"""Python values into Arrow arrays, by way of their buffers: `pa.array` loads pandas first, which costs a third of a second."""

from __future__ import annotations

from array import array
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Values = Sequence[Any]

EPOCH_DAY = date(1970, 1, 1).toordinal()
MICROSECOND = timedelta(microseconds=1)
EPOCH = {None: datetime(1970, 1, 1), "UTC": datetime(1970, 1, 1, tzinfo=UTC)}  # noqa: DTZ001  # of times without a zone


def arrow_array(values: Values, kind: pa.DataType) -> pa.Array[Any]:
    """Build an array, as ``pa.array(values, kind)`` does.

    Args:
        values: of the type that the column holds, or None.
        kind: its type; for one that no answer's column has, it is left to `pa.array`.
    """
    build = _BUILDERS.get(kind.id)
    if build is None or (pa.types.is_timestamp(kind) and not _is_usual(kind)):
        return pa.array(values, kind)
    missing = None in values
    if missing and values.count(None) == len(values):
        nulls: pa.Array[Any] = pa.nulls(len(values), kind)  # type: ignore[call-overload]  # any type will do
        return nulls
    valid = _bits([value is not None for value in values]) if missing else None
    return build(values, kind, valid)


def categorical(values: Sequence[str | None], categories: Sequence[str]) -> pa.Array[Any]:
    """Build a dictionary array that has these categories, whichever of them occur."""
    index: dict[str | None, int | None] = {category: i for i, category in enumerate(categories)}
    index[None] = None
    indices: Any = arrow_array([index[value] for value in values], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, arrow_array(categories, pa.string()))


def _bits(values: Iterable[bool]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(np.frombuffer(bytes(values), np.uint8), bitorder="little").tobytes())


def _filled(values: Values, valid: pa.Buffer | None, stand_in: object) -> Values:
    """Put a value of the type where there is none: nobody looks at it."""
    return values if valid is None else [stand_in if value is None else value for value in values]


def _texts(values: Values, kind: pa.DataType, valid: pa.Buffer | None) -> pa.Array[Any]:
    texts = _filled(values, valid, "")
    data = "".join(texts).encode()
    sizes = map(len, texts) if len(data) == sum(map(len, texts)) else (len(text.encode()) for text in texts)
    return pa.Array.from_buffers(kind, len(values), [valid, _offsets(sizes), pa.py_buffer(data)])


def _offsets(sizes: Iterable[int]) -> pa.Buffer:
    return pa.py_buffer(array("i", accumulate(sizes, initial=0)))


def _numbers(code: str) -> Callable[[Values, pa.DataType, pa.Buffer | None], pa.Array[Any]]:
    def build(values: Values, kind: pa.DataType, valid: pa.Buffer | None) -> pa.Array[Any]:
        data = array(code, _filled(values, valid, 0))
        return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(data)])

    return build


def _booleans(values: Values, kind: pa.DataType, valid: pa.Buffer | None) -> pa.Array[Any]:
    return pa.Array.from_buffers(kind, len(values), [valid, _bits(_filled(values, valid, stand_in=False))])


def _dates(values: Values, kind: pa.DataType, valid: pa.Buffer | None) -> pa.Array[Any]:
    days = [day and day.toordinal() - EPOCH_DAY for day in values]
    return _numbers("i")(days, kind, valid)


def _is_usual(kind: Any) -> bool:
    return kind.unit == "us" and kind.tz in EPOCH


def _moments(values: Values, kind: Any, valid: pa.Buffer | None) -> pa.Array[Any]:
    epoch = EPOCH[kind.tz]
    return _numbers("q")([moment and (moment - epoch) // MICROSECOND for moment in values], kind, valid)


def _decimals(values: Values, kind: Any, valid: pa.Buffer | None) -> pa.Array[Any]:
    ratios = (value.as_integer_ratio() for value in _filled(values, valid, 0))
    whole = (above * 10**kind.scale // below for above, below in ratios)
    data = b"".join(number.to_bytes(16, "little", signed=True) for number in whole)
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(data)])


def _lists(values: Values, kind: Any, valid: pa.Buffer | None) -> pa.Array[Any]:
    lists = _filled(values, valid, ())
    items = arrow_array(list(chain.from_iterable(lists)), kind.value_type)
    return pa.Array.from_buffers(kind, len(values), [valid, _offsets(map(len, lists))], children=[items])


def _structs(values: Values, kind: Any, valid: pa.Buffer | None) -> pa.Array[Any]:
    structs = _filled(values, valid, {})
    parts = [arrow_array([value.get(field.name) for value in structs], field.type) for field in kind]
    return pa.Array.from_buffers(kind, len(values), [valid], children=parts)


_BUILDERS: dict[int, Callable[[Values, Any, pa.Buffer | None], pa.Array[Any]]] = {
    pa.string().id: _texts,
    pa.int64().id: _numbers("q"),
    pa.int32().id: _numbers("i"),
    pa.float64().id: _numbers("d"),
    pa.bool_().id: _booleans,
    pa.date32().id: _dates,
    pa.timestamp("us").id: _moments,
    pa.decimal128(1).id: _decimals,
    pa.list_(pa.string()).id: _lists,
    pa.struct([]).id: _structs,
}
