"""Makes the files beside it, a few KB each, with the libraries that write such files; the fast tests read them.

Run `python make.py` after `pip install pyspark duckdb polars pandas pyarrow`.
"""

from __future__ import annotations

import base64
import datetime as dt
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FAR = dt.datetime(9999, 12, 31, 1, 2, 3, 456789)  # noqa: DTZ001  # beyond what nanoseconds in 64 bits hold


def spark() -> None:
    """INT96 timestamps (Spark's default), its schema in the footer, and CSV with backslashes."""
    from pyspark.sql import SparkSession, types

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    near = dt.datetime(2026, 11, 22, 10, 30)  # noqa: DTZ001  # Spark takes it as its session's
    rows = [(1, "good", near), (2, "bad", FAR), (3, None, None)]
    frame = session.createDataFrame(rows, "id long, review string, at timestamp")
    _one(frame.write.parquet, "spark_int96.parquet")
    with_ntz = session.createDataFrame(
        [(1, "good", [dt.date(2026, 11, 22)], {"a": 1})],
        types.StructType.fromDDL("id int, review string, days array<date>, tags map<string,int>"),
    )
    _one(with_ntz.write.parquet, "spark_nested.parquet")
    texts = [
        (1, 'say "hi"'),
        (2, "C:\\temp\\new"),
        (3, "ends in \\"),
        (4, 'a\\"b'),
        (5, "two, parts"),
        (6, "two\nlines"),
        (7, None),
        (8, ""),
        (9, "x"),
    ]
    _one(
        session.createDataFrame(texts, "id long, text string").write.option("header", "true").csv, "spark.csv"
    )
    _one(
        session.sql("select id, parse_json(v) v from values (1, '{\"a\": [1]}') as t(id, v)").write.parquet,
        "spark_variant.parquet",
    )
    session.stop()


def _one(write: Any, name: str) -> None:
    """Keep the one file that a writer of folders wrote."""
    folder = HERE / f"{name}.folder"
    shutil.rmtree(folder, ignore_errors=True)
    write(str(folder))
    (part,) = folder.glob("part-*")
    part.replace(HERE / name)
    shutil.rmtree(folder)


def duckdb() -> None:
    """Dates of infinity, times with zones, intervals, and an array with a null row, which Arrow does not decode."""
    import duckdb

    def copy(query: str, name: str, options: str = "") -> None:
        duckdb.sql(f"COPY ({query}) TO '{HERE / name}' {options}")

    copy(
        "SELECT * FROM (VALUES (1, 'a', DATE 'infinity', TIMESTAMP 'infinity'),"
        " (2, 'b', DATE '-infinity', TIMESTAMP '-infinity'), (3, 'c', DATE '2026-11-22', TIMESTAMP '2026-11-22 10:30'),"
        " (4, 'd', DATE '10000-01-01', TIMESTAMP '10000-01-01'), (5, 'e', DATE '0044-03-15 (BC)', NULL))"
        " t(id, review, day, moment)",
        "duckdb_infinity.parquet",
    )
    copy(
        "SELECT 1 id, 'a' review, [1, 2, 3]::FLOAT[3] v UNION ALL SELECT 2, 'b', NULL", "duckdb_array.parquet"
    )
    copy(
        "SELECT 1 id, 'a' review, TIMETZ '10:30:00+02' t, INTERVAL '1 month' i, uuid() u, '{\"a\": 1}'::JSON j",
        "duckdb_types.parquet",
    )
    copy("SELECT range id, 'review ' || range review FROM range(3)", "duckdb_array.json", "(ARRAY true)")
    copy("SELECT range id, 'review ' || range review FROM range(3)", "duckdb_lines.json")
    copy("SELECT 1 id, 'a' review, {'a': 1}::VARIANT v", "duckdb_variant.parquet")


def polars() -> None:
    """Categories as string views, an Enum, and integers of 128 bits."""
    import polars as pl

    frame = pl.DataFrame({"id": [1, 2, 3], "review": ["good", "bad", "good"]})
    kinds = pl.Enum(["good", "bad"])
    frame = frame.with_columns(cat=pl.col("review").cast(pl.Categorical), enum=pl.col("review").cast(kinds))
    frame.write_ipc(HERE / "polars_categories.arrow", compression="zstd")
    frame.select("id", "review", "cat").write_parquet(HERE / "polars_categories.parquet")
    big = pl.DataFrame({"id": [2**70, 1], "review": ["good", "bad"]}, schema_overrides={"id": pl.Int128})
    big.write_ipc(HERE / "polars_int128.arrow")
    big.write_parquet(HERE / "polars_int128.parquet")


def pandas() -> None:
    """A day a file, a categorical each: together they have more categories than an index of 8 bits holds."""
    import pandas as pd

    folder = HERE / "pandas_days"
    folder.mkdir(exist_ok=True)
    for day in range(3):
        names = [f"product {day} {number}" for number in range(100)]
        frame = pd.DataFrame({"review": "good", "product": pd.Categorical(names)})
        frame.to_feather(folder / f"day{day}.feather", compression="zstd")
        frame.to_parquet(folder / f"day{day}.parquet", compression="zstd")
    named = pd.DataFrame(
        {"review": ["good"], "stars": [5], "day": [dt.date(2026, 11, 22)]}, index=pd.Index(["a"], name="key")
    )
    named.to_parquet(HERE / "pandas_index.parquet")


def arrow() -> None:
    """A column with a damaged page, and one that only a key opens."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.parquet.encryption as pe

    table = pa.table(
        {"id": range(2000), "review": ["good"] * 2000, "note": [f"note {i}" for i in range(2000)]}
    )
    path = HERE / "damaged.parquet"
    pq.write_table(table, path, 1000, compression="zstd", use_dictionary=False, write_page_checksum=True)
    column = pq.read_metadata(path).row_group(1).column(2)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 40] ^= 0xFF
    path.write_bytes(data)

    class Keys(pe.KmsClient):
        def wrap_key(self, key: Any, master: Any) -> Any:
            return base64.b64encode(master.encode() + key)

        def unwrap_key(self, wrapped: Any, master: Any) -> Any:
            return base64.b64decode(wrapped)[len(master) :]

    secret = pe.EncryptionConfiguration(
        footer_key="k1", column_keys={"k2": ["secret"]}, plaintext_footer=True, data_key_length_bits=128
    )
    factory = pe.CryptoFactory(lambda _: Keys())
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), secret)
    table = pa.table({"id": [1, 2], "review": ["good", "bad"], "secret": ["x", "y"]})
    with pq.ParquetWriter(
        HERE / "encrypted.parquet", table.schema, encryption_properties=properties
    ) as writer:
        writer.write_table(table)


if __name__ == "__main__":
    for make in (spark, duckdb, polars, pandas, arrow):
        make()
