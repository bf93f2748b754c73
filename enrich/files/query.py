"""The rows of a query, copied once to a file of this machine: read as often as wanted, they are the same every time.

What lies in a database may change between two looks at it, and a query need not give its rows in the same order twice. So
it is asked once for each command, in one statement, which sees one moment; everything else is read from the copy, which goes
when the command ends. A digest of the copy tells whether the rows are those of an earlier run.
"""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from enrich.base.location import native
from enrich.base.system import user_number
from enrich.errors import ConfigError, InputError
from enrich.files.databases import first_lines, open_database
from enrich.files.delta_table import read_delta
from enrich.files.iceberg_table import read_iceberg
from enrich.files.input_files import SourceFile, first_duplicate
from enrich.files.placing import Temporary, sweep
from enrich.files.since import TABLE, cut_batches, cut_query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.config import InputConfig
    from enrich.files.databases import Parameters
    from enrich.files.since import Mark

MEMORY = "duckdb://"  # where a query without a URL is asked
COPY_ROWS = 8192  # rows in one record batch of the copy


class Copy:
    """A file that is there while it is used: it is removed with this, and by the next copy should the process be killed."""

    def __init__(self, name: str) -> None:
        target = Path(tempfile.gettempdir(), f"beatra-enrich-{user_number()}-{name}.arrow")
        sweep(target)
        self._temporary = Temporary(target, private=True)
        self.path = self._temporary.path
        weakref.finalize(self, self._temporary.discard)


def copied(config: InputConfig, mark: Mark | None = None) -> SourceFile:
    """Ask a query, and copy its rows: all of them, or those from a mark on.

    Raises:
        InputError: it cannot be asked: what the database says.
        ConfigError: the driver is not installed, or binds no parameters by name.
    """
    url, sql = config.url or MEMORY, config.sql or ""
    if isinstance(config.params, dict) and not url.startswith("duckdb:"):
        raise ConfigError(
            "input.params has names, and this database binds values by their order",
            hint="give a list: [first, second], for $1, $2 of PostgreSQL and ? of SQLite.",
        )
    name = hashlib.sha256(f"{url}\n{sql}".encode()).hexdigest()[:16]
    try:
        with open_database(url, folder=config.folder, reads=True) as database:
            failures: tuple[type[Exception], ...] = (*database.errors, pa.ArrowException, OSError)
            try:
                asked, params = sql, cast("Parameters", config.params)
                if config.since is not None and mark is not None:
                    asked, params = cut_query(sql, params, config.since, mark, scheme=url.partition(":")[0])
                schema, batches = database.query(asked, params)
                copy = Copy(name)
                rows = _write(copy.path, schema, batches)
            except failures as error:
                raise InputError(
                    f"input.sql: {first_lines(error)}", hint="try the query in the database's own shell."
                ) from None
    except OSError as error:
        raise InputError(
            f"{url} cannot be opened: {first_lines(error)}",
            hint="look at its name, whether it is there and whether you may read it.",
        ) from None
    return _frozen(copy, rows, f"{url} {sql}")


def copied_delta(path: str, config: InputConfig, mark: Mark | None) -> SourceFile:
    """Copy the rows of a version of a Delta table: the last one unless given; all of them, or those from a mark on.

    Raises:
        InputError: there is no such table or version, or it cannot be read.
        ConfigError: the library is not installed.
    """
    if not path:
        raise InputError("`format: delta` takes one path", hint="name the table's folder.")
    seen = mark.value if mark is not None and mark.kind == TABLE else None
    key = [config.key] if isinstance(config.key, str) else config.key or []
    number, schema, batches = read_delta(path, config.version, seen, key)
    return _copied(f"delta:{path} at version {number}", schema, _cut(batches, config, mark), number)


def copied_iceberg(config: InputConfig, mark: Mark | None) -> SourceFile:
    """Copy the rows of a snapshot of an Iceberg table: the current one unless given; all of them, or those from a mark on.

    Raises:
        InputError: there is no such table or snapshot, or it cannot be read.
        ConfigError: the library is not installed.
    """
    number, told, schema, batches = read_iceberg(config, mark.value if mark and mark.kind == TABLE else None)
    return _copied(told, schema, _cut(batches, config, mark), number)


def _cut(
    batches: Iterator[pa.RecordBatch], config: InputConfig, mark: Mark | None
) -> Iterator[pa.RecordBatch]:
    if config.since is None or mark is None or mark.kind == TABLE:
        return batches
    return cut_batches(batches, config.since, mark)


def _copied(
    told: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch], version: int | None
) -> SourceFile:
    copy = Copy(hashlib.sha256(told.encode()).hexdigest()[:16])
    try:
        rows = _write(copy.path, schema, batches)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{told} cannot be read: {first_lines(error)}") from None
    return replace(_frozen(copy, rows, told), version_of_table=version)


def _frozen(copy: Copy, rows: int, told: str) -> SourceFile:
    """Take a copy as input, by a digest of what it holds."""
    with copy.path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    size = copy.path.stat().st_size
    return SourceFile(
        str(copy.path), size, 0, rows=rows, version=digest, copy=copy, copy_of=told, below="query.arrow"
    )


def _write(path: Path, schema: pa.Schema, batches: object) -> int:
    """Write rows to an Arrow file, without what the database says of itself; gives their number."""
    if (name := first_duplicate(schema.names)) is not None:
        raise pa.ArrowInvalid(f"two columns are called `{name}`; give one another name with AS")
    schema = schema.remove_metadata()
    options = pa.ipc.IpcWriteOptions(compression="lz4", emit_dictionary_deltas=True)
    rows = 0
    with (
        pa.OSFile(native(str(path)), "wb") as stream,
        pa.ipc.new_file(stream, schema, options=options) as file,
    ):
        for batch in batches:  # type: ignore[attr-defined]  # an iterator
            for start in range(0, batch.num_rows, COPY_ROWS):
                file.write_batch(batch.slice(start, COPY_ROWS).replace_schema_metadata(None))
            rows += batch.num_rows
    return rows
