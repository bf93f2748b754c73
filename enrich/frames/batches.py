"""Record batches in, record batches with the steps' columns out: the one door for data frames and engines."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import sys
import threading
from collections import Counter, deque
from collections.abc import AsyncIterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from enrich.answer.columns import step_fields
from enrich.base.interrupt import DRAIN
from enrich.base.loops import loop_factory
from enrich.config import JobConfig, load_job, validate_job
from enrich.errors import EnrichError, InputError, RunInterrupted, RunStopped
from enrich.rows.flow import prefetched
from enrich.rows.occurrences import Occurrences
from enrich.rows.statuses import Marks
from enrich.runs.job import Job, compile_job
from enrich.runs.scratch import scratch_of
from enrich.runs.session import Session, open_session
from enrich.runs.summary import finished, summarize

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from enrich.records import RowStatus, Summary
    from enrich.rows.flow import Flow
    from enrich.show.progress import Progress

    AnyConfig = str | Path | Mapping[str, Any] | JobConfig

AHEAD = 2  # times what the engine looks ahead: rows that are under way before the oldest batch is waited for
STOPPED = "stopped; every answer that came is kept: run the same again and it goes on from here\n"
STOPPING = "stopping: nothing more is sent, what is in flight is awaited (interrupt again to leave at once)\n"

T = TypeVar("T")


def enrich_batches(
    batches: Iterable[pa.RecordBatch],
    config: AnyConfig,
    *,
    schema: pa.Schema | None = None,
    api_key: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Ask the steps of every row, batch after batch, some batches ahead of the one that is given.

    Args:
        batches: all of one schema; pulled by the thread that pulls the result, a bounded number ahead.
        config: a YAML file's path, its content as a mapping, or a `JobConfig`. Its input and output play no part,
            except that the ledger lies beside the output by default; without one, in the user's cache directory.
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
    return config.model_copy(update={"input": None, "output": None, "ledger": config.ledger_location()})


# --- the door -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Turn:
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
        self, session: Session, input_schema: pa.Schema, seen: Occurrences, occurrences: Occurrences | None
    ) -> None:
        self._session = session
        self._input_schema = input_schema
        self._seen = seen
        self._occurrences = occurrences
        fields = [step_fields(step.name, step.builder.schema) for step in session.job.steps]
        self._waiting: deque[tuple[pa.RecordBatch, asyncio.Task[pa.RecordBatch]]] = deque()
        self._open: dict[Flow, Marks] = {}
        self._tally: Counter[RowStatus] = Counter()
        self._asked = 0
        self._rows = 0
        self._out = asyncio.Lock()
        self._last = _Turn()
        self._last.read.set()
        self._last.assembled.set()
        self.schema = pa.schema(list(itertools.chain.from_iterable(fields)))
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
        engine = self._session.engine
        most = AHEAD * engine.look_ahead if engine is not None else 0
        enough = len(self._waiting) > 1 and ahead >= most
        return enough or self._waiting[0][1].done()

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
        before, self._last = self._last, _Turn()
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
        self, batch: pa.RecordBatch, before: _Turn, mine: _Turn, rows_before: int
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
    job: Job, input_schema: pa.Schema, *, progress: Progress | None = None, total: int | None = None
) -> AsyncIterator[Door]:
    """Open a job for batches; on the way out, however it comes, what is in flight is awaited and kept.

    Args:
        job: what is to be done.
        input_schema: of the batches; they need no other columns than those that the templates use.
        progress: told what is going on.
        total: how many rows will come, when that is known.
    """
    async with contextlib.AsyncExitStack() as stack:
        scratch = scratch_of(job.config)
        seen = stack.enter_context(Occurrences(scratch))
        occurrences = None if job.config.dedupe else stack.enter_context(Occurrences(scratch))
        session = await stack.enter_async_context(open_session(job, send=True))
        door = Door(session, input_schema, seen, occurrences)
        stack.push_async_callback(door.close)
        if progress is not None:
            progress.asking(total, door, session.engine)
        try:
            yield door
        except BaseException as error:
            await door.stop(error if isinstance(error, RunStopped) else RunInterrupted())
            raise
        await door.finish()


# --- its faces ------------------------------------------------------------------------------------------


class BlockingDoor:
    """A `Door` for code without an event loop; see `blocking`."""

    def __init__(self, door: Door, background: Background) -> None:
        self._door = door
        self._background = background

    @property
    def schema(self) -> pa.Schema:
        """Give the schema of the answers."""
        return self._door.schema

    @property
    def summary(self) -> Summary | None:
        """Say how it went; None before the door is closed."""
        return self._door.summary

    def ask(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Take a batch through and give its answers; any number of threads may do so at once."""
        return self._background.call(self._door.ask(batch))

    def answers(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Take every batch through; gives each with its answers. Batches are pulled by the calling thread."""
        door, call = self._door, self._background.call
        for batch in batches:
            call(door.put(batch))
            while door.due:
                yield call(door.get())
        while door.waiting:
            yield call(door.get())


class Background:
    """An event loop in a thread of its own, for callers that have none, or one that must not be blocked."""

    def __init__(self) -> None:
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        here = contextvars.copy_context()  # what a notebook shows finds its cell by it
        self._thread = threading.Thread(
            target=here.run, args=(self._main,), name="beatra-enrich", daemon=True
        )
        self._thread.start()
        self._loop, self._over = self._started.result()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        over = asyncio.Event()
        self._started.set_result((asyncio.get_running_loop(), over))
        await over.wait()

    def call(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        """Cancel whatever still runs there and end the thread."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


@contextlib.contextmanager
def blocking(opening: AbstractAsyncContextManager[Door]) -> Iterator[BlockingDoor]:
    """Hold a door open in a background thread while the block runs.

    A first KeyboardInterrupt waits for what is in flight; a second leaves at once: the ledger is safe at any
    instant, and the thread goes on keeping what comes in.
    """
    background = Background()
    try:
        door = background.call(opening.__aenter__())
    except BaseException:
        background.close()
        raise
    try:
        yield BlockingDoor(door, background)
    except BaseException as error:
        if sys.is_finalizing():  # the thread is gone already; waiting for it would last for ever
            raise
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write(STOPPING)
        try:
            background.call(opening.__aexit__(type(error), error, error.__traceback__))
        finally:
            background.close()
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write(STOPPED)
        raise
    try:
        background.call(opening.__aexit__(None, None, None))
    finally:
        background.close()


def _enriched(
    batches: Iterator[pa.RecordBatch], config: JobConfig, job: Job | None, api_key: str | None
) -> Iterator[pa.RecordBatch]:
    first = next(batches, None)
    if first is None:
        return
    job = job or compile_job(config, first.schema, api_key=api_key)
    with blocking(open_door(job, first.schema)) as door:
        for batch, answers in door.answers(itertools.chain([first], batches)):
            yield _joined(batch, answers, job)


async def _aenriched(
    batches: AsyncGenerator[pa.RecordBatch, None], config: JobConfig, job: Job | None, api_key: str | None
) -> AsyncGenerator[pa.RecordBatch, None]:
    async with contextlib.aclosing(batches):
        first = await anext(batches, None)
        if first is None:
            return
        job = job or compile_job(config, first.schema, api_key=api_key)
        async with (
            open_door(job, first.schema) as door,
            contextlib.aclosing(door.answers(_after(first, batches))) as answered,
        ):
            async for batch, answers in answered:
                yield _joined(batch, answers, job)


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


def _joined(batch: pa.RecordBatch, answers: pa.RecordBatch, job: Job) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([*batch.columns, *answers.columns], schema=job.output_schema)
