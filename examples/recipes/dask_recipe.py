# ruff: noqa: INP001  # a script, not a package
"""Dask: the partitions of a data frame are asked by its workers, each on its own, and paid for once among them.

Run it as it stands: `python dask_recipe.py`. It asks the built-in sandbox, for nothing, or BEATRA_BASE_URL.
Paid once: all workers run on this machine and share a ledger in a file. For workers on several machines give the ledger
as `postgresql://user@host/database` and leave `one_machine` out; then a partition that is computed again costs nothing.
"""

import os

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from dask.distributed import Client

import enrich
from enrich.config import JobConfig
from enrich.spread import decoded, prepare

CONFIG = {
    "endpoint": {"base_url": os.environ.get("BEATRA_BASE_URL", "sandbox")},
    "ledger": os.path.abspath(".beatra/dask.db"),  # noqa: PTH100  # workers may run in other folders
    "steps": [{"name": "tone", "prompt": "The tone of this review: {{ review }}"}],
}
SCHEMA = pa.schema([("id", pa.int64()), ("review", pa.string())])


def ask(part: pd.DataFrame, job: JobConfig) -> pd.DataFrame:
    """Ask about one partition."""
    batches = pa.Table.from_pandas(part, SCHEMA, preserve_index=False).to_batches(max_chunksize=64)
    table = pa.Table.from_batches(map(decoded, enrich.enrich_batches(batches, job, schema=SCHEMA)))
    return table.to_pandas(types_mapper=pd.ArrowDtype).set_index(part.index)


def main() -> None:
    """Ask about the rows of a frame; this could be `dd.read_parquet("s3://…")`."""
    job, joined = prepare(CONFIG, SCHEMA, one_machine=True)  # whatever is wrong is found here
    reviews = pd.DataFrame({"id": range(200), "review": [f"Review {n % 150}" for n in range(200)]})
    frame = dd.from_pandas(reviews, npartitions=4)
    meta = joined.empty_table().to_pandas(types_mapper=pd.ArrowDtype)
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        out = frame.map_partitions(ask, job, meta=meta).compute()
    out.to_parquet("reviews.parquet")
    print(out.groupby(["tone_status", "tone_source"])["tone_credits"].agg(["size", "sum"]))  # noqa: T201  # shown


if __name__ == "__main__":
    main()
