"""Tables of Delta Lake: the rows of one version, whatever was overwritten or deleted since; and rows put there in one commit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from enrich.config.table_names import quoted
from enrich.config.tables import BY_KEY
from enrich.errors import InputError, OutputError, RunStopped
from enrich.files.common_types import common_type
from enrich.files.drivers import driver
from enrich.files.fitting import fitted, fitting, refuse_twins, wider

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from enrich.config import OutputConfig

LOG = "_delta_log"
ROWS = "SELECT * FROM rows"
APPLICATION = "beatra-enrich:"  # begins the name under which a commit says that it was done
FEED = "delta.enableChangeDataFeed"
OF_FEED = ("_change_type", "_commit_version", "_commit_timestamp", "_there")
SAME = (
    types.is_signed_integer,
    types.is_floating,
    types.is_boolean,
    types.is_string,
    types.is_large_string,
    types.is_string_view,
    types.is_binary,
    types.is_large_binary,
    types.is_date32,
    types.is_decimal128,
)
MANIFEST = "beatra_enrich"  # what a commit's metadata calls the run's manifest


def is_delta(path: str) -> bool:
    """Say whether a folder of this machine is such a table."""
    return Path(path, LOG).is_dir()


def read_delta(
    path: str, version: int | None, seen: int | None = None, key: Sequence[str] = ()
) -> tuple[int, pa.Schema, Iterator[pa.RecordBatch]]:
    """Stream the rows of a version, its deletion vectors obeyed; gives its number, too.

    Args:
        path: of the table.
        version: the last one unless given.
        seen: a version whose rows are known: of rows that were not changed since, few come or none.
        key: the columns that tell rows apart, where they are known.

    Raises:
        InputError: there is no such table or version, or it needs what the library does not know.
        ConfigError: the library is not installed.
    """
    deltalake = driver("deltalake", "delta", "a table of Delta")
    try:
        table = deltalake.DeltaTable(path, version=version)
        reader = None if seen is None else _changed(deltalake, table, path, seen, key)
        reader = reader or _reader(deltalake, table)
    except (deltalake.exceptions.DeltaError, OSError) as error:
        told = "" if version is None else f" at version {version}"
        raise InputError(
            f"the Delta table {path}{told} cannot be read: {error}",
            hint="look at its name, and at its history for the versions that are there.",
        ) from None
    return int(table.version()), reader.schema, iter(reader)


def _changed(
    deltalake: Any, table: Any, path: str, seen: int, key: Sequence[str]
) -> pa.RecordBatchReader | None:
    """Read what has changed since a version: by the change data feed and the key, else the files that were not there then.

    Such a file may hold rows that were only written again; they are answered, and cost nothing. None where neither way can
    be gone: a version that is gone, or deletion vectors, and then the whole table is read.
    """
    if seen == table.version():
        return pa.RecordBatchReader.from_batches(pa.schema(table.schema().to_arrow()), iter(()))
    fed = (table.metadata().configuration or {}).get(FEED) == "true"
    with suppress(deltalake.exceptions.DeltaError, deltalake.exceptions.DeltaProtocolError):
        if fed and key:
            return _fed(table, seen, key)
    with suppress(deltalake.exceptions.DeltaError, deltalake.exceptions.DeltaProtocolError):
        then = deltalake.DeltaTable(path, version=seen).to_pyarrow_dataset()
        return _further_files(table.to_pyarrow_dataset(), then)
    return None


def _further_files(now: Any, then: Any) -> pa.RecordBatchReader:
    """Read the files of one version that another has not."""
    from pyarrow.dataset import FileSystemDataset

    known = {fragment.path for fragment in then.get_fragments()}
    further = [fragment for fragment in now.get_fragments() if fragment.path not in known]
    reader: pa.RecordBatchReader = (
        FileSystemDataset(further, now.schema, now.format, now.filesystem).scanner().to_reader()
    )
    return reader


def _fed(table: Any, seen: int, key: Sequence[str]) -> pa.RecordBatchReader:
    """Read the change data feed: of each key the last that became of it, in the order of changes."""
    import pyarrow.compute as pc

    rows: Any = pa.table(table.load_cdf(starting_version=seen + 1, ending_version=table.version()))
    rows = rows.cast(pa.schema([field.with_type(_without_view(field.type)) for field in rows.schema]))
    rows = rows.filter(pc.not_equal(rows["_change_type"], pa.scalar("update_preimage")))
    there = pc.not_equal(rows["_change_type"], pa.scalar("delete"))
    rows = rows.append_column("_there", there).sort_by(
        [("_commit_version", "ascending"), ("_there", "ascending")]
    )
    numbered: Any = rows.select(list(key)).append_column(
        "_number", pa.array(range(rows.num_rows), pa.int64())
    )
    last = numbered.group_by(list(key)).aggregate([("_number", "max")])["_number_max"]
    rows = rows.take(last.combine_chunks().sort())
    rows = rows.filter(rows["_there"])
    rows = rows.select([name for name in rows.column_names if name not in OF_FEED])
    return pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches())


def _reader(deltalake: Any, table: Any) -> pa.RecordBatchReader:
    """Read file after file, in the same order every time; a table with deletion vectors comes as its engine gives it."""
    try:
        found: pa.RecordBatchReader = table.to_pyarrow_dataset().scanner().to_reader()
    except deltalake.exceptions.DeltaProtocolError:
        query = deltalake.QueryBuilder().register("rows", table).execute(ROWS)
        return pa.RecordBatchReader.from_stream(query)
    return found


def _without_view(kind: pa.DataType) -> pa.DataType:
    if types.is_string_view(kind):
        return pa.string()
    return pa.binary() if types.is_binary_view(kind) else kind


def last_version(output: OutputConfig) -> int:
    """Give the version of an output's table as it stands now."""
    deltalake = driver("deltalake", "delta", "a table of Delta")
    return int(deltalake.DeltaTable(_place(output)).version())


