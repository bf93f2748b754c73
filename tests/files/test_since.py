"""Rows are cut at a mark by the database itself, whatever type tells them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from enrich.config import InputConfig
from enrich.errors import InputError
from enrich.files.since import highest, kind_of
from enrich.files.source import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.postgres import Server

# A type of both databases, two values of it, and where PostgreSQL alone has it.
VALUES = [
    ("TIMESTAMPTZ", "'2026-01-01 10:00:00+02'", "'2026-01-02 10:00:00.5+02'"),
    ("TIMESTAMP", "'2026-01-01 10:00:00'", "'2026-01-02 10:00:00.123456'"),
    ("DATE", "'2026-01-01'", "'2026-01-02'"),
    ("BIGINT", "9007199254740993", "9007199254740994"),
    ("INTEGER", "1", "2"),
    ("DOUBLE PRECISION", "0.1", "0.2"),
    ("NUMERIC(20,2)", "1.01", "1.02"),
    ("VARCHAR(20)", "'a'", "'b'"),
]


@pytest.mark.parametrize("scheme", ["duckdb", "postgresql"])
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("params", [[], [7]])
def test_the_driver_binds_the_mark(
    scheme: str,
    values: tuple[str, str, str],
    params: list[Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """The row at the mark, and the one without a value, come again; the one below does not, and later ones do."""
    url = f"duckdb:///{tmp_path}/w.db"
    kind, low, high = values
    made = f"CREATE TABLE r (id INTEGER, c {kind})"
    filled = f"INSERT INTO r VALUES (1, {low}), (2, {high}), (3, NULL)"  # noqa: S608  # of our own
    if scheme == "postgresql":
        server: Server = request.getfixturevalue("postgres_server")
        url = server.create(f"t{uuid.uuid4().hex}")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(made.encode())
            connection.execute(filled.encode())
    else:
        with duckdb.connect(f"{tmp_path}/w.db") as base:
            base.execute(made).fetchall()
            base.execute(filled).fetchall()
    sql = (
        "SELECT * FROM r WHERE id < $1::int ORDER BY id; -- all" if params else "SELECT * FROM r ORDER BY id"
    )
    config = InputConfig.model_validate({"sql": sql, "url": url, "params": params, "since": "c"})
    every = open_source(config)
    mark = highest(every.schema.field("c"), every.batches(columns=["c"]))
    assert mark is not None
    again = open_source(config, mark=mark)
    assert [row["id"] for batch in again.batches() for row in batch.to_pylist()] == [2, 3]


def test_what_has_no_order() -> None:
    """A column of truths or lists is no mark."""
    with pytest.raises(InputError, match="the column `c` is list"):
        kind_of("c", pa.list_(pa.int64()))
