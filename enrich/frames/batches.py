"""Record batches in, record batches with the steps' columns out."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import AsyncIterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.config import JobConfig, load_job, validate_job
from enrich.files.prefetch import prefetched
from enrich.frames.blocking import blocking
from enrich.frames.door import open_door
from enrich.rows.explode import explosion_of
from enrich.runs.job import Job, compile_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping

    AnyConfig = str | Path | Mapping[str, Any] | JobConfig


ONCE = (
    "max_reasked is not looked at here: rows that come in batches are gone through once, so nobody knows beforehand how "
    "many were answered before and would be asked again. A changed prompt, model or column type asks them again; "
    "`budget` bounds what that costs"
)


def enrich_batches(
    batches: Iterable[pa.RecordBatch],
    config: AnyConfig,
    *,
    schema: pa.Schema | None = None,
    api_key: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Ask the steps of every row, batch after batch, some batches ahead of the one that is given.

    The first batch is asked alone, and then ever more ahead: who takes only the first batches pays for little more.

    Args:
        batches: all of one schema; pulled by the thread that pulls the result, a bounded number ahead.
        config: a YAML file's path, its content as a mapping, or a `JobConfig`. Its input and output play no part,
            except that the ledger lies beside the output by default; without one, in the user's cache directory. Nor
            does `max_reasked`, with a warning: rows that are gone through once cannot be looked through beforehand.
        schema: of the batches, when it is known: then templates are compared with it at once.
        api_key: instead of the one in the environment.

    Returns:
        One batch per batch, of the same rows: their columns untouched, then those of the steps. Usage and credits
        stand on one row per completion over all batches of this call.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        RunStopped: the run had to stop early. Everything paid for is kept: the same call goes on from there.

    Example:
        >>> import pyarrow as pa
        >>> import enrich
        >>> config = {
        ...     "endpoint": {"base_url": "sandbox"},
        ...     "steps": [{"name": "tone", "prompt": "The tone of: {{ text }}"}],
        ... }
        >>> batches = [pa.record_batch({"text": ["good", "bad"]}), pa.record_batch({"text": ["good"]})]
        >>> [batch["tone_status"].to_pylist() for batch in enrich.enrich_batches(batches, config)]
        [['ok', 'ok'], ['ok']]
    """
    given = job_config(config)
    schema = schema or getattr(batches, "schema", None)
    job = compile_job(given, schema, api_key=api_key) if schema is not None else None
    return _enriched(iter(batches), given, job, api_key)


def aenrich_batches(
    batches: AsyncIterable[pa.RecordBatch] | Iterable[pa.RecordBatch],
    config: AnyConfig,
    *,
    schema: pa.Schema | None = None,
    api_key: str | None = None,
) -> AsyncIterator[pa.RecordBatch]:
    """Do what `enrich_batches` does, on the event loop that is running."""
    given = job_config(config)
    schema = schema or getattr(batches, "schema", None)
    job = compile_job(given, schema, api_key=api_key) if schema is not None else None
    return _aenriched(as_async(batches), given, job, api_key)


def output_schema(schema: pa.Schema, config: AnyConfig) -> pa.Schema:
    """Give the schema of the batches that `enrich_batches` makes of batches of this one; asks nothing.

    Raises:
        UsageError: the configuration does not fit this schema.
    """
    return compile_job(job_config(config), schema, key_needed=False).output_schema


# --- the job --------------------------------------------------------------------------------------------


def job_config(config: AnyConfig) -> JobConfig:
    """Load a configuration, however it is given, for rows that come from elsewhere."""
    if isinstance(config, str | Path):
        config = load_job(config)
    elif not isinstance(config, JobConfig):
        config = validate_job(config)
    if config.max_reasked is not None:
        warnings.warn(ONCE, stacklevel=3)
    return config.model_copy(
        update={"input": None, "output": None, "ledger": config.ledger_location(), "max_reasked": None}
    )


def _enriched(
    batches: Iterator[pa.RecordBatch], config: JobConfig, job: Job | None, api_key: str | None
) -> Iterator[pa.RecordBatch]:
    first = next(batches, None)
    if first is None:
        return
    job = job or compile_job(config, first.schema, api_key=api_key)
    with blocking(open_door(job, first.schema, eager=False)) as door:
        for batch, answers in door.answers(itertools.chain([first], batches)):
            yield from _joined(batch, answers, job)


async def _aenriched(
    batches: AsyncGenerator[pa.RecordBatch, None], config: JobConfig, job: Job | None, api_key: str | None
) -> AsyncGenerator[pa.RecordBatch, None]:
    async with contextlib.aclosing(batches):
        first = await anext(batches, None)
        if first is None:
            return
        job = job or compile_job(config, first.schema, api_key=api_key)
        async with (
            open_door(job, first.schema, eager=False) as door,
            contextlib.aclosing(door.answers(_after(first, batches))) as answered,
        ):
            async for batch, answers in answered:
                for joined in _joined(batch, answers, job):
                    yield joined


async def _after(
    first: pa.RecordBatch, others: AsyncIterable[pa.RecordBatch]
) -> AsyncGenerator[pa.RecordBatch, None]:
    yield first
    async for batch in others:
        yield batch


async def as_async(
    batches: AsyncIterable[pa.RecordBatch] | Iterable[pa.RecordBatch],
) -> AsyncGenerator[pa.RecordBatch, None]:
    """Give batches to asynchronous code; those of a plain iterable are pulled in a thread."""
    source = batches if isinstance(batches, AsyncIterable) else prefetched(iter(batches))
    async for batch in source:
        yield batch


def _joined(batch: pa.RecordBatch, answers: pa.RecordBatch, job: Job) -> Iterator[pa.RecordBatch]:
    """Put the answers behind their rows; a batch becomes several where many rows are made of one."""
    columns, schema = [*batch.columns, *answers.columns], job.output_schema
    explosion = explosion_of(job.steps)
    if explosion is None:
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        return
    whole = pa.RecordBatch.from_arrays(columns, names=schema.names)
    yield from (made for _, made in explosion.pieces(whole, schema))
