"""A job whose rows come from a database, against an endpoint that keeps books."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet as pq
import pytest

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
