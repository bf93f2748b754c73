"""One type for a column that files store in several: where one of them, or a wider one, holds every value as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

UNITS = ("s", "ms", "us", "ns")  # from coarse to fine
TEXTS = (pa.string(), pa.string_view(), pa.large_string())
BINARIES = (pa.binary(), pa.binary_view(), pa.large_binary())
SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
FLOATS = (pa.float16(), pa.float32(), pa.float64())
CELLS = 1 << 22  # rows times columns, those within structs too, that are in memory at one time, at most
INDEX = pa.int32()  # of categories that files bring together: as many as there may be


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Give the type that holds what both hold, without loss; None where there is none.

    Equal storage is one type (the view and large variants of text, binary and lists), null is any type, integers,
    floats and decimals of one scale go to the widest, times to the finest unit of one zone; never one kind to another.
    """
    if one.equals(other, check_metadata=True) and not isinstance(one, pa.DictionaryType):
        return one
    if types.is_null(one) or types.is_null(other):
        return other if types.is_null(one) else one
    if isinstance(one, pa.DictionaryType) or isinstance(other, pa.DictionaryType):
        return _common_categories(one, other)
    for family in (TEXTS, BINARIES, FLOATS):
        if one in family and other in family:
            return (
                family[max(family.index(one), family.index(other))]
                if family is FLOATS
                else _large(family, one, other)
            )
    return _common_integer(one, other) or _common_time(one, other) or _common_nested(one, other)


def _large(family: tuple[pa.DataType, ...], one: pa.DataType, other: pa.DataType) -> pa.DataType:
    plain, _, large = family
    return large if large in (one, other) else plain


