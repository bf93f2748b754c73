"""Tables of Delta: the rows of a version, and rows put there in one commit."""

from __future__ import annotations

import base64
import datetime as dt
import json
import struct
import sys
import time
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from enrich.config import OutputConfig
from enrich.errors import ConfigError, InputError, OutputError, RunStopped
from enrich.files.delta_table import publish_delta, rehearse_delta
from enrich.files.sink import open_sink
from tests.helpers.inputs import source
from tests.helpers.outputs import python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended

STATUS = pa.dictionary(pa.int32(), pa.string())


def rows(path: Path, **options: Any) -> list[dict[str, Any]]:
    """Read a table's rows, by their ids."""
    found = source(path, **options)
    return sorted(pa.Table.from_batches(found.batches(), found.schema).to_pylist(), key=lambda row: row["id"])


def answered(*ids: int) -> pa.Table:
    """Make rows with answers."""
    status = pa.array(["ok"] * len(ids), STATUS)
    return pa.table({"id": pa.array(ids, pa.int64()), "s": [f"x{one}" for one in ids], "s_status": status})


def put(folder: Path, table: pa.Table, record: str = "r", **options: Any) -> bool:
    """Write rows to a file, and put them into the table `lake`."""
    document = {"path": str(folder / "out.arrow"), "table": "lake", "url": f"delta:{folder}/lake", **options}
    config = OutputConfig.model_validate(document)
    with open_sink(config, table.schema) as sink:
        for batch in table.to_batches():
            sink.write(batch)
        sink.commit({})
    rehearse_delta(config, table.schema)
    return publish_delta(
        config,
        [n for n in table.column_names if n.startswith("s")],
        record,
        json.dumps({"rows": table.num_rows}),
    )


def test_a_version_and_what_was_deleted_since(tmp_path: Path) -> None:
    """The last version is read, or the one that is told: rows overwritten or deleted meanwhile are not among them."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2, 3], "t": ["a", "b", "c"]}))
    DeltaTable(tmp_path / "t").delete("id = 2")
    write_deltalake(tmp_path / "t", pa.table({"id": [4], "t": ["d"]}), mode="append")
    assert [row["id"] for row in rows(tmp_path / "t")] == [1, 3, 4]
    assert [row["id"] for row in rows(tmp_path / "t", version=0)] == [1, 2, 3]
    assert [row["id"] for row in rows(tmp_path / "t", format="delta", version=1)] == [1, 3]
    with pytest.raises(InputError, match="at version 9 cannot be read"):
        source(tmp_path / "t", version=9)


def deletion_vector(*deleted: int) -> dict[str, Any]:
    """Write a deletion vector into a log's entry, as Delta's protocol has it inline."""
    small = struct.pack("<IIHH", 12346, 1, 0, len(deleted) - 1)  # one array container, without runs
    bitmap = small + struct.pack("<I", 16) + struct.pack(f"<{len(deleted)}H", *deleted)
    data = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    padded = data + bytes(-len(data) % 4)
    z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    b85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    text = base64.b85encode(padded).decode().translate(str.maketrans(b85, z85))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(deleted)}


def test_deletion_vectors_are_obeyed(tmp_path: Path) -> None:
    """Rows that a vector beside the file says are deleted are not read."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2, 3, 4]}))
    log = tmp_path / "t" / "_delta_log"
    entries = [json.loads(line) for line in (log / f"{0:020}.json").read_text().splitlines()]
    add = next(entry["add"] for entry in entries if "add" in entry)
    features = ["deletionVectors"]
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": features,
        "writerFeatures": features,
    }
    removed = {"path": add["path"], "deletionTimestamp": 0, "dataChange": True}
    again = {**add, "deletionVector": deletion_vector(1, 2)}
    lines = [{"protocol": protocol}, {"remove": removed}, {"add": again}]
    (log / f"{1:020}.json").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert [row["id"] for row in rows(tmp_path / "t")] == [1, 4]


