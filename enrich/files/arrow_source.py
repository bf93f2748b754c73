"""Arrow files and streams: opened by their schema alone, streamed a record batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import ipc

from enrich.files.common_types import as_schema, parts
from enrich.files.input_files import open_bytes, readable
from enrich.files.typed_files import agreed_schema, name_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from enrich.files.input_files import SourceFile
    from enrich.files.typed_files import Chooser, Part

ARROW_MAGIC = b"ARROW1"  # what the file format begins with; the stream format does not
# What Arrow says of values in sound arrays: bytes that are no text, 24:00:00, a date with a time, a digit too many.
ODD_VALUES = ("UTF8", "acceptable range", "whole number of days", "does not fit in precision")


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
                for batch in _batches(stream, columns):
                    yield as_schema(batch, schema)
            except (pa.ArrowException, OSError) as error:
                name_column(file, error, _parts(stream, schema))
                raise


def scan_arrow(files: Sequence[SourceFile], columns: Chooser) -> ArrowReader:
    """Read the schema of all files and count their rows.

    Raises:
        InputError: one cannot be opened, or they do not agree.
    """
    schemas, rows = {}, {}
    for file in files:
        with readable(file.path), open_bytes(file) as stream:
            schemas[file.path], _ = _open(stream)
            rows[file.path] = sum(batch.num_rows for batch in _open(stream, [0])[1])
    return ArrowReader(agreed_schema(schemas, rows, columns), rows)


def _batches(stream: pa.NativeFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Give columns in the order asked for, found sound: a damaged offset would end the process later."""
    schema, _ = _open(stream)
    for batch in _open(stream, [schema.get_field_index(name) for name in columns])[1]:
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


def _parts(stream: pa.NativeFile, schema: pa.Schema) -> Iterator[Part]:
    for field in schema:

        def read(field: pa.Field[Any] = field) -> None:
            for batch in _batches(stream, [field.name]):
                as_schema(batch, pa.schema([field]))

        yield field.name, "", read


def _open(stream: pa.NativeFile, fields: Sequence[int] = ()) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
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
