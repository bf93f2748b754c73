"""JSON Lines, losslessly: one schema over all files, and never a number or a text changed by its type."""

from __future__ import annotations

import bisect
import codecs
import io
import itertools
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import json as arrow_json

from enrich.base.values import LINE
from enrich.errors import InputError
from enrich.files.common_types import CELLS
from enrich.files.input_files import open_text, readable
from enrich.files.json_array import MAX_DEPTH, array_lines, is_array
from enrich.files.json_tables import check_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from enrich.files.input_files import SourceFile

BLOCK_BYTES = 1 << 22  # bytes read and parsed at once; a longer line makes its block longer
BEGIN_BYTES = 4096  # bytes of a file's begin that tell an array from lines
MAX_EXACT = 2**53  # the largest integer up to which a double holds every one
SUSPECT = re.compile(rb"[:\[,]\s*-?(?:NaN|Inf|\d{16})")  # lines that may hold what JSON or a double cannot

NOTHING = pa.schema([])

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JsonlReader:
    """JSON Lines files that were validated, ready to be streamed.

    Attributes:
        schema: the columns chosen, typed over all files.
        rows: rows per path.
    """

    schema: pa.Schema
    rows: Mapping[str, int]

    def read(
        self,
        file: SourceFile,
        columns: Sequence[str],
        max_rows: int,
        *,
        written: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Stream at least one column of a file."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        with readable(file.path):
            for block in _cut(_blocks(file), lambda _: max_rows):
                table = _parse(block.data, schema)
                if written:
                    lines = [line for line in block.data.split(b"\n") if line.strip()]
                    table = table.append_column(LINE, pa.array(lines, pa.large_binary()))
                yield from table.to_batches()


@dataclass(frozen=True, slots=True)
class _Block:
    """Whole lines of a file, and the number of the first."""

    data: bytes
    line: int
    unit: str = "line"  # or the elements of an array, each a line here


@dataclass(slots=True)
class _Findings:
    """What the lines read so far have shown: the schema, and integers that a double would round."""

    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    wide: dict[Path, tuple[str, str]] = field(default_factory=dict)


def scan_jsonl(
    files: Sequence[SourceFile], columns: Callable[[Sequence[str]], list[str]], known: pa.Schema = NOTHING
) -> JsonlReader:
    """Read all files once, from end to end: validate them, count rows, find one schema.

    A key that is missing is null. Texts stay texts, also those that look like times; integers are int64,
    numbers with a fraction float64, a column with both float64 as long as that holds every integer exactly.

    Args:
        files: at least one file.
        columns: chooses, from all names, those to be read.
        known: the schema of files read before, which is widened; what it contradicts is left out of it.

    Raises:
        InputError: naming the file, the line and what is wrong there.
    """
    found = _Findings()
    rows = {}
    for file in files:
        with readable(file.path):
            check_rows(file)
            rows[file.path] = sum(
                _survey(file, block, found) for block in _cut(_blocks(file), _lines_of_any_keys)
            )
        if not rows[file.path]:
            raise InputError(f"{file.path} is empty: it has no row", hint="leave it out.")
    found.schema = _widened(known, found.schema)
    for path, (where, digits) in found.wide.items():
        if pa.types.is_floating(_type_at(found.schema, path)):
            raise InputError(
                f"{where}: `{'.'.join(path)}` is {digits}, which a column of numbers cannot hold exactly",
                hint="write it as a text, in quotes, on every line.",
            )
    schema = pa.schema([(f.name, _replace(f.type, pa.types.is_null)) for f in found.schema])
    return JsonlReader(pa.schema([schema.field(name) for name in columns(schema.names)]), rows)


def _widened(known: pa.Schema, schema: pa.Schema) -> pa.Schema:
    """Widen what was known, column by column; where the two cannot be one, what the files say counts."""
    for field_ in known:
        try:
            schema = pa.unify_schemas([schema, pa.schema([field_])], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            continue
    first = [name for name in known.names if name in schema.names]
    rest = [name for name in schema.names if name not in known.names]
    return pa.schema([schema.field(name) for name in (*first, *rest)])


def _blocks(file: SourceFile) -> Iterator[_Block]:
    """Cut a file into blocks of whole lines, a byte order mark left out."""
    with open_text(file) as stream:
        if is_array(stream.read(BEGIN_BYTES)):
            yield from _array_blocks(file)
            return
    line = 1
    with open_text(file) as stream:
        rest = stream.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
        while chunk := stream.read(BLOCK_BYTES):
            lines, newline, tail = chunk.rpartition(b"\n")
            if not newline:
                rest += chunk
                continue
            block = _Block(rest + lines + newline, line)
            yield block
            line, rest = line + block.data.count(b"\n"), tail
    if rest:
        yield _Block(rest, line)


def _cut(blocks: Iterable[_Block], most: Callable[[_Block], int]) -> Iterator[_Block]:
    """Cut blocks into ones of at most so many lines."""
    for block in blocks:
        count = most(block)
        lines = block.data.split(b"\n")
        if len(lines) <= count:
            yield block
            continue
        for start in range(0, len(lines), count):
            yield _Block(b"\n".join(lines[start : start + count]), block.line + start, block.unit)


def _lines_of_any_keys(block: _Block) -> int:
    """Say how many lines fit into `CELLS` though each of their keys be another."""
    keys = block.data.count(b":") / max(1, block.data.count(b"\n"))
    return max(1, math.isqrt(int(CELLS / max(1, keys))))


def _array_blocks(file: SourceFile) -> Iterator[_Block]:
    """Give the elements of a file that is one array, in blocks."""
    lines: list[bytes] = []
    number, size = 1, 0
    with open_text(file) as stream:
        for line in array_lines(stream, file.path):
            lines.append(line)
            size += len(line)
            if size >= BLOCK_BYTES:
                yield _Block(b"".join(lines), number, "element")
                number, size, lines = number + len(lines), 0, []
    if lines:
        yield _Block(b"".join(lines), number, "element")


def _survey(file: SourceFile, block: _Block, found: _Findings) -> int:
    """Validate a block and widen the schema by it; give its number of rows."""
    _check_utf8(file, block)
    lines = block.data.split(b"\n")
    for number, line in enumerate(lines, block.line):
        _check_line(line, f"{file.path} {block.unit} {number}", found)
    try:
        found.schema = _widen(found.schema, lines)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise _culprit(file, block, found.schema) from None
    return _count(lines)


def _count(lines: Iterable[bytes]) -> int:
    return sum(1 for line in lines if line.strip())


def _widen(schema: pa.Schema, lines: Sequence[bytes]) -> pa.Schema:
    """Widen a schema so that it holds these lines too.

    Raises:
        pa.ArrowInvalid: a line is not one JSON object, or lines differ in a key's type.
        pa.ArrowTypeError: a key's type is not the schema's.
    """
    table = _parse(b"\n".join(lines))
    if table.num_rows != _count(lines):
        raise pa.ArrowInvalid("not one whole JSON object")
    fields = [(f.name, _replace(f.type, pa.types.is_timestamp)) for f in table.schema]
    return pa.unify_schemas([schema, pa.schema(fields)], promote_options="permissive")


def _parse(data: bytes, schema: pa.Schema | None = None) -> pa.Table:
    options = arrow_json.ParseOptions(
        explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
    )
    if not data.strip():
        return (schema or pa.schema([])).empty_table()
    reading = arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    return arrow_json.read_json(io.BytesIO(data), read_options=reading, parse_options=options)


def _replace(type_: pa.DataType, is_meant: Callable[[pa.DataType], bool]) -> pa.DataType:
    """Put string in the place of every such type, at any depth."""
    if isinstance(type_, pa.StructType):
        return pa.struct([(f.name, _replace(f.type, is_meant)) for f in type_])
    if isinstance(type_, pa.ListType):
        return pa.list_(_replace(type_.value_type, is_meant))
    return pa.string() if is_meant(type_) else type_


# --- finding the line of an error ----------------------------------------------------------------------


def _check_utf8(file: SourceFile, block: _Block) -> None:
    try:
        block.data.decode()
    except UnicodeDecodeError as error:
        line = block.line + block.data.count(b"\n", 0, error.start)
        raise InputError(
            f"{file.path} line {line}: {error.object[error.start : error.end]!r} is not UTF-8, as JSON must be",
            hint=f"convert it, for example with iconv -f latin1 -t utf-8 {file.path}",
        ) from None


def _culprit(file: SourceFile, block: _Block, schema: pa.Schema) -> InputError:
    """Find the line that no longer reads, or no longer fits what came before it."""
    lines = block.data.split(b"\n")

    def breaks(count: int) -> bool:
        try:
            _widen(schema, lines[:count])
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return True
        return False

    good = bisect.bisect_left(range(1, len(lines)), True, key=breaks)  # noqa: FBT003  # what is searched for
    problem = ""
    try:
        _widen(_widen(schema, lines[:good]), lines[good : good + 1])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        problem = re.sub(r"^JSON parse error: |^Unable to merge: | in row \d+$", "", str(error))
    return InputError(
        f"{file.path} {block.unit} {block.line + good}: {problem}",
        hint="each line must be one JSON object, and a key must hold one type throughout.",
    )


def _check_line(line: bytes, where: str, found: _Findings) -> None:
    """Look at a line before Arrow's parser does, which does not survive all that is no object.

    Closely where it may be too deep, or hold NaN or an integer that a double would round.
    """
    text = line.strip()
    if text and not text.startswith(b"{"):
        shown = text[:40].decode("utf-8", "replace") + ("…" if len(text) > 40 else "")
        raise InputError(
            f"{where} is no JSON object: {shown}",
            hint="each line must be one whole object, such as {…}; an array must be written as one object a line.",
        )
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
        raise InputError(
            f"{where}: nested deeper than {MAX_DEPTH} levels", hint="write the inner values as texts."
        )
    if SUSPECT.search(line):
        for path, digits in _wide_integers(_load(line, where)):
            found.wide.setdefault(path, (where, digits))


def _depth(line: bytes) -> int:
    """Count the levels of brackets and braces, those inside texts left out."""
    brackets = re.findall(rb"[\[\]{}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line))
    return max(itertools.accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


class _Integer(str):
    """The digits of an integer beyond what a double holds exactly."""

    __slots__ = ()


def _load(line: bytes, where: str) -> Any:
    def integer(digits: str) -> int | _Integer:
        return int(digits) if len(digits) < 20 and abs(int(digits)) <= MAX_EXACT else _Integer(digits)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(line, parse_int=integer, parse_constant=refuse)
    except ValueError as error:
        raise InputError(
            f"{where}: {error}", hint="each line must be one JSON object; write null for no value."
        ) from None


def _wide_integers(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    if isinstance(value, _Integer):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _wide_integers(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from _wide_integers(item, (*path, "[]"))


def _type_at(schema: pa.Schema, path: Path) -> pa.DataType:
    type_: pa.DataType = pa.struct(list(schema))
    for key in path:
        if isinstance(type_, pa.StructType):
            type_ = type_.field(key).type
        elif isinstance(type_, pa.ListType):
            type_ = type_.value_type
    return type_
