"""Tables of Iceberg: the rows of a snapshot, and rows put there in one snapshot."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestWriterV2
from pyiceberg.typedef import Record

from enrich.config import InputConfig, OutputConfig
from enrich.errors import ConfigError, InputError, OutputError, RunStopped
from enrich.files.iceberg_table import publish_iceberg, rehearse_iceberg
from enrich.files.sink import open_sink
from enrich.files.source import Source, open_source
from tests.helpers.outputs import python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended

STATUS = pa.dictionary(pa.int32(), pa.string())


def catalogue(folder: Path) -> dict[str, str]:
    """Give the properties of a catalogue on disk."""
    return {
        "name": "lake",
        "type": "sql",
        "uri": f"sqlite:///{folder}/lake.db",
        "warehouse": str(folder / "w"),
    }


def opened(folder: Path) -> Any:
    """Open it, as anybody would."""
    properties = {k: v for k, v in catalogue(folder).items() if k != "name"}
    found = load_catalog("lake", **properties)
    found.create_namespace_if_not_exists("shop")
    return found


def made(folder: Path, table: pa.Table, **options: Any) -> Any:
    """Make the table `shop.t`, and append rows."""
    found = opened(folder).create_table("shop.t", schema=table.schema, **options)
    found.append(table)
    return found


def source(folder: Path, table: str = "shop.t", **options: Any) -> Source:
    """Open a table as an input."""
    document = {"format": "iceberg", "catalog": catalogue(folder), "table": table, **options}
    return open_source(InputConfig.model_validate(document))


def rows(folder: Path, table: str = "shop.t", **options: Any) -> list[dict[str, Any]]:
    """Read a table's rows."""
    found = source(folder, table, **options)
    return pa.Table.from_batches(found.batches(), found.schema).to_pylist()


def answered(*ids: int) -> pa.Table:
    """Make rows with answers."""
    status = pa.array(["ok"] * len(ids), STATUS)
    return pa.table({"id": pa.array(ids, pa.int64()), "s": [f"x{one}" for one in ids], "s_status": status})


def put(folder: Path, table: pa.Table, record: str = "r", **options: Any) -> bool:
    """Write rows to a file, and put them into the table `shop.out`."""
    document = {
        "path": str(folder / "out.arrow"),
        "table": "shop.out",
        "format": "iceberg",
        "catalog": catalogue(folder),
        **options,
    }
    config = OutputConfig.model_validate(document)
    with open_sink(config, table.schema) as sink:
        for batch in table.to_batches():
            sink.write(batch)
        sink.commit({})
    rehearse_iceberg(config, table.schema)
    return publish_iceberg(config, record, json.dumps({"rows": table.num_rows}))


def test_a_snapshot_in_the_order_of_writing(tmp_path: Path) -> None:
    """The current snapshot is read, or the one that is told: what was deleted meanwhile is not among it."""
    table = made(tmp_path, pa.table({"id": [1, 2, 3]}))
    first = table.current_snapshot().snapshot_id
    table.manage_snapshots().create_tag(first, "frozen").commit()
    for number in (4, 5, 6):
        table.append(pa.table({"id": [number]}))
    table.delete("id = 2")
    assert sorted(row["id"] for row in rows(tmp_path)) == [1, 3, 4, 5, 6]
    assert [row["id"] for row in rows(tmp_path, snapshot=first)] == [1, 2, 3]
    assert [row["id"] for row in rows(tmp_path, snapshot="frozen")] == [1, 2, 3]
    assert source(tmp_path).files[0].version == source(tmp_path).files[0].version
    with pytest.raises(InputError, match="at snapshot 9 cannot be read"):
        source(tmp_path, snapshot=9)


def test_appends_come_one_after_the_other(tmp_path: Path) -> None:
    """Rows that were appended later come later."""
    table = made(tmp_path, pa.table({"id": [0]}))
    for number in range(1, 12):
        table.append(pa.table({"id": [number]}))
    assert [row["id"] for row in rows(tmp_path)] == list(range(12))


