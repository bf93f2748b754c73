"""Parquet and Arrow files: opened by their schema alone, streamed a page or a record batch at a time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import ipc
from pyarrow import parquet as pq

from enrich.base.location import is_url
from enrich.errors import InputError
from enrich.files.common_types import as_schema, common_type, is_variant, parts
from enrich.files.find import first_duplicate, open_bytes, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from enrich.files.find import SourceFile

    Chooser = Callable[[Sequence[str]], list[str]]  # from all names to those that are read

BATCH_BYTES = 32 << 20  # bytes of Parquet data in one record batch, or nearly
GROUPS_LOOKED_AT = 256  # row groups whose sizes are read
PAGE_BYTES = 1 << 20  # bytes of a Parquet column read at once
ARROW_MAGIC = b"ARROW1"  # what the Arrow file format begins with; the stream format does not
# What Arrow says of values in sound arrays: bytes that are no text, 24:00:00, a date with a time, a digit too many.
ODD_VALUES = ("UTF8", "acceptable range", "whole number of days", "does not fit in precision")
LEAVE_OUT = "repair or write that file again, or leave the column out with input.columns."

log = logging.getLogger("enrich")


# --- Parquet -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParquetReader:
    """Parquet files, streamed page by page; pages that carry a checksum are held to it."""

    schema: pa.Schema
    rows: Mapping[str, int]

    def read(self, file: SourceFile, columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        """Stream at least one column of a file.

        Raises:
            InputError: naming the column and row group that does not decode.
        """
        names = list(columns)
        schema = pa.schema([self.schema.field(name) for name in names])
        with readable(file.path), open_bytes(file) as stream:
            parquet = _open_parquet(stream)
            try:
                rows = _rows_at_once(parquet.metadata, max_rows)
                for batch in parquet.iter_batches(batch_size=rows, columns=names):
                    yield as_schema(batch.select(names), schema)
            except (pa.ArrowException, OSError) as error:
                _name_column(file, error, _parquet_parts(parquet, schema))
                raise


def _rows_at_once(metadata: pq.FileMetaData, most: int) -> int:
    """Say how many rows fit into `BATCH_BYTES`, by the sizes of whole row groups.

    Those of columns would be closer; of one that is encrypted, asking for them ends the process.
    """
    rows = most
    for number in range(min(metadata.num_row_groups, GROUPS_LOOKED_AT)):
        group = metadata.row_group(number)
        if group.num_rows:
            rows = min(rows, group.num_rows * BATCH_BYTES // max(1, group.total_byte_size))
    return max(1, rows)


def _open_parquet(stream: pa.NativeFile) -> pq.ParquetFile:
    """Open a file; Spark's and Impala's INT96 are microseconds, which hold all of their dates, unlike nanoseconds."""
    return pq.ParquetFile(
        stream,
        pre_buffer=False,
        buffer_size=PAGE_BYTES,
        coerce_int96_timestamp_unit="us",
        page_checksum_verification=True,
    )


def scan_parquet(files: Sequence[SourceFile], columns: Chooser) -> ParquetReader:
    """Read the metadata of all files.

    Raises:
        InputError: one cannot be opened, or they do not agree.
    """
    schemas, rows = {}, {}
    for file in files:
        with readable(file.path), open_bytes(file) as stream:
            parquet = _open_parquet(stream)
            schemas[file.path], rows[file.path] = parquet.schema_arrow, parquet.metadata.num_rows
            lost = _lost_meaning(parquet)
        _tell_lost(
            {name: what for name, what in lost.items() if name in columns(parquet.schema_arrow.names)}, file
        )
    return ParquetReader(_agreed_schema(schemas, rows, columns), rows)


def _parquet_parts(parquet: pq.ParquetFile, schema: pa.Schema) -> Iterator[_Part]:
    for group in range(parquet.num_row_groups):
        for field in schema:

            def read(group: int = group, field: pa.Field[Any] = field) -> None:
                for batch in parquet.iter_batches(row_groups=[group], columns=[field.name]):
                    as_schema(batch, pa.schema([field]))

            yield field.name, f"row group {group}", read


def _lost_meaning(parquet: pq.ParquetFile) -> dict[str, str]:
    """Name the columns whose type Arrow has no word for: what they hold comes through, what it means does not."""
    schema = parquet.schema
    lost = {
        f.name: "a VARIANT, which comes out as its bytes" for f in parquet.schema_arrow if is_variant(f.type)
    }
    for number in range(len(schema)):
        column = schema.column(number)
        name = column.path.partition(".")[0]
        told = str(column.logical_type)
        if told.startswith("Interval"):
            lost[name] = "an INTERVAL, which comes out as its 12 bytes"
        elif told.startswith("Time(isAdjustedToUTC=true"):
            lost[name] = "a TIME WITH TIME ZONE, which comes out as a time in UTC"
    return lost


def _tell_lost(lost: Mapping[str, str], file: SourceFile) -> None:
    for name, what in lost.items():
        log.warning("%s: the column `%s` is %s; cast it where the file is written", file.path, name, what)


# --- Arrow ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ArrowReader:
    """Arrow IPC files and streams, one of their record batches at a time."""

    schema: pa.Schema
    rows: Mapping[str, int]

    def read(self, file: SourceFile, columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002  # batches are the file's
        """Stream at least one column of a file.

        Raises:
            InputError: naming the column and record batch that does not decode.
        """
        schema = pa.schema([self.schema.field(name) for name in columns])
        with readable(file.path), open_bytes(file) as stream:
            try:
                for batch in _arrow_batches(stream, columns):
                    yield as_schema(batch, schema)
            except (pa.ArrowException, OSError) as error:
                _name_column(file, error, _arrow_parts(stream, schema))
                raise


def scan_arrow(files: Sequence[SourceFile], columns: Chooser) -> ArrowReader:
    """Read the schema of all files and count their rows.

    Raises:
        InputError: one cannot be opened, or they do not agree.
    """
    schemas, rows = {}, {}
    for file in files:
        with readable(file.path), open_bytes(file) as stream:
            schemas[file.path], _ = _open_arrow(stream)
            rows[file.path] = sum(batch.num_rows for batch in _open_arrow(stream, [0])[1])
    return ArrowReader(_agreed_schema(schemas, rows, columns), rows)


def _arrow_batches(stream: pa.NativeFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Give columns in the order asked for, found sound: a damaged offset would end the process later."""
    schema, _ = _open_arrow(stream)
    for batch in _open_arrow(stream, [schema.get_field_index(name) for name in columns])[1]:
        for column in batch.columns:
            _check_sound(column)
        yield batch.select(list(columns))


