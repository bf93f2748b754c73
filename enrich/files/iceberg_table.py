"""Tables of Apache Iceberg: the rows of one snapshot, its delete files obeyed; and rows put there in one snapshot."""

from __future__ import annotations

import importlib
import itertools
import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from enrich.config.catalog import DEFAULT_NAME, catalog_file, catalog_name
from enrich.errors import InputError, OutputError, RunStopped
from enrich.files.common_types import common_type
from enrich.files.databases import first_lines
from enrich.files.drivers import driver
from enrich.files.fitting import fitted, fitting, wider

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from enrich.config import InputConfig, OutputConfig

EXTRA = "iceberg"
WHAT = "a table of Iceberg"
MANIFEST = "beatra-enrich.manifest"  # what a snapshot's summary calls the run's manifest
RECORD = "beatra-enrich.appended."  # begins the table's property that says which rows were appended
TRIES = "commit.retry.num-retries"  # a commit is not tried again on what another has written meanwhile
CHUNK_BYTES = 1 << 28  # bytes of a partitioned table's rows that are written at once
SAME = (
    types.is_int32,
    types.is_int64,
    types.is_float32,
    types.is_float64,
    types.is_boolean,
    types.is_string,
    types.is_large_string,
    types.is_binary,
    types.is_large_binary,
    types.is_fixed_size_binary,
    types.is_date32,
    types.is_decimal128,
)


# --- in ------------------------------------------------------------------------------------------------


def read_iceberg(
    config: InputConfig, seen: int | None = None
) -> tuple[int | None, str, pa.Schema, Iterator[pa.RecordBatch]]:
    """Stream the rows of a snapshot; gives its number, and says which table and snapshot it is.

    Args:
        config: which table.
        seen: a snapshot whose rows are known: those of its files do not come.

    Raises:
        InputError: there is no such catalogue, table or snapshot, or it needs what the library does not know.
        ConfigError: the library is not installed.
    """
    name = config.table or ""
    file = catalog_file(config.catalog or DEFAULT_NAME)
    if file is not None and not file.exists():
        raise InputError(f"the catalogue {file} is not there", hint="look at input.catalog.uri.")
    try:
        table = _catalog(config.catalog).load_table(name)
        scan = _scan(table, config.snapshot)
        snapshot = scan.snapshot()
        known = _known(table, seen)
        tasks = [] if snapshot is None else _ordered(table, snapshot, scan.plan_files())
        tasks = [task for task in tasks if task.file.file_path not in known]
        schema = _arrow(scan.projection())
    except _errors() as error:
        told = "" if config.snapshot is None else f" at snapshot {config.snapshot}"
        raise InputError(
            f"the Iceberg table {name}{told} cannot be read: {first_lines(error)}",
            hint="look at input.catalog and its properties, at the table's name, and at its snapshots.",
        ) from None
    number = None if snapshot is None else int(snapshot.snapshot_id)
    told = f"iceberg:{catalog_name(config.catalog or DEFAULT_NAME)} {name} at snapshot {number}"
    return number, told, schema, _rows(table, scan, tasks, schema)


def _known(table: Any, seen: int | None) -> set[str]:
    """Give the files of a snapshot; none where it is there no more."""
    snapshot = None if seen is None else table.snapshot_by_id(seen)
    manifests = [] if snapshot is None else snapshot.manifests(table.io)
    return {entry.data_file.file_path for one in manifests for entry in one.fetch_manifest_entry(table.io)}


def _scan(table: Any, snapshot: int | str | None) -> Any:
    if isinstance(snapshot, str):
        return table.scan().use_ref(snapshot)
    if snapshot is not None and table.snapshot_by_id(snapshot) is None:
        raise ValueError("there is no such snapshot")
    return table.scan(snapshot_id=snapshot)


def _ordered(table: Any, snapshot: Any, tasks: Any) -> list[Any]:
    """Give the files as they were written, the oldest first: the same order as long as they lie there."""
    written: dict[str, tuple[int, int]] = {}
    for manifest in snapshot.manifests(table.io):
        for entry in manifest.fetch_manifest_entry(table.io):
            written[entry.data_file.file_path] = (entry.sequence_number or 0, len(written))
    return sorted(tasks, key=lambda task: (written.get(task.file.file_path, (0, 0)), task.file.file_path))


