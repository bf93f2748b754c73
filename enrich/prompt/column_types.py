"""Which columns a prompt can hold: none with binary in it, at any depth, under whatever name."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyarrow import types

from enrich.errors import TemplateError

BINARY = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
TEXTUAL = ("arrow.uuid", "arrow.bool8")  # extension types that have a text though they are stored as bytes
EXTENSION = b"ARROW:extension:name"  # on a field whose extension type is not registered
GEOMETRIES = (b"geoarrow.wkb", b"ogc.wkb")


def refuse_binary(field: pa.Field[Any], where: str) -> None:
    """Keep a column with binary in it out of prompts.

    Args:
        field: the column.
        where: the step, for the message.

    Raises:
        TemplateError: it is binary, or there is some in it.
    """
    if not _holds_binary(field.type):
        return
    name = (field.metadata or {}).get(EXTENSION, b"")
    if name in GEOMETRIES:
        what, hint = "is a geometry, stored as binary", "make it text where it is read: ST_AsText."
    elif _is_variant(field.type):
        what = "is a VARIANT, stored as binary"
        hint = "make it text where it is read: to_json in Spark, a cast to JSON in DuckDB."
    elif types.is_nested(field.type):
        what, hint = f"holds binary ({field.type})", "take what is text in it into a column of its own."
    else:
        what, hint = "is binary", "decode it first."
    text = f"{where}: column `{field.name}` {what}, which no prompt can hold"
    raise TemplateError(text if len(text) < 300 else f"{text[:200]}…, which no prompt can hold", hint=hint)


def _holds_binary(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.extension_name not in TEXTUAL and _holds_binary(kind.storage_type)
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        return _holds_binary(kind.value_type)
    if any(is_kind(kind) for is_kind in BINARY):
        return True
    return any(_holds_binary(kind.field(i).type) for i in range(kind.num_fields))


def _is_variant(kind: pa.DataType) -> bool:
    """Say whether a struct is what Parquet's VARIANT is to a reader that does not know it."""
    if not isinstance(kind, pa.StructType):
        return False
    names = {field.name: field.type for field in kind}
    return set(names) <= {"metadata", "value", "typed_value"} and all(
        types.is_binary(names.get(name, pa.null())) or types.is_large_binary(names.get(name, pa.null()))
        for name in ("metadata", "value")
    )
