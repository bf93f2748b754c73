# ruff: noqa: INP001  # a script, not a package
"""DuckDB: a relation goes out as Arrow batches, is asked about, and lands in Parquet.

Run it as it stands: `python duckdb_recipe.py`. It asks the built-in sandbox, for nothing, or BEATRA_BASE_URL.
Paid once: one process, one ledger in a file. Killed and run again, it asks only what is missing.
"""

import os

import duckdb
import pyarrow as pa

import enrich

CONFIG = {
    "endpoint": {"base_url": os.environ.get("BEATRA_BASE_URL", "sandbox")},
    "ledger": ".beatra/duckdb.db",
    "steps": [{"name": "tone", "prompt": "The tone of this review: {{ review }}"}],
}


def main() -> None:
    """Ask about the rows of a query, batch by batch, as the query yields them."""
    con = duckdb.connect()
    con.execute("""
        CREATE TABLE reviews AS
        SELECT i AS id, 'Review ' || i % 150 AS review FROM range(200) AS t(i)
    """)
    reader = con.cursor().sql("SELECT id, review FROM reviews ORDER BY id").to_arrow_reader(64)
    enriched = pa.RecordBatchReader.from_batches(
        enrich.output_schema(reader.schema, CONFIG), enrich.enrich_batches(reader, CONFIG)
    )
    con.register("enriched", enriched)
    con.execute("COPY enriched TO 'reviews.parquet'")  # streamed: batches are asked as DuckDB takes them
    con.sql("""
        SELECT tone_status, tone_source, count(*) AS rows, sum(tone_credits) AS credits
        FROM 'reviews.parquet' GROUP BY ALL
    """).show()


if __name__ == "__main__":
    main()
