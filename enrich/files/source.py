"""Files to Arrow record batches, streamed: validated before use, and the same rows in the same order every time."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from enrich.base.values import WRITTEN
from enrich.config.since import OF_TABLES
from enrich.errors import InputError, did_you_mean
from enrich.files.arrow_source import scan_arrow
from enrich.files.common_types import CELLS, width
from enrich.files.csv_source import CsvReader, scan_csv
from enrich.files.delta_table import is_delta
from enrich.files.excel_source import ExcelReader, scan_excel
from enrich.files.input_files import (
    SourceFile,
    check_unchanged,
    choose_partitions,
    common_format,
    find_files,
    first_duplicate,
)
from enrich.files.jsonl_source import JsonlReader, scan_jsonl
from enrich.files.parquet_source import scan_parquet
from enrich.files.query import copied, copied_delta, copied_iceberg
from enrich.files.since import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from enrich.config import Format, InputConfig
    from enrich.files.since import Mark

    Chooser = Callable[[Sequence[str]], list[str]]  # from all names to those that are read

SHEET_KEYS = ("sheet", "range", "header_row")
BATCH_ROWS = 8192  # rows in one record batch, at most


class Reader(Protocol):
    """The files of one format, validated.

    Attributes:
        schema: the columns chosen, partition columns left out.
        rows: rows per path.
    """

    @property
    def schema(self) -> pa.Schema: ...  # noqa: D102  # see Attributes
    @property
    def rows(self) -> Mapping[str, int]: ...  # noqa: D102  # see Attributes

    def read(self, file: SourceFile, columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        """Stream at least one column of a file, in batches of about ``max_rows``."""


@dataclass(frozen=True, slots=True)
class Source:
    """The input's rows, to be streamed as often as wanted.

    Attributes:
        schema: the columns chosen, then the partition columns; with the schema metadata of the first file.
        num_rows: how many rows `batches` gives.
        files: in the order in which they are read.
        rejected: bad CSV rows that were left out.
    """

    schema: pa.Schema
    num_rows: int
    files: tuple[SourceFile, ...]
    rejected: int
    reader: Reader

    @property
    def was_read(self) -> bool:
        """Whether every value was read as the source was opened: then it can be read again."""
        return isinstance(self.reader, CsvReader | JsonlReader | ExcelReader)

    def batches(
        self, max_rows: int = BATCH_ROWS, columns: Sequence[str] | None = None, *, written: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows, in the same order every time.

        Args:
            max_rows: rows in one batch, at most; fewer of a table of very many columns.
            columns: only these, in this order; all by default; none gives batches that have rows alone.
            written: add what stands in text files and names of folders, see `enrich.base.values.WRITTEN`.

        Raises:
            InputError: a column is not there, or a file changed since the source was opened.
        """
        names = self.schema.names if columns is None else choose(columns, self.schema.names)
        max_rows = max(1, min(max_rows, CELLS // max(1, width(self.schema.field(n).type for n in names))))
        left = self.num_rows
        for file in self.files:
            if left <= 0:
                return
            check_unchanged(file)
            for batch in self._read(file, names, min(max_rows, left), written=written):
                for start in range(0, min(batch.num_rows, left), max_rows):
                    yield batch.slice(start, min(max_rows, left - start))
                left -= batch.num_rows
                if left <= 0:
                    break
            check_unchanged(file)

    def _read(
        self, file: SourceFile, names: list[str], max_rows: int, *, written: bool
    ) -> Iterator[pa.RecordBatch]:
        """Stream a file's columns and its partition values as the schema has them."""
        schema = _schema([self.schema.field(name) for name in names], self.schema)
        values = {key: value for key, value in file.partition if key in names}
        own = [name for name in names if name not in values] or self.reader.schema.names[:1]
        texts = written and isinstance(self.reader, CsvReader | JsonlReader)
        read = partial(self.reader.read, written=True) if texts else self.reader.read  # type: ignore[call-arg]  # of text files
        for batch in read(file, own, max_rows):
            if not names:
                yield batch.select([])
                continue
            arrays = [
                _repeat(values[f.name], f.type, batch.num_rows) if f.name in values else batch.column(f.name)
                for f in schema
            ]
            made = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield _with_written(made, batch, values) if written else made


def _with_written(
    made: pa.RecordBatch, batch: pa.RecordBatch, folders: Mapping[str, str | None]
) -> pa.RecordBatch:
    """Add the columns that hold what is written: in the file, and in the names of its folders."""
    for name in batch.schema.names:
        if name.startswith(WRITTEN):
            made = made.append_column(name, batch.column(name))
    for key, value in folders.items():
        made = made.append_column(WRITTEN + key, _repeat(value, pa.string(), batch.num_rows))
    return made


@dataclass(frozen=True, slots=True)
class InputFiles:
    """The files that are the input, before any is opened.

    Attributes:
        files: those of the partitions chosen.
        partitions: the columns that the partition folders make, typed over all that are there.
    """

    files: tuple[SourceFile, ...]
    partitions: tuple[pa.Field[Any], ...]


def find_input(config: InputConfig, mark: Mark | None = None) -> InputFiles:
    """Find the input's files; a query is asked, and its rows are copied to one.

    Args:
        config: where the rows come from.
        mark: up to where a table's rows were seen; those are not read again.

    Raises:
        InputError: nothing is there, it cannot be read, or the partitions chosen are not there.
    """
    if config.sql is not None:
        return InputFiles((copied(config, mark),), ())
    if config.format == "iceberg":
        return InputFiles((copied_iceberg(config, mark),), ())
    path = config.path if isinstance(config.path, str) else ""
    if config.format == "delta" or (config.format is None and path and is_delta(path)):
        return InputFiles((copied_delta(path, config, mark),), ())
    if config.since is not None:
        raise InputError(
            f"input.since is for queries and tables, and {path or config.path} are files",
            hint="take it out; of a folder of partitions the output may be a folder, too (docs/how-to/incremental.md).",
        )
    if config.version is not None:
        raise InputError(
            f"input.version is for tables of Delta, and {path or config.path} is none", hint="take it out."
        )
    every = find_files(config.path)
    return InputFiles(
        tuple(choose_partitions(every, config.partitions)),
        tuple(_partition_fields(every)),
    )


def open_source(
    config: InputConfig,
    *,
    limit: int | None = None,
    found: InputFiles | None = None,
    known: pa.Schema | None = None,
    mark: Mark | None = None,
    own: Collection[str] = (),
) -> Source:
    """Find, validate and count the input before anything is sent.

    CSV, TSV and JSON Lines are read once from end to end, also under a limit, so that a column has one type
    whatever the limit; so are the sheets of workbooks. Of Parquet and Arrow files only the metadata is read (the Arrow stream format: all).

    Args:
        config: where the rows come from.
        limit: give only the first rows, so many.
        found: the files, when they are known already.
        known: types that columns had in text files read before; they hold as if those were read again.
        mark: as for `find_input`.
        own: columns that are the job's, in a table that it writes back to; they are no input.

    Raises:
        InputError: anything about the input that would make a run fail, with file and line where there is one.
    """
    found = found or find_input(config, mark)
    first = found.files[0].path
    keys = [field.name for field in found.partitions]

    def own_columns(names: Sequence[str]) -> list[str]:
        for key in keys:
            if key in names:
                raise InputError(
                    f"`{key}` is both a column and a partition folder of {first}", hint="rename one."
                )
        if not names:
            raise InputError(f"{first} has no column")
        if config.columns is None:
            return [name for name in names if name not in own] or list(names)
        chosen = [name for name in choose(config.columns, [*names, *keys]) if name not in keys]
        return chosen or list(names[:1])

    format_ = common_format(found.files, config.format)
    reader = _scan(found.files, format_, config, own_columns, known or pa.schema([]))
    files = tuple(replace(file, rows=reader.rows[file.path]) for file in found.files)
    total = sum(file.rows for file in files)
    if config.since is not None and not (
        files[0].version_of_table is not None and config.since.column in OF_TABLES
    ):
        column = config.since.column
        choose([column], reader.schema.names)
        kind_of(column, reader.schema.field(column).type)
    fields = {field.name: field for field in [*reader.schema, *found.partitions]}
    names = [name for name in fields if name not in own] if config.columns is None else config.columns
    return Source(
        schema=_schema([fields[name] for name in names], reader.schema),
        num_rows=total if limit is None else min(limit, total),
        files=files,
        rejected=reader.rejected if isinstance(reader, CsvReader) else 0,
        reader=reader,
    )


def choose(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Hold a choice of columns to the names there are.

    Raises:
        InputError: one is not there, or is chosen twice.
    """
    known = set(names)
    for name in columns:
        if name not in known:
            raise InputError(f"the input has no column `{name}`", hint=did_you_mean(name, names))
    if (twice := first_duplicate(columns)) is not None:
        raise InputError(f"the column `{twice}` is chosen twice", hint="name it once.")
    return list(columns)


def _schema(fields: Sequence[pa.Field[Any]], like: pa.Schema) -> pa.Schema:
    """Make a schema with another's metadata."""
    return pa.schema(fields).with_metadata(like.metadata) if like.metadata else pa.schema(fields)


def _scan(
    files: Sequence[SourceFile], format_: Format, config: InputConfig, columns: Chooser, known: pa.Schema
) -> Reader:
    if format_ == "excel":
        return scan_excel(files, config, columns)
    for key in SHEET_KEYS:
        if getattr(config, key) is not None:
            raise InputError(
                f"input.{key} is for workbooks, and {files[0].path} is {format_}", hint="take it out."
            )
    if format_ in ("csv", "tsv"):
        return scan_csv(files, config.csv, columns, known, delimiter="\t" if format_ == "tsv" else ",")
    if format_ == "jsonl":
        return scan_jsonl(files, columns, known)
    return scan_parquet(files, columns) if format_ == "parquet" else scan_arrow(files, columns)


# --- partitions ----------------------------------------------------------------------------------------


def _partition_fields(files: Sequence[SourceFile]) -> list[pa.Field[Any]]:
    """Type the partition columns: int64 where every value is written as an integer writes itself, else string."""
    values: dict[str, list[str | None]] = {key: [] for key, _ in files[0].partition}
    if len(values) < len(files[0].partition):
        raise InputError(
            f"{files[0].path} lies in two partitions of one name", hint="rename one of the folders."
        )
    for file in files:
        for key, value in file.partition:
            values[key].append(value)
    return [
        pa.field(key, pa.int64() if _are_integers(texts) else pa.string()) for key, texts in values.items()
    ]


def _are_integers(texts: Sequence[str | None]) -> bool:
    present = [text for text in texts if text is not None]
    plain = all(re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text) for text in present)
    return bool(present) and plain and all(-(2**63) <= int(text) < 2**63 for text in present)


def _repeat(text: str | None, type_: pa.DataType, rows: int) -> pa.Array[Any]:
    return pa.repeat(pa.scalar(text, pa.string()), rows).cast(type_)
