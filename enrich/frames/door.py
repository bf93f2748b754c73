"""The one door for data frames and engines: batches go in, the steps' columns of each come out in their order."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.answer.columns import made_fields
from enrich.base.interrupt import DRAIN
from enrich.errors import EnrichError, InputError, RunInterrupted, RunStopped
from enrich.rows.occurrences import Occurrences
from enrich.rows.statuses import Marks
from enrich.runs.scratch import scratch_of
from enrich.runs.session import Session, open_session, sending
from enrich.runs.summary import finished, summarize

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
    from pathlib import Path

    from enrich.config import JobConfig
    from enrich.records import RowStatus, Summary
    from enrich.rows.flow import Flow
    from enrich.runs.job import Job
    from enrich.show.watch import Progress

    AnyConfig = str | Path | Mapping[str, Any] | JobConfig

AHEAD = 2  # times what the engine looks ahead: rows that are under way before the oldest batch is waited for


@dataclass(frozen=True, slots=True)
class _BatchTurn:
    """How far a batch is: the next one is read, and then assembled, after it."""

    read: asyncio.Event = field(default_factory=asyncio.Event)
    assembled: asyncio.Event = field(default_factory=asyncio.Event)


class Door:
    """An open job that takes batches and gives the steps' columns of each, in the order in which they came.

    Attributes:
        schema: of the answers.
        summary: how it went; None before the door is closed.
    """

    def __init__(
        self,
        session: Session,
        input_schema: pa.Schema,
        seen: Occurrences,
        occurrences: Occurrences | None,
        *,
        eager: bool,
    ) -> None:
        self._session = session
        self._eager = eager
        self._taken = 0  # rows that were fetched
        self._input_schema = input_schema
        self._seen = seen
        self._occurrences = occurrences
        self._waiting: deque[tuple[pa.RecordBatch, asyncio.Task[pa.RecordBatch]]] = deque()
        self._open: dict[Flow, Marks] = {}
        self._tally: Counter[RowStatus] = Counter()
        self._asked = 0
        self._rows = 0
        self._out = asyncio.Lock()
        self._last = _BatchTurn()
        self._last.read.set()
        self._last.assembled.set()
        self.schema = pa.schema(
            [f for step in session.job.steps for f in made_fields(step.columns, step.builder.schema)]
        )
        self.summary: Summary | None = None

    @property
    def tally(self) -> Counter[RowStatus]:
        """Count the rows that have their verdict, per status."""
        return sum((flow.tally for flow in self._open), self._tally)

    @property
    def rows_done(self) -> int:
        """Give the rows that have their verdict."""
        return sum(self._tally.values()) + sum(flow.rows_done for flow in self._open)

    @property
    def rows_asked(self) -> int:
        """Give those of them of which something was sent."""
        return self._asked + sum(flow.rows_asked for flow in self._open)

    def failure_codes(self) -> tuple[tuple[str, int], ...]:
        """Give why rows failed, and how many, the most frequent first."""
        return self._session.troubles.codes()

    def rows_by_step(self) -> Mapping[tuple[str, RowStatus], int]:
        """Give how many rows stand how at each step."""
        return self._session.account.rows

    @property
    def waiting(self) -> bool:
        """Say whether there is a batch to `get`."""
        return bool(self._waiting)

    @property
    def due(self) -> bool:
        """Say whether the oldest batch should be fetched before a further one is put in."""
        if not self._waiting:
            return False
        ahead = sum(max(1, batch.num_rows) for batch, _ in self._waiting)
        most = self._most_ahead
        enough = ahead >= most and (len(self._waiting) > 1 or not most)
        return enough or self._waiting[0][1].done()

    @property
    def _most_ahead(self) -> int:
        """Give the rows that may be under way: as many as keep the engine busy, at first no more than were taken."""
        engine = self._session.engine
        most = AHEAD * engine.look_ahead if engine is not None else 0
        return most if self._eager else min(most, self._taken)

    async def put(self, batch: pa.RecordBatch) -> None:
        """Begin with a batch; its rows are asked after those of the batches before it.

        Raises:
            InputError: its columns are not those that were promised.
        """
        if not batch.schema.equals(self._input_schema):
            raise InputError(
                f"a batch has the columns\n{batch.schema}\nwhere the first had\n{self._input_schema}",
                hint="give batches of one schema.",
            )
        before, self._last = self._last, _BatchTurn()
        answering = self._answer(batch, before, self._last, self._rows)
        self._waiting.append((batch, asyncio.create_task(answering, name="beatra-batch")))
        self._rows += batch.num_rows

    async def get(self) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Give the oldest batch and its answers.

        Raises:
            RunStopped, RunInterrupted: the run stopped before they were there.
        """
        batch, task = self._waiting[0]
        answers = await asyncio.shield(task)
        self._waiting.popleft()
        self._taken += max(1, batch.num_rows)
        return batch, answers

    async def ask(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Take a batch through and give its answers; any number may be under way at once.

        Raises:
            InputError: its columns are not those that were promised.
            RunStopped, RunInterrupted: the run stopped before they were there, and is closed.
        """
        await self.put(batch)
        async with self._out:  # its waiters come in their order, which is that of the batches
            try:
                _, answers = await self.get()
            except RunStopped as error:
                await self.stop(
                    error
                )  # the door may stay open for long, and others wait for what the run holds
                raise
        return answers

    async def answers(
        self, batches: AsyncIterable[pa.RecordBatch]
    ) -> AsyncGenerator[tuple[pa.RecordBatch, pa.RecordBatch], None]:
        """Take every batch through; gives each with its answers."""
        async for batch in batches:
            await self.put(batch)
            while self.due:
                yield await self.get()
        while self.waiting:
            yield await self.get()

    async def _answer(
        self, batch: pa.RecordBatch, before: _BatchTurn, mine: _BatchTurn, rows_before: int
    ) -> pa.RecordBatch:
        """Ask a batch beside others, then assemble it after those that came before it."""
        job = self._session.job
        marks = Marks(batch.num_rows, len(job.steps))
        flow = self._session.flow(marks, self._occurrences, before=rows_before)
        self._open[flow] = marks  # left open by a stop: what comes in while it drains is still noted
        rows = _in_turn(batch.select(list(job.columns)), before.read, mine.read)
        await flow.run(rows)
        await before.assembled.wait()
        answers = await self._assembled(marks, batch.num_rows)
        mine.assembled.set()
        del self._open[flow]
        self._tally.update(flow.tally)
        self._asked += flow.rows_asked
        marks.close()
        return answers

    async def _assembled(self, marks: Marks, rows: int) -> pa.RecordBatch:
        assembler = self._session.assembler(marks)
        pieces = []
        row = 0
        while row < rows:
            count = assembler.piece(row, rows - row)
            marks.find_repeats(row, count, self._seen)
            columns = await assembler.columns(row, count)
            pieces.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
            row += count
        if not pieces:
            return pa.RecordBatch.from_arrays(
                [pa.array([], kind) for kind in self.schema.types], schema=self.schema
            )
        batch: pa.RecordBatch = pa.concat_batches(pieces)  # type: ignore[attr-defined]  # the stubs leave it out
        return batch

    async def finish(self) -> None:
        """Close the run in the ledger, where `stop` has not: every batch was answered."""
        if self.summary is not None:
            return
        self.summary = finished(self._session, self.tally)
        await self._session.ledger.close_run(self.summary.to_dict())

    async def stop(self, error: EnrichError) -> None:
        """Send nothing more, await what is in flight, and close the run in the ledger; once."""
        if self.summary is not None:
            return
        engine = self._session.engine
        assert engine is not None  # noqa: S101  # a door's session sends
        engine.stop(error)
        await engine.drain(DRAIN)
        tally = self.tally
        tally["pending"] += self._rows - sum(tally.values())
        reason = "interrupted" if isinstance(error, RunInterrupted) else f"stopped: {error.message}"
        self.summary = summarize(self._session, tally, error.exit_code, reason)
        with contextlib.suppress(
            RunStopped
        ):  # a full disk: the run counts as dead, which the next one copes with
            await self._session.ledger.close_run(self.summary.to_dict())

    async def close(self) -> None:
        """Let go of the batches that were not answered."""
        tasks = [task for _, task in self._waiting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for marks in self._open.values():
            marks.close()


async def _in_turn(
    batch: pa.RecordBatch, before: asyncio.Event, read: asyncio.Event
) -> AsyncGenerator[pa.RecordBatch, None]:
    """Give a batch when the one before it was read to its end, so that rows are asked in their order."""
    await before.wait()
    yield batch
    read.set()


@contextlib.asynccontextmanager
async def open_door(
    job: Job,
    input_schema: pa.Schema,
    *,
    progress: Progress | None = None,
    total: int | None = None,
    eager: bool = True,
    named: str | None = None,
) -> AsyncIterator[Door]:
    """Open a job for batches; on the way out, however it comes, what is in flight is awaited and kept.

    Args:
        job: what is to be done.
        input_schema: of the batches; they need no other columns than those that the templates use.
        progress: told what is going on.
        total: how many rows will come, when that is known.
        eager: every row will be taken. Else the first batch is asked alone, and then ever more of them ahead of the one
            that is taken, so that little is asked for those who take only the first rows.
        named: what the ledger calls it.
    """
    async with contextlib.AsyncExitStack() as stack:
        scratch = scratch_of(job.config)
        seen = stack.enter_context(Occurrences(scratch))
        occurrences = None if job.config.dedupe else stack.enter_context(Occurrences(scratch))
        session = await stack.enter_async_context(
            sending(await stack.enter_async_context(open_session(job)), named=named)
        )
        door = Door(session, input_schema, seen, occurrences, eager=eager)
        stack.push_async_callback(door.close)
        if progress is not None:
            progress.asking(total, door, session.engine)
        try:
            yield door
        except BaseException as error:
            await door.stop(error if isinstance(error, RunStopped) else RunInterrupted())
            raise
        await door.finish()
