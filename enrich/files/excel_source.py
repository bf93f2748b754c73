"""Sheets of workbooks (.xlsx, .xlsm, .xlsb, .xls, .ods): each cell as it is stored, each column of one type."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import logging
import re
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.base.texts import text_of
from enrich.errors import InputError, did_you_mean
from enrich.files.common_types import as_schema
from enrich.files.drivers import driver
from enrich.files.input_files import open_bytes, readable
from enrich.files.typed_files import agreed_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from enrich.config import InputConfig
    from enrich.files.input_files import SourceFile
    from enrich.files.typed_files import Chooser

    Kind = type | None
    Row = list[Any]

CHUNK_ROWS = 8192  # rows that are Python objects at one time
MOST_ROWS = 1_048_576  # of a sheet
MOST_PLAIN = 128 << 20  # bytes that a part of a workbook may unpack to, whatever it says
MOST_TIMES = 150  # times its packed size that a larger one may; sheets of values come to 5 to 30
MOST_EXACT = 2**53  # up to here a number of a sheet, which is a double, is an integer without doubt
RANGE = re.compile(r"\$?([A-Z]{1,3})\$?(\d*)(?::\$?([A-Z]{1,3})\$?(\d*))?", re.IGNORECASE)
# What a column whose cells are all of these kinds becomes; any other mixture becomes text.
TYPES: tuple[tuple[frozenset[Kind], pa.DataType], ...] = (
    (frozenset({str}), pa.string()),
    (frozenset({bool}), pa.bool_()),
    (frozenset({int}), pa.int64()),
    (frozenset({int, float}), pa.float64()),
    (frozenset({dt.date}), pa.date32()),
    (frozenset({dt.date, dt.datetime}), pa.timestamp("us")),
    (frozenset({dt.time}), pa.time64("us")),
    (frozenset({dt.timedelta}), pa.duration("us")),
)

log = logging.getLogger("enrich")


@dataclass(frozen=True, slots=True)
class ExcelReader:
    """One sheet of each workbook, read whole: a sheet has `MOST_ROWS` at most.

    Attributes:
        schema: the columns chosen.
        rows: rows per path.
        tables: their values, per path.
    """

    schema: pa.Schema
    rows: Mapping[str, int]
    tables: Mapping[str, pa.Table]

    def read(self, file: SourceFile, columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        """Give at least one column of a sheet."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        for batch in self.tables[file.path].select(list(columns)).to_batches(max_chunksize=max_rows):
            yield as_schema(batch, schema)


@dataclass(frozen=True, slots=True)
class _Area:
    """Part of a sheet, counted from 0; without an end where that is None."""

    top: int
    left: int
    bottom: int | None = None
    right: int | None = None


def scan_excel(files: Sequence[SourceFile], config: InputConfig, columns: Chooser) -> ExcelReader:
    """Read a sheet of each file.

    A cell that is empty, or holds an error such as `#N/A`, is null; of a formula its last result counts. A column of
    numbers without a fraction is int64. One with texts among other values is text, with numbers as Python writes them and
    `TRUE` and `FALSE`.

    Raises:
        InputError: a file is no workbook or is encrypted, there is no such sheet, or the sheets do not agree.
        ConfigError: what reads them is not installed.
    """
    sheets = {file.path: _Sheet(file, config) for file in files}
    kinds: dict[str, set[Kind]] = {}
    for sheet in sheets.values():
        for name, found in sheet.kinds().items():
            kinds.setdefault(name, set()).update(found)
    tables = {path: sheet.table(kinds) for path, sheet in sheets.items()}
    rows = {path: table.num_rows for path, table in tables.items()}
    schemas = {path: table.schema for path, table in tables.items()}
    return ExcelReader(agreed_schema(schemas, rows, columns), rows, tables)


