"""Record batches become Parquet, Arrow, CSV, TSV, JSON Lines or a workbook on a stream."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast, get_args

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from enrich.base.location import native, suffixes
from enrich.errors import OutputError
from enrich.files.categories import Categories, write_whole_dictionaries
from enrich.files.cells import FORMULA, csv_cells, csv_type, json_lines, json_values
from enrich.files.common_types import width
from enrich.files.excel_writer import ExcelWriter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from enrich.config import Format, OutputConfig

MANIFEST_KEY = b"beatra_enrich"
ROW_GROUP_BYTES = 16 << 20  # bytes of Arrow data in one Parquet row group
TEXT_ROWS = 8_192  # rows that are Python objects at one time,
TEXT_CELLS = 1 << 20  # and values
NARROW_BITS = 32  # indices of fewer bits run out when dictionaries are joined
OUTPUT_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".xlsx": "excel",
}
TEXT_FORMATS = ("csv", "tsv", "jsonl")
TEXT_COMPRESSIONS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
Codec = Literal["zstd", "snappy", "gzip", "brotli", "lz4", "none"]
PARQUET_COMPRESSIONS = get_args(Codec)
VALUE_ERRORS = (
    pa.ArrowException,
    ValueError,
    OverflowError,
    OutputError,
)  # what a value that does not fit raises


class Writer(Protocol):
    """Writes the batches of one file.

    Attributes:
        keeps_manifest: whether the file itself carries the manifest.
    """

    keeps_manifest: ClassVar[bool]

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch that has rows."""

    def finish(self, manifest: bytes) -> None:
        """Write the rest and the manifest, and close."""

    def settle(self, path: Path) -> None:
        """Do what remains to be done with the file when its streams are closed."""

    def close(self) -> None:
        """Free what is held; the file is of no use then."""


def open_streams(path: Path, config: OutputConfig) -> list[pa.NativeFile]:
    """Open the file, and what compresses into it; the last one is to be written to, and closed first."""
    file = pa.OSFile(native(str(path)), "wb")
    compression = TEXT_COMPRESSIONS.get(_suffix(config, compressed=True))
    if compression and format_of(config) in TEXT_FORMATS:
        return [file, pa.CompressedOutputStream(file, compression)]
    return [file]


def open_writer(
    stream: pa.NativeFile, schema: pa.Schema, config: OutputConfig, given: Collection[str] = ()
) -> Writer:
    """Begin a file of the configured format on a stream that stays the caller's; ``given`` are the input's own columns."""
    metadata = {k: v for k, v in (schema.metadata or {}).items() if k != MANIFEST_KEY}
    schema = schema.with_metadata(metadata)  # without the manifest of the run that made the input
    match format_of(config):
        case "parquet":
            return _ParquetWriter(stream, schema, config)
        case "arrow":
            return _ArrowWriter(stream, schema)
        case "jsonl":
            return _JsonWriter(stream)
        case "excel":
            return ExcelWriter(stream, schema, given)
        case form:
            delimiter = "\t" if form == "tsv" else ","
            return _CsvWriter(stream, schema, delimiter=delimiter, guarded=_guarded(schema, config, given))


def _guarded(schema: pa.Schema, config: OutputConfig, given: Collection[str]) -> frozenset[str]:
    """Give the columns in which texts that a spreadsheet would run get a sign that keeps it from that."""
    wanted = config.csv.guard_formulas
    if wanted == "answers":
        return frozenset(schema.names).difference(given)
    return frozenset(schema.names) if wanted else frozenset()


def format_of(config: OutputConfig) -> Format:
    """Give an output's format: that of its suffix, unless another is given.

    Raises:
        OutputError: no format can be told.
    """
    found = config.format or OUTPUT_FORMATS.get(_suffix(config, compressed=False))
    if found is None:
        raise OutputError(
            f"the output {config.path} has no suffix that tells its format",
            hint=f"use one of {', '.join(OUTPUT_FORMATS)}, or set output.format.",
        )
    return found


def _suffix(config: OutputConfig, *, compressed: bool) -> str:
    """Give the last suffix of an output, or the last that does not speak of compression."""
    found = [one for one in suffixes(config.path)[-2:] if compressed or one not in TEXT_COMPRESSIONS]
    return found[-1] if found else ""


def check_schema(schema: pa.Schema, config: OutputConfig) -> None:
    """Find out whether the format can hold every column, by opening a writer for them in memory.

    Raises:
        OutputError: it cannot, or the format or its compression is not known.
    """
    if config.compression not in PARQUET_COMPRESSIONS:
        raise OutputError(
            f"output.compression is `{config.compression}`",
            hint=f"choose one of {', '.join(PARQUET_COMPRESSIONS)}.",
        )
    if _can_write(schema, config):
        return
    field = next(f for f in schema if not _can_write(pa.schema([f]), config))
    raise OutputError(
        f"the column `{field.name}` of type {field.type} cannot be written as {format_of(config)}",
        hint="leave it out with input.columns, or choose another output format.",
    )


def _can_write(schema: pa.Schema, config: OutputConfig) -> bool:
    try:
        open_writer(pa.BufferOutputStream(), schema, config).close()
    except (*VALUE_ERRORS, OSError):
        return False
    return True


# --- formats -------------------------------------------------------------------------------------------


