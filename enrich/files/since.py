"""What is new in a table: the mark up to which its rows were seen, and how a query, or batches, are cut to those behind it.

Rows at the mark itself are read again: others may have come with the same value. So are rows without a value.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from enrich.config.database_url import SERVERS
from enrich.config.table_names import quoted
from enrich.errors import InputError
from enrich.files.statements import PIECE, statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from enrich.config.since import Since

NAME = "beatra_enrich_since"  # of the mark, among parameters that have names
NUMBERED = ("duckdb", *SERVERS)
TABLE = "of the table"  # the kind of a mark that is a version or snapshot


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where a table's rows were seen.

    Attributes:
        kind: of its value: one of `KINDS`, or `TABLE`.
        text: the value, written out.
    """

    kind: str
    text: str

    @property
    def value(self) -> Any:
        """The value as Python has it."""
        return _READ[self.kind](self.text)


_READ: dict[str, Callable[[str], Any]] = {
    TABLE: int,
    "integer": int,
    "number": float,
    "decimal": Decimal,
    "text": str,
    "date": dt.date.fromisoformat,
    "moment": dt.datetime.fromisoformat,
}
KINDS: tuple[tuple[str, tuple[Callable[[Any], bool], ...]], ...] = (
    ("integer", (types.is_integer,)),
    ("number", (types.is_floating,)),
    ("decimal", (types.is_decimal,)),
    ("text", (types.is_string, types.is_large_string)),
    ("date", (types.is_date32,)),
    ("moment", (types.is_timestamp,)),
)


def kind_of(column: str, kind: pa.DataType) -> str:
    """Say of which kind a column's marks are.

    Raises:
        InputError: its values have no order that all databases agree on.
    """
    for name, tests in KINDS:
        if any(test(kind) for test in tests):
            return name
    raise InputError(
        f"input.since: the column `{column}` is {kind}",
        hint="name a column of moments, dates, numbers or texts.",
    )


def highest(column: pa.Field[Any], batches: Iterable[pa.RecordBatch]) -> Mark | None:
    """Give the highest value of a column, the only one of these batches; None where it has none."""
    import pyarrow.compute as pc

    kind = kind_of(column.name, column.type)
    found = None
    for batch in batches:
        values: Any = batch.column(0)
        if kind == "moment":  # the mark may be lower than the row, never higher
            values = pc.cast(values, pa.timestamp("us", values.type.tz), safe=False)
        most = pc.max(values).as_py()
        found = most if found is None or (most is not None and most > found) else found
    if found is None:
        return None
    return Mark(kind, found.isoformat() if isinstance(found, dt.date) else str(found))


def lowered(mark: Mark, since: Since) -> Any:
    """Give the value from which rows are read: the mark, less how late rows may come.

    Raises:
        InputError: texts cannot be lowered.
    """
    value = mark.value
    if not since.late:
        return value
    if isinstance(value, str):
        return _lowered_text(value, since)
    if isinstance(value, dt.datetime):
        return value - dt.timedelta(seconds=since.late)
    if isinstance(value, dt.date):
        return value - dt.timedelta(days=-(-since.late // 86_400))
    return value - type(value)(-(-since.late // 1) if isinstance(value, int) else since.late)


def _lowered_text(value: str, since: Since) -> str:
    """Lower a moment that is written as ISO 8601 has it, as SQLite keeps them, in the same form."""
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        raise InputError(
            f"input.since.late: {value!r:.60} is no moment that could be lowered", hint="take it out."
        ) from None
    lower = moment - dt.timedelta(seconds=since.late)
    if len(value) == len("2026-11-29"):
        return lower.date().isoformat()
    return lower.isoformat(sep="T" if "T" in value else " ")


def cut_query(
    sql: str, params: Sequence[Any] | Mapping[str, Any], since: Since, mark: Mark, *, scheme: str
) -> tuple[str, Sequence[Any] | Mapping[str, Any]]:
    """Wrap a query so that it gives only the rows from the mark on; the driver binds the value.

    Args:
        sql: one query.
        params: of the query.
        since: which column.
        mark: up to where rows were seen.
        scheme: of the database's URL: DuckDB and PostgreSQL take `$1`, `$2`, … where the query holds no `?`.
    """
    (inner,) = statements(sql) or [""]
    value, column = lowered(mark, since), quoted(since.column)
    more: Sequence[Any] | Mapping[str, Any]
    if isinstance(params, Mapping):
        place, more = f"${NAME}", {**params, NAME: value}
    else:
        by_number = scheme in NUMBERED and not any(match[0] == "?" for match in PIECE.finditer(inner))
        place, more = f"${len(params) + 1}" if by_number else "?", [*params, value]
    if mark.kind == "decimal" and scheme in SERVERS:  # its driver gives it a text
        place = f"CAST({place} AS numeric)"
    rows = f"(\n{inner}\n) AS beatra_enrich_rows"
    return f"SELECT * FROM {rows} WHERE {column} >= {place} OR {column} IS NULL", more  # noqa: S608  # quoted


def cut_batches(batches: Iterator[pa.RecordBatch], since: Since, mark: Mark) -> Iterator[pa.RecordBatch]:
    """Give only the rows from the mark on."""
    import pyarrow.compute as pc

    for batch in batches:
        if since.column not in batch.schema.names:
            raise InputError(f"input.since: the table has no column `{since.column}`")
        column: Any = batch.column(since.column)
        least = pa.scalar(lowered(mark, since), column.type)
        yield batch.filter(pc.or_(pc.greater_equal(column, least).fill_null(value=False), pc.is_null(column)))
