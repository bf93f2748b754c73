"""Which columns a prompt can hold: none with binary in it, at any depth, under whatever name."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyarrow import types

from enrich.errors import TemplateError
from enrich.files.common_types import is_variant
from enrich.prompt.pandas_values import NAME, pandas_texts

BINARY = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
TEXTUAL = ("arrow.uuid", "arrow.bool8")  # extension types that have a text though they are stored as bytes
INTERVAL_BYTES = 12  # months, days and milliseconds, four bytes each, as Parquet stores them
GEOMETRIES = (b"geoarrow.wkb", b"ogc.wkb")


def check_prompt_column(field: pa.Field[Any], where: str, *, whole_row: bool = False) -> None:
    """Keep a column out of prompts that has binary in it, or whose text nobody here knows.

    Args:
        field: the column.
        where: the step, for the message.
        whole_row: it is not named, but the row is written as a whole.

    Raises:
        TemplateError: it is binary, or there is some in it; or pandas wrote it and does not know it any more.
    """
    name = (field.metadata or {}).get(NAME, b"")
    try:
        pandas_texts(field)
    except ValueError as error:
        raise TemplateError(
            f"{where}: column `{field.name}` is a period or interval of pandas that it cannot read: {error}",
            hint="make it text where it is written: astype(str).",
        ) from None
    if not holds_binary(field.type):
        return
    if name in GEOMETRIES:
        what, hint = "is a geometry, stored as binary", "make it text where it is read: ST_AsText."
    elif is_variant(field.type):
        what = "is a VARIANT, stored as binary"
        hint = "make it text where it is read: to_json in Spark, a cast to JSON in DuckDB."
    elif types.is_nested(field.type):
        what, hint = f"holds binary ({field.type})", "take what is text in it into a column of its own."
    elif types.is_fixed_size_binary(field.type) and field.type.byte_width == INTERVAL_BYTES:
        what = f"is binary of {INTERVAL_BYTES} bytes, which is what an INTERVAL of Parquet is stored as"
        hint = "make an INTERVAL text where it is written: CAST(… AS VARCHAR) in DuckDB."
    else:
        what, hint = "is binary", "decode it first."
    if whole_row:
        hint = f'write the others: {{% for name, value in row.items() if name != "{field.name}" %}}{{{{ name }}}}: {{{{ value }}}} {{% endfor %}}'
    text = f"{where}: column `{field.name}` {what}, which no prompt can hold"
    raise TemplateError(text if len(text) < 300 else f"{text[:200]}…, which no prompt can hold", hint=hint)


def holds_binary(kind: pa.DataType) -> bool:
    """Say whether a type has binary in it, at any depth, that has no text."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.extension_name not in TEXTUAL and holds_binary(kind.storage_type)
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        return holds_binary(kind.value_type)
    if any(is_kind(kind) for is_kind in BINARY):
        return True
    return any(holds_binary(kind.field(i).type) for i in range(kind.num_fields))
