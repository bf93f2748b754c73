"""A sample of the input's rows: drawn once with a seed, asked like any other, and never paid for again by a run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from enrich.errors import InputError, did_you_mean
from enrich.report.gold import text_of
from enrich.rows.statuses import Marks
from enrich.runs.scratch import occurrences_of, scratch_of
from enrich.runs.session import sending
from enrich.runs.summary import summarize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from enrich.files.source import Source
    from enrich.files.where import Where
    from enrich.records import Outcome, Summary
    from enrich.runs.prepare import Opened
    from enrich.runs.reasked import Rows as AllRows

    Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Answered:
    """What the rows of a sample have to show.

    Attributes:
        outcomes: per step, one for each row, in the sample's order.
        summary: of asking what was not known yet: requests and credits are of that alone.
    """

    outcomes: tuple[list[Outcome], ...]
    summary: Summary


def draw(
    source: Source,
    size: int,
    seed: int,
    *,
    where: Where | None = None,
    by: str | None = None,
    leave_out: Rows | None = None,
) -> Rows:
    """Draw rows at random, without putting them back; the same seed draws the same rows of the same input.

    Args:
        source: whose rows they are.
        size: how many; all, where there are fewer.
        seed: of the draw.
        where: only rows of which this is true.
        by: a column by whose values the sample is stratified: of each value its share, and one row at least.
        leave_out: rows that are not drawn, by their indices.

    Returns:
        Their indices in the input, from 0, in input order.
    """
    if by is not None and by not in source.schema.names:
        raise InputError(f"the input has no column `{by}`", hint=did_you_mean(by, source.schema.names))
    chance = np.random.default_rng(seed)
    if where is None and by is None and leave_out is None:
        count = source.num_rows
        return np.sort(chance.choice(count, min(size, count), replace=False)).astype(np.int64)
    columns = list(dict.fromkeys([*(where.columns if where is not None else ()), *([by] if by else [])]))
    found: list[Rows] = []
    strata: list[str] = []
    row = 0
    for batch in source.batches(columns=columns):
        met = np.ones(batch.num_rows, dtype=bool) if where is None else where.mask(batch)
        if leave_out is not None:
            met = met & ~np.isin(np.arange(row, row + batch.num_rows), leave_out)
        places = np.flatnonzero(met)
        found.append(places + row)
        if by is not None:
            strata += [
                text_of(value)
                for value in batch.column(by).take(pa.array(places.tolist(), pa.int64())).to_pylist()
            ]
        row += batch.num_rows
    rows = np.concatenate(found) if found else np.zeros(0, np.int64)
    if by is None:
        return np.sort(chance.choice(rows, min(size, len(rows)), replace=False))
    return np.sort(rows[stratified(strata, size, chance)])


def stratified(strata: Sequence[str], size: int, chance: np.random.Generator, least: int = 1) -> Rows:
    """Draw places so that every stratum has its share (largest remainders), and so many places at least while there is room.

    Args:
        strata: of each place, the name of its stratum.
        size: places to draw.
        chance: draws them.
        least: places of each stratum that has them; one, where there are too many strata for more.
    """
    names, inverse = np.unique(np.asarray(strata, dtype=object).astype(str), return_inverse=True)
    counts = np.bincount(inverse, minlength=len(names))
    size = min(size, len(strata))
    if not size:
        return np.zeros(0, np.int64)
    floor = next(np.minimum(counts, one) for one in (least, 1, 0) if np.minimum(counts, one).sum() <= size)
    share = counts * size / len(strata)
    taken = np.maximum(np.floor(share).astype(int), floor)
    while taken.sum() < size:
        taken[int(np.argmax(np.where(taken < counts, share - taken, -np.inf)))] += 1
    while taken.sum() > size:
        taken[int(np.argmax(np.where(taken > floor, taken - share, -np.inf)))] -= 1
    return np.sort(
        np.concatenate(
            [chance.choice(np.flatnonzero(inverse == k), n, replace=False) for k, n in enumerate(taken)]
        )
    )


def rows_of(
    source: AllRows, rows: Rows | Sequence[int], columns: Sequence[str], *, written: bool
) -> pa.RecordBatch:
    """Read chosen rows, whose indices are in input order."""
    wanted = np.asarray(rows, dtype=np.int64)
    if not columns:  # a prompt that is the same for all rows
        return next(iter(source.batches(columns=[], written=written))).slice(0, len(wanted))
    parts: list[pa.RecordBatch] = []
    start = 0
    for batch in source.batches(columns=columns, written=written):
        end = start + batch.num_rows
        low, high = np.searchsorted(wanted, [start, end])
        if low < high:
            parts.append(batch.take(pa.array((wanted[low:high] - start).tolist(), pa.int64())))
        if high == len(wanted):
            break
        start = end
    return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


async def ask_cohort(begun: Opened, rows: Rows, what: str, *, send: bool = True) -> Answered:
    """Ask what is not answered yet about chosen rows; what they are told is kept in the job's ledger, for its runs.

    Args:
        begun: the job, opened so that it may send.
        rows: as `draw` gives them; one at least.
        what: the requests are for, as the ledger notes it.
        send: False looks up what is known, and leaves the rest pending.

    Raises:
        RunStopped, RunInterrupted: they could not be asked to the end; what was answered is kept.
    """
    options, job = begun.options, begun.session.job
    batch = await asyncio.to_thread(rows_of, begun.source, rows, job.columns, written=True)
    scratch = scratch_of(begun.config)
    with Marks(len(rows), len(job.steps), scratch) as marks, occurrences_of(begun.config) as occurrences:
        looked = await begun.session.look()
        if not send:
            flow = looked.flow(marks, occurrences)
            await flow.run(_one(batch))
            summary = summarize(looked, flow.tally, 0, what)
        else:
            async with sending(looked, interrupt=options.interrupt, drain=options.drain) as session:
                flow = session.flow(marks, occurrences)
                options.progress.asking(len(rows), flow, session.engine)
                await flow.run(_one(batch))
                summary = summarize(session, flow.tally, 0, what)
                await session.ledger.close_run(summary.to_dict())
        await asyncio.to_thread(marks.find_copies)
        assembler = looked.assembler(marks)
        outcomes = [
            await assembler.outcomes(number, step, 0, len(rows)) for number, step in enumerate(job.steps)
        ]
        return Answered(tuple(outcomes), summary)


async def _one(batch: pa.RecordBatch) -> AsyncIterator[pa.RecordBatch]:
    yield batch