def test_delete_files_are_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a file of positions says are deleted are not read; that their file is there still does not matter."""
    table = made(tmp_path, pa.table({"id": [1, 2, 3, 4]}))
    (task,) = table.scan().plan_files()
    place = tmp_path / "w" / "deletes.parquet"
    pq.write_table(
        pa.table({"file_path": [task.file.file_path] * 2, "pos": pa.array([1, 2], pa.int64())}), place
    )
    deletes = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=str(place),
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=2,
        file_size_in_bytes=place.stat().st_size,
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds={},
        upper_bounds={},
        split_offsets=[],
        sort_order_id=None,
    )
    deletes.spec_id = 0
    with monkeypatch.context() as patched:
        patched.setattr(ManifestWriterV2, "content", lambda _: ManifestContent.DELETES)
        with table.transaction() as change, change.update_snapshot().fast_append() as snapshot:
            snapshot.append_data_file(deletes)
    assert [row["id"] for row in rows(tmp_path)] == [1, 4]


def test_a_table_that_changed_its_columns(tmp_path: Path) -> None:
    """Columns that were added or renamed since are as the table has them now, whatever the file says."""
    table = made(tmp_path, pa.table({"id": [1], "old": ["x"]}))
    with table.update_schema() as update:
        update.rename_column("old", "new")
        update.add_column("more", update._schema.find_type("id"))  # its type, as an example
    table.append(pa.table({"id": [2], "new": ["y"], "more": [7]}))
    assert rows(tmp_path) == [{"id": 1, "new": "x", "more": None}, {"id": 2, "new": "y", "more": 7}]


def test_replace_is_one_snapshot_with_the_manifest(tmp_path: Path) -> None:
    """The rows are those of the last run, whatever its columns; who reads an older snapshot still has it."""
    assert put(tmp_path, pa.table({"old": [1], "s": [5]}))
    assert put(tmp_path, answered(1, 2))
    table = opened(tmp_path).load_table("shop.out")
    assert len(table.snapshots()) == 2
    summary = table.current_snapshot().summary
    assert (summary.operation.value, json.loads(summary["beatra-enrich.manifest"])) == (
        "overwrite",
        {"rows": 2},
    )
    assert rows(tmp_path, "shop.out") == [
        {"id": 1, "s": "x1", "s_status": "ok"},
        {"id": 2, "s": "x2", "s_status": "ok"},
    ]
    assert table.scan(snapshot_id=table.snapshots()[0].snapshot_id).to_arrow().to_pylist() == [
        {"old": 1, "s": 5}
    ]


def test_append_once(tmp_path: Path) -> None:
    """The rows of one input are appended once, however often it is run; further columns are added."""
    assert put(tmp_path, answered(1), "first", mode="append")
    assert put(tmp_path, answered(2).append_column("more", pa.array(["m"])), "second", mode="append")
    assert not put(tmp_path, answered(1), "first", mode="append")
    assert [(row["id"], row["more"]) for row in rows(tmp_path, "shop.out")] == [(1, None), (2, "m")]


def test_partitions_and_narrower_columns_stay_as_they_are(tmp_path: Path) -> None:
    """A partitioned table gets each row into its partition, and a value in the type of its column."""
    kinds: dict[str, pa.DataType] = {"id": pa.int32(), "s": pa.string(), "s_status": pa.string()}
    table = opened(tmp_path).create_table("shop.out", schema=pa.schema(kinds))
    table.update_spec().add_identity("s_status").commit()
    for mode, ids in (("append", [1, 2]), ("replace", [1, 2]), ("append", [3])):
        put(tmp_path, answered(*ids), mode + str(ids), mode=mode)
    assert sorted(row["id"] for row in rows(tmp_path, "shop.out")) == [1, 2, 3]
    table.refresh()
    assert {str(task.file.partition) for task in table.scan().plan_files()} == {"Record[ok]"}
    assert str(table.schema().find_type("id")) == "int"
    with pytest.raises(OutputError, match=r"`s_status`.* makes partitions"):
        put(tmp_path, pa.table({"id": [1]}))
    with pytest.raises(RunStopped, match="cannot be written"):
        put(tmp_path, answered(2**40), "wide", mode="append")
    assert len(rows(tmp_path, "shop.out")) == 3


def test_types(tmp_path: Path) -> None:
    """What Iceberg has a type for is that; the rest is a wider number or text."""
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    some = uuid.uuid4()
    columns: list[tuple[pa.Array[Any], str, Any]] = [
        (pa.array([255], pa.uint8()), "int", 255),
        (pa.array([2**63], pa.uint64()), "decimal(20, 0)", Decimal(2**63)),
        (pa.array([2**60]), "long", 2**60),
        (pa.array([0.1]), "double", 0.1),
        (pa.array([Decimal("1.50")], pa.decimal128(10, 2)), "decimal(10, 2)", Decimal("1.50")),
        (pa.array([Decimal("1.500")], pa.decimal256(50, 3)), "string", "1.500"),
        (pa.array([True]), "boolean", True),
        (pa.array([dt.date(2026, 1, 2)]), "date", dt.date(2026, 1, 2)),
        (pa.array([moment], pa.timestamp("ns", "Europe/Paris")), "timestamptz", moment),
        (pa.array([moment.replace(tzinfo=None)]), "timestamp", moment.replace(tzinfo=None)),
        (pa.array([1_000_001], pa.timestamp("ns")), "timestamp", dt.datetime(1970, 1, 1, 0, 0, 0, 1000)),  # noqa: DTZ001
        (pa.array([dt.time(1, 2)], pa.time64("ns")), "time", dt.time(1, 2)),
        (pa.array([b"\0"]), "binary", b"\0"),
        (pa.array([b"ab"], pa.binary(2)), "fixed[2]", b"ab"),
        (pa.array([some.bytes], pa.uuid()), "uuid", some),
        (pa.array([[1, 2]]), "list<long>", [1, 2]),
        (pa.array([{"a": 1}]), "struct<18: a: optional long>", {"a": 1}),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "map<string, long>", [("k", 1)]),
        (pa.array(["a"], STATUS), "string", "a"),
        (pa.array([None], pa.null()), "string", None),
    ]
    names = [f"c{i}" for i in range(len(columns))]
    put(tmp_path, pa.table([column for column, *_ in columns], names=names))
    told = opened(tmp_path).load_table("shop.out").schema()
    (found,) = rows(tmp_path, "shop.out")
    for name, (_, kind, value) in zip(names, columns, strict=True):
        assert found[name] == value, name
        assert kind.startswith("struct") or str(told.find_type(name)) == kind


def test_what_the_table_does_not_take_leaves_it_as_it_was(tmp_path: Path) -> None:
    """Columns of another type, and catalogues that cannot be reached, are refused before anything is spent."""
    put(tmp_path, answered(1))
    with pytest.raises(OutputError, match="`id` is string, and int64 in the Iceberg table"):
        put(tmp_path, pa.table({"id": ["text"]}), "other", mode="append")
    with pytest.raises(OutputError, match="cannot be written"):
        put(
            tmp_path,
            answered(1),
            catalog={"name": "x", "type": "sql", "uri": f"sqlite:///{tmp_path}/no/x.db"},
        )
    with pytest.raises(InputError, match="is not there"):
        source(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"shop\.other.* cannot be read"):
        source(tmp_path, "shop.other")
    assert not (tmp_path / "elsewhere").exists()


def test_another_writer_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that another has put there meanwhile stay, and the run can go on: nothing is put on top of what was not seen."""
    put(tmp_path, answered(1))
    from enrich.files import iceberg_table

    files = iceberg_table._files  # the instant between looking and writing

    def late(table: Any) -> list[Any]:
        found = files(table)
        other = opened(tmp_path).load_table("shop.out")
        other.append(pa.table({"id": [9], "s": ["o"], "s_status": ["ok"]}))
        return found

    monkeypatch.setattr(iceberg_table, "_files", late)
    with pytest.raises(RunStopped) as caught:
        put(tmp_path, answered(2))
    assert caught.value.exit_code == 4
    assert [row["id"] for row in rows(tmp_path, "shop.out")] == [1, 9]


