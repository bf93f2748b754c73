"""Columns become what text files hold: cells of CSV, and values of JSON.

Nested values are JSON (a map an object), binary is base64, durations are seconds, moments ISO 8601, decimals texts, and what
a format has no form for is text too: ``infinity``, ``10000-01-01``, ``24:00:00``. NaN is ``nan`` in CSV and null in JSON. A
text of CSV that a spreadsheet would run as a formula gets a ``'`` in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import orjson
import pyarrow as pa
from pyarrow import types

from enrich.base.moments import NANOSECONDS
from enrich.base.texts import as_json, text_of
from enrich.base.values import values
from enrich.errors import OutputError
from enrich.files.common_types import decoded, parts

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMULA = r"\A([=+\-@\t\x00\r])"  # how a text starts that a spreadsheet may run (OWASP ASVS 1.2.10)
TEXTS = (types.is_string, types.is_large_string, types.is_string_view)
AS_THEY_ARE = (*TEXTS, types.is_boolean, types.is_integer, types.is_floating, types.is_null)  # to JSON
PLAIN = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_null)  # to CSV
SECONDS = (-62_135_510_400, 253_402_214_400)  # the years 1 to 9999, less a day at each end for zones
DAY_SECONDS = 86_400  # seconds
NO_TEXT = "UTF8"  # what Arrow says of bytes that are no text


def csv_cells(array: pa.Array[Any], name: str, *, guard: bool = True) -> pa.Array[Any]:
    """Turn a column into one that the CSV writer takes; with ``guard`` texts are made safe for spreadsheets.

    Raises:
        OutputError: it holds bytes that are no text, or a moment in a zone that this machine does not know.
    """
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        return csv_cells(decoded(array), name, guard=guard)
    if types.is_string(kind) or types.is_large_string(kind):
        check_text(array, name)
        return pc.replace_substring_regex(array, FORMULA, r"'\1", max_replacements=1) if guard else array
    if types.is_duration(kind):
        size = 10**9 // NANOSECONDS[cast("Any", kind).unit]
        return pc.divide(array.view(pa.int64()).cast(pa.float64(), safe=False), float(size))
    if types.is_temporal(kind) and not types.is_interval(kind):
        return array if _is_near(array) else pa.array(_texts(array, name), pa.string())
    if any(is_kind(kind) for is_kind in PLAIN):
        return array
    return csv_cells(pa.array(_nested_texts(array, name), pa.string()), name, guard=guard)


def csv_type(kind: pa.DataType) -> pa.DataType:
    """Give the type of a column's cells, as far as none of its dates and times has to be a text."""
    if isinstance(kind, pa.DictionaryType):
        return csv_type(kind.value_type)
    if types.is_duration(kind):
        return pa.float64()
    plain = types.is_string(kind) or types.is_large_string(kind) or any(is_kind(kind) for is_kind in PLAIN)
    return kind if plain or (types.is_temporal(kind) and not types.is_interval(kind)) else pa.string()


def _is_near(array: pa.Array[Any]) -> bool:
    """Say whether Arrow writes all of these dates, times or moments as they are."""
    import pyarrow.compute as pc

    kind = cast("Any", array.type)
    bounds: Any = pc.min_max(array.view(pa.int64() if kind.bit_width == 64 else pa.int32())).as_py()
    least: int | None = bounds["min"]
    most: int = bounds["max"]
    if least is None:
        return True
    if types.is_date32(kind):
        least, most, size = least * DAY_SECONDS, most * DAY_SECONDS, 1
    else:
        size = 1000 if types.is_date64(kind) else 10**9 // NANOSECONDS[kind.unit]
    first, last = (0, DAY_SECONDS - 1) if types.is_time(kind) else SECONDS
    return first * size <= least and most < (last + 1) * size


def _texts(array: pa.Array[Any], name: str) -> list[str | None]:
    try:
        return [None if value is None else text_of(value) for value in values(array)]
    except (ValueError, TypeError) as error:
        raise _inexpressible(name, error) from None


def _nested_texts(array: pa.Array[Any], name: str) -> list[str | None]:
    found = json_values(array, name)
    return [v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in found]


def json_values(array: pa.Array[Any], name: str) -> list[Any]:
    """Give a column's values as JSON has them.

    Raises:
        OutputError: it holds bytes that are no text, or a moment in a zone that this machine does not know.
    """
    if isinstance(array, pa.DictionaryArray):
        return json_values(decoded(array), name)
    if any(is_kind(array.type) for is_kind in TEXTS):
        check_text(array, name)
    found = values(array)
    if any(is_kind(array.type) for is_kind in AS_THEY_ARE):
        return found
    try:
        return [value if value is None else as_json(value) for value in found]
    except (ValueError, TypeError) as error:
        raise _inexpressible(name, error) from None


def json_lines(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> bytes:
    """Write rows as one JSON object a line."""
    rows = zip(*columns, strict=True)
    return b"".join(orjson.dumps(dict(zip(names, row, strict=True))) + b"\n" for row in rows)


def check_text(array: pa.Array[Any], name: str) -> None:
    """Hold every text of a column to UTF-8.

    Raises:
        OutputError: some bytes are none.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        if NO_TEXT not in str(error):  # a value such as 24:00:00, which has a text; bytes may lie beside it
            for part in parts(array):
                check_text(part, name)
            return
        raise OutputError(
            f"the column `{name}` holds bytes that are no UTF-8, which text files are: {error}",
            hint="choose Parquet as the output, or leave it out with input.columns.",
        ) from None


def _inexpressible(name: str, error: Exception) -> OutputError:
    return OutputError(
        f"the column `{name}` holds a value that text cannot express: {error}",
        hint="choose Parquet as the output, or leave it out with input.columns.",
    )