def _check_sound(array: pa.Array[Any]) -> None:
    """Refuse what reaches beyond its buffers; a value that its type should not have concerns those alone who read it."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        if not any(said in str(error) for said in ODD_VALUES):
            raise
        for part in parts(array):
            _check_sound(part)


def _arrow_parts(stream: pa.NativeFile, schema: pa.Schema) -> Iterator[_Part]:
    for field in schema:

        def read(field: pa.Field[Any] = field) -> None:
            for batch in _arrow_batches(stream, [field.name]):
                as_schema(batch, pa.schema([field]))

        yield field.name, "", read


def _open_arrow(
    stream: pa.NativeFile, fields: Sequence[int] = ()
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Open the file or the stream format from its start; all fields, or only those at these places."""
    stream.seek(0)
    is_file = stream.read(len(ARROW_MAGIC)) == ARROW_MAGIC
    stream.seek(0)
    options = ipc.IpcReadOptions(included_fields=list(fields))
    if not is_file:
        batches = ipc.open_stream(stream, options=options)
        return batches.schema, iter(batches)
    reader = ipc.open_file(stream, options=options)
    return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))


# --- several files, one schema -------------------------------------------------------------------------


def _agreed_schema(schemas: Mapping[str, pa.Schema], rows: Mapping[str, int], columns: Chooser) -> pa.Schema:
    """Give one schema for all files, narrowed to the columns chosen, with the first one's metadata.

    What a file without rows says of its columns counts only where no file has any: writers guess there.
    """
    for path, schema in schemas.items():
        if (name := first_duplicate(schema.names)) is not None:
            raise InputError(f"{path} has two columns `{name}`", hint="rename one of them.")
    telling = {path: schema for path, schema in schemas.items() if rows[path]} or schemas
    (first, schema), *others = telling.items()
    agreed = {name: schema.field(name) for name in columns(schema.names)}
    for path, other in others:
        for name in dict.fromkeys([*schema.names, *other.names]):
            if name not in schema.names or name not in other.names:
                one, two = (str(s.field(name).type) if name in s.names else "absent" for s in (schema, other))
                raise _disagreement(name, one, first, two, path)
        for name, field in agreed.items():
            theirs = other.field(name)
            kind = common_type(field.type, theirs.type)
            if kind is None:
                raise _disagreement(name, str(field.type), first, str(theirs.type), path)
            agreed[name] = field.with_type(kind).with_nullable(field.nullable or theirs.nullable)
    fields = list(agreed.values())
    return pa.schema(fields).with_metadata(schema.metadata) if schema.metadata else pa.schema(fields)


def _disagreement(name: str, one: str, first: str, two: str, path: str) -> InputError:
    return InputError(
        f"files differ in the column `{name}`: {one} in {first}, {two} in {path}",
        hint="bring them to one schema, or name the files that have it.",
    )


# --- what does not decode ------------------------------------------------------------------------------

_Part = tuple[str, str, "Callable[[], None]"]  # a column, where in the file, and what reads it


def _name_column(file: SourceFile, error: pa.ArrowException | OSError, pieces: Iterable[_Part]) -> None:
    """Find the part of a file that cannot be read, one after the other; a disk or a store that fails is none.

    Raises:
        InputError: naming the column.
    """
    if isinstance(error, OSError) and (error.errno or is_url(file.path)):
        return
    for name, place, read in pieces:
        try:
            read()
        except (pa.ArrowException, OSError) as found:
            where = f"{file.path}, {place}" if place else file.path
            raise InputError(
                f"{where}: the column `{name}` cannot be read: {str(found).strip()}", hint=LEAVE_OUT
            ) from None
