"""A table that is read is not replaced by what is made of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import enrich
from enrich.config import complete_config
from enrich.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

STEPS = [{"name": "label", "prompt": "Sort {{ review }}"}]
LITE = "sqlite:///w.db"
CATALOG = {"name": "shop", "type": "sql", "uri": "sqlite:///c.db", "warehouse": "w"}
ICEBERG = {"format": "iceberg", "catalog": CATALOG, "table": "ns.r"}
SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"table": "r", "url": LITE}, {"table": "r", "url": LITE}),
    ({"table": "r", "url": LITE}, {"table": "main.R", "url": "sqlite:///./w.db"}),
    ({"table": "main.r", "url": "duckdb:///w.duckdb"}, {"table": "r", "url": "duckdb:///w.duckdb"}),
    ({"sql": "select * from r where x", "url": LITE}, {"table": "r", "url": LITE}),
    ({"sql": 'select a.* from o a\nJOIN main . "R" b using (id)', "url": LITE}, {"table": "r", "url": LITE}),
    ({"table": "r", "url": "postgresql://u@h/d"}, {"table": "public.r", "url": "postgresql://u@h/d"}),
    (ICEBERG, ICEBERG),
    ({"path": "d", "format": "delta"}, {"path": "./d", "format": "delta"}),
]
OTHER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"table": "r", "url": LITE}, {"table": "r2", "url": LITE}),
    ({"table": "r", "url": LITE}, {"table": "r", "url": "sqlite:///other.db"}),
    ({"sql": "select * from staging.r", "url": LITE}, {"table": "main.r", "url": LITE}),
    ({"sql": "select r from t", "url": LITE}, {"table": "r", "url": LITE}),
    ({"table": "r", "url": LITE, "key": "id"}, {"table": "r", "url": LITE, "mode": "merge", "key": "id"}),
    (ICEBERG, {**ICEBERG, "table": "ns.other"}),
    ({"path": "d", "format": "delta"}, {"path": "e", "format": "delta"}),
]


@pytest.mark.parametrize(("rows", "output"), SAME)
def test_the_same_table_is_refused(rows: dict[str, Any], output: dict[str, Any], tmp_path: Path) -> None:
    """However it is spelled, by name or in a query, in whatever kind of place; the hint names the way on."""
    document = {"input": rows, "output": output, "ledger": "l.db", "steps": STEPS}
    with pytest.raises(OutputError, match="would replace the table") as caught:
        complete_config(document, folder=tmp_path)
    assert "`output: same`" in str(caught.value.hint)


@pytest.mark.parametrize(("rows", "output"), OTHER)
def test_another_one_is_not(rows: dict[str, Any], output: dict[str, Any], tmp_path: Path) -> None:
    """Nor one that answers are merged into."""
    complete_config({"input": rows, "output": output, "ledger": "l.db", "steps": STEPS}, folder=tmp_path)


def test_no_row_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit, the rows behind it are still there."""
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("w.db")) as con, con:
        con.execute("create table r (id integer, review text)")
        con.executemany("insert into r values (?, ?)", [(n, f"review {n}") for n in range(3)])
    table = {"table": "r", "url": LITE}
    job = {"input": table, "output": table, "endpoint": {"base_url": "sandbox"}, "steps": STEPS}
    with pytest.raises(OutputError):
        enrich.run(job, limit=1)
    with closing(sqlite3.connect("w.db")) as con:
        assert con.execute("select count(*) from r").fetchone() == (3,)
