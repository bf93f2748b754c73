"""Arrow columns as Python values: every value of every type has one."""

from __future__ import annotations

import functools
import itertools
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import pyarrow as pa

from enrich.base import moments
from enrich.base.flat import numbers, present
from enrich.base.moments import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Values = list[Any]
    Read = Callable[[pa.Array[Any], Any], Values]

WRITTEN: Final = (
    "\0"  # begins the name of a column with the characters that a text file has for another column
)
LINE: Final = "\0\n"  # names the column of whole JSON lines


def values(array: pa.Array[Any], *, null: Any = None) -> Values:
    """Give a column's values; this never fails.

    Numbers are int and float (of float32 the double that is written alike: 19.99), decimals `Decimal`; moments, dates,
    times and durations are those of `datetime`, finer ones `NanoDatetime`, `NanoTime` and `NanoTimedelta`, those beyond
    `Far`. Lists are lists, structs and maps are dicts (a list of pairs where a key stands twice), UUIDs are text,
    calendar intervals tuples of months, days and nanoseconds. What cannot be had here is `Unreadable`.

    Args:
        array: of any type.
        null: stands for null, at any depth.
    """
    return _reader(array.type)(array, null)


@functools.lru_cache(maxsize=4096)
def _reader(kind: pa.DataType) -> Read:
    is_ = pa.types
    if is_.is_integer(kind) or is_.is_boolean(kind) or is_.is_null(kind):
        return _plain
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return _strings
    if is_.is_floating(kind):
        return _doubles if is_.is_float64(kind) else _floats
    if is_.is_decimal(kind):
        return _decimals
    if is_.is_temporal(kind) and not is_.is_interval(kind):
        return _moments
    return _nested_reader(kind)


def _nested_reader(kind: pa.DataType) -> Read:  # noqa: PLR0911  # one for each kind of type
    is_ = pa.types
    if is_.is_dictionary(kind):
        return _dictionary
    if is_.is_struct(kind):
        return _structs
    if is_.is_map(kind):
        return _maps
    if is_.is_list(kind) or is_.is_large_list(kind):
        return _lists
    if is_.is_fixed_size_list(kind):
        return _fixed_lists
    if is_.is_list_view(kind) or is_.is_large_list_view(kind):
        return _views
    if is_.is_union(kind):
        return _unions
    if is_.is_run_end_encoded(kind):
        return _runs
    if isinstance(kind, pa.BaseExtensionType):
        return _uuids if kind.extension_name == "arrow.uuid" else _stored
    return _each


# --- plain ----------------------------------------------------------------------------------------------


def _with_nulls(found: Values, array: pa.Array[Any], null: Any) -> Values:
    """Put what stands for null where the array has one."""
    if array.null_count:
        for place in np.flatnonzero(~present(array)).tolist():
            found[place] = null
    return found


def _plain(array: pa.Array[Any], null: Any) -> Values:
    return _with_nulls(array.to_pylist(), array, null)


def _strings(array: pa.Array[Any], null: Any) -> Values:
    try:
        return _with_nulls(array.to_pylist(), array, null)
    except UnicodeDecodeError:
        return [_decoded(scalar.as_buffer(), null) for scalar in cast("Iterable[pa.StringScalar]", array)]


def _decoded(buffer: pa.Buffer | None, null: Any) -> Any:
    if buffer is None:
        return null
    data = buffer.to_pybytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Unreadable("holds bytes that are no UTF-8", data.decode(errors="replace"))


def _doubles(array: pa.Array[Any], null: Any) -> Values:
    return _with_nulls(numbers(array).tolist(), array, null)


def _floats(array: pa.Array[Any], null: Any) -> Values:
    """Give the doubles whose shortest text is that of the narrower number."""
    return _with_nulls([float(text) for text in map(str, numbers(array))], array, null)


def _decimals(array: pa.Array[Any], null: Any) -> Values:
    return [null if text is None else Decimal(text) for text in array.cast(pa.string()).to_pylist()]


def _moments(array: pa.Array[Any], null: Any) -> Values:
    kind = array.type
    if pa.types.is_timestamp(kind):
        found = moments.timestamps(array)
    elif pa.types.is_date(kind):
        found = moments.dates(array)
    else:
        found = moments.times(array) if pa.types.is_time(kind) else moments.durations(array)
    return _with_nulls(found, array, null)


# --- nested ---------------------------------------------------------------------------------------------


def _dictionary(array: pa.Array[Any], null: Any) -> Values:
    coded = cast("pa.DictionaryArray[Any, Any]", array)
    known = values(coded.dictionary, null=null)
    return [null if place is None else known[place] for place in coded.indices.to_pylist()]


