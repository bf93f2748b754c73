# ruff: noqa: INP001  # a script, not a package
"""Daft: its partitions stream through one process that asks, and come back as a Daft frame, in memory.

Run it as it stands: `python daft_recipe.py`. It asks the built-in sandbox, for nothing, or BEATRA_BASE_URL.
Paid once: one process, one ledger in a file. Killed and run again, it asks only what is missing.
"""

import os

import daft
import pyarrow as pa

import enrich
from enrich.spread import decoded

CONFIG = {
    "endpoint": {"base_url": os.environ.get("BEATRA_BASE_URL", "sandbox")},
    "ledger": ".beatra/daft.db",
    "steps": [{"name": "tone", "prompt": "The tone of this review: {{ review }}"}],
}


def main() -> None:
    """Ask about the rows of a frame; this could be `daft.read_parquet("s3://…")`."""
    reviews = daft.from_pydict({"id": list(range(200)), "review": [f"Review {n % 150}" for n in range(200)]})
    reviews = reviews.into_batches(64)
    schema = reviews.schema().to_pyarrow_schema()
    batches = enrich.enrich_batches(reviews.to_arrow_iter(), CONFIG, schema=schema)
    out = daft.from_arrow(
        pa.Table.from_batches([decoded(batch)]) for batch in batches
    )  # it knows no dictionaries
    out.write_parquet("reviews", write_mode="overwrite")
    found = daft.read_parquet("reviews")
    found.groupby("tone_status", "tone_source").agg(
        daft.col("id").count(), daft.col("tone_credits").sum()
    ).show()


if __name__ == "__main__":
    main()
