"""JSON files that hold a whole table in one object, which as a row would be asked about once, and as nobody meant it."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from enrich.errors import InputError
from enrich.files.input_files import open_text

if TYPE_CHECKING:
    import pyarrow as pa

    from enrich.files.input_files import SourceFile

BEGIN_BYTES = 1 << 16  # of a file, in which its shape shows
READ_BYTES = 1 << 20  # bytes looked at once for a second object
_TEXT = rb'"(?:[^"\\]|\\.)*+"'
# How pandas' `to_json` begins, by `orient`: columns is its default.
SHAPES = {
    "split": rb'\{\s*"columns"\s*:\s*\[[^\[\]{}]*+\]\s*,\s*"(?:index|data)"\s*:\s*\[',
    "table": rb'\{\s*"schema"\s*:\s*\{\s*"fields"\s*:\s*\[',
    "columns": rb"\{\s*" + _TEXT + rb'\s*:\s*\{\s*"0"\s*:',
    "index": rb'\{\s*"0"\s*:\s*\{\s*"',
}
_SHAPES = {name: re.compile(pattern) for name, pattern in SHAPES.items()}


def check_rows(file: SourceFile) -> None:
    """Refuse a file that is one object with a whole table in it.

    Raises:
        InputError: naming the shape, and how to write rows.
    """
    with open_text(file) as stream:
        start = stream.read(BEGIN_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        shape = next((name for name, pattern in _SHAPES.items() if pattern.match(start)), None)
        if shape is None or _has_another(start, stream):
            return
    raise InputError(
        f"{file.path} is one object with a whole table in it, as pandas writes it with orient={shape!r}",
        hint="write a row a line: to_json(…, orient='records', lines=True).",
    )


def _has_another(chunk: bytes, stream: pa.NativeFile) -> bool:
    """Say whether an object begins a line behind the first one, which is how rows stand."""
    last = b""
    while chunk:
        if re.search(rb"[\r\n]\{", last + chunk):
            return True
        last, chunk = chunk[-1:], stream.read(READ_BYTES)
    return False
