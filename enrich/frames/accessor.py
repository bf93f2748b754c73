"""What the data frame accessors share: rows of a frame go through the door, failures are told."""

# No postponed annotations here: `help()` shows the fields' types as they are.
import asyncio
import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

import enrich
from enrich.errors import InputError, RowsFailed
from enrich.frames import reasked
from enrich.frames.arguments import Settings, as_config
from enrich.frames.batches import as_async
from enrich.frames.blocking import Background, blocking
from enrich.frames.door import Door, open_door
from enrich.records import FAILED, Summary
from enrich.rows.explode import explosion_of
from enrich.runs.job import Job, compile_job
from enrich.runs.reasked import Reasked
from enrich.show.display import displayed
from enrich.show.watch import Watch

T = TypeVar("T")

ASKED_AT_ONCE = 8192  # rows asked and assembled as one
SHOWN_FAILURES = 5  # rows named in the message of `errors="raise"`


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of it.

    Attributes:
        table: the chosen columns, one row per row; of a step that explodes, one per element.
        summary: how it went.
        rows: for each row of the table that of the frame; None where these are the same.
    """

    table: pa.Table
    summary: Summary
    rows: np.ndarray[Any, np.dtype[np.int64]] | None = None


@dataclass(frozen=True, slots=True)
class FrameJob:
    """A job, and the rows for it."""

    job: Job
    rows: int | None
    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]


@dataclass(frozen=True, slots=True)
class FrameSource:
    """A frame as the door takes it.

    Attributes:
        names: of its columns, as templates write them; a name may stand twice as long as no template needs it.
        rows: how many; None when that shows only at the end.
        take: gives the columns of these names in batches, and the batches' schema. Without names, of any column.
    """

    names: Sequence[str]
    rows: int | None
    take: Callable[[Sequence[str]], tuple[pa.Schema, Iterable[pa.RecordBatch]]]


def batches_of(table: pa.Table) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """Cut a table into batches for the door."""
    return table.schema, table.to_batches(max_chunksize=ASKED_AT_ONCE)


@contextlib.contextmanager
def prepared(asked: Settings, source: FrameSource, *, key_needed: bool = True) -> Iterator[FrameJob]:
    """Compile what is asked against a frame, and take the columns that it needs.

    Raises:
        UsageError: something is wrong with the arguments, or they do not fit the frame.
    """
    with contextlib.ExitStack() as stack:
        config = as_config(asked)
        if asked.ledger is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="beatra-"))
            config = config.model_copy(update={"ledger": str(Path(folder) / "ledger.db")})
        bare = pa.schema([pa.field(name, pa.null()) for name in dict.fromkeys(source.names)])
        needed = compile_job(config, bare, key_needed=False).columns
        names = list(source.names)
        for name in needed:
            if names.count(name) > 1:
                raise InputError(
                    f"two columns are called `{name}`, and a template needs it", hint="rename one."
                )
        schema, batches = source.take(needed)
        full = pa.schema([schema.field(f.name) if f.name in needed else f for f in bare])
        job = compile_job(config, full, api_key=asked.api_key, key_needed=key_needed)
        yield FrameJob(job, source.rows, schema, batches)


# --- asking ---------------------------------------------------------------------------------------------


def ask(asked: Settings, source: FrameSource) -> Answers:
    """Ask every row, on an event loop in a thread of its own; one that is running here is left alone.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        RunStopped: it had to stop early. Everything paid for is kept.
        RowsFailed: rows failed, and `errors` is `raise`.
    """
    with prepared(asked, source) as taken:
        given, rows = held(asked, taken)
        if rows is not None:
            _tell(in_background(reasked.refuse(rows, given.job)))
        with blocking(_door(given, asked)) as door:
            pieces = [answers for _, answers in door.answers(given.batches)]
        return _told(asked, given.job, pa.Table.from_batches(pieces, door.schema), door.summary)


async def aask(asked: Settings, source: FrameSource) -> Answers:
    """Do what `ask` does, on the event loop that is running."""
    with prepared(asked, source) as taken:
        given, rows = await asyncio.to_thread(held, asked, taken)
        if rows is not None:
            _tell(await reasked.refuse(rows, given.job))
        async with _door(given, asked) as door:
            answered = door.answers(as_async(given.batches))
            pieces = [answers async for _, answers in answered]
        return _told(asked, given.job, pa.Table.from_batches(pieces, door.schema), door.summary)


def held(asked: Settings, given: FrameJob) -> tuple[FrameJob, reasked.FrameRows | None]:
    """Give rows that can be gone through beforehand, where an earlier call may have answered some.

    A query's rows come once: they are collected first, since its frame is held as a whole anyway.
    """
    if asked.ledger is None:
        return given, None
    batches = list(given.batches)
    rows = sum(batch.num_rows for batch in batches)
    held = reasked.FrameRows(given.schema, rows, batches) if rows else None
    return replace(given, rows=rows, batches=batches), held


def _tell(found: Reasked | None) -> None:
    if found is not None:
        warnings.warn(str(found), stacklevel=_outside())


def in_background(work: Coroutine[object, object, T]) -> T:
    """Do asynchronous work on an event loop in a thread of its own; one that is running here is left alone."""
    background = Background()
    try:
        return background.call(work)
    finally:
        background.close()


@contextlib.asynccontextmanager
async def _door(given: FrameJob, asked: Settings) -> AsyncIterator[Door]:
    watch = Watch()
    async with (
        displayed(watch, wanted=asked.progress),
        open_door(
            given.job, given.schema, progress=watch, total=given.rows, named=reasked.name_of(given.job)
        ) as door,
    ):
        yield door


def _told(asked: Settings, job: Job, table: pa.Table, summary: Summary | None) -> Answers:
    """Say what failed, and choose the columns."""
    assert summary is not None  # noqa: S101  # a door that was closed in good order has one
    counts = [(status, summary.statuses[status]) for status in FAILED if summary.statuses[status]]
    if counts:
        failed = sum(count for _, count in counts)
        causes = ", ".join(f"{count:,} {status}" for status, count in counts)
        text = f"{failed:,} of {summary.rows:,} rows have no answer: {causes}"
        if asked.errors == "raise":
            raise RowsFailed(f"{text}\n" + "\n".join(_failures(job, table, summary)))
        names = [column.field.name for step in job.steps for column in step.columns if column.of == "error"]
        why = f"{', '.join(names)} says why" if names else _causes(summary)
        warnings.warn(f"{text}; {why}", stacklevel=_outside())
    explosion = explosion_of(job.steps)
    if explosion is None:
        return Answers(table, summary)
    made, rows = explosion.table(table)
    return Answers(made, summary, rows)


def _causes(summary: Summary) -> str:
    return ", ".join(f"{cause.rows:,} {cause.code} at step {cause.step}" for cause in summary.causes)


def _failures(job: Job, table: pa.Table, summary: Summary) -> Iterator[str]:
    """Tell of the first rows that failed, as far as the columns that were chosen do."""
    left = SHOWN_FAILURES
    for step in job.steps:
        names = {column.of: column.field.name for column in step.columns if not column.is_value}
        if "status" not in names or "error" not in names:
            for cause in summary.causes:
                if cause.step == step.name:
                    yield f"  row {cause.row - 1}, {cause.step}: {cause.status}: {cause.code}: {cause.message}"
            continue
        statuses, errors = table[names["status"]], table[names["error"]]
        for row, status in enumerate(statuses):
            if left and status.as_py() in FAILED:
                left -= 1
                yield f"  row {row}, {step.name}: {status}: {errors[row]}"


def _outside() -> int:
    """Give the stack level of whoever called into this package."""
    here = os.path.dirname(enrich.__file__)  # noqa: PTH120  # compared with the paths that frames carry
    level, frame = 1, sys._getframe(1)  # noqa: SLF001  # as `warnings` itself does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        level, frame = level + 1, frame.f_back
    return level
