"""Which rows `retry --where` asks anew: found by an expression on the output as the ledger would make it now."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from enrich.errors import ConfigError, UsageError, did_you_mean
from enrich.files.prefetch import prefetched
from enrich.files.where import Where
from enrich.rows.statuses import Marks
from enrich.runs.anew import Anew, files_digest
from enrich.runs.fresh import under_way
from enrich.runs.partition_todo import cut, plan_folder
from enrich.runs.prepare import opened
from enrich.runs.run import ask_rows
from enrich.runs.scratch import occurrences_of, scratch_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.records import RowStatus
    from enrich.runs.job import Job
    from enrich.runs.options import RunOptions
    from enrich.runs.partition_todo import Folder
    from enrich.runs.prepare import Opened
    from enrich.runs.session import Session

    Mask = np.ndarray[Any, np.dtype[np.bool]]

UNSETTLED = frozenset({"in_doubt", "pending"})  # statuses of rows that may be paid for without an answer
LOOKED_UP = 256  # rows whose requests are looked up at once


async def choose_rows(config: Config, options: RunOptions, where: str, steps: Sequence[str] = ()) -> Anew:
    """Find the rows of which an expression is true; send nothing.

    Args:
        config: the job.
        options: as for a run.
        where: see `enrich.files.where.Where`; it may name the columns of the output.
        steps: that are to be asked anew; by default those whose columns the expression names, else all.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
    """
    options.progress.phase("reading the input", None)
    folder = None
    if config.output.partitioned:
        folder = await plan_folder(
            config,
            lambda unit: unit.state == "done" and not unit.has(("pending",)),
            limit=options.limit,
            clock=options.clock,
        )
    async with opened(config, options, folder) as begun:
        job = begun.session.job
        condition = Where(where, job.output_schema)
        anew = Anew(where, _steps(job, condition, steps))
        chosen = await _Choosing(begun, condition).choose(anew)
        return chosen if folder is None else _narrowed(chosen, folder, begun.source)


def _steps(job: Job, condition: Where, named: Sequence[str]) -> frozenset[str]:
    """Say which steps are asked anew.

    Raises:
        ConfigError: there is no such step.
    """
    there = [step.name for step in job.steps]
    for name in named:
        if name not in there:
            raise ConfigError(f"--step {name}: the job has no such step", hint=did_you_mean(name, there))
    meant = [
        step.name
        for step in job.steps
        if any(column.field.name in condition.columns for column in step.columns)
    ]
    return frozenset(named or meant or there)


class _Choosing:
    """Goes through the rows as they stand, and holds each to the expression."""

    def __init__(self, begun: Opened, condition: Where) -> None:
        self._begun = begun
        self._config = begun.config
        self._options = begun.options
        self._source = begun.source
        self._job = begun.session.job
        self._condition = condition

    async def choose(self, anew: Anew) -> Anew:
        """Find the rows."""
        rows, job = self._source.num_rows, self._job
        unsettled = np.zeros(rows, dtype=bool)

        def closed(row: int, status: RowStatus) -> None:
            unsettled[row] = status in UNSETTLED

        with (
            Marks(rows, len(job.steps), scratch_of(self._config)) as marks,
            occurrences_of(self._config) as occurrences,
        ):
            session = await self._begun.session.look(anew=anew)
            await self._refuse_unfinished(session)
            flow = session.flow(marks, occurrences, closed=closed)
            await ask_rows(self._begun, flow)
            await self._refuse_unasked(session, marks, unsettled)
            met = await self._met(session, marks)
            chosen = met & ~unsettled
            steps = [number for number, step in enumerate(job.steps) if step.name in anew.steps]
            await asyncio.to_thread(marks.spread, chosen, steps)
            chosen &= ~unsettled
        return replace(
            anew,
            rows=chosen,
            met=int((met & ~unsettled).sum()),
            shared=int((chosen & ~met).sum()),
            doubtful=int((met & unsettled).sum()),
            tally=flow.tally,
            files=files_digest(self._source),
        )

    async def _met(self, session: Session, marks: Marks) -> Mask:
        """Say of each row whether the expression is true of it."""
        met = np.zeros(marks.rows, dtype=bool)
        self._options.progress.phase("choosing rows", marks.rows)
        batches = prefetched(self._source.batches(columns=self._job.passed))
        done = -1
        async with contextlib.aclosing(batches):
            async for rows, batch in session.assembler(marks).numbered(batches):
                self._options.interrupt.check()
                met[rows[await asyncio.to_thread(self._condition.mask, batch)]] = True
                self._options.progress.advance(int(rows[-1]) - done)
                done = int(rows[-1])
        return met

    async def _refuse_unfinished(self, session: Session) -> None:
        for step in self._job.steps:
            if await under_way(session.ledger, step.builder.fingerprint, session.scope):
                raise UsageError(
                    f"a run with --fresh was stopped before it had asked all rows at step {step.name}",
                    hint="beatra-enrich run CONFIG goes on with it; then choose.",
                )

    async def _refuse_unasked(self, session: Session, marks: Marks, unsettled: Mask) -> None:
        """Keep rows that were never asked out of an output that is finished; what is under way or in doubt was.

        Raises:
            UsageError: there are such rows.
        """
        places = np.flatnonzero(unsettled).tolist()
        for start in range(0, len(places), LOOKED_UP):
            asked: set[bytes] = set()
            for row in places[start : start + LOOKED_UP]:
                asked.update(*(marks.asked(row, 1, step) for step in range(len(self._job.steps))))
            known = await session.ledger.lookup(list(asked))
            if asked.difference(known):
                raise UsageError(
                    "there are rows that have no answer yet, and retry asks only those that had one",
                    hint="beatra-enrich run CONFIG asks them; then choose.",
                )


def _narrowed(chosen: Anew, folder: Folder, source: Source) -> Anew:
    """Leave those files of a folder alone that have no chosen row."""
    assert chosen.rows is not None  # noqa: S101  # they were just found
    parts = [
        part
        for part in cut(folder.todo, source)
        if chosen.rows[part.first_row : part.first_row + part.source.num_rows].any()
    ]
    rows = [chosen.rows[part.first_row : part.first_row + part.source.num_rows] for part in parts]
    files = tuple(file for part in parts for file in part.source.files)
    return replace(
        chosen,
        rows=np.concatenate(rows) if rows else np.zeros(0, dtype=bool),
        files=files_digest(replace(source, files=files)),
        units=frozenset(part.unit.name for part in parts),
    )