def rehearse_delta(output: OutputConfig, schema: pa.Schema) -> None:
    """See to it that such a table can be made, or takes these columns.

    Raises:
        ConfigError: the library is not installed.
        OutputError: at its place lies something else, or a table whose columns are of other types.
    """
    deltalake = driver("deltalake", "delta", "a table of Delta")
    place = Path(_place(output))
    refuse_twins(schema.names, (), output)
    if not is_delta(str(place)):
        if place.is_file() or (place.is_dir() and any(place.iterdir())):
            raise OutputError(
                f"{place} is there, and is no table of Delta", hint="name a folder that is not there yet."
            )
        if output.mode == "update":
            raise OutputError(f"there is no Delta table {place} to update", hint="see output.mode.")
        return
    if output.mode != "replace":
        existing = pa.schema(deltalake.DeltaTable(place).schema().to_arrow())
        for name, kind in zip(schema.names, map(_kind, schema.types), strict=True):
            if name in existing.names and common_type(kind, existing.field(name).type) is None:
                raise OutputError(
                    f"the column `{name}` is {kind}, and {existing.field(name).type} in the Delta table {place}",
                    hint="leave it out with output.columns, or cast it where the rows come from.",
                )


def publish_delta(output: OutputConfig, own: Collection[str], record: str, manifest: str) -> bool:
    """Put the rows of an output's file into its table, in one commit.

    Args:
        output: the file, and the table.
        own: the columns that the job's steps give; by a key no other is touched.
        record: what tells these rows from those of another input or job; rows are appended once for each.
        manifest: of the run, as JSON; it is kept in the commit.

    Returns:
        False when the rows were appended before.

    Raises:
        RunStopped: they cannot be put there; the table is as it was.
    """
    deltalake = driver("deltalake", "delta", "a table of Delta")
    place, appends = _place(output), output.mode == "append"
    name = APPLICATION + record
    try:
        table = deltalake.DeltaTable(place) if is_delta(place) else None
        if appends and table is not None and table.transaction_version(name) is not None:
            return False
        done = [deltalake.Transaction(name, 1)] if appends else None
        told = deltalake.CommitProperties(custom_metadata={MANIFEST: manifest}, app_transactions=done)
        with pa.ipc.open_file(pa.memory_map(output.path)) as file:
            schema = fitting(file.schema, _kind)
            rows = pa.RecordBatchReader.from_batches(
                schema, fitted(map(file.get_batch, range(file.num_record_batches)), schema)
            )
            if table is not None and output.keys:
                _merge(output, table, rows, own, told)
                return True
            deltalake.write_deltalake(
                table or place,
                rows,
                mode="append" if appends else "overwrite",
                schema_mode="merge" if appends else "overwrite",
                commit_properties=told,
            )
    except (deltalake.exceptions.DeltaError, pa.ArrowException, OSError, ValueError) as error:
        raise RunStopped(
            f"the Delta table {place} cannot be written: {error}",
            hint="run again when that is mended; nothing is asked anew.",
        ) from None
    return True


def _merge(
    output: OutputConfig, table: Any, rows: pa.RecordBatchReader, own: Collection[str], told: Any
) -> None:
    """Write the steps' columns of rows whose key is there, and add the others, as far as the mode says so."""
    met = " AND ".join(f"t.{quoted(key)} = s.{quoted(key)}" for key in output.keys)
    mine = [name for name in rows.schema.names if name in own and name not in output.keys]
    merging = table.merge(
        rows, met, source_alias="s", target_alias="t", merge_schema=True, commit_properties=told
    )
    if output.mode in BY_KEY:
        merging = merging.when_matched_update({quoted(name): f"s.{quoted(name)}" for name in mine})
    if output.mode != "update":
        every = {quoted(name): f"s.{quoted(name)}" for name in rows.schema.names}
        merging = merging.when_not_matched_insert(every)
    merging.execute()


def _place(output: OutputConfig) -> str:
    return (output.url or "").removeprefix("delta:")


def _kind(kind: Any) -> pa.DataType:  # noqa: PLR0911  # one for each kind of type
    """Give the type that Delta has for values: categories are texts there, unsigned integers the next wider signed ones."""
    if isinstance(kind, pa.DictionaryType):
        return _kind(kind.value_type)
    if types.is_unsigned_integer(kind):
        return wider(kind)
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(item) if (item := _kind(kind.value_type)) == kind.value_type else pa.string()
    if isinstance(kind, pa.StructType):
        same = kind.num_fields and all(_kind(field.type) == field.type for field in kind)
        return kind if same else pa.string()
    if types.is_float16(kind):
        return pa.float32()
    return kind if any(is_kind(kind) for is_kind in SAME) else pa.string()
