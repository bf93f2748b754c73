"""Record batches in, record batches with the steps' columns out."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import AsyncIterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.base.loops import run_sync
from enrich.config import JobConfig, load_job, validate_job
from enrich.files.prefetch import prefetched
from enrich.frames import reasked
from enrich.frames.blocking import blocking
from enrich.frames.door import open_door
from enrich.rows.explode import explosion_of
from enrich.runs.job import Job, compile_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping

    from enrich.runs.reasked import Reasked

    AnyConfig = str | Path | Mapping[str, Any] | JobConfig


FIRST = "the first batch"


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
            except that the ledger lies beside the output by default; without one, in the user's cache directory.
            `max_reasked` is held against the first batch with rows in it: they come once, so no more can be looked through
            beforehand.
        schema: of the batches, when it is known: then templates are compared with it at once.
        api_key: instead of the one in the environment.

    Returns:
        One batch per batch, of the same rows: their columns untouched, then those of the steps. Usage and credits
        stand on one row per completion over all batches of this call.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        TooManyReasked: more rows of the first batch than `max_reasked` allows were answered before and would be paid for
            again, since prompt, model or a column's type changed.
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
    return config.model_copy(update={"input": None, "output": None, "ledger": config.ledger_location()})


def enriched_part(batches: Iterable[pa.RecordBatch], config: JobConfig) -> Iterator[pa.RecordBatch]:
    """Do what `enrich_batches` does with a part of the rows, in one of many processes: what is looked at first, was."""
    return _enriched(iter(batches), config, None, None, look=False)


def _enriched(
    batches: Iterator[pa.RecordBatch],
    config: JobConfig,
    job: Job | None,
    api_key: str | None,
    *,
    look: bool = True,
) -> Iterator[pa.RecordBatch]:
    begin = _begin(batches)
    if not begin:
        return
    first = begin[-1]
    job = job or compile_job(config, first.schema, api_key=api_key)
    if look and first.num_rows:
        _tell(run_sync(lambda: reasked.refuse(_rows(first), job, among=FIRST)))
    with blocking(open_door(job, first.schema, eager=False)) as door:
        for batch, answers in door.answers(itertools.chain(begin, batches)):
            yield from _joined(batch, answers, job)


def _begin(batches: Iterator[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Take batches up to the first that has rows in it."""
    begin: list[pa.RecordBatch] = []
    while (batch := next(batches, None)) is not None:
        begin.append(batch)
        if batch.num_rows:
            break
    return begin


def _rows(batch: pa.RecordBatch) -> reasked.FrameRows:
    return reasked.FrameRows(batch.schema, batch.num_rows, [batch])


def _tell(found: Reasked | None) -> None:
    if found is not None:
        warnings.warn(str(found), stacklevel=3)


async def _aenriched(
    batches: AsyncGenerator[pa.RecordBatch, None], config: JobConfig, job: Job | None, api_key: str | None
) -> AsyncGenerator[pa.RecordBatch, None]:
    async with contextlib.aclosing(batches):
        begin = []
        async for batch in batches:
            begin.append(batch)
            if batch.num_rows:
                break
        if not begin:
            return
        first = begin[-1]
        job = job or compile_job(config, first.schema, api_key=api_key)
        if first.num_rows:
            _tell(await reasked.refuse(_rows(first), job, among=FIRST))
        async with (
            open_door(job, first.schema, eager=False) as door,
            contextlib.aclosing(door.answers(_after(begin, batches))) as answered,
        ):
            async for batch, answers in answered:
                for joined in _joined(batch, answers, job):
                    yield joined


async def _after(
    begin: Iterable[pa.RecordBatch], others: AsyncIterable[pa.RecordBatch]
) -> AsyncGenerator[pa.RecordBatch, None]:
    for batch in begin:
        yield batch
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
