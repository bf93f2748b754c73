"""A job whose rows come from a database, against an endpoint that keeps books."""

from __future__ import annotations

import json
import os
import random
import subprocess
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog

from tests.conftest import SCRIPT
from tests.helpers.endpoint import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended


def do(file: Path, *statements: str) -> list[Any]:
    """Do something in a DuckDB file; gives the last result."""
    found: list[Any] = []
    with duckdb.connect(str(file)) as connection:
        for statement in statements:
            found = connection.execute(statement).fetchall()
    return found


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Make a database of reviews."""
    file = tmp_path / "w.db"
    do(
        file,
        "CREATE TABLE r (id BIGINT, t TEXT)",
        "INSERT INTO r SELECT range, 'review ' || range FROM range(10)",
    )
    return file


def test_every_command_takes_a_query(
    reviews: Path, job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """Check, preview, plan, run, show, report, collect and retry work with a query as they do with a file."""
    config = job(
        input={"sql": "SELECT * FROM r ORDER BY id", "url": f"duckdb:///{reviews.name}"}, report="r.html"
    )
    checked = cli("check", config, endpoint=endpoint)
    assert "10 rows in the result of a query, 2 columns" in checked.out
    assert "review 0" in cli("preview", config, "-n", "1", endpoint=endpoint).out
    assert "10 requests to ask" in cli("plan", config, endpoint=endpoint).out
    assert cli("run", config, endpoint=endpoint).code == 0
    out = reviews.with_name("out.parquet")
    assert pq.read_table(out).column("t").to_pylist() == [f"review {i}" for i in range(10)]
    before = out.stat().st_mtime_ns
    again = cli("run", config, "--json", endpoint=endpoint)
    assert "nothing has changed since" in json.loads(again.out)["reason"]
    assert out.stat().st_mtime_ns == before
    for command in (("show",), ("status",), ("report",), ("retry",), ("collect", "-o", "c.csv")):
        assert cli(command[0], config, *command[1:], endpoint=endpoint).code == 0, command
    assert len(reviews.with_name("c.csv").read_text().splitlines()) == 11
    assert len(endpoint.charges) == 10


def test_what_changed_in_the_database_is_asked(
    reviews: Path, job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """Of a table that grew, only the new rows are asked; the output has all of them."""
    config = job(input={"sql": "SELECT * FROM r ORDER BY id", "url": f"duckdb:///{reviews.name}"})
    assert cli("run", config, endpoint=endpoint).code == 0
    do(reviews, "INSERT INTO r VALUES (10, 'new')", "UPDATE r SET t = 'changed' WHERE id = 3")
    assert cli("run", config, endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 12
    texts = pq.read_table(reviews.with_name("out.parquet")).column("t").to_pylist()
    assert (len(texts), texts[3], texts[10]) == (11, "changed", "new")


def test_a_query_that_fails_costs_nothing(
    reviews: Path, job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """It is an error before anything is sent, with exit code 2 and no traceback."""
    config = job(input={"sql": "SELECT nope FROM r", "url": f"duckdb:///{reviews.name}"})
    ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (2, 0)
    assert "nope" in ended.err


def test_the_output_is_a_table(
    reviews: Path, job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """Read from a database and written back to it by key, again and again: the table has each answer once, paid for once."""
    place = f"duckdb:///{reviews.name}"
    config = job(
        input={"sql": "SELECT id, t FROM r ORDER BY id", "url": place},
        output={"table": "main.r", "url": place, "mode": "merge", "key": "id"},
    )
    checked = cli("check", config, endpoint=endpoint)
    assert (checked.code, "main.r in duckdb:///" in checked.out) == (0, True)
    assert len(do(reviews, "DESCRIBE r")) == 2  # which a check leaves as it was
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert json.loads(ended.out)["reason"] == "10 rows done, put into main.r"
    do(reviews, "INSERT INTO r (id, t) VALUES (10, 'new')", "UPDATE r SET s = NULL WHERE id = 3")
    assert cli("run", config, endpoint=endpoint).code == 0
    assert do(reviews, "SELECT count(*), count(s), count(DISTINCT id), min(s_status) FROM r") == [
        (11, 11, 11, "ok")
    ]
    assert len(endpoint.charges) == 11
    for command in (("show",), ("status",), ("report", "-o", "r.html"), ("plan",), ("collect",), ("retry",)):
        assert cli(command[0], config, *command[1:], endpoint=endpoint).code == 0, command
    assert do(reviews, "SELECT count(*) FROM r") == [(11,)]
    assert cli("collect", config, "-o", "c.csv", endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 11


def test_rows_are_appended_once(
    reviews: Path, job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """A job that is run twice appends its rows once, and some of them are not appended before all."""
    config = job(output={"table": "a", "url": f"duckdb:///{reviews.name}", "mode": "append"})
    refused = cli("run", config, "--limit", "1", endpoint=endpoint)
    assert (refused.code, "output.key" in refused.err, len(endpoint.charges)) == (2, True, 0)
    for _ in range(2):
        ended = cli("run", config, endpoint=endpoint)
        assert ended.code == 0
    assert "which a had before" in ended.err
    assert do(reviews, "SELECT count(*) FROM a") == [(3,)]


def test_a_database_that_another_program_has(
    reviews: Path, job: Callable[..., Path], cli: Callable[..., Ended], endpoint: BookedEndpoint
) -> None:
    """Before anything is sent it is an error; when it comes up at the end, the next run goes on from there."""
    config = job(output={"table": "a", "url": f"duckdb:///{reviews.name}"})
    with duckdb.connect(str(reviews)):
        ended = cli("run", config, endpoint=endpoint)
    assert (ended.code, len(endpoint.charges)) == (2, 0)
    assert "cannot be opened" in ended.err
    assert cli("run", config, endpoint=endpoint).code == 0
    assert do(reviews, "SELECT count(*) FROM a") == [(3,)]


def kill_again_and_again(config: Path, endpoint: BookedEndpoint, seed: str, most: int) -> None:
    """Run a job and kill it at random instants, and then let it come to its end."""
    chance, kills = random.Random(seed), 0
    env = {**os.environ, "BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    command = [str(SCRIPT), "run", str(config), "-q", "--force"]
    while kills < most:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
        try:
            process.wait(chance.uniform(0.5, 4))
        except subprocess.TimeoutExpired:
            kills += 1
        process.kill()
        process.wait()
    assert subprocess.run(command, env=env, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["replace", "append"])
def test_killed_at_random_a_table_of_iceberg_is_that_of_an_undisturbed_run(
    tmp_path: Path, job: Callable[..., Path], endpoint: BookedEndpoint, mode: str
) -> None:
    """While it reads, asks and writes: every row once in the table, each request charged once."""
    lake = {"type": "sql", "uri": f"sqlite:///{tmp_path}/lake.db", "warehouse": str(tmp_path / "w")}
    catalog = load_catalog("lake", **lake)
    catalog.create_namespace("shop")
    rows = pa.table({"id": range(2_000), "t": [f"text {i % 1500}" for i in range(2_000)]})
    catalog.create_table("shop.t", schema=rows.schema).append(rows)
    place: dict[str, Any] = {"format": "iceberg", "catalog": {"name": "lake", **lake}}
    config = job(
        input={**place, "table": "shop.t"},
        output={**place, "catalog": dict(place["catalog"]), "table": "shop.out", "mode": mode},
    )
    kill_again_and_again(config, endpoint, mode, 25)
    found = catalog.load_table("shop.out").scan().to_arrow().sort_by("id")
    assert found.column("id").to_pylist() == list(range(2_000))
    assert set(found.column("s_status").to_pylist()) == {"ok"}
    assert len(set(found.column("s").to_pylist())) == len(endpoint.charges) == 1_500


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["duckdb", "postgresql"])
def test_killed_at_random_the_table_is_that_of_an_undisturbed_run(
    tmp_path: Path,
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    scheme: str,
    request: pytest.FixtureRequest,
) -> None:
    """A whole job that is killed again and again: every row once in the table, each request charged once."""
    server = request.getfixturevalue("postgres_server") if scheme == "postgresql" else None
    url = server.create("killed") if server is not None else f"duckdb:///{tmp_path}/k.db"
    rows = [{"id": i, "t": f"text {i % 1500}"} for i in range(2_000)]
    config = job(rows, output={"table": "k", "url": url, "mode": "merge", "key": "id"})
    kill_again_and_again(config, endpoint, scheme, 25)
    if server is None:
        found = do(tmp_path / "k.db", "SELECT id, s, s_status FROM k ORDER BY id")
    else:
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT id, s, s_status FROM k ORDER BY id").fetchall()
    expected = pq.read_table(tmp_path / "in.parquet")
    assert [row[0] for row in found] == expected.column("id").to_pylist()
    assert {row[2] for row in found} == {"ok"}
    assert len({row[1] for row in found}) == len(endpoint.charges) == 1_500
