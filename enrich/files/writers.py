"""Record batches become Parquet, Arrow, CSV, TSV or JSON Lines on a stream.

What text cannot express is written so: nested values as JSON (a map as pairs), binary as base64, durations as
seconds, moments in ISO 8601, decimals in JSON as strings, and NaN as ``nan`` in CSV and null in JSON. A text cell
of a CSV that a spreadsheet would run as a formula gets a ``'`` in front.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast, get_args

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from enrich.base.location import suffixes
from enrich.errors import OutputError
from enrich.files.categories import Categories, write_whole_dictionaries
from enrich.files.common_types import decoded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from enrich.config import Format, OutputConfig

MANIFEST_KEY = b"beatra_enrich"
ROW_GROUP_BYTES = 16 << 20  # bytes of Arrow data in one Parquet row group
TEXT_ROWS = 8_192  # rows that are Python objects at one time
NARROW_BITS = 32  # indices of fewer bits run out when dictionaries are joined
FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
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
FORMULA = r"\A([=+\-@\t\x00\r])"  # how a text starts that a spreadsheet may run (OWASP ASVS 1.2.10)


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
    file = pa.OSFile(str(path), "wb")
    compression = TEXT_COMPRESSIONS.get(_suffix(config, compressed=True))
    if compression and format_of(config) in TEXT_FORMATS:
        return [file, pa.CompressedOutputStream(file, compression)]
    return [file]


def open_writer(stream: pa.NativeFile, schema: pa.Schema, config: OutputConfig) -> Writer:
    """Begin a file of the configured format on a stream that stays the caller's."""
    metadata = {k: v for k, v in (schema.metadata or {}).items() if k != MANIFEST_KEY}
    schema = schema.with_metadata(metadata)  # without the manifest of the run that made the input
    match format_of(config):
        case "parquet":
            return _ParquetWriter(stream, schema, config)
        case "arrow":
            return _ArrowWriter(stream, schema)
        case "jsonl":
            return _JsonWriter(stream)
        case "tsv":
            return _CsvWriter(stream, schema, delimiter="\t")
        case _:
            return _CsvWriter(stream, schema, delimiter=",")


def format_of(config: OutputConfig) -> Format:
    """Give an output's format: that of its suffix, unless another is given.

    Raises:
        OutputError: no format can be told.
    """
    found = config.format or FORMATS.get(_suffix(config, compressed=False))
    if found is None:
        raise OutputError(
            f"the output {config.path} has no suffix that tells its format",
            hint=f"use one of {', '.join(FORMATS)}, or set output.format.",
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
    columns: list[pa.Array[Any]] = [pa.nulls(0, kind) for kind in schema.types]  # type: ignore[call-overload]  # any type will do
    return pa.RecordBatch.from_arrays(columns, schema=schema)


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

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema, *, delimiter: str) -> None:
        names = [re.sub(FORMULA, r"'\1", name) for name in schema.names]
        cells = [
            _cells(column, name) for name, column in zip(schema.names, _no_rows(schema).columns, strict=True)
        ]
        self._schema = pa.schema(list(zip(names, [cell.type for cell in cells], strict=True)))
        options = pa_csv.WriteOptions(delimiter=delimiter)
        self._file = pa_csv.CSVWriter(cast(IO[bytes], stream), self._schema, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        for part in _parts(batch):
            cells = [_cells(c, name) for name, c in zip(batch.schema.names, part.columns, strict=True)]
            self._file.write_batch(pa.record_batch(cells, schema=self._schema))

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
            columns = [_objects(c, name) for name, c in zip(names, part.columns, strict=True)]
            rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
            self._stream.write(b"".join(_json(row) + b"\n" for row in rows))

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
    for start in range(0, batch.num_rows, TEXT_ROWS):
        yield batch.slice(start, TEXT_ROWS)


def _cells(array: pa.Array[Any], name: str) -> pa.Array[Any]:
    """Turn a column into one that the CSV writer takes; texts are made safe for spreadsheets."""
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        return _cells(decoded(array), name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        check_text(array, name)
        return pc.replace_substring_regex(array, FORMULA, r"'\1", max_replacements=1)
    if pa.types.is_duration(kind):
        seconds = [None if value is None else value.total_seconds() for value in _objects(array, name)]
        return pa.array(seconds, pa.float64())
    plain = pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    if plain and not pa.types.is_interval(kind):
        return array
    texts = [None if value is None else _text(value) for value in _objects(array, name)]
    return _cells(pa.array(texts, pa.string()), name)


def check_text(array: pa.Array[Any], name: str) -> None:
    """Hold every text of a column to UTF-8.

    Raises:
        OutputError: some bytes are none.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise OutputError(
            f"the column `{name}` holds bytes that are no UTF-8, which text files are: {error}",
            hint="choose Parquet as the output; nothing is asked anew.",
        ) from None


def _text(value: Any) -> str:
    """Write a value as JSON, a text as itself."""
    encoded = _json(value)
    return orjson.loads(encoded) if encoded.startswith(b'"') else encoded.decode()


def _objects(array: pa.Array[Any], name: str) -> list[Any]:
    try:
        return array.to_pylist()
    except (ValueError, OverflowError) as error:
        raise OutputError(
            f"the column `{name}` holds a value that text cannot express: {error}",
            hint="choose Parquet as the output; nothing is asked anew.",
        ) from None


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=_express, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _express(value: Any) -> Any:
    """Express what JSON has no form for."""
    if isinstance(value, dt.date | dt.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Decimal):
        return str(value)
    return list(value)  # a calendar interval: months, days, nanoseconds