class _Sheet:
    """The table that lies on a sheet."""

    def __init__(self, file: SourceFile, config: InputConfig) -> None:
        self._path = file.path
        calamine = driver("python_calamine", "excel", "a workbook")
        with (
            readable(file.path),
            open_bytes(file) as stream,
            _said_by(calamine, file.path),
            calamine.CalamineWorkbook.from_filelike(_sound(stream.read(), file.path)) as book,
        ):
            self._sheet = book.get_sheet_by_index(_index(calamine, book, file.path, config.sheet))
        self._where = f"{file.path}, sheet {self._sheet.name}"
        self._start: tuple[int, int] | None = self._sheet.start
        if self._start is None:
            raise InputError(f"{self._where} is empty", hint="name another with input.sheet.")
        area = _area(config.range) if config.range else _Area(*self._start)
        self._area = area
        header = area.top if config.header_row is None else config.header_row - 1
        self._first = max(area.top, header + 1)
        self._names = self._named(header)

    def _rows(self, first: int, last: int | None) -> Iterator[Row]:
        """Give rows of the sheet, cut to the area's columns; `iter_rows` begins with the first row and the first column used."""
        left = self._start[1] if self._start else 0
        from_, to = self._area.left - left, None if self._area.right is None else self._area.right + 1 - left
        before = [""] * -from_
        for row in itertools.islice(self._sheet.iter_rows(), first, last):
            yield [*before, *row[max(0, from_) : None if to is None else max(0, to)]]

    def _body(self) -> Iterator[list[Row]]:
        """Give the rows below the header, some at a time, without empty ones at the end."""
        bottom = self._area.bottom
        rows = self._rows(self._first, None if bottom is None else bottom + 1)
        empty: list[Row] = []
        kept: list[Row] = []
        for row in rows:
            if all(cell == "" for cell in row):
                empty.append(row)
                continue
            kept += [*empty, row]
            empty = []
            if len(kept) >= CHUNK_ROWS:
                yield kept
                kept = []
        if kept:
            yield kept

    def _named(self, header: int) -> list[str]:
        """Name the columns by the header's cells, or `column_1`, … where one is empty or there is none."""
        row = next(self._rows(header, header + 1), []) if header >= 0 else []
        width = max((len(one) for chunk in self._body() for one in chunk), default=0)
        cells = [*row, *[""] * (width - len(row))]
        if not any(cell != "" for cell in cells) and not width:
            raise InputError(
                f"{self._where} has no table there", hint="see input.range and input.header_row."
            )
        if width > 1 and sum(cell != "" for cell in row) == 1:
            self._tell_of_title(header, width)
        return [_written(cell) if cell != "" else f"column_{i + 1}" for i, cell in enumerate(cells)]

    def _tell_of_title(self, header: int, width: int) -> None:
        """Say that what names the columns is one text above several of them, and which row may name them instead."""
        rows = enumerate(next(self._body(), []), self._first + 1)
        full = next((n for n, row in rows if sum(cell != "" for cell in row) == width), None)
        log.warning(
            "%s: row %d has one cell, and the table below it %d columns. If that is a title, set input.header_row%s",
            *(self._where, header + 1, width, f": {full}" if full else ""),
        )

    def kinds(self) -> dict[str, set[Kind]]:
        """Say of which kinds the cells of each column are; columns that have neither a name nor a value are left out."""
        found: list[set[Kind]] = [set() for _ in self._names]
        for chunk in self._body():
            for column, cells in zip(found, zip(*chunk, strict=True), strict=False):
                column.update(map(_kind, cells))
        self._kept = [
            i for i, name in enumerate(self._names) if found[i] - {None} or name != f"column_{i + 1}"
        ]
        return {self._names[i]: found[i] - {None} for i in self._kept}

    def table(self, kinds: Mapping[str, set[Kind]]) -> pa.Table:
        """Give the values, typed by what the cells of each column are in all sheets."""
        names = [self._names[i] for i in self._kept]
        schema = pa.schema([(name, _type(kinds[name])) for name in names])
        batches = []
        for chunk in self._body():
            columns = list(zip(*chunk, strict=True))
            cells = [columns[i] if i < len(columns) else [""] * len(chunk) for i in self._kept]
            arrays = [_array(c, field.type) for c, field in zip(cells, schema, strict=True)]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        return pa.Table.from_batches(batches, schema)


