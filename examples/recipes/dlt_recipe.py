# ruff: noqa: INP001  # a script, not a package
"""dlt: a transformer stands behind any resource, asks about each page of it, and what comes is merged into a destination.

Run it as it stands: `python dlt_recipe.py`. It asks the built-in sandbox, for nothing, or BEATRA_BASE_URL.
Paid once: one process, one ledger in a file. Killed and run again, it asks only what is missing.
"""

import os
from collections.abc import Iterator
from typing import Any

import dlt
import duckdb
import pyarrow as pa

import enrich
from enrich.spread import decoded

CONFIG = {
    "endpoint": {"base_url": os.environ.get("BEATRA_BASE_URL", "sandbox")},
    "ledger": ".beatra/dlt.db",
    "steps": [{"name": "tone", "prompt": "The tone of this review: {{ review }}"}],
}


@dlt.resource
def pages() -> Iterator[list[dict[str, Any]]]:
    """Stand for any resource of yours: pages of rows."""
    rows = [{"id": i, "review": f"Review {i % 150}"} for i in range(200)]
    for start in range(0, len(rows), 64):
        yield rows[start : start + 64]


@dlt.transformer(data_from=pages, name="reviews", write_disposition="merge", primary_key="id")
def enriched(page: list[dict[str, Any]]) -> Iterator[pa.Table]:
    """Ask about a page; its requests are under way together."""
    asked = enrich.enrich_batches([pa.RecordBatch.from_pylist(page)], CONFIG)
    yield pa.Table.from_batches([decoded(batch) for batch in asked])


def main() -> None:
    """Load into DuckDB, and look at what came."""
    pipeline = dlt.pipeline(
        "reviews", destination=dlt.destinations.duckdb("warehouse.duckdb"), pipelines_dir=".dlt-state"
    )
    print(pipeline.run(enriched))  # noqa: T201
    with duckdb.connect("warehouse.duckdb") as con:
        con.execute("COPY reviews_dataset.reviews TO 'reviews.parquet'")
        con.sql("SELECT tone_status, count(*) AS rows FROM reviews_dataset.reviews GROUP BY ALL").show()


if __name__ == "__main__":
    main()
