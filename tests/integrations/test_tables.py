"""Tables of Spark, Delta, DuckDB, Polars, pandas and fastparquet, written and read back by these libraries themselves."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import duckdb
import fastparquet
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

import enrich
from enrich.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAR = dt.datetime(9999, 12, 31, 1, 2, 3, 456789)  # noqa: DTZ001  # Spark takes it as its session's


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked in this module is asked of the sandbox, from a machine that lives in UTC."""
    monkeypatch.setenv("BEATRA_BASE_URL", "sandbox")


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """A Spark of this process, in UTC."""
    os.environ["TZ"] = "UTC"
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    yield session
    session.stop()


def run(folder: Path, source: str, output: str, columns: list[str] | None = None, **csv: Any) -> str:
    """Ask a question of every row; gives where the output lies."""
    given: dict[str, Any] = {"path": source, "csv": csv}
    document = {
        "input": given | ({"columns": columns} if columns else {}),
        "output": output,
        "ledger": "ledger.db",
        "steps": [
            {"name": "s", "prompt": "{{ review }}", "schema": {"properties": {"n": {"type": "integer"}}}}
        ],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    summary = enrich.run(folder / "config.yaml")
    assert summary.exit_code == 0, summary.reason
    return str(folder / output)


def test_spark_sees_all_columns(spark: SparkSession, tmp_path: Path) -> None:
    """An enriched Spark table is read back with the new columns, its timestamps as they were, in Spark and DuckDB."""
    rows = [(1, "good", dt.datetime(2026, 11, 22, 10, 30)), (2, "bad", FAR), (3, "none", None)]  # noqa: DTZ001
    frame = spark.createDataFrame(rows, "id int, review string, at timestamp").selectExpr(
        "*", "to_date(at) cut"
    )
    frame.coalesce(1).write.parquet(str(tmp_path / "in"))
    out = run(tmp_path, str(tmp_path / "in"), "out.parquet")
    back = spark.read.parquet(out)
    assert back.columns[:4] == ["id", "review", "at", "cut"]
    assert {"s", "s_n", "s_status", "s_credits", "s_idempotency_key"} <= set(back.columns)
    assert [tuple(row)[:3] for row in back.orderBy("id").collect()] == rows
    assert back.select("s_status").distinct().collect()[0][0] == "ok"
    assert back.schema["id"].dataType.simpleString() == "int"
    assert duckdb.read_parquet(out).max("at").fetchall() == [(FAR,)]


def test_csv_of_spark(spark: SparkSession, tmp_path: Path) -> None:
    """What Spark writes as CSV with its defaults comes back text for text."""
    texts = ['say "hi"', "C:\\temp\\new", 'a\\"b', "two, parts", "two\nlines", "ends in \\", "x"]
    frame = spark.createDataFrame(list(enumerate(texts)), "id int, review string").coalesce(1)
    frame.write.option("header", "true").csv(str(tmp_path / "in"))
    out = run(tmp_path, str(tmp_path / "in"), "out.parquet", escape="\\")
    assert pl.read_parquet(out)["review"].to_list() == texts


def test_a_delta_table_is_refused(tmp_path: Path) -> None:
    """Rows that were overwritten lie in the folder still: nobody pays for them."""
    table = str(tmp_path / "t")
    write_deltalake(table, pa.table({"review": ["old"] * 5}))
    write_deltalake(table, pa.table({"review": ["new"]}), mode="overwrite")
    assert DeltaTable(table).to_pyarrow_table().num_rows == 1
    with pytest.raises(UsageError, match="Delta table"):
        run(tmp_path, table, "out.parquet")


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_polars_comes_back(tmp_path: Path, suffix: str) -> None:
    """Polars reads categories, enums, dates, decimals, lists and structs of an output as it wrote them."""
    frame = pl.DataFrame({"review": ["good", "bad", "good"], "n": [1, None, 3]}).with_columns(
        cat=pl.col("review").cast(pl.Categorical),
        enum=pl.col("review").cast(pl.Enum(["good", "bad"])),
        day=pl.lit(dt.date(2026, 11, 22)),
        price=pl.lit("1.50").str.to_decimal(scale=2),
        parts=pl.concat_list("n", "n"),
        pair=pl.struct("n", "review"),
        long=pl.duration(days=1),
        time=pl.lit(dt.time(1, 2, 3)),
    )
    write: Any = {"parquet": frame.write_parquet, "arrow": frame.write_ipc}[suffix]
    write(tmp_path / f"in.{suffix}")
    out = run(tmp_path, str(tmp_path / f"in.{suffix}"), f"out.{suffix}")
    read: Any = {"parquet": pl.read_parquet, "arrow": pl.read_ipc}[suffix]
    back = read(out)
    assert back.select(frame.columns).equals(frame)
    assert back.schema["enum"] == frame.schema["enum"]
    assert back["s_status"].to_list() == ["ok"] * 3


def test_categories_of_days_in_polars(tmp_path: Path) -> None:
    """Dictionaries that grow from file to file are in one piece in an Arrow output."""
    for day in range(3):
        names = [f"{day} {number}" for number in range(100)]
        frame = pd.DataFrame({"review": names, "product": pd.Categorical(names)})
        (tmp_path / "in").mkdir(exist_ok=True)
        frame.to_feather(tmp_path / "in" / f"{day}.feather")
    back = pl.read_ipc(run(tmp_path, str(tmp_path / "in"), "out.arrow"))
    assert back["product"].cast(pl.String).to_list() == back["review"].to_list()


@pytest.mark.parametrize("columns", [None, ["review", "stars"]])
@pytest.mark.parametrize("writer", ["pyarrow", "fastparquet"])
def test_pandas_and_fastparquet_come_back(tmp_path: Path, writer: str, columns: list[str] | None) -> None:
    """Both read an output as the frame it was, with the index where that was kept, and the new columns."""
    index = pd.Index(["a", "b"], name="key")
    frame = pd.DataFrame(
        {"review": ["good", "bad"], "stars": [5, 1], "when": pd.Timestamp("2026-11-22")}, index=index
    )
    path = tmp_path / "in.parquet"
    if writer == "fastparquet":
        fastparquet.write(str(path), frame.astype({"review": object}), write_index=True)
    else:
        frame.to_parquet(path)
    out = run(tmp_path, str(path), "out.parquet", columns)
    for read in (pd.read_parquet(out), fastparquet.ParquetFile(out).to_pandas()):
        assert list(read["review"]) == ["good", "bad"]
        assert list(read["stars"]) == [5, 1]
        assert list(read["s_status"].astype(str)) == ["ok", "ok"]
        assert ("when" in read.columns) == (columns is None)
        if columns is None:
            assert read.index.name == "key"
            assert list(read.index) == ["a", "b"]


def test_duckdb_arrays_and_json(tmp_path: Path) -> None:
    """An array with a null row ends a run before it begins; both kinds of DuckDB's JSON files are read."""
    path = str(tmp_path / "in.parquet")
    base = duckdb.connect()
    base.sql("SELECT 'a' review, [1, 2, 3]::FLOAT[3] v UNION ALL SELECT 'b', NULL").write_parquet(path)
    with pytest.raises(UsageError, match="column `v` cannot be read"):
        run(tmp_path, path, "out.parquet")
    assert base.read_parquet(run(tmp_path, path, "out.parquet", ["review"])).count("s").fetchall() == [(2,)]
    for name, options in (("lines", ""), ("array", "(ARRAY true)")):
        rows = "SELECT 'review ' || range review FROM range(9)"
        base.execute(f"COPY ({rows}) TO '{tmp_path / name}.json' {options}")
        out = run(tmp_path, str(tmp_path / f"{name}.json"), "out.csv")
        assert base.read_csv(out).unique("review").count("review").fetchall() == [(9,)]
