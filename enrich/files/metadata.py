"""What a file says of its own columns, beside its schema: kept true when columns are added or left out.

Spark, pandas and others write their view of the schema under a key of their own, and believe it more than the file. A
key that can be told of the new columns is; one that cannot is dropped, and its reader goes by the file's schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pyarrow as pa
from pyarrow import types

if TYPE_CHECKING:
    from collections.abc import Callable

# Keys whose text is a schema in a language of its own (Avro, Thrift, Protocol Buffers, Iceberg).
DROPPED = frozenset(
    {
        b"avro.schema",
        b"iceberg.schema",
        b"parquet.avro.schema",
        b"parquet.proto.class",
        b"parquet.proto.descriptor",
        b"thrift.class",
        b"thrift.descriptor",
    }
)


class _Unsaid(LookupError):
    """The key has no word for a column's type."""


def retell_metadata(metadata: dict[bytes, bytes] | None, schema: pa.Schema) -> pa.Schema:
    """Give a schema what a file says of its columns, made true of these.

    Args:
        metadata: the file's.
        schema: the columns that there will be.
    """
    if metadata is None:
        return schema.remove_metadata()
    told: dict[bytes, bytes] = {}
    for key, text in metadata.items():
        if key in DROPPED:
            continue
        retell = _RETOLD.get(key)
        retold = text if retell is None else _retold(retell, text, schema)
        if retold is not None:
            told[key] = retold
    return schema.with_metadata(told)


def _retold(
    retell: Callable[[Any, pa.Schema], dict[str, Any] | None], text: bytes, schema: pa.Schema
) -> bytes | None:
    """Have a key's text told anew; None where it is not what its writer writes, or cannot be told."""
    try:
        said = retell(orjson.loads(text), schema)
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return None
    return None if said is None else orjson.dumps(said)


# --- Spark -----------------------------------------------------------------------------------------------


def _spark(said: Any, schema: pa.Schema) -> dict[str, Any]:
    """Spark's ``StructType`` as JSON (``DataType.json`` in its sources)."""
    known = {field["name"]: field for field in said["fields"]}
    fields = [known.get(field.name) or _spark_field(field.name, field.type) for field in schema]
    return {**said, "fields": fields}


def _spark_field(name: str, kind: pa.DataType) -> dict[str, Any]:
    return {"name": name, "type": _spark_type(kind), "nullable": True, "metadata": {}}


def _spark_type(kind: pa.DataType) -> Any:
    if isinstance(kind, pa.DictionaryType):
        return _spark_type(kind.value_type)
    if isinstance(kind, pa.StructType):
        return {"type": "struct", "fields": [_spark_field(field.name, field.type) for field in kind]}
    if isinstance(kind, pa.ListType | pa.LargeListType):
        return {"type": "array", "elementType": _spark_type(kind.value_type), "containsNull": True}
    return _name(kind).spark


# --- pandas ----------------------------------------------------------------------------------------------


def _pandas(said: Any, schema: pa.Schema) -> dict[str, Any]:
    """The columns as pandas' developer docs, "Storing pandas DataFrame objects in Apache Parquet format", have them."""
    known = {column.get("field_name", column["name"]): column for column in said["columns"]}
    columns = [known.get(field.name) or _pandas_column(field.name, field.type) for field in schema]
    index = [one for one in said["index_columns"] if isinstance(one, dict) or one in schema.names]
    return {**said, "columns": columns, "index_columns": index}


def _pandas_column(name: str, kind: pa.DataType) -> dict[str, Any]:
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    numpy_type = "object" if types.is_nested(kind) else _name(kind).numpy
    told = {"pandas_type": _pandas_type(kind), "numpy_type": numpy_type, "metadata": None}
    return {"name": name, "field_name": name, **told}


def _pandas_type(kind: pa.DataType) -> str:
    if isinstance(kind, pa.ListType | pa.LargeListType):
        return f"list[{_pandas_type(kind.value_type)}]"
    return "object" if types.is_nested(kind) else _name(kind).pandas


# --- others ----------------------------------------------------------------------------------------------


def _geo(said: Any, schema: pa.Schema) -> dict[str, Any] | None:
    """GeoParquet tells of its geometries alone."""
    columns = {name: told for name, told in said["columns"].items() if name in schema.names}
    return {**said, "columns": columns} if said["primary_column"] in columns else None


def _hugging_face(said: Any, schema: pa.Schema) -> dict[str, Any]:
    """The features of the `datasets` library."""
    known = said["info"]["features"]
    features = {field.name: known.get(field.name) or _feature(field.type) for field in schema}
    return {**said, "info": {**said["info"], "features": features}}


def _feature(kind: pa.DataType) -> dict[str, str]:
    found = _name(kind.value_type if isinstance(kind, pa.DictionaryType) else kind)
    return {"dtype": found.feature, "_type": "Value"}


_RETOLD: dict[bytes, Callable[[Any, pa.Schema], dict[str, Any] | None]] = {
    b"org.apache.spark.sql.parquet.row.metadata": _spark,
    b"pandas": _pandas,
    b"geo": _geo,
    b"huggingface": _hugging_face,
}


# --- types -----------------------------------------------------------------------------------------------


class _Names(NamedTuple):
    """How others call a type."""

    spark: str
    pandas: str
    numpy: str
    feature: str


_NAMES: tuple[tuple[Callable[[pa.DataType], bool], _Names], ...] = (
    (types.is_string, _Names("string", "unicode", "object", "string")),
    (types.is_large_string, _Names("string", "unicode", "object", "large_string")),
    (types.is_boolean, _Names("boolean", "bool", "bool", "bool")),
    (types.is_int8, _Names("byte", "int8", "int8", "int8")),
    (types.is_int16, _Names("short", "int16", "int16", "int16")),
    (types.is_int32, _Names("integer", "int32", "int32", "int32")),
    (types.is_int64, _Names("long", "int64", "int64", "int64")),
    (types.is_float32, _Names("float", "float32", "float32", "float32")),
    (types.is_float64, _Names("double", "float64", "float64", "float64")),
    (types.is_date32, _Names("date", "date", "object", "date32")),
    (types.is_null, _Names("void", "empty", "object", "null")),
)


def _name(kind: pa.DataType) -> _Names:
    for is_meant, names in _NAMES:
        if is_meant(kind):
            return names
    raise _Unsaid
