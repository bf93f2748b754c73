# ruff: noqa: INP001  # a script, not a package
"""Dagster: reviews are written, asked about and counted, as three assets.

Look at it with `dagster dev -f examples/dagster/definitions.py`. It asks the built-in sandbox, for nothing.
"""

from pathlib import Path

import dagster as dg
import pandas as pd

from enrich.integrations.dagster import beatra_asset

HERE = Path(__file__).parent
ROWS = ["Splendid!", "Arrived late", "As described", "Arrived late"]


@dg.asset
def reviews() -> dg.MaterializeResult:
    """Write the rows, and tell where: the next asset reads them there."""
    path = HERE / "out" / "reviews.csv"
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame({"review": ROWS}).to_csv(path, index=False)
    return dg.MaterializeResult(metadata={"path": dg.MetadataValue.path(path)})


tones = beatra_asset(
    HERE / "reviews.yaml",
    name="tones",
    input_asset="reviews",
    retry_policy=dg.RetryPolicy(max_retries=3, delay=60),
)


@dg.asset(deps=[tones])
def tone_counts() -> dg.MaterializeResult:
    """Count the answers; not run when more rows failed than are tolerated."""
    table = pd.read_parquet(HERE / "out" / "tones.parquet")
    counts = table.groupby("tone_label", observed=True).size()
    return dg.MaterializeResult(metadata={"counts": counts.to_dict()})


defs = dg.Definitions(assets=[reviews, tones, tone_counts])
