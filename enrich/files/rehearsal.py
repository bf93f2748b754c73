"""The output, tried before anything is spent on it: its columns are read to the end and written to nowhere.

What opens need not decode (a damaged page, an encrypted column), and what a type allows a format may refuse (a category
too many, a text that is none). Whatever that is, it is told before the first request, not after the last.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from enrich.errors import OutputError, did_you_mean
from enrich.files.arrow_source import ArrowReader
from enrich.files.cells import TEXTS, check_text
from enrich.files.excel_writer import MOST_ROWS
from enrich.files.keys import check_key
from enrich.files.writers import TEXT_FORMATS, VALUE_ERRORS, format_of, open_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from enrich.config.tables import OutputConfig
    from enrich.files.source import Source

COMMON: tuple[Callable[[Any], bool], ...] = (
    *TEXTS,
    types.is_boolean,
    types.is_integer,
    types.is_floating,
    types.is_decimal,
    types.is_null,
    types.is_binary,
    types.is_large_binary,
    types.is_binary_view,
    types.is_fixed_size_binary,
    types.is_date,
    types.is_time,
    types.is_duration,
)
# Types of which Parquet takes every value: seconds become milliseconds there, and there may be too many.
SURE = (*COMMON, lambda kind: types.is_timestamp(kind) and kind.unit != "s")
# Types that an Arrow file has as they lie in memory.
COPIED: tuple[Callable[[Any], bool], ...] = (*COMMON, types.is_timestamp)
# Types whose every value has a cell of a workbook: a text may be too long for one.
SHORT = COMMON[len(TEXTS) : COMMON.index(types.is_binary)]
# Types whose every value has a text: a zone may not be known here, and of texts it is seen to that they are some.
TELLABLE = (
    *COMMON,
    lambda kind: types.is_timestamp(kind) and kind.tz in (None, "UTC"),
    lambda kind: types.is_dictionary(kind) and any(is_text(kind.value_type) for is_text in TEXTS),
)


def rehearse(
    source: Source, schema: pa.Schema, output: OutputConfig, *, check: Callable[[], None] = lambda: None
) -> None:
    """Read the input's columns that the output has, and write those that it may refuse.

    Streams: of Parquet and Arrow every column once; of text files, which were read whole as they were opened, only
    what is written.

    Args:
        source: the input, under its limit.
        schema: of the output; columns of the input that it lacks are left alone.
        output: its format.
        check: called for every batch; may raise.

    Raises:
        InputError: a column cannot be read.
        OutputError: a column cannot be written.
    """
    if format_of(output) == "excel" and source.num_rows >= MOST_ROWS:
        raise OutputError(
            f"the input has {source.num_rows:,} rows; a sheet has at most {MOST_ROWS:,}, its header included",
            hint="choose another output format, such as .parquet.",
        )
    names = [name for name in source.schema.names if name in schema.names]
    for key in output.keys:
        if key not in schema.names:
            raise OutputError(
                f"output.key: the output has no column `{key}`", hint=did_you_mean(key, schema.names)
            )
    if output.keys and set(output.keys) <= set(names):  # of a step's answers nothing is known yet
        check_key(source, output.keys)
    trial = _Trial(source, schema, output, check)
    doubtful = [name for name in names if trial.may_refuse(schema.field(name))]
    read = doubtful if source.was_read else names
    try:
        trial.run(read, doubtful)
    except OutputError:
        raise  # it names the column
    except VALUE_ERRORS as error:
        name, said = trial.culprit(doubtful or read) or (read[0], error)
        raise OutputError(
            f"the column `{name}` cannot be written as {format_of(output)}: {_told(said)}",
            hint="leave it out with input.columns, or choose another output format.",
        ) from None


class _Trial:
    """Writes columns of an input to nowhere."""

    def __init__(
        self, source: Source, schema: pa.Schema, output: OutputConfig, check: Callable[[], None]
    ) -> None:
        self._source = source
        self._schema = schema
        self._output = output.model_copy(update={"compression": "none"})
        self._check = check
        self._format = format_of(output)

    def may_refuse(self, field: pa.Field[Any]) -> bool:
        """Say whether the format may refuse a value of a column."""
        if self._format == "arrow":
            return not _is_sure(field, COPIED)
        if self._format == "excel":
            return not _is_sure(field, SHORT)
        if self._format in TEXT_FORMATS:
            return not _is_sure(field, TELLABLE)
        lies = isinstance(self._source.reader, ArrowReader)  # of other files what is required is there
        return not _is_sure(field, SURE, required=not lies)

    def run(self, read: Sequence[str], doubtful: Sequence[str]) -> None:
        """Read columns to the end, and write those that are in doubt."""
        if not read:
            return
        fields = pa.schema([self._schema.field(name) for name in doubtful])
        writer = open_writer(pa.MockOutputStream(), fields, self._output)
        try:
            for batch in self._source.batches(columns=read):
                self._check()
                self._check_texts(batch)
                if doubtful and batch.num_rows:
                    writer.write(
                        pa.RecordBatch.from_arrays(batch.select(list(doubtful)).columns, schema=fields)
                    )
            writer.finish(b"{}")
        finally:
            with suppress(*VALUE_ERRORS):
                writer.close()

    def _check_texts(self, batch: pa.RecordBatch) -> None:
        if self._format in TEXT_FORMATS and not self._source.was_read:
            for field, column in zip(batch.schema, batch.columns, strict=True):
                check_text(column, field.name)

    def culprit(self, names: Sequence[str]) -> tuple[str, BaseException] | None:
        """Find the first column that cannot be written, and why."""
        for name in names:
            try:
                self.run([name], [name])
            except VALUE_ERRORS as error:
                return name, error
        return None


def _is_sure(
    field: pa.Field[Any], sure: Sequence[Callable[[pa.DataType], bool]], *, required: bool = True
) -> bool:
    kind = field.type
    if not (required or field.nullable):
        return False
    if isinstance(kind, pa.StructType | pa.ListType | pa.LargeListType | pa.MapType) and kind.num_fields:
        return all(_is_sure(kind.field(i), sure, required=required) for i in range(kind.num_fields))
    return any(is_kind(kind) for is_kind in sure)


def _told(error: BaseException) -> str:
    return " ".join(str(error).split())
