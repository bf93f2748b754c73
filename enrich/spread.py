"""A job that many processes carry out at once: what must hold, found before the first of them starts."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from enrich.base.loops import run_sync
from enrich.config import RATES, LimitsConfig, holds_password
from enrich.errors import ConfigError
from enrich.frames import reasked
from enrich.frames.batches import job_config
from enrich.frames.looking import Page
from enrich.prompt.messages import without_files
from enrich.runs.job import compile_job
from enrich.schema.schema import step_schema
from enrich.verbs.preview import request_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from enrich.config import JobConfig, StepConfig, StepLimits, WindowConfig
    from enrich.frames.batches import AnyConfig

    Limits = TypeVar("Limits", LimitsConfig, StepLimits)

# Of the slices that a task asks; all later ones are as the last.
FIRST_SLICES = (4, 4, 8, 8, 16, 16, 32, 64, 128, 256, 512)
WORKER_BUFFER = 65_536  # bytes that Spark's worker gathers (`SPARK_BUFFER_SIZE`)
SHARED = ("postgresql://", "postgres://")  # how the URLs of ledgers begin that machines share


def prepare(
    config: AnyConfig, schema: pa.Schema, *, one_machine: bool = False, split_limits: int | None = None
) -> tuple[JobConfig, pa.Schema]:
    """Check a job, and make it one that every process can carry out alone and without paying twice.

    It then holds no paths of files of prompts or schemas, no key, and the address that all requests are keyed by.

    Args:
        config: a YAML file's path, its content as a mapping, or a `JobConfig`.
        schema: of the rows.
        one_machine: every process runs on this machine: then a ledger in a file is shared as well.
        split_limits: so many processes run at once: each gets that part of the rate limits, where the ledger is a file.
            One on PostgreSQL shares them all.

    Returns:
        The job, and the schema of the enriched rows as engines know it: without dictionaries.

    Raises:
        UsageError: something is wrong that would fail, or cost twice, in the processes.
        TooManyReasked: prompt, model or a column's type changed since the job was asked last, and `max_reasked` bounds how
            many rows may be paid for again, which cannot be counted here.
    """
    given = job_config(config)
    job = compile_job(given, schema)
    _check_ledger(given.ledger_location(), one_machine=one_machine)
    _check_alone(given)
    if told := run_sync(lambda: reasked.refuse_unseen(job, schema)):
        warnings.warn(told, stacklevel=3)
    update = {
        "steps": [_whole(step) for step in given.steps],
        "endpoint": given.endpoint.model_copy(update={"base_url": job.base_url}),
    }
    ready = _with_rates(given.model_copy(update=update), split_limits)
    return ready, decoded_schema(job.output_schema)


def preview(config: AnyConfig, rows: pa.Table) -> Page:
    """Write out the requests of these rows; sends nothing, and needs neither a key nor a ledger.

    Raises:
        UsageError: the configuration does not fit these columns.
    """
    job = compile_job(job_config(config), rows.schema, key_needed=False)
    return Page("\n".join(request_texts(job, rows.select(list(job.columns)).to_batches())))


def in_slices(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut batches into small ones at first, and then into larger ones: who takes few rows asks for little more.

    Spark hands over thousands of rows as one batch, and some actions take five.
    """
    sizes = itertools.chain(FIRST_SLICES, itertools.repeat(FIRST_SLICES[-1]))
    for batch in batches:
        if not batch.num_rows:
            yield batch
        row = 0
        while row < batch.num_rows:
            piece = batch.slice(row, next(sizes))
            yield piece
            row += piece.num_rows


def handed_over(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Put batches without rows behind each of the first ones, so that Spark sees these before more is asked.

    Its worker gathers 64 KiB before it hands anything over, and learns only as it does that nobody takes any more.
    """
    for number, batch in enumerate(batches):
        yield batch
        if number < len(FIRST_SLICES):
            empty = batch.slice(0, 0)
            yield from itertools.repeat(empty, WORKER_BUFFER // empty.serialize().size + 1)


def decoded_schema(schema: pa.Schema) -> pa.Schema:
    """Give a schema with the values' types in place of dictionaries, which most engines do not know."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pa.schema(fields).with_metadata(schema.metadata)


def decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Write out the dictionaries of a batch."""
    return batch.cast(decoded_schema(batch.schema))


def _is_shared(location: str) -> bool:
    return location.startswith(SHARED)


def _check_ledger(location: str, *, one_machine: bool) -> None:
    if not _is_shared(location):
        if one_machine:
            return
        raise ConfigError(
            f"the ledger {location} is a file: processes on other machines would not see it, and pay again",
            hint="give all of them one: ledger: postgresql://user@host/database. Where every process runs on this"
            " machine, say one_machine=True.",
        )
    if holds_password(location):
        raise ConfigError(
            "the URL of the ledger holds a password, which would travel with every task",
            hint="leave it out, and give PGPASSWORD, or PGPASSFILE, to the processes and to this one.",
        )


def _check_alone(config: JobConfig) -> None:
    """Refuse what one process among many cannot hold."""
    if any(
        value is not None for value in (config.budget.credits, config.budget.tokens, config.budget.requests)
    ):
        raise ConfigError(
            "a budget is held by one process; of these, each would spend as much",
            hint="remove `budget`, and look first at what the job costs: beatra-enrich plan.",
        )
    if not config.dedupe:
        raise ConfigError(
            "`dedupe: false` tells equal rows apart by their order, which processes do not share",
            hint="remove it, and put a column that tells them apart into the prompt.",
        )


def _whole(step: StepConfig) -> StepConfig:
    """Put a step's files into the step. A pydantic model stays one: it has a say in what an answer is in each process."""
    step = without_files(step)
    schema = step_schema(step)
    if schema is None or schema.is_code:
        return step
    return step.model_copy(update={"answer_schema": schema.json})


def _with_rates(config: JobConfig, split: int | None) -> JobConfig:
    """Give each process its part of the limits over a span of time, unless the ledger shares them."""
    limited = next(config.rates(), None)
    if limited is None or _is_shared(config.ledger_location()):
        return config
    if split is None:
        raise ConfigError(
            f"{limited} is held by one process; of these, each would send as much",
            hint="share a ledger on PostgreSQL, or divide it by the number of processes that run at once:"
            " split_limits=2.",
        )
    steps = [
        step.model_copy(update={"limits": _part(step.limits, split)}) if step.limits else step
        for step in config.steps
    ]
    return config.model_copy(update={"limits": _part(config.limits, split), "steps": steps})


def _part(limits: Limits, parts: int) -> Limits:
    """Divide the limits over a span of time; how much may be in flight is each process's own matter."""
    update: dict[str, Any] = {
        name: value / parts for name in RATES if (value := getattr(limits, name, None)) is not None
    }
    if isinstance(limits, LimitsConfig):
        update["windows"] = [_window_part(window, parts) for window in limits.windows]
    return limits.model_copy(update=update)


def _window_part(window: WindowConfig, parts: int) -> WindowConfig:
    given = {name: value for name in ("requests", "tokens") if (value := getattr(window, name)) is not None}
    for name, value in given.items():
        if value < parts:
            raise ConfigError(f"split_limits={parts}: a window of {value} {name} has no {parts} parts")
    return window.model_copy(update={name: value // parts for name, value in given.items()})