def _sound(content: bytes, path: str) -> io.BytesIO:
    """Give a workbook to be read, unless a part of it would unpack to far more than a sheet can say.

    Raises:
        InputError: it would.
    """
    stream = io.BytesIO(content)
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as parts:
            for part in parts.infolist():
                if part.file_size > MOST_PLAIN and part.file_size > MOST_TIMES * max(1, part.compress_size):
                    raise InputError(
                        f"{path} cannot be read as a workbook: {part.filename} takes {part.compress_size:,} bytes and unpacks "
                        f"to {part.file_size:,}",
                        hint="save a copy in which unused rows and columns are deleted, and read that.",
                    )
    stream.seek(0)
    return stream


@contextmanager
def _said_by(calamine: Any, path: str) -> Iterator[None]:
    """Put what is wrong with a workbook into words."""
    try:
        yield
    except calamine.PasswordError:
        raise InputError(
            f"{path} is protected by a password", hint="save a copy without one, and read that."
        ) from None
    except calamine.CalamineError as error:
        raise InputError(
            f"{path} cannot be read as a workbook: {error}", hint="is it whole, and of the format it claims?"
        ) from None


def _index(calamine: Any, book: Any, path: str, wanted: str | int | None) -> int:
    """Find a sheet by its name or its number from 1; by default the first that can be seen."""
    names: list[str] = book.sheet_names
    if wanted is None:
        shown = [
            i
            for i, sheet in enumerate(book.sheets_metadata)
            if sheet.visible == calamine.SheetVisibleEnum.Visible
        ]
        if not names:
            raise InputError(f"{path} has no sheet")
        index = (shown or [0])[0]
        if len(names) > 1:
            log.info("%s: the sheet `%s` is read, of %s", path, names[index], ", ".join(names))
        return index
    if isinstance(wanted, int):
        if wanted <= len(names):
            return wanted - 1
        raise InputError(f"{path} has no sheet {wanted}", hint=f"it has {len(names)}: {', '.join(names)}.")
    if wanted not in names:
        raise InputError(f"{path} has no sheet `{wanted}`", hint=did_you_mean(wanted, names))
    return names.index(wanted)


def _area(text: str) -> _Area:
    """Read a range such as `B3:F200`, `B:F`, `B3:F` or `B3`, which has no end."""
    found = RANGE.fullmatch(text)
    if found is None:  # the configuration has seen to it
        raise InputError(f"{text} is no range of cells", hint="write for example B3:F200.")
    left, top, right, bottom = found.groups()
    return _Area(
        int(top or 1) - 1,
        _column(left),
        int(bottom) - 1 if bottom else None,
        _column(right) if right else None,
    )


def _column(letters: str) -> int:
    """Count a column from 0: A, …, Z, AA, …."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


# --- cells ---------------------------------------------------------------------------------------------


def _kind(cell: Any) -> Kind:
    """Give the kind of a cell; every number of a sheet is a double, and one without a fraction is meant as an integer."""
    if cell == "" and isinstance(cell, str):
        return None
    kind = type(cell)
    return int if kind is float and cell.is_integer() and abs(cell) <= MOST_EXACT else kind


def _type(kinds: set[Kind]) -> pa.DataType:
    return next((kind for known, kind in TYPES if kinds <= known), pa.string())


def _array(cells: Sequence[Any], kind: pa.DataType) -> pa.Array[Any]:
    convert = _CONVERTED.get(str(kind))
    if convert is None:
        return pa.array([None if cell == "" else cell for cell in cells], kind)
    return pa.array([None if cell == "" else convert(cell) for cell in cells], kind)


def _moment(cell: dt.date) -> dt.datetime:
    return cell if isinstance(cell, dt.datetime) else dt.datetime.combine(cell, dt.time())


def _written(cell: Any) -> str:
    """Write a cell as text."""
    if isinstance(cell, bool):
        return str(cell).upper()
    return text_of(int(cell) if _kind(cell) is int else cell)


_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "string": _written,
    "int64": int,
    "double": float,
    "timestamp[us]": _moment,
}
