"""Spark: the rows of a frame are asked task by task, each with connections of its own, and paid for once among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from enrich import spread
from enrich.errors import ConfigError
from enrich.frames.batches import enriched_part, job_config
from enrich.records import AMOUNTS, STATUSES
from enrich.schema.choice import written_names
from enrich.schema.schema import step_schema

try:
    from pyspark.sql import functions as F  # noqa: N812  # as everybody who uses Spark writes it
    from pyspark.sql.types import StructType
except ImportError:
    raise ConfigError("Spark is not installed", hint="pip install 'beatra-enrich[spark]'") from None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import Column, DataFrame

    from enrich.frames.batches import AnyConfig


def enrich(
    df: DataFrame, config: AnyConfig, *, one_machine: bool = False, split_limits: int | None = None
) -> DataFrame:
    """Add the columns of every step to a frame.

    Nothing is asked before an action needs the rows; then each task asks those of its partition, few at first and ever
    more ahead: `limit`, `show` and `first` behind it ask some dozens of a partition's rows. To ask five rows and no more,
    write `enrich(df.limit(5), …)`; `preview` asks nothing. An action that is
    repeated, a task that is retried and one that runs twice ask nothing that the ledger holds. Executors need the API
    key in their environment, or where `endpoint.api_key_file` says; it does not travel with the plan.

    Args:
        df: its columns are the templates' variables.
        config: a YAML file's path, its content as a mapping, or a `JobConfig`; its input and output play no part.
            `ledger` is on PostgreSQL, and `limits.concurrency` is that of one task.
        one_machine: every task runs on this machine, as with `local[4]`: then a ledger in a file will do.
        split_limits: so many tasks run at once: each gets that part of the rate limits, where the ledger is a file. One on
            PostgreSQL shares them.

    Returns:
        A frame of the same rows: the columns there are, then those of the steps.

    Raises:
        UsageError: something is wrong that was found before any task began.
    """
    spark = df.sparkSession
    # As Spark itself hands the rows over; that no row is wanted its optimizer knows, so no executor is asked.
    arriving = df.limit(0).toArrow().schema
    job, joined = spread.prepare(config, arriving, one_machine=one_machine, split_limits=split_limits)
    added = pa.schema(list(joined)[len(arriving) :])

    def ask(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        answered = enriched_part(spread.in_slices(batches), job)
        return spread.handed_over(map(spread.decoded, answered))

    fields = [*df.schema.fields, *spark.createDataFrame(added.empty_table()).schema.fields]
    return df.mapInArrow(ask, StructType(fields))


def preview(df: DataFrame, config: AnyConfig, n: int = 3) -> str:
    """Write out the requests of the first rows as they would be sent; sends nothing.

    Args:
        df: its columns are the templates' variables.
        config: as for `enrich`.
        n: how many rows.

    Raises:
        UsageError: the configuration does not fit the frame.
    """
    return spread.preview(config, df.limit(n).toArrow())


def metrics(config: AnyConfig) -> list[Column]:
    """Give what `df.observe` may count as the rows of an enriched frame go by.

    Returns:
        `rows`; per step, such as `tone`, the rows of each status (`tone_ok`, `tone_error`, …), and what this action
        spent: `tone_requests`, `tone_prompt_tokens`, `tone_completion_tokens`, `tone_credits` and the other amounts.
        What earlier actions or attempts paid for is not in it, and of columns that the step does not write (`columns`)
        nothing can be counted.

    Example:
        >>> observation = Observation("tone")  # doctest: +SKIP
        >>> out = enrich(df, config).observe(observation, *metrics(config))  # doctest: +SKIP
    """
    columns = [F.count(F.lit(1)).alias("rows")]
    for step in job_config(config).steps:
        name = step.name
        written = written_names(step, step_schema(step))
        if (status_column := written.get(f"{name}_status")) is not None:
            columns += [
                F.count_if(F.col(status_column) == status).alias(f"{name}_{status}") for status in STATUSES
            ]
        if (source := written.get(f"{name}_source")) is None:
            continue
        asked = F.col(source) == "api"
        columns.append(F.count_if(asked).alias(f"{name}_requests"))
        columns += [
            F.coalesce(F.sum(F.when(asked, F.col(amount))), F.lit(0)).alias(f"{name}_{what}")
            for what in AMOUNTS
            if (amount := written.get(f"{name}_{what}")) is not None
        ]
    return columns
