"""Record batches become a workbook (.xlsx): typed cells, a header that stays in sight, statuses in colour.

What a cell cannot hold as it is becomes text: integers of more than 15 digits, decimals of more, moments with a time zone,
dates before March 1900, negative durations, NaN and the infinities. A text longer than a cell's is refused, never cut.
"""

from __future__ import annotations

import datetime as dt
import math
import tempfile
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pyarrow import types

from enrich.base.texts import text_of
from enrich.base.values import values
from enrich.errors import OutputError
from enrich.files.cells import TEXTS, check_text, csv_cells
from enrich.files.common_types import decoded
from enrich.files.drivers import driver
from enrich.records import STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Put = Callable[[int, int, Any], Any]

MOST_ROWS = 1_048_576  # of a sheet, its header included
MOST_COLUMNS = 16_384
MOST_TEXT = 32_767  # UTF-16 units in a cell
MOST_EXACT = 10**15 - 1  # Excel shows and keeps 15 digits of a number
FIRST_DAY = dt.date(1900, 3, 1)  # before it, Excel has a 29 February 1900
WIDE, NARROW = 40, 14  # characters that a column shows: of texts, of anything else
COLOURS = {"ok": "#C6EFCE", "skipped": "#EDEDED", "pending": "#DDEBF7"}  # others did not end well,
TROUBLED = "#FFC7CE"  # or wait for somebody:
DOUBTFUL = "#FFEB9C"
COPY_BYTES = 1 << 20
PLAIN = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal)