def test_a_version_of_what_is_none(tmp_path: Path) -> None:
    """A version of a file is refused, not passed over."""
    (tmp_path / "x.csv").write_text("id\n1\n")
    with pytest.raises(InputError, match=r"input\.version is for tables of Delta"):
        source(tmp_path / "x.csv", version=1)


def test_replace_is_one_commit_with_the_manifest(tmp_path: Path) -> None:
    """The rows are those of the last run, whatever its columns; who reads an older version still has it."""
    assert put(tmp_path, pa.table({"old": [1]}))
    assert put(tmp_path, answered(1, 2))
    table = DeltaTable(tmp_path / "lake")
    assert table.version() == 1
    assert json.loads(table.history(1)[0]["beatra_enrich"]) == {"rows": 2}
    assert rows(tmp_path / "lake") == [
        {"id": 1, "s": "x1", "s_status": "ok"},
        {"id": 2, "s": "x2", "s_status": "ok"},
    ]


def test_append_once(tmp_path: Path) -> None:
    """The rows of one input are appended once, however often it is run; further columns are added."""
    assert put(tmp_path, answered(1), "first", mode="append")
    assert put(tmp_path, answered(2).append_column("more", pa.array(["m"])), "second", mode="append")
    assert not put(tmp_path, answered(1), "first", mode="append")
    assert [(row["id"], row["more"]) for row in rows(tmp_path / "lake")] == [(1, None), (2, "m")]


def test_types(tmp_path: Path) -> None:
    """What Delta has a type for is that; the rest is a wider number or text, and nothing is rounded."""
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    columns: list[tuple[pa.Array[Any], pa.DataType, Any]] = [
        (pa.array([255], pa.uint8()), pa.int16(), 255),
        (pa.array([2**63], pa.uint64()), pa.decimal128(20, 0), Decimal(2**63)),
        (pa.array([2**60]), pa.int64(), 2**60),
        (pa.array([0.1]), pa.float64(), 0.1),
        (pa.array([Decimal("1.50")], pa.decimal128(10, 2)), pa.decimal128(10, 2), Decimal("1.50")),
        (pa.array([Decimal("1.500")], pa.decimal256(50, 3)), pa.string(), "1.500"),
        (pa.array([True]), pa.bool_(), True),
        (pa.array([dt.date(2026, 1, 2)]), pa.date32(), dt.date(2026, 1, 2)),
        (pa.array([moment], pa.timestamp("us", "Europe/Paris")), pa.timestamp("us", "UTC"), moment),
        (pa.array([moment.replace(tzinfo=None)]), pa.timestamp("us"), moment.replace(tzinfo=None)),
        (
            pa.array([1_000_001], pa.timestamp("ns")),
            pa.timestamp("us"),
            dt.datetime(1970, 1, 1, 0, 0, 0, 1000),  # noqa: DTZ001
        ),
        (pa.array([dt.time(1, 2)], pa.time64("us")), pa.string(), "01:02:00.000000"),
        (pa.array([b"\0"]), pa.binary(), b"\0"),
        (pa.array([[1, 2]]), pa.list_(pa.int64()), [1, 2]),
        (pa.array([{"a": 1}]), pa.struct([("a", pa.int64())]), {"a": 1}),
        (pa.array(["a"], STATUS), pa.string(), "a"),
    ]
    names = [f"c{i}" for i in range(len(columns))]
    put(tmp_path, pa.table([column for column, *_ in columns], names=names))
    found = source(tmp_path / "lake")
    table = pa.Table.from_batches(found.batches(), found.schema)
    for field, (_, kind, value) in zip(table.schema, columns, strict=True):
        assert table.column(field.name).to_pylist() == [value], field
        assert field.type == kind or pa.types.is_list(kind), field