def _common_categories(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    values = [kind.value_type if isinstance(kind, pa.DictionaryType) else kind for kind in (one, other)]
    common = common_type(*values)
    if common is None or not (isinstance(one, pa.DictionaryType) and isinstance(other, pa.DictionaryType)):
        return common
    return categories(common, ordered=bool(one.ordered and other.ordered))


def categories(
    values: pa.DataType, *, index: pa.DataType = INDEX, ordered: bool = False
) -> pa.DictionaryType[Any, Any, Any]:
    """Give the type of categories of these values; by default as many as there may be."""
    any_dictionary: Callable[..., pa.DictionaryType[Any, Any, Any]] = pa.dictionary
    return any_dictionary(index, values, ordered=ordered)


def _common_integer(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if types.is_decimal(one) and types.is_decimal(other):
        return _common_decimal(one, other)
    if not (types.is_integer(one) and types.is_integer(other)):
        return None
    for family in (SIGNED, UNSIGNED):
        if one in family and other in family:
            return family[max(family.index(one), family.index(other))]
    unsigned, signed = (one, other) if one in UNSIGNED else (other, one)
    least = max(UNSIGNED.index(unsigned) + 1, SIGNED.index(signed))
    return SIGNED[least] if least < len(SIGNED) else None


def _common_decimal(one: Any, other: Any) -> pa.DataType | None:
    if one.scale != other.scale:
        return None
    digits = max(one.precision, other.precision)
    wide = max(one.bit_width, other.bit_width)
    return pa.decimal256(digits, one.scale) if wide > 128 else pa.decimal128(digits, one.scale)


def _common_time(one: Any, other: Any) -> pa.DataType | None:
    if types.is_date(one) and types.is_date(other):
        return pa.date32()  # milliseconds that are no whole days do not fit, and are refused as they are read
    if types.is_timestamp(one) and types.is_timestamp(other) and one.tz == other.tz:
        return pa.timestamp(_finest(one, other), one.tz)
    if types.is_duration(one) and types.is_duration(other):
        return pa.duration(_finest(one, other))
    if types.is_time(one) and types.is_time(other):
        unit = _finest(one, other)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return None


def _finest(one: Any, other: Any) -> Any:
    return UNITS[max(UNITS.index(one.unit), UNITS.index(other.unit))]


def _common_nested(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if isinstance(one, pa.StructType) and isinstance(other, pa.StructType):
        return _common_struct(one, other)
    if isinstance(one, pa.MapType) and isinstance(other, pa.MapType):
        key, item = common_type(one.key_type, other.key_type), common_type(one.item_type, other.item_type)
        return pa.map_(key, item) if key is not None and item is not None else None
    if not (_is_list(one) and _is_list(other)):
        return None
    value = common_type(one.value_type, other.value_type)  # type: ignore[attr-defined]  # a list has it
    if value is None:
        return None
    large = any(types.is_large_list(kind) or types.is_large_list_view(kind) for kind in (one, other))
    return pa.large_list(value) if large else pa.list_(value)


def _common_struct(one: pa.StructType, other: pa.StructType) -> pa.DataType | None:
    if [field.name for field in one] != [field.name for field in other]:
        return None
    fields: list[pa.Field[Any]] = []
    for mine, theirs in zip(one, other, strict=True):
        kind = common_type(mine.type, theirs.type)
        if kind is None:
            return None
        fields.append(pa.field(mine.name, kind, nullable=mine.nullable or theirs.nullable))
    return pa.struct(fields)


def _is_list(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_list,
            types.is_large_list,
            types.is_list_view,
            types.is_large_list_view,
            types.is_fixed_size_list,
        )
    )


def as_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give a batch's columns the types of a schema with the same names.

    Raises:
        pa.ArrowInvalid: a value does not fit, such as a second of year 200000 in nanoseconds.
    """
    if batch.schema.types == schema.types:
        return batch
    columns = [_as_type(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _as_type(array: pa.Array[Any], kind: pa.DataType) -> pa.Array[Any]:
    if array.type == kind:
        return array
    if types.is_null(array.type):
        nulls: pa.Array[Any] = pa.nulls(len(array), kind)  # type: ignore[call-overload]  # any type will do
        return nulls
    if isinstance(array, pa.DictionaryArray):
        if not isinstance(kind, pa.DictionaryType):
            return _as_type(decoded(array), kind)
        values = _as_type(array.dictionary, kind.value_type)
        indices = array.indices.cast(kind.index_type)
        return pa.DictionaryArray.from_arrays(indices, values, ordered=bool(kind.ordered))
    if types.is_nested(array.type) and has_dictionary(array.type):
        return pa.array(array.to_pylist(), kind)  # no cast goes through categories within
    return array.cast(kind)


def decoded(array: pa.DictionaryArray[Any, Any]) -> pa.Array[Any]:
    """Give the values behind categories; those that are views as plain text, for Arrow takes none from views."""
    values = array.dictionary
    if types.is_string_view(values.type) or types.is_binary_view(values.type):
        values = values.cast(pa.string() if types.is_string_view(values.type) else pa.binary())
    return values.take(array.indices)


def parts(array: pa.Array[Any]) -> list[pa.Array[Any]]:
    """Give the arrays that an array is made of; none where it is not nested."""
    if isinstance(array, pa.DictionaryArray):
        return [array.dictionary]
    if isinstance(array, pa.StructArray):
        return [array.field(number) for number in range(array.type.num_fields)]
    if isinstance(array, pa.MapArray):
        return [array.keys, array.items]
    if isinstance(array, pa.ExtensionArray):
        return [array.storage]
    if isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        return [array.values]
    return []


def width(kinds: Iterable[pa.DataType]) -> int:
    """Count columns, in the place of structs and lists those that they are made of."""
    return sum(width([k.field(i).type for i in range(k.num_fields)]) if k.num_fields else 1 for k in kinds)


def has_dictionary(kind: pa.DataType, bits: int = 65) -> bool:
    """Say whether there are categories at any depth, with an index of fewer bits."""
    if isinstance(kind, pa.DictionaryType):
        return int(kind.index_type.bit_width) < bits or has_dictionary(kind.value_type, bits)
    return any(has_dictionary(kind.field(i).type, bits) for i in range(kind.num_fields))


def is_variant(kind: pa.DataType) -> bool:
    """Say whether a struct is what Parquet's VARIANT is to a reader that does not know it."""
    if not isinstance(kind, pa.StructType):
        return False
    parts = {field.name: field.type for field in kind}
    stored = all(types.is_binary(parts.get(name, pa.null())) for name in ("metadata", "value"))
    return stored and set(parts) <= {"metadata", "value", "typed_value"}
