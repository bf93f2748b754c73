"""Parquet files: opened by their schema alone, streamed a page at a time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import parquet as pq

from enrich.files.common_types import as_schema, is_variant
from enrich.files.input_files import open_bytes, readable
from enrich.files.typed_files import agreed_schema, name_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from enrich.files.input_files import SourceFile
    from enrich.files.typed_files import Chooser, Part

BATCH_BYTES = 32 << 20  # bytes of Parquet data in one record batch, or nearly
GROUPS_LOOKED_AT = 256  # row groups whose sizes are read
FEW_ROWS = 32  # rows of a batch that groups which are smaller are read together for
PAGE_BYTES = 1 << 20  # bytes of a column read at once

log = logging.getLogger("enrich")


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
            parquet = _open(stream)
            try:
                rows = _rows_at_once(parquet.metadata, max_rows)
                for batch in parquet.iter_batches(batch_size=rows, columns=names):
                    yield as_schema(batch.select(names), schema)
            except (pa.ArrowException, OSError) as error:
                name_column(file, error, _parts(parquet, schema))
                raise


def _rows_at_once(metadata: pq.FileMetaData, most: int) -> int:
    """Say how many rows fit into `BATCH_BYTES`, by the sizes of whole row groups, and no more than a group has.

    Those of columns would be closer; of one that is encrypted, asking for them ends the process. What a dictionary
    holds once may be large and stand in every row: whoever wrote the file had a group of them in memory.
    """
    rows, largest = most, 0
    for number in range(min(metadata.num_row_groups, GROUPS_LOOKED_AT)):
        group = metadata.row_group(number)
        largest = max(largest, group.num_rows)
        if group.num_rows:
            rows = min(rows, group.num_rows * BATCH_BYTES // max(1, group.total_byte_size))
    return max(1, min(rows, max(FEW_ROWS, largest)))


def _open(stream: pa.NativeFile) -> pq.ParquetFile:
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
            parquet = _open(stream)
            schemas[file.path], rows[file.path] = parquet.schema_arrow, parquet.metadata.num_rows
            lost = _lost_meaning(parquet)
        _tell_lost(
            {name: what for name, what in lost.items() if name in columns(parquet.schema_arrow.names)}, file
        )
    return ParquetReader(agreed_schema(schemas, rows, columns), rows)


def _parts(parquet: pq.ParquetFile, schema: pa.Schema) -> Iterator[Part]:
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
