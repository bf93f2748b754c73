"""PostgreSQL and SQLite, by their ADBC drivers: record batches in and out, streamed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from enrich.files.drivers import driver
from enrich.files.statements import NOTHING, refusal, statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

NUMERIC_LIMIT = 76  # digits of Arrow's widest decimal
TYPE = b"POSTGRESQL:type"
MODIFIER = b"POSTGRESQL:typmod"
TYPE_ROWS = 65_536  # rows by which SQLite's driver tells a column's type


class AdbcDatabase:
    """What all have in common."""

    def __init__(self, module: str, extra: str, what: str, *place: str, **options: Any) -> None:
        dbapi = driver(f"{module}.dbapi", extra, what)
        self.errors: tuple[type[Exception], ...] = (dbapi.Error,)
        try:
            self._connection = dbapi.connect(*place, **options)
        except dbapi.Error as error:
            raise OSError(str(error)) from None
        self._cursor = self._connection.cursor()

    def query(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any]
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Stream the rows of a query: one statement sees one moment."""
        if not statements(sql):
            raise pa.ArrowInvalid(NOTHING)
        self._cursor.execute(sql, parameters=list(params) or None)
        reader = self._cursor.fetch_record_batch()
        return reader.schema, iter(reader)

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Do something; gives its rows."""
        self._cursor.execute(sql, parameters=list(values) or None)
        found: list[tuple[Any, ...]] = self._cursor.fetchall() if self._cursor.description else []
        return found

    def ingest(self, batches: pa.RecordBatchReader, name: str) -> None:
        """Put rows into a new temporary table."""
        self._cursor.adbc_ingest(name, batches, mode="create", temporary=True)

    def commit(self) -> None:
        """Commit; the next statement begins anew."""
        self._connection.commit()

    def close(self) -> None:
        """Close the connection; what was begun is undone."""
        with suppress(*self.errors):
            self._cursor.close()
        with suppress(*self.errors):
            self._connection.close()


class PostgresDatabase(AdbcDatabase):
    """A PostgreSQL server; libpq finds the password."""

    casts = True
    folds = False

    def __init__(self, url: str, *, reads: bool) -> None:
        super().__init__(
            "adbc_driver_postgresql", "adbc-postgresql", "a PostgreSQL database", url, autocommit=reads
        )
        if reads:
            self.execute("SET default_transaction_read_only = on")

    def query(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any]
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Stream the rows of a query; a `numeric` with digits told is a decimal, any other a text."""
        schema, batches = super().query(sql, params)
        plain = pa.schema([field.with_type(_type(field)).remove_metadata() for field in schema])
        return plain, (_cast(batch, plain) for batch in batches)

    def takes(self, kind: pa.DataType) -> bool:
        """Say whether Arrow's type has one here."""
        if types.is_list(kind) or types.is_large_list(kind):
            return self.takes(kind.value_type) and not types.is_list(kind.value_type)
        unsigned = types.is_uint64(kind)  # beyond bigint
        return not (
            kind.num_fields or unsigned or types.is_null(kind) or types.is_decimal256(kind) or _is_odd(kind)
        )

    def spelled(self, kind: pa.DataType) -> str | None:
        """Give the type of values that come as texts: a UUID, JSON, or a number of very many digits."""
        if isinstance(kind, pa.UuidType):
            return "uuid"
        if kind.num_fields and not self.takes(kind) and not isinstance(kind, pa.DictionaryType):
            return "jsonb"
        if isinstance(kind, pa.JsonType):
            return "jsonb"
        if isinstance(kind, pa.Decimal256Type):
            return f"numeric({kind.precision},{kind.scale})"
        return "numeric(20)" if types.is_uint64(kind) else None

    def columns(self, table: str) -> dict[str, str] | None:
        """Give a table's columns with their types."""
        ((found,),) = self.execute("SELECT to_regclass($1)::oid::int8", table)
        if found is None:
            return None
        sql = (
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = $1::int8::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        return {row[0]: row[1] for row in self.execute(sql, found)}


class SqliteDatabase(AdbcDatabase):
    """A SQLite file; its columns take any value."""

    casts = False
    folds = True

    def __init__(self, file: Path | None, *, reads: bool) -> None:
        place = ":memory:" if file is None else f"file:{_escaped(str(file))}{'?mode=ro' if reads else ''}"
        super().__init__("adbc_driver_sqlite", "adbc-sqlite", "a SQLite database", place, autocommit=reads)
        if reads:
            self.execute("PRAGMA query_only = 1")
        self._cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(TYPE_ROWS)})

    def query(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any]
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Stream the rows of one query: of several statements the driver would take the first."""
        if (refused := refusal(sql)) is not None:
            raise pa.ArrowInvalid(refused)
        return super().query(sql, params)

    def takes(self, kind: pa.DataType) -> bool:
        """Say whether Arrow's type has one here."""
        return (
            types.is_integer(kind)
            or types.is_floating(kind)
            or types.is_boolean(kind)
            or types.is_string(kind)
            or types.is_large_string(kind)
            or types.is_binary(kind)
            or types.is_date32(kind)
            or (types.is_timestamp(kind) and kind.tz is None)
        ) and not types.is_uint64(kind)

    def spelled(self, kind: pa.DataType) -> str | None:  # noqa: ARG002  # SQLite has no types of its own
        """Give no type: a text stays one."""
        return None

    def columns(self, table: str) -> dict[str, str] | None:
        """Give a table's columns with their types."""
        schema, _, name = table.rpartition(".")
        prefix = f"{schema}." if schema else ""
        found = self.execute(f"PRAGMA {prefix}table_info({name})")
        return {row[1]: row[2] for row in found} or None


def _escaped(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _is_odd(kind: pa.DataType) -> bool:
    return types.is_time32(kind) or types.is_float16(kind) or isinstance(kind, pa.BaseExtensionType)


def _type(field: pa.Field[Any]) -> pa.DataType:
    """Give a column's type: a `numeric` whose digits the table tells is a decimal, what Arrow has no word for is text."""
    told = field.metadata or {}
    modifier = int(told.get(MODIFIER, b"-1"))
    if told.get(TYPE) == b"numeric" and modifier > 0:
        digits, scale = (modifier - 4) >> 16 & 0xFFFF, (modifier - 4) & 0x7FF
        if scale <= digits <= NUMERIC_LIMIT:
            return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)
    return _plain(field.type)


def _plain(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.OpaqueType):
        return kind.storage_type
    if types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        stored = (
            column.storage if isinstance(column, pa.ExtensionArray) and column.type != field.type else column
        )
        columns.append(stored if stored.type == field.type else stored.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