def _runs(array: pa.Array[Any], null: Any) -> Values:
    """Read runs by hand: Arrow decodes them of few types."""
    runs = cast("pa.RunEndEncodedArray[Any, Any]", array)
    known = values(runs.values, null=null)
    ends = numbers(runs.run_ends)
    places = np.searchsorted(ends, np.arange(array.offset, array.offset + len(array)), side="right")
    return [known[place] for place in places.tolist()]


def _structs(array: pa.Array[Any], null: Any) -> Values:
    kind = cast("pa.StructType", array.type)
    names = [field.name for field in kind]
    structs = cast(
        "pa.StructArray", array
    )  # `flatten` would abort the process for children without null bits
    columns = [values(structs.field(place), null=null) for place in range(len(names))]
    if not columns:
        return _with_nulls([{} for _ in range(len(array))], array, null)
    twice = len(set(names)) < len(names)
    rows = zip(*columns, strict=True)
    found: Values = [
        [*zip(names, row, strict=True)] if twice else dict(zip(names, row, strict=True)) for row in rows
    ]
    return _with_nulls(found, array, null)


def _lists(array: pa.Array[Any], null: Any) -> Values:
    lists = cast("pa.ListArray[Any]", array)
    offsets = numbers(lists.offsets).tolist()
    items = values(lists.values.slice(offsets[0], offsets[-1] - offsets[0]), null=null)
    return _with_nulls(_cut(items, offsets), array, null)


def _cut(items: Values, offsets: Sequence[int]) -> list[Values]:
    first = offsets[0]
    return [items[start - first : end - first] for start, end in itertools.pairwise(offsets)]


def _fixed_lists(array: pa.Array[Any], null: Any) -> Values:
    size = cast("pa.FixedSizeListType[Any, Any]", array.type).list_size
    items = values(cast("pa.FixedSizeListArray[Any]", array).flatten(), null=null)
    places = iter(range(0, len(items) + 1, size)) if size else iter([0] * len(array))
    return [items[(at := next(places)) : at + size] if there else null for there in present(array).tolist()]


def _maps(array: pa.Array[Any], null: Any) -> Values:
    maps = cast("pa.MapArray[Any, Any]", array)
    offsets = numbers(maps.offsets).tolist()
    first, length = offsets[0], offsets[-1] - offsets[0]
    keys = values(maps.keys.slice(first, length), null=null)
    items = values(maps.items.slice(first, length), null=null)
    pairs = _cut(list(zip(keys, items, strict=True)), offsets)
    return _with_nulls([_mapping(entries) for entries in pairs], array, null)


def _mapping(entries: Sequence[tuple[Any, Any]]) -> Any:
    try:
        found = dict(entries)
    except TypeError:  # keys that are lists or structs
        return [list(entry) for entry in entries]
    return found if len(found) == len(entries) else [list(entry) for entry in entries]


def _uuids(array: pa.Array[Any], null: Any) -> Values:
    stored = cast("pa.ExtensionArray[Any]", array).storage
    return [null if data is None else str(uuid.UUID(bytes=data)) for data in stored.to_pylist()]


def _stored(array: pa.Array[Any], null: Any) -> Values:
    found = values(cast("pa.ExtensionArray[Any]", array).storage, null=null)
    if array.type.extension_name == "arrow.bool8":
        return [value if value is null else bool(value) for value in found]
    return found


def _views(array: pa.Array[Any], null: Any) -> Values:
    views = cast("pa.ListViewArray[Any]", array)
    items = values(views.values, null=null)
    places = zip(numbers(views.offsets).tolist(), numbers(views.sizes).tolist(), strict=True)
    return _with_nulls([items[start : start + size] for start, size in places], array, null)


def _unions(array: pa.Array[Any], null: Any) -> Values:
    union = cast("pa.UnionArray", array)
    kind = cast("pa.UnionType", array.type)
    children = {code: values(union.field(i), null=null) for i, code in enumerate(kind.type_codes)}
    places = range(len(array)) if kind.mode == "sparse" else numbers(union.offsets).tolist()
    return [
        children[code][place] for code, place in zip(numbers(union.type_codes).tolist(), places, strict=True)
    ]


def _each(array: pa.Array[Any], null: Any) -> Values:
    """Read kinds of arrays that are rare, or still to come, value by value."""
    return [_one(scalar, null) for scalar in cast("Iterable[pa.Scalar[Any]]", array)]


def _one(scalar: pa.Scalar[Any], null: Any) -> Any:
    try:
        return scalar.as_py() if scalar.is_valid else null
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return Unreadable(f"cannot be had: {' '.join(str(error).split())}", f"<{scalar.type}>")
