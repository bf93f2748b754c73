# ruff: noqa: INP001  # a script, not a package
"""DuckDB: a relation goes out as Arrow batches, is asked about, and comes back as a table.

Run it as it stands: `python examples/duckdb_example.py`. It asks the built-in sandbox, for nothing.
"""

import duckdb
import pyarrow as pa

import enrich

CONFIG = {
    "endpoint": {"base_url": "sandbox"},  # leave this out to ask the real endpoint
    "ledger": ".beatra/duckdb.db",  # a second run costs nothing
    "steps": [
        {
            "name": "tone",
            "prompt": "The tone of this review: {{ review }}",
            "schema": {
                "type": "object",
                "properties": {
                    "label": {"enum": ["pos", "neg"]},
                    "score": {"type": "number", "minimum": 0, "maximum": 1},
                },
                "required": ["label", "score"],
            },
        }
    ],
}


def main() -> None:
    """Ask about the rows of a query, batch by batch, and join the answers in SQL."""
    con = duckdb.connect()
    con.execute("""
        CREATE TABLE reviews AS
        SELECT i AS id, ['Splendid!', 'Arrived late', 'As described'][1 + i % 3] AS review
        FROM range(1000) AS t(i)
    """)
    reader = con.cursor().sql("SELECT id, review FROM reviews ORDER BY id").to_arrow_reader(256)
    enriched = pa.RecordBatchReader.from_batches(
        enrich.output_schema(reader.schema, CONFIG), enrich.enrich_batches(reader, CONFIG)
    )
    con.register("enriched", enriched)
    con.execute("CREATE TABLE tones AS FROM enriched")  # streamed: batches are asked as DuckDB takes them
    con.sql("""
        SELECT tone_label AS label, count(*) AS rows, count(*) FILTER (tone_source <> 'copy') AS requests,
               round(avg(tone_score), 3) AS score
        FROM tones GROUP BY ALL ORDER BY label
    """).show()


if __name__ == "__main__":
    main()