def test_the_same_order_every_time(tmp_path: Path) -> None:
    """Of a table of several files the rows come in one order."""
    for first in range(0, 120_000, 20_000):
        write_deltalake(tmp_path / "t", pa.table({"id": range(first, first + 20_000)}), mode="append")
    found = [source(tmp_path / "t") for _ in range(3)]
    assert len({one.files[0].version for one in found}) == 1
    assert found[0].num_rows == 120_000


def test_what_the_table_does_not_take_leaves_it_as_it_was(tmp_path: Path) -> None:
    """Columns of another type, and a folder of something else, are refused before anything is spent; a disk stops the run."""
    put(tmp_path, answered(1))
    with pytest.raises(OutputError, match="`id` is string, and int64 in the Delta table"):
        put(tmp_path, pa.table({"id": ["text"]}), "other", mode="append")
    (tmp_path / "lake" / "_delta_log" / f"{1:020}.json").mkdir()
    with pytest.raises(RunStopped, match="cannot be written") as caught:
        put(tmp_path, answered(2), "other", mode="append")
    assert caught.value.exit_code == 4
    (tmp_path / "lake" / "_delta_log" / f"{1:020}.json").rmdir()
    assert [row["id"] for row in rows(tmp_path / "lake")] == [1]
    with pytest.raises(OutputError, match="is no table of Delta"):
        put(tmp_path, answered(1), url=f"delta:{tmp_path}")


def test_names_that_differ_in_capitals_alone(tmp_path: Path) -> None:
    """Delta takes them for one, which is told before anything is spent."""
    with pytest.raises(OutputError, match="the column `S` stands beside `s`: delta takes them for one"):
        put(tmp_path, pa.table({"id": [1], "s": ["x"], "S": ["y"]}))


PUBLISH = """
import sys
from enrich.config import OutputConfig
from enrich.files.delta_table import publish_delta
url, path, mode = sys.argv[1:]
config = OutputConfig(table="lake", url=url, path=path, mode=mode)
print("begun", flush=True)
for record in range(2, 1000):
    publish_delta(config, ["s", "s_status"], str(record), "{}")
"""


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_killed_at_any_instant_nobody_sees_half(tmp_path: Path, mode: str) -> None:
    """Killed in the middle, a table has all of the rows of each time or none."""
    put(tmp_path, answered(*range(2_000)), "1", mode=mode)
    for seconds in (0.05, 0.15, 0.3):
        arguments = (f"delta:{tmp_path}/lake", str(tmp_path / "out.arrow"), mode)
        with python(PUBLISH, *arguments) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(seconds)
            process.kill()
            process.wait()
        times = DeltaTable(tmp_path / "lake").version() + 1 if mode == "append" else 1
        assert len(rows(tmp_path / "lake")) == 2_000 * times
    assert put(tmp_path, answered(*range(2_000)), uuid.uuid4().hex, mode=mode)


def test_every_command(
    tmp_path: Path, job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """From a table to a table: check, plan, run, show, report, collect; a version later only the new rows are asked."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2, 3], "t": ["a", "b", "c"]}))
    config = job(input="t", output={"path": "lake", "format": "delta", "mode": "replace"})
    for command in (("check",), ("plan",), ("run",), ("show",), ("report", "-o", "r.html"), ("collect",)):
        assert cli(command[0], config, *command[1:], endpoint=endpoint).code == 0, command
    write_deltalake(tmp_path / "t", pa.table({"id": [4], "t": ["d"]}), mode="append")
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (0, 4)
    assert "put into lake" in ended.err
    found = rows(tmp_path / "lake")
    assert [(row["id"], row["s_status"]) for row in found] == [(n, "ok") for n in (1, 2, 3, 4)]
    assert cli("run", config, "--output", "o.csv", endpoint=endpoint).code == 0
    assert (tmp_path / "o.csv").read_text().startswith('"id"')


def test_a_missing_library_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the message is the command that brings it."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1]}))
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ConfigError, match="deltalake") as caught:
        source(tmp_path / "t")
    assert caught.value.hint == "pip install 'beatra-enrich[delta]'"