PUBLISH = """
import json, sys
from enrich.config import OutputConfig
from enrich.files.iceberg_table import publish_iceberg
path, catalog, mode = sys.argv[1:]
config = OutputConfig(table="shop.out", format="iceberg", catalog=json.loads(catalog), path=path, mode=mode)
print("begun", flush=True)
for record in range(2, 1000):
    publish_iceberg(config, str(record), "{}")
"""


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_killed_at_any_instant_nobody_sees_half(tmp_path: Path, mode: str) -> None:
    """Killed in the middle, a table has all of the rows of each time or none; the next run puts them there, once."""
    put(tmp_path, answered(*range(2_000)), "1", mode=mode)
    for seconds in (0.1, 0.25, 0.5):
        arguments = (str(tmp_path / "out.arrow"), json.dumps(catalogue(tmp_path)), mode)
        with python(PUBLISH, *arguments) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(seconds)
            process.kill()
            process.wait()
        table = opened(tmp_path).load_table("shop.out")
        times = len(table.snapshots()) if mode == "append" else 1
        assert table.scan().to_arrow().num_rows == 2_000 * times
    assert put(tmp_path, answered(*range(2_000)), uuid.uuid4().hex, mode=mode)


def test_every_command(
    tmp_path: Path, job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """From a table to a table: check, plan, run, show, report, collect; a snapshot later only the new rows are asked."""
    table = made(tmp_path, pa.table({"id": [1, 2, 3], "t": ["a", "b", "c"]}))
    lake = {"name": "lake", "type": "sql", "uri": "sqlite:///lake.db", "warehouse": "w"}
    config = job(
        input={"format": "iceberg", "catalog": lake, "table": "shop.t"},
        output={"format": "iceberg", "catalog": dict(lake), "table": "shop.out"},
    )
    for command in (("check",), ("plan",), ("run",), ("show",), ("report", "-o", "r.html"), ("collect",)):
        ended = cli(command[0], config, *command[1:], endpoint=endpoint)
        assert ended.code == 0, (command, ended.err)
    table.append(pa.table({"id": [4], "t": ["d"]}))
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (0, 4)
    assert "put into shop.out" in ended.err
    found = rows(tmp_path, "shop.out")
    assert [(row["id"], row["s_status"]) for row in found] == [(n, "ok") for n in (1, 2, 3, 4)]
    assert cli("run", config, "--output", "o.csv", endpoint=endpoint).code == 0
    assert (tmp_path / "o.csv").read_text().startswith('"id"')


def test_a_missing_library_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the message is the command that brings it."""
    made(tmp_path, pa.table({"id": [1]}))
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog", None)
    with pytest.raises(ConfigError, match="pyiceberg") as caught:
        source(tmp_path)
    assert caught.value.hint == "pip install 'beatra-enrich[iceberg]'"