def _rows(table: Any, scan: Any, tasks: list[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Read file after file, batch after batch: what is public there holds whole files in memory, and reads ahead."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io import pyarrow as by_arrow

    reading = by_arrow.ArrowScan(table.metadata, table.io, scan.projection(), AlwaysTrue())
    for task in tasks:
        deleted = by_arrow._read_all_delete_files(table.io, [task])  # noqa: SLF001  # see above
        for batch in reading._record_batches_from_scan_tasks_and_deletes([task], deleted):  # noqa: SLF001  # see above
            yield from fitted([batch], schema)


# --- out -----------------------------------------------------------------------------------------------


def rehearse_iceberg(output: OutputConfig, schema: pa.Schema) -> None:
    """See to it that such a table can be made, or takes these columns.

    Raises:
        ConfigError: the library is not installed.
        OutputError: the catalogue cannot be reached, or the table's columns are of other types.
    """
    try:
        table = _existing(output)
        refusal = None if table is None else _refusal(output, table, fitting(schema, _kind))
    except _errors() as error:
        raise OutputError(
            f"the Iceberg table {output.table} cannot be written: {first_lines(error)}",
            hint="look at output.catalog and its properties, and at the table's name.",
        ) from None
    if refusal is not None:
        raise OutputError(
            f"{refusal} in the Iceberg table {output.table}",
            hint="leave it out with output.columns, or cast it where the rows come from.",
        )


def publish_iceberg(output: OutputConfig, record: str, manifest: str) -> bool:
    """Put the rows of an output's file into its table, in one snapshot.

    Args:
        output: the file, and the table.
        record: what tells these rows from those of another input or job; rows are appended once for each.
        manifest: of the run, as JSON; it is kept in the snapshot's summary.

    Returns:
        False when the rows were appended before.

    Raises:
        RunStopped: they cannot be put there; the table is as it was.
    """
    try:
        table = _existing(output)
        if output.mode == "append" and table is not None and RECORD + record in table.properties:
            return False
        with pa.ipc.open_file(pa.memory_map(output.path)) as file:
            _commit(output, table, file, record, manifest)
    except _errors() as error:
        raise RunStopped(
            f"the Iceberg table {output.table} cannot be written: {first_lines(error)}",
            hint="run again when that is mended; nothing is asked anew.",
        ) from None
    return True


def _commit(output: OutputConfig, table: Any, file: Any, record: str, manifest: str) -> None:
    """Make the table what it is to be: columns, rows and the record of them at once."""
    fitting_schema = fitting(file.schema, _kind)
    if table is None:
        transaction = _made(output, fitting_schema)
    else:
        metadata = table.metadata
        table.metadata = metadata.model_copy(update={"properties": {**metadata.properties, TRIES: "0"}})
        transaction = table.transaction()
        _evolve(output, transaction, table, fitting_schema)
    schema = _arrow(transaction.table_metadata.schema())
    given = pa.schema([schema.field(name) for name in file.schema.names])
    batches = fitted((file.get_batch(i) for i in range(file.num_record_batches)), given)
    if output.mode == "append":
        transaction.set_properties({RECORD + record: "1"})
    update = transaction.update_snapshot(snapshot_properties={MANIFEST: manifest})
    replaced = [] if table is None or output.mode == "append" else _files(table)
    with update.overwrite() if replaced else update.fast_append() as snapshot:
        for old in replaced:
            snapshot.delete_data_file(old)
        for new in _written(transaction, table, batches, given):
            snapshot.append_data_file(new)
    transaction.commit_transaction()


def _made(output: OutputConfig, schema: pa.Schema) -> Any:
    """Begin a table, which is there when its rows are."""
    catalog = _catalog(output.catalog)
    catalog.create_namespace_if_not_exists((output.table or "").rpartition(".")[0])
    return catalog.create_table_transaction(output.table or "", schema=schema)


def _evolve(output: OutputConfig, transaction: Any, table: Any, wanted: pa.Schema) -> None:
    """Give a table the columns that it is to have: further ones, or with `replace` these alone."""
    there = _arrow(table.schema())
    taken = {field.name for field in wanted if field.name in there.names and _takes(there, field)}
    gone = [] if output.mode == "append" else [name for name in there.names if name not in taken]
    further = pa.schema([field for field in wanted if field.name not in taken])
    if gone:
        with transaction.update_schema(allow_incompatible_changes=True) as update:
            for name in gone:
                update.delete_column((name,))
    if further.names:
        with transaction.update_schema() as update:
            update.union_by_name(further, format_version=table.format_version)


def _files(table: Any) -> list[Any]:
    """Give the data files of the current snapshot."""
    from pyiceberg.manifest import DataFileContent

    snapshot = table.current_snapshot()
    manifests = [] if snapshot is None else snapshot.manifests(table.io)
    entries = (entry for one in manifests for entry in one.fetch_manifest_entry(table.io))
    return [entry.data_file for entry in entries if entry.data_file.content == DataFileContent.DATA]


def _written(
    transaction: Any, table: Any, batches: Iterator[pa.RecordBatch], schema: pa.Schema
) -> Iterator[Any]:
    """Write data files, streamed; of a partitioned table a good many rows at once, each partition to its own file."""
    from pyiceberg.io.pyarrow import _dataframe_to_data_files

    metadata = transaction.table_metadata
    io = (table or transaction._table).io  # noqa: SLF001  # of a table that is not there yet
    if metadata.spec().is_unpartitioned():
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        yield from _dataframe_to_data_files(metadata, reader, io)
        return
    one, numbers = uuid.uuid4(), itertools.count()
    for rows in _chunks(batches):
        yield from _dataframe_to_data_files(metadata, pa.Table.from_batches(rows), io, one, numbers)


def _chunks(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.nbytes for one in held) >= CHUNK_BYTES:
            yield held
            held = []
    if held:
        yield held


def _existing(output: OutputConfig) -> Any:
    """Open the table; None where it is not there yet."""
    file = catalog_file(output.catalog or DEFAULT_NAME)
    if file is not None and not file.exists():
        if not os.access(file.parent, os.W_OK):
            raise OSError(f"{file} cannot be made: its folder is not there, or not yours to write")
        driver("pyiceberg", EXTRA, WHAT)
        return None
    catalog = _catalog(output.catalog)
    return catalog.load_table(output.table) if catalog.table_exists(output.table) else None


def _refusal(output: OutputConfig, table: Any, wanted: pa.Schema) -> str | None:
    """Say what keeps rows out of a table."""
    there = _arrow(table.schema())
    if output.mode == "append":
        for field in wanted:
            if field.name in there.names and not _takes(there, field):
                return f"the column `{field.name}` is {field.type}, and {there.field(field.name).type}"
        lacking = [field.name for field in there if not field.nullable and field.name not in wanted.names]
        return f"the column `{lacking[0]}` is required, and the output lacks it:" if lacking else None
    used = {table.schema().find_column_name(field.source_id) for field in table.spec().fields}
    gone = [
        n for n in there.names if n in used and not (n in wanted.names and _takes(there, wanted.field(n)))
    ]
    return (
        f"the column `{gone[0]}`, which the output lacks or has in another type, makes partitions"
        if gone
        else None
    )


# --- both ----------------------------------------------------------------------------------------------


def _catalog(given: str | Mapping[str, str] | None) -> Any:
    loader = driver("pyiceberg.catalog", EXTRA, WHAT)
    catalog = given or DEFAULT_NAME
    if isinstance(catalog, str):
        return loader.load_catalog(catalog)
    properties = {key: value for key, value in catalog.items() if key != "name"}
    return loader.load_catalog(catalog_name(catalog), **properties)


def _errors() -> tuple[type[Exception], ...]:
    """Give what the library raises: its errors have no root."""
    errors = driver("pyiceberg.exceptions", EXTRA, WHAT)
    own = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    with suppress(ModuleNotFoundError):
        own.append(importlib.import_module("sqlalchemy.exc").SQLAlchemyError)
    return (*own, pa.ArrowException, OSError, ValueError, TypeError, NotImplementedError)


def _arrow(schema: Any) -> pa.Schema:
    """Give the Arrow schema of a table's columns."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return schema_to_pyarrow(schema, include_field_ids=False)


def _takes(there: pa.Schema, field: pa.Field[Any]) -> bool:
    return common_type(field.type, there.field(field.name).type) is not None


def _kind(kind: Any) -> pa.DataType:  # noqa: PLR0911  # one for each kind of type
    """Give the type that Iceberg has for values: categories are texts there, unsigned integers the next wider signed ones."""
    if isinstance(kind, pa.DictionaryType):
        return _kind(kind.value_type)
    if types.is_int8(kind) or types.is_int16(kind):
        return pa.int32()
    if types.is_unsigned_integer(kind):
        return wider(kind) if kind.bit_width > 16 else pa.int32()
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_time(kind):
        return pa.time64("us")
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(item) if (item := _kind(kind.value_type)) == kind.value_type else pa.string()
    if isinstance(kind, pa.StructType | pa.MapType):
        same = kind.num_fields and all(
            _kind(kind.field(i).type) == kind.field(i).type for i in range(kind.num_fields)
        )
        return kind if same else pa.string()
    if types.is_float16(kind):
        return pa.float32()
    same_kind = isinstance(kind, pa.UuidType) or any(is_kind(kind) for is_kind in SAME)
    return kind if same_kind else pa.string()
