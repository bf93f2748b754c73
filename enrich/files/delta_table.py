"""Tables of Delta Lake: the rows of one version, whatever was overwritten or deleted since; and rows put there in one commit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from enrich.errors import InputError, OutputError, RunStopped
from enrich.files.common_types import common_type
from enrich.files.drivers import driver
from enrich.files.fitting import fitted, fitting, refuse_twins, wider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.config import OutputConfig

LOG = "_delta_log"
ROWS = "SELECT * FROM rows"
APPLICATION = "beatra-enrich:"  # begins the name under which a commit says that it was done
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


def read_delta(path: str, version: int | None) -> tuple[int, pa.Schema, Iterator[pa.RecordBatch]]:
    """Stream the rows of a version, its deletion vectors obeyed; gives its number, too.

    Raises:
        InputError: there is no such table or version, or it needs what the library does not know.
        ConfigError: the library is not installed.
    """
    deltalake = driver("deltalake", "delta", "a table of Delta")
    try:
        table = deltalake.DeltaTable(path, version=version)
        reader = _reader(deltalake, table)
    except (deltalake.exceptions.DeltaError, OSError) as error:
        told = "" if version is None else f" at version {version}"
        raise InputError(
            f"the Delta table {path}{told} cannot be read: {error}",
            hint="look at its name, and at its history for the versions that are there.",
        ) from None
    return int(table.version()), reader.schema, iter(reader)


def _reader(deltalake: Any, table: Any) -> pa.RecordBatchReader:
    """Read file after file, in the same order every time; a table with deletion vectors comes as its engine gives it."""
    try:
        found: pa.RecordBatchReader = table.to_pyarrow_dataset().scanner().to_reader()
    except deltalake.exceptions.DeltaProtocolError:
        query = deltalake.QueryBuilder().register("rows", table).execute(ROWS)
        return pa.RecordBatchReader.from_stream(query)
    return found


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
        return
    if output.mode == "append":
        existing = pa.schema(deltalake.DeltaTable(place).schema().to_arrow())
        for name, kind in zip(schema.names, map(_kind, schema.types), strict=True):
            if name in existing.names and common_type(kind, existing.field(name).type) is None:
                raise OutputError(
                    f"the column `{name}` is {kind}, and {existing.field(name).type} in the Delta table {place}",
                    hint="leave it out with output.columns, or cast it where the rows come from.",
                )


def publish_delta(output: OutputConfig, record: str, manifest: str) -> bool:
    """Put the rows of an output's file into its table, in one commit.

    Args:
        output: the file, and the table.
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
        with pa.ipc.open_file(pa.memory_map(output.path)) as file:
            schema = fitting(file.schema, _kind)
            deltalake.write_deltalake(
                table or place,
                pa.RecordBatchReader.from_batches(
                    schema, fitted(map(file.get_batch, range(file.num_record_batches)), schema)
                ),
                mode="append" if appends else "overwrite",
                schema_mode="merge" if appends else "overwrite",
                commit_properties=deltalake.CommitProperties(
                    custom_metadata={MANIFEST: manifest}, app_transactions=done
                ),
            )
    except (deltalake.exceptions.DeltaError, pa.ArrowException, OSError, ValueError) as error:
        raise RunStopped(
            f"the Delta table {place} cannot be written: {error}",
            hint="run again when that is mended; nothing is asked anew.",
        ) from None
    return True


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
