"""The second night asks only what is new, and what is answered goes back to where it was read."""

from __future__ import annotations

import sqlite3
import uuid
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog import load_catalog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.postgres import Server
    from tests.helpers.warm import Ended

    Do = Callable[[str], list[tuple[Any, ...]]]
    Jobs = Callable[..., Path]
    Cli = Callable[..., Ended]


@pytest.fixture(params=["duckdb", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Do]:
    """Give a database of each kind: its URL, and what does something in it."""
    url = f"{request.param}:///w.db"
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgres_server")
        url = server.create(f"t{uuid.uuid4().hex}")

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

    do("CREATE TABLE reviews (id BIGINT PRIMARY KEY, changed TIMESTAMP, t TEXT, kept BIGINT)")
    do("INSERT INTO reviews (id, changed, t, kept) VALUES (1, '2026-01-01 10:00:00', 'a', 9007199254740993)")
    do(
        "INSERT INTO reviews (id, changed, t, kept) VALUES (2, '2026-01-02 10:00:00', 'b', 2), (3, NULL, 'c', 3)"
    )
    return url, do


def since(url: str, **more: Any) -> dict[str, Any]:
    """Give a job's input and output: a table that is read since the mark, and written back to."""
    rows = {
        "table": "reviews",
        "url": url,
        "key": "id",
        "columns": ["id", "changed", "t"],
        "since": "changed",
    }
    return {"input": {**rows, **more}, "output": "same"}


def test_the_second_night(place: tuple[str, Do], job: Jobs, cli: Cli, endpoint: BookedEndpoint) -> None:
    """New and changed rows are read and asked, with those at the mark and those without a value; other columns stay."""
    url, do = place
    config = job(**since(url))
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (0, 3), ended.err
    do(
        "INSERT INTO reviews (id, changed, t, kept) VALUES (4, '2026-01-02 10:00:00', 'd', 4), (5, '2026-01-03 10:00:00', 'e', 5)"
    )
    do("UPDATE reviews SET t = 'changed', changed = '2026-01-04 10:00:00' WHERE id = 1")
    do("INSERT INTO reviews (id, changed, t, kept) VALUES (6, '2026-01-01 00:00:00', 'late', 6)")
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (0, 6), ended.err
    assert "5 rows done" in ended.err  # 1, 4, 5, and again 2 and 3
    assert do("SELECT id, kept, s_status FROM reviews ORDER BY id") == [
        *[(n, 9007199254740993 if n == 1 else n, "ok") for n in range(1, 6)],
        (6, 6, None),
    ]
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (0, 6)
    assert "2 rows done" in ended.err  # at the mark, and without a value


def test_late_rows(place: tuple[str, Do], job: Jobs, cli: Cli, endpoint: BookedEndpoint) -> None:
    """Rows may come so much too late as is said; those that are read again cost nothing."""
    url, do = place
    config = job(**since(url, since={"column": "changed", "late": 86_400}))
    assert cli("run", config, endpoint=endpoint).code == 0
    do(
        "INSERT INTO reviews (id, changed, t, kept) VALUES (6, '2026-01-01 12:00:00', 'late', 6), (7, '2026-01-01 09:00:00', 'f', 7)"
    )
    assert cli("run", config, endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 4
    assert do("SELECT id FROM reviews WHERE s_status IS NULL") == [(7,)]


def test_the_mark_is_set_when_all_is_published(
    place: tuple[str, Do], job: Jobs, cli: Cli, endpoint: BookedEndpoint
) -> None:
    """A part of the rows, a collection and a run that could not publish leave the mark where it was."""
    url, do = place
    config = job(**since(url))
    for command in (("run", config, "--limit", "1"), ("collect", config)):
        assert cli(*command, endpoint=endpoint).code == 0
    do("ALTER TABLE reviews RENAME TO elsewhere")
    assert cli("run", config, endpoint=endpoint).code == 2
    do("ALTER TABLE elsewhere RENAME TO reviews")
    ended = cli("run", config, endpoint=endpoint)
    assert "3 rows done" in ended.err
    assert len(endpoint.charges) == 3


def test_a_changed_prompt_sees_every_row(
    place: tuple[str, Do], job: Jobs, cli: Cli, endpoint: BookedEndpoint
) -> None:
    """The plan says how many rows a changed prompt would ask anew, and what that costs, before anybody pays."""
    url, do = place
    config = job(**since(url))
    assert cli("run", config, endpoint=endpoint).code == 0
    do("INSERT INTO reviews (id, changed, t, kept) VALUES (4, '2026-01-05 10:00:00', 'd', 4)")
    assert cli("run", config, endpoint=endpoint).code == 0
    changed = job(**since(url), step={"prompt": "Now: {{ t }}"})
    planned = cli("plan", changed, endpoint=endpoint)
    assert planned.code == 0, planned.err
    assert "4 of 4 rows that were answered before would be asked again; changed since: prompt" in (
        planned.out + planned.err
    )
    assert "credits" in planned.out
    refused = cli("run", changed, "--set", "max_reasked=1", endpoint=endpoint)
    assert (refused.code, len(endpoint.charges)) == (2, 4)


@pytest.mark.parametrize("fed", [True, False])
def test_versions_of_delta(fed: bool, tmp_path: Path, job: Jobs, cli: Cli, endpoint: BookedEndpoint) -> None:
    """By the change data feed, or by the files of two versions: changed rows are asked, and go back by their key."""
    feed = {"delta.enableChangeDataFeed": "true"} if fed else {}
    rows = pa.table({"id": [1, 2, 3], "t": ["a", "b", "c"], "big": [2**53 + 1] * 3})
    write_deltalake(tmp_path / "lake", rows, configuration=feed)
    config = job(input={"path": "lake", "key": "id", "since": "version"}, output="same")
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (0, 3), ended.err
    ended = cli("run", config, endpoint=endpoint)
    assert "0 rows done" in ended.err  # its own commit is no change
    write_deltalake(
        tmp_path / "lake", pa.table({"id": [4], "t": ["d"], "big": [4]}), mode="append", schema_mode="merge"
    )
    DeltaTable(tmp_path / "lake").update(predicate="id = 1", updates={"t": "'changed'"})
    DeltaTable(tmp_path / "lake").update(predicate="id = 4", updates={"t": "'twice'"})
    DeltaTable(tmp_path / "lake").delete("id = 3")
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (0, 5), ended.err
    assert ("2 rows done" in ended.err) == fed
    found = DeltaTable(tmp_path / "lake").to_pyarrow_table().sort_by("id").to_pylist()
    assert [(row["id"], row["t"], row["big"], row["s_status"]) for row in found] == [
        (1, "changed", 2**53 + 1, "ok"),
        (2, "b", 2**53 + 1, "ok"),
        (4, "twice", 4, "ok"),
    ]


def test_a_version_that_is_gone(tmp_path: Path, job: Jobs, cli: Cli, endpoint: BookedEndpoint) -> None:
    """Where the version of the mark is there no more every row is read, and only what is new is paid for."""
    write_deltalake(tmp_path / "lake", pa.table({"id": [1, 2], "t": ["a", "b"]}))
    output = {"table": "r", "url": "duckdb:///w.db", "mode": "merge", "key": "id"}
    config = job(input={"path": "lake", "since": "version"}, output=output)
    assert cli("run", config, endpoint=endpoint).code == 0
    write_deltalake(tmp_path / "lake", pa.table({"id": [3], "t": ["c"]}), mode="append")
    DeltaTable(tmp_path / "lake").create_checkpoint()
    (tmp_path / "lake" / "_delta_log" / f"{0:020}.json").unlink()
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (0, 3), ended.err
    assert "3 rows done" in ended.err


def test_snapshots_of_iceberg(tmp_path: Path, job: Jobs, cli: Cli, endpoint: BookedEndpoint) -> None:
    """The files that came since the snapshot of the mark are read."""
    lake = {"type": "sql", "uri": f"sqlite:///{tmp_path}/lake.db", "warehouse": str(tmp_path / "w")}
    catalog = load_catalog("lake", **lake)
    catalog.create_namespace("shop")
    rows = pa.table({"id": [1, 2], "t": ["a", "b"]})
    table = catalog.create_table("shop.t", schema=rows.schema)
    table.append(rows)
    rows_in = {
        "format": "iceberg",
        "catalog": {"name": "lake", **lake},
        "table": "shop.t",
        "since": "snapshot",
    }
    output = {"table": "r", "url": "duckdb:///w.db", "mode": "append", "key": "id"}
    config = job(input=rows_in, output=output)
    assert cli("run", config, endpoint=endpoint).code == 0
    table.append(pa.table({"id": [3], "t": ["c"]}))
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (0, 3), ended.err
    assert "1 row done" in ended.err
    with duckdb.connect(f"{tmp_path}/w.db") as base:
        assert base.execute("SELECT id FROM r ORDER BY id").fetchall() == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"input": {"path": "in.parquet", "since": "t"}}, "the output must be a table whose other rows stay"),
        ({"output": "same"}, "`output: same` writes back to the table that is read"),
        ({"input": {"table": "r", "url": "sqlite:///w.db"}, "output": "same"}, "needs the key"),
        (
            {
                "input": {"path": "in.parquet", "since": "t"},
                "output": {"table": "r", "url": "sqlite:///w.db", "mode": "merge", "key": "t"},
            },
            "input.since is for queries and tables",
        ),
        (
            {
                "input": {"sql": "SELECT 1 AS id, true AS b, 'x' AS t", "since": "b"},
                "output": {"table": "r", "url": "sqlite:///w.db", "mode": "merge", "key": "id"},
            },
            "the column `b` is bool",
        ),
    ],
)
def test_what_cannot_be(
    config: dict[str, Any], said: str, job: Jobs, cli: Cli, endpoint: BookedEndpoint
) -> None:
    """What the mark, or the way back, needs is told before anything is spent."""
    ended = cli("run", job(**config), endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (2, 0)
    assert said in ended.err
