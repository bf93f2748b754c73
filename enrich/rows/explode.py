"""One row to many: a list that a step answers with becomes a row for each of its elements, a bounded piece at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from enrich.records import AMOUNTS
from enrich.schema.choice import INDEX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from enrich.rows.step import Step

    Array = pa.Array[Any]

ROWS = 2048  # rows made at once
PIECE_BYTES = 16 << 20  # of a piece, or nearly; a row that is larger is a piece of its own
OF_ANY_SIZE = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
ONCE = frozenset(
    {*AMOUNTS, "attempts"}
)  # what stands on the first row of an input row alone, so that sums hold


class Explosion(NamedTuple):
    """What is made of rows with a list.

    Attributes:
        field: the name of the list's column; its type is that of an element.
        place: the name of the column with an element's place in its list, from 0.
        once: names of columns whose amounts stand on the first row alone; the others have 0, or null where it has.
    """

    field: str
    place: str
    once: frozenset[str]

    def pieces(self, batch: pa.RecordBatch, schema: pa.Schema) -> Iterator[tuple[Any, pa.RecordBatch]]:
        """Make the rows of a batch; a row whose list is null or empty stays one, with nulls.

        Args:
            batch: with the list in the field's column.
            schema: of the rows that are made.

        Yields:
            For each row that is made the place of its row in the batch, and the rows.
        """
        import pyarrow.compute as pc

        lists: Any = batch.column(self.field)
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
        counts = np.maximum(lengths, 1)
        starts, firsts = np.cumsum(lengths) - lengths, np.cumsum(counts) - counts
        items = lists.flatten()
        for begin, end in _cuts(batch, self.field, counts):
            made = np.arange(begin, end)
            rows = np.searchsorted(firsts, made, side="right") - 1
            index = made - firsts[rows]
            none = lengths[rows] == 0
            values = items.take(pa.array(np.where(none, 0, starts[rows] + index), pa.int64(), mask=none))
            places = pa.array(index, pa.int64(), mask=none)
            taken = pa.array(rows, pa.int64())
            columns = []
            for name, column in zip(schema.names, batch.columns, strict=True):
                if name in {self.field, self.place}:
                    columns.append(values if name == self.field else places)
                else:
                    given = column.take(taken)
                    columns.append(_once(given, index == 0) if name in self.once else given)
            yield rows, pa.RecordBatch.from_arrays(columns, schema=schema)

    def table(self, table: pa.Table) -> tuple[pa.Table, np.ndarray[Any, np.dtype[np.int64]]]:
        """Make the rows of a table that holds the list; gives for each of them the row that it is made of, too."""
        place = table.schema.get_field_index(self.field)
        kind: Any = table.schema.field(place).type
        schema = table.schema.set(place, table.schema.field(place).with_type(kind.value_type))
        made: list[pa.RecordBatch] = []
        rows = [np.empty(0, dtype=np.int64)]
        row = 0
        for batch in table.to_batches():
            for places, piece in self.pieces(batch, schema):
                made.append(piece)
                rows.append(row + places)
            row += batch.num_rows
        return pa.Table.from_batches(made, schema), np.concatenate(rows)


def explosion_of(steps: Sequence[Step]) -> Explosion | None:
    """Say what is made of the rows of these steps; None where each stays one."""
    for step in steps:
        name = step.builder.step.explode
        if name is not None:
            own = {column.of: column.field.name for column in step.columns if column.is_value}
            record = [column for other in steps for column in other.columns if not column.is_value]
            (index,) = (c.field.name for c in step.columns if c.of == INDEX and not c.is_value)
            return Explosion(own[name], index, frozenset(c.field.name for c in record if c.of in ONCE))
    return None


def _once(amounts: Any, is_first: Any) -> Array:
    """Leave amounts on first rows alone."""
    import pyarrow.compute as pc

    nothing = pc.multiply(amounts, pa.scalar(0, amounts.type))
    left: Array = pc.if_else(pa.array(is_first), amounts, nothing)
    return left


def _cuts(batch: pa.RecordBatch, field: str, counts: Any) -> Iterator[tuple[int, int]]:
    """Cut the rows that are to be made into pieces of bounded size."""
    import pyarrow.compute as pc

    sizes = np.full(batch.num_rows, 1, dtype=np.int64)
    for name in batch.schema.names:
        column: Any = batch.column(name)
        if name == field:
            continue
        if any(is_kind(column.type) for is_kind in OF_ANY_SIZE):
            sizes += pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        else:
            sizes += column.nbytes // max(1, batch.num_rows) + 1
    ends = np.cumsum(np.repeat(sizes, counts))
    begin, total = 0, int(counts.sum())
    while begin < total:
        before = int(ends[begin - 1]) if begin else 0
        most = int(np.searchsorted(ends, before + PIECE_BYTES, side="right"))
        end = min(total, begin + ROWS, max(begin + 1, most))
        yield begin, end
        begin = end
