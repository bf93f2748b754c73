# ruff: noqa: INP001  # a script, not a package
"""Polars, streaming: a lazy query of any size goes through in batches and lands in Parquet, in bounded memory.

Run it as it stands: `python polars_recipe.py`. It asks the built-in sandbox, for nothing, or BEATRA_BASE_URL.
Paid once: one process, one ledger in a file. Killed and run again, it asks only what is missing.
"""

import os
from collections.abc import Iterator

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import enrich

CONFIG = {
    "endpoint": {"base_url": os.environ.get("BEATRA_BASE_URL", "sandbox")},
    "ledger": ".beatra/polars.db",
    "steps": [{"name": "tone", "prompt": "The tone of this review: {{ review }}"}],
}
ROWS = 64  # of a batch


def batches(query: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
    """Give what a query yields, as it yields it."""
    for frame in query.collect_batches(chunk_size=ROWS):
        yield from frame.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks().to_batches()


def main() -> None:
    """Ask about the rows of a lazy query; this could be `pl.scan_parquet("s3://…")`."""
    query = pl.LazyFrame({"id": range(200)}).with_columns(review=pl.format("Review {}", pl.col("id") % 150))
    schema = next(batches(query.head(1))).schema
    with pq.ParquetWriter("reviews.parquet", enrich.output_schema(schema, CONFIG)) as writer:
        for batch in enrich.enrich_batches(batches(query), CONFIG, schema=schema):
            writer.write_batch(batch)
    out = pl.scan_parquet("reviews.parquet").select("tone_status", "tone_source", "tone_credits").collect()
    print(out.group_by("tone_status", "tone_source").agg(pl.len(), pl.sum("tone_credits")))  # noqa: T201  # shown


if __name__ == "__main__":
    main()