class ExcelWriter:
    """Writes one sheet, row after row, through files of the system's temporary folder."""

    keeps_manifest: ClassVar[bool] = False

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema, given: Collection[str]) -> None:
        xlsxwriter = driver("xlsxwriter", "excel", "an output that is a workbook")
        if len(schema) > MOST_COLUMNS:
            raise OutputError(
                f"the output has {len(schema):,} columns; a sheet has at most {MOST_COLUMNS:,}",
                hint="choose fewer with output.columns, or another format.",
            )
        self._schema = schema
        self._not_made = xlsxwriter.exceptions.FileCreateError
        self._scratch = tempfile.TemporaryDirectory(prefix="beatra-enrich-")
        self._stream = stream
        self._made = Path(self._scratch.name, "made.xlsx")
        self._book = xlsxwriter.Workbook(self._made, {"constant_memory": True, "tmpdir": self._scratch.name})
        self._sheet = self._book.add_worksheet("rows")
        self._formats: dict[str, Any] = {}
        self._statuses = {
            field.name for field in schema if types.is_dictionary(field.type) and field.name not in given
        }
        self._row = 0
        self._head()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch that has rows."""
        if self._row + batch.num_rows > MOST_ROWS:
            raise OutputError(
                f"the output has more than {MOST_ROWS - 1:,} rows, and a sheet has no more",
                hint="choose another output format, such as .parquet.",
            )
        columns = [
            self._cells(column, name) for column, name in zip(batch.columns, batch.schema.names, strict=True)
        ]
        for row in zip(*columns, strict=True):
            for number, cell in enumerate(row):
                if cell is not None:
                    self._put(number, cell)
            self._row += 1

    def finish(self, manifest: bytes) -> None:  # noqa: ARG002  # the manifest lies beside the file
        """Make the sheet a workbook."""
        try:
            self._book.close()
        except self._not_made as error:
            raise error.args[0] from None  # what the disk said
        with self._made.open("rb") as made:  # a zip that its disk cuts short is not let go of quietly
            while piece := made.read(COPY_BYTES):
                self._stream.write(piece)
        self._scratch.cleanup()

    def settle(self, path: Path) -> None:
        """Do nothing: the file is as it should be."""

    def close(self) -> None:
        """Free what is held; the file is of no use then."""
        with suppress(OSError, AttributeError):
            self._sheet.row_data_fh.close()  # which only a finished book closes
        self._scratch.cleanup()

    def _head(self) -> None:
        bold = self._book.add_format({"bold": True, "bottom": 1})
        self._sheet.freeze_panes(1, 0)
        for number, field in enumerate(self._schema):
            is_text = any(is_kind(field.type) for is_kind in TEXTS)
            self._sheet.set_column(number, number, WIDE if is_text else NARROW)
            self._text(number, field.name, bold)
        self._row = 1

    def _format(self, code: str) -> Any:
        """Give the format of a number's code, or of a colour."""
        if code not in self._formats:
            key = "bg_color" if code.startswith("#") else "num_format"
            self._formats[code] = self._book.add_format({key: code})
        return self._formats[code]

    def _cells(self, array: pa.Array[Any], name: str) -> list[Any]:
        """Give a column's cells: what Excel has a type for as it is, the rest as texts."""
        kind = array.type
        if isinstance(array, pa.DictionaryArray):
            cells = self._cells(decoded(array), name)
            return [_Status(c) if c in STATUSES else c for c in cells] if name in self._statuses else cells
        if any(is_kind(kind) for is_kind in TEXTS):
            check_text(array, name)
            return values(array)
        is_zoned = types.is_timestamp(kind) and kind.tz is not None
        if any(is_kind(kind) for is_kind in PLAIN) or (
            types.is_temporal(kind) and not types.is_interval(kind) and not is_zoned
        ):
            return values(array)
        return csv_cells(array, name, guard=False).cast(pa.string()).to_pylist()

    def _put(self, number: int, cell: Any) -> None:
        sheet, row = self._sheet, self._row
        if isinstance(cell, _Status):
            self._text(number, str(cell), self._format(_colour(cell)))
        elif isinstance(cell, str):
            self._text(number, cell)
        elif isinstance(cell, bool):
            sheet.write_boolean(row, number, cell)
        elif (code := _code(cell)) is None:
            self._text(number, text_of(cell))
        elif isinstance(cell, dt.date | dt.time | dt.timedelta):
            sheet.write_datetime(row, number, cell, self._format(code))
        else:
            sheet.write_number(row, number, float(cell), self._format(code) if code else None)

    def _text(self, number: int, text: str, form: Any = None) -> None:
        if self._sheet.write_string(self._row, number, text, form):
            raise OutputError(
                f"the column `{self._schema.names[number]}` holds a text of {len(text):,} characters; a cell of a "
                f"workbook has at most {MOST_TEXT:,}",
                hint="choose another output format, such as .parquet, or leave it out with output.columns.",
            )


class _Status(str):
    """A row's status, which has a colour."""

    __slots__ = ()


def _colour(status: str) -> str:
    return DOUBTFUL if status in ("in_doubt", "truncated") else COLOURS.get(status, TROUBLED)


def _code(cell: Any) -> str | None:
    """Give the code by which Excel shows a value; None where a cell cannot hold it as it is."""
    if isinstance(cell, int):
        return "" if abs(cell) <= MOST_EXACT else None
    if isinstance(cell, float):
        return "" if math.isfinite(cell) else None
    if isinstance(cell, Decimal):
        places = max(0, -int(cell.as_tuple().exponent)) if cell.is_finite() else 0
        return f"0.{'0' * places}".rstrip(".") if abs(cell.scaleb(places)) <= MOST_EXACT else None
    return _time_code(cell)


def _time_code(cell: Any) -> str | None:
    if type(cell) is dt.datetime:
        return "yyyy-mm-dd hh:mm:ss.000" if cell.date() >= FIRST_DAY else None
    if type(cell) is dt.date:
        return "yyyy-mm-dd" if cell >= FIRST_DAY else None
    if type(cell) is dt.time:
        return "hh:mm:ss.000"
    if type(cell) is dt.timedelta:
        return "[h]:mm:ss" if cell >= dt.timedelta() else None
    return None