class _ParquetWriter:
    """Gathers batches into row groups, by rows and, so that memory stays flat, by bytes."""

    keeps_manifest: ClassVar[bool] = True

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema, config: OutputConfig) -> None:
        codec = cast(Codec, config.compression)  # as `check_schema` found it to be
        self._categories = Categories(schema, NARROW_BITS)
        schema = self._categories.schema
        self._file = pq.ParquetWriter(stream, schema, compression=codec, write_page_checksum=True)
        self._group_rows = config.row_group_rows
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._add(self._categories.unify(batch))
        if self._rows >= self._group_rows or self._bytes >= ROW_GROUP_BYTES:
            self._flush(last=False)

    def finish(self, manifest: bytes) -> None:
        if self._pending:
            self._flush(last=True)
        self._file.add_key_value_metadata({MANIFEST_KEY.decode(): manifest.decode()})
        self._file.close()

    def settle(self, path: Path) -> None:
        """Do nothing: the file is as it should be."""

    def close(self) -> None:
        self._file.close()

    def _add(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._rows += batch.num_rows
        self._bytes += _size(batch)

    def _flush(self, *, last: bool) -> None:
        """Write full row groups, and what is left over only at the end."""
        size = max(1, min(self._group_rows, self._rows * ROW_GROUP_BYTES // max(1, self._bytes)))
        end = self._rows if last else self._rows - self._rows % size
        table = pa.Table.from_batches(self._pending)
        self._file.write_table(table.slice(0, end), row_group_size=size)
        self._pending, self._rows, self._bytes = [], 0, 0
        for batch in table.slice(end).to_batches():
            self._add(batch)


class _ArrowWriter:
    """Writes an Arrow IPC file; the manifest is the custom metadata of a last, empty batch.

    Categories that later batches bring are added to the dictionaries; in the end the file has each in one piece.
    """

    keeps_manifest: ClassVar[bool] = True

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema) -> None:
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        self._categories = Categories(schema)
        self._file = pa.ipc.new_file(stream, self._categories.schema, options=options)
        self._last: pa.RecordBatch | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        batch = self._categories.unify(batch)
        self._file.write_batch(batch)
        self._last = batch.slice(0, 0)

    def finish(self, manifest: bytes) -> None:
        last = _no_rows(self._categories.schema) if self._last is None else self._last
        self._file.write_batch(last, custom_metadata={MANIFEST_KEY: manifest})
        self._file.close()

    def settle(self, path: Path) -> None:
        if self._categories.grown:
            write_whole_dictionaries(path)

    def close(self) -> None:
        self._file.close()


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_no_values(kind) for kind in schema.types], schema=schema)


def _no_values(kind: pa.DataType) -> pa.Array[Any]:
    try:
        return pa.array([], kind)
    except pa.ArrowNotImplementedError:
        nothing: pa.Array[Any] = pa.nulls(0, kind)  # type: ignore[call-overload]  # any type will do
        return nothing


def arrow_manifest(file: pa.NativeFile) -> bytes | None:
    """Give the manifest of an Arrow file; None where it has none."""
    with pa.ipc.open_file(file) as reader:
        if not reader.num_record_batches:
            return None
        last = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
        metadata = cast(pa.KeyValueMetadata | None, last.custom_metadata)
        return metadata[MANIFEST_KEY] if metadata and MANIFEST_KEY in metadata else None


class _CsvWriter:
    """Writes RFC 4180: texts quoted, nulls empty, an empty text as ``""``."""

    keeps_manifest: ClassVar[bool] = False

    def __init__(
        self, stream: pa.NativeFile, schema: pa.Schema, *, delimiter: str, guarded: Collection[str]
    ) -> None:
        self._stream = stream
        self._delimiter = delimiter
        self._guarded = guarded
        self._names = [re.sub(FORMULA, r"'\1", name) if name in guarded else name for name in schema.names]
        kinds = [csv_type(kind) for kind in schema.types]
        self._schema = pa.schema(list(zip(self._names, kinds, strict=True)))
        self._file = self._open(header=True)

    def write(self, batch: pa.RecordBatch) -> None:
        for part in _parts(batch):
            cells = self._cells(part)
            if cells.schema != self._schema:  # a column of dates has some that are written as texts
                self._file.close()
                self._schema = cells.schema
                self._file = self._open(header=False)
            self._file.write_batch(cells)

    def _cells(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = zip(batch.columns, batch.schema.names, strict=True)
        cells = [csv_cells(column, name, guard=name in self._guarded) for column, name in columns]
        return pa.RecordBatch.from_arrays(cells, self._names)

    def _open(self, *, header: bool) -> pa_csv.CSVWriter:
        options = pa_csv.WriteOptions(include_header=header, delimiter=self._delimiter)
        return pa_csv.CSVWriter(cast(IO[bytes], self._stream), self._schema, write_options=options)

    def finish(self, manifest: bytes) -> None:  # noqa: ARG002  # the manifest lies beside the file
        self._file.close()

    def settle(self, path: Path) -> None:
        """Do nothing: the file is as it should be."""

    def close(self) -> None:
        self._file.close()


class _JsonWriter:
    """Writes one JSON object a line."""

    keeps_manifest: ClassVar[bool] = False

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def write(self, batch: pa.RecordBatch) -> None:
        names = batch.schema.names
        for part in _parts(batch):
            columns = [json_values(c, name) for name, c in zip(names, part.columns, strict=True)]
            self._stream.write(json_lines(names, columns))

    def finish(self, manifest: bytes) -> None:
        """Do nothing: the manifest lies beside the file."""

    def settle(self, path: Path) -> None:
        """Do nothing: the file is as it should be."""

    def close(self) -> None:
        """Do nothing: the stream is not this writer's."""


# --- values --------------------------------------------------------------------------------------------


def _size(batch: pa.RecordBatch) -> int:
    """Bytes of a batch, without dictionaries: batches share them."""
    columns = (c.indices if isinstance(c, pa.DictionaryArray) else c for c in batch.columns)
    return sum(column.nbytes for column in columns)


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    rows = max(1, min(TEXT_ROWS, TEXT_CELLS // max(1, width(batch.schema.types))))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
