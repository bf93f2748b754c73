"""A finished output is put into a table of a database: in one transaction, so that nobody sees half, and a kill undoes it all.

The output is a file first, as any other is; that is what a run, `show` and `report` work on. Its rows go into a table that this
connection alone sees, and from there, with one or two statements, into the one that is meant. What was put there, and by which
run, is kept beside it, in `beatra_enrich_outputs`, in the same transaction.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from enrich.base.location import native
from enrich.config.database_url import file_of
from enrich.errors import ConfigError, OutputError, RunStopped
from enrich.files.databases import first_lines, open_database
from enrich.files.fitting import fitted, fitting, refuse_twins

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from enrich.config import OutputConfig
    from enrich.files.databases import Database

T = TypeVar("T")
STAGED = "beatra_enrich_rows"  # the table of this connection
RECORDS = "beatra_enrich_outputs"  # beside the table that is written


def rehearse_table(output: OutputConfig, schema: pa.Schema) -> None:
    """Find out whether a table can be written, by doing it with no rows and undoing that.

    Raises:
        OutputError: it cannot; says why.
    """
    file = file_of(output.url or "")
    if file is not None and not file.exists():
        if not os.access(file.parent, os.W_OK):
            raise OutputError(f"{output.url} cannot be made: its folder is not there, or not yours to write")
        return
    try:
        with open_database(output.url or "") as database:
            writing = _Writing(database, output, schema.names, tried=True)
            _within(database, output, lambda: writing.put(schema.empty_table().to_batches(), schema))
    except OSError as error:
        raise _wrong(output, error) from None
    except RunStopped as error:
        raise OutputError(error.message, hint="look at the table, its types and your rights to it.") from None


def refuse_part(output: OutputConfig, limit: int | None) -> None:
    """Keep a part of the rows from being appended: the whole would come behind it.

    Raises:
        ConfigError: a limit, and rows that are appended without a key.
    """
    if output.table is not None and output.mode == "append" and output.key is None and limit is not None:
        raise ConfigError(
            "--limit with `mode: append` would append some rows, and all of them the next time",
            hint="give output.key, which leaves out what is there, or try it with --output part.parquet.",
        )


def publish(output: OutputConfig, own: Collection[str], record: str, manifest: str) -> bool:
    """Put the rows of an output's file into its table.

    Args:
        output: the file, and the table.
        own: the columns that the job's steps give; a merge touches no other.
        record: what tells these rows from those of another input or job; rows are appended once for each.
        manifest: of the run, as JSON.

    Returns:
        False when the rows were appended before.

    Raises:
        RunStopped: the database does not take them; it is as it was.
        OutputError: the key does not tell the rows apart.
    """
    try:
        with open_database(output.url or "") as database, _opened(output.path) as file:
            writing = _Writing(database, output, own)

            def work() -> bool:
                if not writing.begin(record):
                    return False
                writing.put((file.get_batch(i) for i in range(file.num_record_batches)), file.schema)
                writing.note(record, manifest)
                database.commit()
                return True

            return _within(database, output, work)
    except OSError as error:
        raise _stopped(output, error) from None


def _opened(path: str) -> Any:
    return pa.ipc.open_file(pa.OSFile(native(path), "rb"))


def _within(database: Database, output: OutputConfig, work: Callable[[], T]) -> T:
    """Do something, and put into words what the database says against it."""
    try:
        return work()
    except (OutputError, OSError):
        raise
    except database.errors as error:
        raise _stopped(output, error) from None


def _stopped(output: OutputConfig, error: Exception) -> RunStopped:
    return RunStopped(
        f"the table {output.table} cannot be written: {first_lines(error)}",
        hint="run again when that is mended; nothing is asked anew.",
    )


def _wrong(output: OutputConfig, error: Exception) -> OutputError:
    return OutputError(
        f"{output.url} cannot be opened: {first_lines(error)}",
        hint="look at its name, and whether another program has it.",
    )


class _Writing:
    """One transaction that puts rows into a table."""

    def __init__(
        self, database: Database, output: OutputConfig, own: Collection[str], *, tried: bool = False
    ) -> None:
        self._database = database
        self._output = output
        self._own = own
        self._tried = tried
        self._keys = output.keys
        *schema, name = (output.table or "").split(".")
        self._table = ".".join(map(_quoted, [*schema, name]))
        self._records = ".".join(map(_quoted, [*schema, RECORDS]))

    def begin(self, record: str) -> bool:
        """Make the table of records; False when these rows were appended before."""
        self._do(f"CREATE TABLE IF NOT EXISTS {self._records} (name text, record text, manifest text)")
        if self._output.mode != "append":
            return True
        sql = f"SELECT count(*) FROM {self._records} WHERE name = $1 AND record = $2"  # noqa: S608  # quoted
        return not self._database.execute(sql, self._output.table, record)[0][0]

    def note(self, record: str, manifest: str) -> None:
        """Keep which rows were put there, by which run."""
        kept = "AND record = $2" if self._output.mode == "append" else "AND ($2 IS NOT NULL)"
        sql = f"DELETE FROM {self._records} WHERE name = $1 {kept}"  # noqa: S608  # quoted
        self._database.execute(sql, self._output.table, record)
        sql = f"INSERT INTO {self._records} VALUES ($1, $2, $3)"  # noqa: S608  # quoted
        self._database.execute(sql, self._output.table, record, manifest)

    def put(self, batches: Iterator[pa.RecordBatch] | Sequence[pa.RecordBatch], schema: pa.Schema) -> None:
        """Put rows where they belong, in the way that is meant."""
        existing = self._database.columns(self._table)
        if self._database.folds:
            refuse_twins(
                schema.names, (existing or {}) if self._output.mode != "replace" else {}, self._output
            )
        taken = fitting(schema, partial(_kind, self._database))
        self._database.ingest(pa.RecordBatchReader.from_batches(taken, fitted(batches, taken)), STAGED)
        self._given = {field.name: self._database.spelled(field.type) for field in schema}
        self._check_key(schema.names)
        same = existing is not None and set(existing) == set(schema.names)
        if existing is not None and self._output.mode == "replace" and not same:
            self._do(f"DROP TABLE {self._table}")
            existing = None
        if existing is None and self._output.mode == "update":
            raise OutputError(f"there is no table {self._output.table} to update", hint="see output.mode.")
        if existing is None:
            every = ", ".join(
                f"{self._value(name, self._given[name])} AS {_quoted(name)}" for name in schema.names
            )
            self._do(f"CREATE TABLE {self._table} AS SELECT {every} FROM {STAGED} AS s")  # noqa: S608  # quoted
            return
        if self._output.mode == "replace":
            none = " WHERE 1 = 0" if self._tried else ""
            self._do(f"DELETE FROM {self._table}{none}")  # noqa: S608  # quoted
            self._insert(schema.names, existing, "")
        elif self._output.mode == "append":
            existing = self._widened(existing, schema.names)
            self._insert(schema.names, existing, self._absent(existing) if self._keys else "")
        else:
            self._merge(schema.names, existing)

    def _merge(self, names: Sequence[str], existing: dict[str, str]) -> None:
        """Update the steps' columns of rows that are there, and add those that are not, unless rows are only updated."""
        lacking = [key for key in self._keys if key not in existing]
        if lacking:
            raise OutputError(
                f"the table {self._output.table} has no column `{lacking[0]}`", hint="see output.key."
            )
        own = [name for name in names if name in self._own and name not in self._keys]
        existing = self._widened(existing, own)
        changed = ", ".join(f"{_quoted(name)} = {self._cast(name, existing)}" for name in own)
        met = self._met(existing)
        self._do(f"UPDATE {self._table} AS x SET {changed} FROM {STAGED} AS s WHERE {met}")  # noqa: S608  # quoted
        if self._output.mode == "merge":
            self._insert([name for name in names if name in existing], existing, self._absent(existing))

    def _insert(self, names: Sequence[str], existing: dict[str, str], where: str) -> None:
        into = ", ".join(map(_quoted, names))
        values = ", ".join(self._cast(name, existing) for name in names)
        self._do(f"INSERT INTO {self._table} ({into}) SELECT {values} FROM {STAGED} AS s{where}")  # noqa: S608  # quoted

    def _widened(self, existing: dict[str, str], names: Sequence[str]) -> dict[str, str]:
        """Add the columns that the table lacks."""
        staged = self._database.columns(STAGED) or {}
        for name in names:
            if name not in existing:
                kind = self._given[name] or staged[name]
                self._do(f"ALTER TABLE {self._table} ADD COLUMN {_quoted(name)} {kind}")
                existing = {**existing, name: kind}
        return existing

    def _met(self, existing: dict[str, str]) -> str:
        return " AND ".join(f"x.{_quoted(key)} = {self._cast(key, existing)}" for key in self._keys)

    def _absent(self, existing: dict[str, str]) -> str:
        return f" WHERE NOT EXISTS (SELECT 1 FROM {self._table} AS x WHERE {self._met(existing)})"  # noqa: S608  # quoted

    def _cast(self, name: str, existing: dict[str, str]) -> str:
        """Give a value as a column of the table has it."""
        return self._value(name, existing[name] if self._database.casts else None)

    def _value(self, name: str, kind: str | None) -> str:
        column = f"s.{_quoted(name)}"
        return f"CAST({column} AS {kind})" if kind else column

    def _check_key(self, names: Sequence[str]) -> None:
        """Hold the key to what it is for: it tells every row from every other."""
        for key in self._keys:
            if key not in names:
                raise OutputError(f"the output has no column `{key}`", hint="see output.key.")
        if not self._keys:
            return
        told = ", ".join(map(_quoted, self._keys))
        nulls = " OR ".join(f"{_quoted(key)} IS NULL" for key in self._keys)
        twice = f"SELECT 1 FROM {STAGED} GROUP BY {told} HAVING count(*) > 1 LIMIT 1"  # noqa: S608  # quoted
        absent = f"SELECT 1 FROM {STAGED} WHERE {nulls} LIMIT 1"  # noqa: S608  # quoted
        for sql, what in ((absent, "is null in some rows"), (twice, "stands in several rows")):
            if self._database.execute(sql):
                raise OutputError(
                    f"the key {', '.join(f'`{key}`' for key in self._keys)} {what}",
                    hint="name columns in output.key that together tell each row from every other.",
                )

    def _do(self, sql: str) -> None:
        self._database.execute(sql)


def _kind(database: Database, kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.DictionaryType):
        return _kind(database, kind.value_type)
    return kind if database.takes(kind) else pa.string()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
