"""Rows are put into a table whole or not at all, and as often as wanted with one result."""

from __future__ import annotations

import datetime as dt
import json
import random
import sqlite3
import time
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from enrich.config import OutputConfig
from enrich.errors import OutputError, RunStopped
from enrich.files.sink import open_sink
from enrich.files.table_output import publish, rehearse_table
from tests.helpers.outputs import python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.postgres import Server

    Do = Callable[[str], list[tuple[Any, ...]]]

STATUS = pa.dictionary(pa.int32(), pa.string())


@pytest.fixture(params=["duckdb", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Do]:
    """Give a database of each kind: its URL, and what does something in it."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgres_server")
        url = server.create(f"t{uuid.uuid4().hex}")
    else:
        url = f"{request.param}:///{tmp_path}/w.db"

    def do(sql: str) -> list[tuple[Any, ...]]:
        if request.param == "postgresql":
            with psycopg.connect(url, autocommit=True) as connection:
                cursor = connection.execute(sql.encode())
                return cursor.fetchall() if cursor.description else []
        if request.param == "duckdb":
            with duckdb.connect(f"{tmp_path}/w.db") as base:
                found: list[tuple[Any, ...]] = base.execute(sql).fetchall()
                return found
        lite = sqlite3.connect(tmp_path / "w.db", isolation_level=None)
        try:
            return lite.execute(sql).fetchall()
        finally:
            lite.close()

    return url, do


def put(folder: Path, url: str, rows: pa.Table, record: str = "r", **options: Any) -> bool:
    """Write rows to a file, and put them into the table `r`."""
    document = {"table": "r", "url": url, "path": str(folder / "out.arrow"), **options}
    config = OutputConfig.model_validate(document)
    with open_sink(config, rows.schema) as sink:
        for batch in rows.to_batches():
            sink.write(batch)
        sink.commit({})
    rehearse_table(config, rows.schema)
    own = [name for name in rows.column_names if name.startswith("s")]
    return publish(config, own, record, json.dumps({"rows": rows.num_rows}))


def answered(*ids: int, text: str = "x") -> pa.Table:
    """Make rows with answers."""
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "s": [f"{text}{one}" for one in ids],
            "s_status": pa.array(["ok"] * len(ids), STATUS),
        }
    )


def test_replace(place: tuple[str, Do], tmp_path: Path) -> None:
    """The rows are those of the last run, once, in a table that keeps its own types; the manifest lies beside."""
    url, do = place
    do("CREATE TABLE r (id INTEGER PRIMARY KEY, s VARCHAR(20), s_status VARCHAR(20))")
    do("INSERT INTO r VALUES (1, 'old', 'ok')")
    for _ in range(2):
        assert put(tmp_path, url, answered(1, 2))
    assert do("SELECT * FROM r ORDER BY id") == [(1, "x1", "ok"), (2, "x2", "ok")]
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        do("INSERT INTO r VALUES (1, 'again', 'ok')")  # the table's key is still there
    ((name, manifest),) = do("SELECT name, manifest FROM beatra_enrich_outputs")
    assert (name, json.loads(manifest)) == ("r", {"rows": 2})


def test_replace_with_other_columns(place: tuple[str, Do], tmp_path: Path) -> None:
    """A table of other columns makes room."""
    url, do = place
    do("CREATE TABLE r (a INTEGER)")
    put(tmp_path, url, answered(1))
    assert do("SELECT id, s, s_status FROM r") == [(1, "x1", "ok")]


def test_append(place: tuple[str, Do], tmp_path: Path) -> None:
    """The rows of one input are appended once, however often it is run; those of another come behind them."""
    url, do = place
    assert put(tmp_path, url, answered(1), "first", mode="append")
    assert not put(tmp_path, url, answered(1), "first", mode="append")
    assert put(tmp_path, url, answered(1, 2), "second", mode="append")
    assert not put(tmp_path, url, answered(1), "first", mode="append")
    assert do("SELECT id FROM r ORDER BY id") == [(1,), (1,), (2,)]
    assert put(tmp_path, url, answered(1, 3), "third", mode="append", key="id")
    assert do("SELECT id FROM r ORDER BY id") == [(1,), (1,), (2,), (3,)]


def test_merge(place: tuple[str, Do], tmp_path: Path) -> None:
    """Of rows that are there the steps' columns alone are written; others are added, and columns too."""
    url, do = place
    do("CREATE TABLE r (id BIGINT PRIMARY KEY, kept BIGINT, day DATE, s VARCHAR(20))")
    do("INSERT INTO r VALUES (1, 9007199254740993, '2026-01-02', 'old'), (7, 7, NULL, 'other')")
    rows = answered(1, 2).append_column("kept", pa.array([5, 6]))
    for _ in range(2):
        put(tmp_path, url, rows, mode="merge", key="id")
    found = do("SELECT id, kept, CAST(day AS VARCHAR(10)), s, s_status FROM r ORDER BY id")
    assert found == [
        (1, 9007199254740993, "2026-01-02", "x1", "ok"),
        (2, 6, None, "x2", "ok"),
        (7, 7, None, "other", None),
    ]


@pytest.mark.parametrize(("ids", "said"), [([1, 1], "several rows"), ([1, None], "is null")])
def test_a_key_that_is_none(place: tuple[str, Do], tmp_path: Path, ids: list[Any], said: str) -> None:
    """A key that does not tell rows apart is refused, and the table is as it was."""
    url, do = place
    put(tmp_path, url, answered(1))
    rows = answered(1, 2).set_column(0, "id", pa.array(ids, pa.int64()))
    with pytest.raises(OutputError, match=said):
        put(tmp_path, url, rows, mode="merge", key="id")
    assert do("SELECT id, s FROM r") == [(1, "x1")]


def test_what_the_database_refuses_leaves_it_as_it_was(place: tuple[str, Do], tmp_path: Path) -> None:
    """A value that the table does not take stops the run, which can go on; nothing of it is seen."""
    url, do = place
    do("CREATE TABLE r (id BIGINT CHECK (id < 5), s VARCHAR(20), s_status VARCHAR(20))")
    put(tmp_path, url, answered(1))
    with pytest.raises(RunStopped, match="table r cannot be written") as caught:
        put(tmp_path, url, answered(2, 9))
    assert caught.value.exit_code == 4
    assert do("SELECT id FROM r") == [(1,)]
    assert do("SELECT count(*) FROM beatra_enrich_outputs") == [(1,)]


def test_what_cannot_be_written_is_found_before(place: tuple[str, Do], tmp_path: Path) -> None:
    """A key that the table lacks, or a column whose values cannot be its own, is told before anything is spent."""
    url, do = place
    do("CREATE TABLE r (a INTEGER)")
    config = OutputConfig.model_validate(
        {"table": "r", "url": url, "path": str(tmp_path / "o.arrow"), "mode": "merge", "key": "id"}
    )
    with pytest.raises(OutputError, match="no column `id`"):
        rehearse_table(config, answered().schema)
    assert do("SELECT * FROM r") == []


def test_names_are_spelled_as_they_are(place: tuple[str, Do], tmp_path: Path) -> None:
    """Capitals, spaces and quotes in names are kept."""
    url, do = place
    rows = pa.table({"Order": [1], 'a "b"': ["x"], "s t": ["y"]})
    for _ in range(2):
        put(tmp_path, url, rows, table="My Table", mode="merge", key="Order")
    assert do('SELECT "Order", "a ""b""", "s t" FROM "My Table"') == [(1, "x", "y")]


def test_names_that_differ_in_capitals_alone(place: tuple[str, Do], tmp_path: Path) -> None:
    """DuckDB and SQLite take them for one: that is told in our words before anything is spent; PostgreSQL has both."""
    url, do = place
    twins = pa.table({"id": [1], "s": ["x"], "S": ["y"]})
    if url.startswith("postgresql"):
        put(tmp_path, url, twins)
        assert do('SELECT id, s, "S" FROM r') == [(1, "x", "y")]
        return
    with pytest.raises(OutputError, match="the column `S` stands beside `s`"):
        put(tmp_path, url, twins)
    do("CREATE TABLE r (ID BIGINT, s VARCHAR(20), s_status VARCHAR(20))")
    for mode in ("append", "merge"):
        with pytest.raises(OutputError, match="the column `id` is `ID` in the table r"):
            put(tmp_path, url, answered(1), mode=mode, key="id")
    put(tmp_path, url, answered(1))  # all of it is made anew
    assert do("SELECT id FROM r") == [(1,)]


PUBLISH = """
import sys
from enrich.config import OutputConfig
from enrich.files.table_output import publish
url, path, mode = sys.argv[1:]
key = None if mode == "append" else "id"
config = OutputConfig(table="r", url=url, path=path, mode=mode, key=key)
print("begun", flush=True)
for record in range(3, 1000):
    publish(config, ["s", "s_status"], str(record), "{}")
"""


@pytest.mark.parametrize("mode", ["replace", "append", "merge"])
def test_killed_at_any_instant_nobody_sees_half(place: tuple[str, Do], tmp_path: Path, mode: str) -> None:
    """Killed in the middle, a table has all of the rows of each time or none; the next run puts them there, once."""
    url, do = place
    rows = answered(*range(2_000))
    put(tmp_path, url, rows, "1", mode=mode, key=None if mode == "append" else "id")
    chance = random.Random(mode)
    for _ in range(3):
        with python(PUBLISH, url, str(tmp_path / "out.arrow"), mode) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(chance.uniform(0.05, 0.4))
            process.kill()
            process.wait()
        times = do("SELECT count(*) FROM beatra_enrich_outputs")[0][0]
        each = do("SELECT DISTINCT number FROM (SELECT count(*) AS number FROM r GROUP BY id) AS counted")
        assert each == [(times if mode == "append" else 1,)]
        assert do("SELECT count(DISTINCT id) FROM r") == [(2_000,)]
    assert put(tmp_path, url, rows, "last", mode=mode, key=None if mode == "append" else "id")
    if mode != "append":
        assert do("SELECT count(*) FROM r") == [(2_000,)]


def test_types_of_a_new_table_in_postgresql(postgres_server: Server, tmp_path: Path) -> None:
    """What PostgreSQL itself says of the columns that it was given, and of their values."""
    url = postgres_server.create(f"t{uuid.uuid4().hex}")
    some = uuid.uuid4()
    columns: list[tuple[pa.Array[Any], str, Any]] = [
        (pa.array([1], pa.int32()), "integer", 1),
        (pa.array([2**60]), "bigint", 2**60),
        (pa.array([2**63], pa.uint64()), "numeric", Decimal(2**63)),
        (pa.array([Decimal("1.50")]), "numeric", Decimal("1.50")),
        (pa.array([0.1]), "double precision", 0.1),
        (pa.array([True]), "boolean", True),
        (pa.array(["00501"]), "text", "00501"),
        (pa.array(["a"], STATUS), "text", "a"),
        (pa.array([b"\0"]), "bytea", b"\0"),
        (pa.array([dt.date(2026, 1, 2)]), "date", dt.date(2026, 1, 2)),
        (pa.array([dt.time(1, 2)], pa.time64("us")), "time without time zone", dt.time(1, 2)),
        (
            pa.array([dt.datetime(2026, 1, 2, tzinfo=dt.UTC)], pa.timestamp("us", "UTC")),
            "timestamp with time zone",
            dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        ),
        (pa.array([[1, 2]], pa.list_(pa.int64())), "ARRAY", [1, 2]),
        (pa.array([{"a": 1}]), "jsonb", {"a": 1}),
        (pa.array([some.bytes], pa.uuid()), "uuid", some),
    ]
    rows = pa.table([column for column, *_ in columns], names=[f"c{i}" for i in range(len(columns))])
    put(tmp_path, url, rows)
    with psycopg.connect(url) as connection:
        told = connection.execute(
            "SELECT data_type FROM information_schema.columns WHERE table_name = 'r' ORDER BY ordinal_position"
        ).fetchall()
        (values,) = connection.execute("SELECT * FROM r").fetchall()
    assert [kind for (kind,) in told] == [kind for _, kind, _ in columns]
    assert list(values) == [value for *_, value in columns]


def test_types_of_a_new_table_in_files(tmp_path: Path) -> None:
    """What DuckDB and SQLite say of the columns that they were given, and of their values."""
    moment = dt.datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001  # without a zone
    columns: list[tuple[pa.Array[Any], str, str, Any]] = [
        (pa.array([2**60]), "BIGINT", "integer", 2**60),
        (pa.array([2**63], pa.uint64()), "UBIGINT", "text", str(2**63)),
        (pa.array([Decimal("1.50")], pa.decimal128(10, 2)), "DECIMAL(10,2)", "text", "1.50"),
        (pa.array([Decimal("1.500")], pa.decimal256(50, 3)), "VARCHAR", "text", "1.500"),
        (pa.array([0.1]), "DOUBLE", "real", 0.1),
        (pa.array([True]), "BOOLEAN", "integer", 1),
        (pa.array(["a"], STATUS), "VARCHAR", "text", "a"),
        (pa.array([b"\0"]), "BLOB", "blob", b"\0"),
        (pa.array([dt.date(2026, 1, 2)]), "DATE", "text", "2026-01-02"),
        (pa.array([moment]), "TIMESTAMP", "text", "2026-01-02T03:04:05.000000"),
        (pa.array([[1, 2]]), "BIGINT[]", "text", "[1,2]"),
        (pa.array([{"a": 1}]), "STRUCT(a BIGINT)", "text", '{"a":1}'),
        (pa.array([uuid.UUID(int=1).bytes], pa.uuid()), "VARCHAR", "text", str(uuid.UUID(int=1))),
    ]
    rows = pa.table([column for column, *_ in columns], names=[f"c{i}" for i in range(len(columns))])
    for scheme in ("duckdb", "sqlite"):
        put(tmp_path, f"{scheme}:///{tmp_path}/{scheme}.db", rows)
    with duckdb.connect(f"{tmp_path}/duckdb.db") as base:
        assert [row[1] for row in base.execute("DESCRIBE r").fetchall()] == [one[1] for one in columns]
    lite = sqlite3.connect(f"{tmp_path}/sqlite.db")
    kinds = ", ".join(f"typeof(c{i})" for i in range(len(columns)))
    assert lite.execute(f"SELECT {kinds} FROM r").fetchone() == tuple(one[2] for one in columns)  # noqa: S608
    assert lite.execute("SELECT * FROM r").fetchone() == tuple(one[3] for one in columns)
    lite.close()
