"""Rows become what a table has types for: each place says which type a column gets, the values are brought there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from enrich.errors import OutputError
from enrich.files.cells import csv_cells
from enrich.files.common_types import decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from enrich.config import OutputConfig

UNSIGNED = {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}  # by the bits of an unsigned integer


def fitting(schema: pa.Schema, kind: Callable[[Any], pa.DataType]) -> pa.Schema:
    """Give the columns in the types of a place."""
    return pa.schema([(field.name, kind(field.type)) for field in schema])


def fitted(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Bring batches into another schema of the same names; empty ones are left out.

    Raises:
        ArrowInvalid: a value has no place in the type that is meant.
        OutputError: a text is none.
    """
    for batch in batches:
        if batch.num_rows:
            columns = [
                _converted(column, field.type, field.name)
                for column, field in zip(batch.columns, schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def wider(kind: Any) -> pa.DataType:
    """Give the signed integer that holds an unsigned one, or a decimal."""
    return UNSIGNED.get(kind.bit_width, pa.decimal128(20, 0))


def refuse_twins(names: Sequence[str], existing: Collection[str], output: OutputConfig) -> None:
    """Refuse columns whose names differ in capitals alone, where a place takes them for one.

    Args:
        names: of the columns.
        existing: of those that stay beside them in the table.
        output: the table.

    Raises:
        OutputError: there are such columns.
    """
    where = {name.lower(): name for name in existing if name not in names}
    for name in names:
        if (other := where.get(name.lower())) is not None:
            there = (
                f"is `{other}` in the table {output.table}"
                if other in existing
                else f"stands beside `{other}`"
            )
            raise OutputError(
                f"the column `{name}` {there}: {(output.url or '').partition(':')[0]} takes them for one",
                hint="give one another name where the rows come from, or choose columns with output.columns.",
            )
        where[name.lower()] = name


def _converted(column: pa.Array[Any], kind: pa.DataType, name: str) -> pa.Array[Any]:
    """Bring values into a type; a text of what has no other form, and moments to the fineness of the place."""
    if isinstance(column, pa.DictionaryArray):
        column = decoded(column)
    if column.type == kind:
        return column
    if types.is_string(kind) or types.is_large_string(kind):
        return csv_cells(column, name, guard=False).cast(kind)
    coarser = types.is_timestamp(kind) or types.is_time(kind)
    return column.cast(kind, safe=not coarser)
