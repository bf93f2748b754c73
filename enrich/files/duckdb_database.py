"""DuckDB: a file, or a database in memory over files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from enrich.files.drivers import driver
from enrich.files.statements import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

STREAM_ROWS = 8192  # rows in one record batch
UNKNOWN = (
    types.is_decimal256,
    types.is_union,
    types.is_run_end_encoded,
    types.is_float16,
)  # types it does not read


class DuckDatabase:
    """A connection of its own; relative paths in queries are looked for below a folder."""

    casts = True
    folds = True

    def __init__(self, file: Path | None, folder: str | None, *, reads: bool) -> None:
        duckdb = driver("duckdb", "duckdb", "a DuckDB database")
        self.errors: tuple[type[Exception], ...] = (duckdb.Error,)
        try:
            self._connection = duckdb.connect(str(file or ":memory:"), read_only=reads and file is not None)
        except duckdb.Error as error:
            raise OSError(str(error)) from None
        self.execute("SET TimeZone = 'UTC'")
        if folder is not None:
            self.execute(f"SET file_search_path = {_quoted(folder)}")
        if not reads:
            self.execute("BEGIN")

    def query(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any]
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Stream the rows of a query; those of a table come in the order in which they lie there."""
        statements = [str(one.type).rpartition(".")[2] for one in self._connection.extract_statements(sql)]
        if not statements:
            raise self.errors[0](NOTHING)
        if statements != ["SELECT"]:  # a COPY would write a file, whatever the database allows
            said = (
                "it holds several statements" if len(statements) > 1 else f"it is of the kind {statements[0]}"
            )
            raise self.errors[0](f"{said}; only one SELECT is asked")
        relation = self._connection.sql(sql, params=params or None)
        if relation is None:
            raise self.errors[0]("the statement gives no rows")
        reader = relation.to_arrow_reader(STREAM_ROWS)
        return reader.schema, iter(reader)

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Do something; a result must be taken before the next."""
        found: list[tuple[Any, ...]] = self._connection.execute(sql, list(values) or None).fetchall()
        return found

    def ingest(self, batches: pa.RecordBatchReader, name: str) -> None:
        """Put rows into a new temporary table."""
        self._connection.register("beatra_enrich_given", batches)
        self.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM beatra_enrich_given")  # noqa: S608  # names of our own
        self._connection.unregister("beatra_enrich_given")

    def takes(self, kind: pa.DataType) -> bool:
        """Say whether Arrow's type has one here."""
        return not any(is_kind(kind) for is_kind in UNKNOWN) and not isinstance(kind, pa.BaseExtensionType)

    def spelled(self, kind: pa.DataType) -> str | None:
        """Give no type: a text stays one."""
        return None if self.takes(kind) else "VARCHAR"

    def columns(self, table: str) -> dict[str, str] | None:
        """Give a table's columns with their types."""
        try:
            found = self._connection.sql(f"SELECT * FROM {table} LIMIT 0")  # noqa: S608  # quoted
        except self.errors as error:
            if "does not exist" in str(error):
                return None
            raise
        return dict(zip(found.columns, map(str, found.types), strict=True))

    def commit(self) -> None:
        """Commit, and begin anew."""
        self.execute("COMMIT")
        self.execute("BEGIN")

    def close(self) -> None:
        """Close the connection; what was begun is undone."""
        self._connection.close()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
