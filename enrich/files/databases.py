"""Databases: what each of them can do for a job, and which one a URL names.

One module per place (`duckdb_database.py`, `adbc_database.py`, `adbc_warehouses.py`) gives what differs; what a query becomes (`query.py`) and how
rows are put into a table (`table_output.py`) is the same for all of them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from enrich.config.database_url import FLIGHT, SERVERS, WAREHOUSES, file_of
from enrich.files.adbc_database import PostgresDatabase, SqliteDatabase
from enrich.files.adbc_warehouses import BigQueryDatabase, FlightSqlDatabase, SnowflakeDatabase
from enrich.files.duckdb_database import DuckDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    Parameters = Sequence[Any] | Mapping[str, Any]


class Database(Protocol):
    """An open database, in one transaction after the other.

    Attributes:
        errors: what its driver raises.
        casts: whether a value is cast to the type of a column before it is put there.
        folds: whether names that differ in capitals alone are one.
    """

    casts: bool
    folds: bool

    @property
    def errors(self) -> tuple[type[Exception], ...]: ...  # noqa: D102  # see Attributes

    def query(self, sql: str, params: Parameters) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Stream the rows of a query, as they stand at one moment."""

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Do something, with values for ``$1``, ``$2``, …; gives its rows."""

    def ingest(self, batches: pa.RecordBatchReader, name: str) -> None:
        """Put rows into a new table that this connection alone sees."""

    def takes(self, kind: pa.DataType) -> bool:
        """Say whether it has a type for these values."""

    def spelled(self, kind: pa.DataType) -> str | None:
        """Give the type that values are to have which come as texts, because the driver takes no others; None for text."""

    def columns(self, table: str) -> dict[str, str] | None:
        """Give a table's columns with their types, as SQL spells both; None where there is no such table."""

    def commit(self) -> None:
        """Make what was done last, durably."""

    def close(self) -> None:
        """Let go of it, and of what was not committed."""


@contextmanager
def open_database(url: str, *, folder: str | None = None, reads: bool = False) -> Iterator[Database]:
    """Open a database while the block runs; what is not committed then is undone.

    Args:
        url: as `enrich.config.database_url` takes it.
        folder: what relative paths in queries are relative to.
        reads: whether it is only read: then nothing else is let through.

    Raises:
        ConfigError: its driver is not installed.
        OSError: it cannot be opened; says why.
    """
    database = _opened(url, folder, reads=reads)
    try:
        yield database
    finally:
        database.close()


def _opened(url: str, folder: str | None, *, reads: bool) -> Database:
    scheme = url.partition(":")[0]
    if scheme in SERVERS:
        return PostgresDatabase(url, reads=reads)
    if scheme in FLIGHT:
        return FlightSqlDatabase(url)
    if scheme in WAREHOUSES:
        return SnowflakeDatabase(url) if scheme == "snowflake" else BigQueryDatabase(url)
    file = file_of(url)
    if scheme == "sqlite":
        return SqliteDatabase(file, reads=reads)
    return DuckDatabase(file, folder, reads=reads)


def first_lines(error: BaseException, most: int = 400) -> str:
    """Give what a driver says, on one line."""
    told = " ".join(str(error).split())
    return told if len(told) <= most else f"{told[:most]}…"
