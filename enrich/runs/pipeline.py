"""The main path of a file job: prepare, ask, assemble; `collect` goes the same way and sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from enrich.errors import EnrichError, OutputLocked, RunInterrupted, RunStopped, UsageError
from enrich.files.prefetch import prefetched
from enrich.files.sink import open_sink
from enrich.report.page import write_report
from enrich.rows.statuses import Marks
from enrich.runs.fresh import changed_schemas, note_schemas, scope_of, settle_fresh
from enrich.runs.lock import held
from enrich.runs.partition_files import Units
from enrich.runs.partition_todo import places
from enrich.runs.prepare import look_at_folder, open_job, prepare
from enrich.runs.promise import promise_of
from enrich.runs.reasked import NEITHER, note_way, refuse_reasked
from enrich.runs.scratch import occurrences_of, scratch_of
from enrich.runs.session import Session, open_session
from enrich.runs.summary import (
    check_finished,
    collected,
    finished,
    left_alone,
    manifest,
    nothing_to_do,
    stopped,
)
from enrich.runs.unchanged import counted_done, note_done
from enrich.show.pulse import pulsing

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable, Coroutine

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.records import RowStatus, Summary
    from enrich.rows.flow import Flow
    from enrich.runs.options import RunOptions
    from enrich.runs.partition_todo import Folder

DOUBT_ROWS = 65_536  # rows looked at once for requests in doubt

log = logging.getLogger("enrich")


async def run_job(config: Config, options: RunOptions) -> Summary:
    """Run a job: every row gets its answer or a reason why not, the output is replaced whole.

    A run that must stop early keeps what is paid for and leaves the output as it was; the summary says so.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        OutputLocked: another run holds this output.
    """
    return await _alone(_run, config, options)


async def collect_job(config: Config, options: RunOptions) -> Summary:
    """Assemble an output from the ledger as it stands; send nothing. Unanswered rows are ``pending``."""
    return await _alone(_collect, config, options)


async def _alone(
    job: Callable[[Config, RunOptions], Coroutine[object, object, Summary]],
    config: Config,
    options: RunOptions,
) -> Summary:
    """Do a job while no other run has its output."""
    begun = time.monotonic()
    try:
        async with held(await asyncio.to_thread(places, config), options.lock, options.interrupt):
            return await job(config, options)
    except OutputLocked as error:
        if options.lock != "skip":
            raise
        return left_alone(config, error, time.monotonic() - begun)


@dataclass(slots=True)
class _Work:
    """One job under way: where its rows come from, how they stand, and the files they go to.

    Attributes:
        units: the files of a folder of outputs; None when the output is one file.
    """

    config: Config
    options: RunOptions
    source: Source
    session: Session
    marks: Marks
    flow: Flow
    units: Units | None

    async def write(
        self, finish: Callable[[_Work], Summary], allow: Callable[[Counter[RowStatus]], None]
    ) -> Summary:
        """Take every row to its verdict and put the output in place, or each of its files as soon as it is whole.

        Args:
            finish: sums the run up.
            allow: raises when what was found must not replace an output.
        """
        asking = _ask(self.session, self.flow, self.source, self.options)
        if self.units is not None:
            await self.units.make(asking, self.options.interrupt, scratch_of(self.config), allow=allow)
            return finish(self)
        await asking
        allow(self.flow.tally)
        await asyncio.to_thread(self.marks.find_copies)
        summary = finish(self)
        await _assemble(self, summary)
        return summary

    def partitions(self) -> dict[str, int] | None:
        """Count the files of a folder of outputs by how they stand."""
        return None if self.units is None else self.units.counts()


async def _run(config: Config, options: RunOptions) -> Summary:
    """Ask what is not answered and write the output; a run that must stop sums up how far it came."""
    begun, since = time.monotonic(), time.time()
    folder = await look_at_folder(config, options)
    if folder is not None and not folder.todo:
        return nothing_to_do(config, folder, time.monotonic() - begun)
    async with _open_work(config, options, folder, send=True) as work:
        session = work.session
        await _tell_of_schemas(session)
        async with pulsing(options.progress, session.ledger, run=session.run, output=config.output.path):
            try:
                await note_way(config, work.source, session.job, session.ledger)
                summary = await work.write(_finish, check_finished)
                if not options.retry:
                    steps = [step.builder.fingerprint for step in session.job.steps]
                    await settle_fresh(session.ledger, steps, session.scope)
                await note_schemas(session.job, session.ledger)
                answered = sum(count for status, count in work.flow.tally.items() if status not in NEITHER)
                await note_way(config, work.source, session.job, session.ledger, answered)
                await _note_done(work, since)
            except (RunStopped, RunInterrupted, UsageError) as error:
                await _drained(session, error, options.drain)
                summary = stopped(session, work.flow, work.source, error, options)
                summary = replace(summary, partitions=work.partitions())
            await _close(session, summary)
            await _report(config, session, options)
            return summary


async def _note_done(work: _Work, since: float) -> None:
    """Keep that nothing is left to ask, for who asks next; the run itself is good without.

    Args:
        work: that was done.
        since: wall seconds since the epoch, before the input was looked at.
    """
    job, ledger = work.session.job, work.session.ledger
    done = None
    if work.units is None:
        done = await asyncio.to_thread(counted_done, work.marks, work.flow.tally, len(job.steps))
    if done is not None:
        limit = work.options.limit
        await note_done(work.config, work.source, job, ledger, limit=limit, steps=done, since=since)


async def _tell_of_schemas(session: Session) -> None:
    for name in await changed_schemas(session.job, session.ledger):
        log.warning(
            "the schema of step %s has changed since the last run: what was answered under the old one is asked anew, "
            "and paid for; with `reuse: true` in the step, answers that conform to the new one are kept",
            name,
        )


async def _collect(config: Config, options: RunOptions) -> Summary:
    """Write the output from what the ledger holds; what it lacks is ``pending``."""
    begun = time.monotonic()
    folder = await look_at_folder(config, options)
    if folder is not None and not folder.todo:
        return nothing_to_do(config, folder, time.monotonic() - begun)
    async with _open_work(config, options, folder, send=False) as work:
        return await work.write(_gather, lambda _: None)


def _finish(work: _Work) -> Summary:
    return finished(work.session, work.flow.tally, work.partitions())


def _gather(work: _Work) -> Summary:
    return replace(collected(work.session, work.flow), partitions=work.partitions())


@contextlib.asynccontextmanager
async def _open_work(
    config: Config, options: RunOptions, folder: Folder | None, *, send: bool
) -> AsyncIterator[_Work]:
    """Open what a job works on; whatever is wrong with it is found before anything is sent."""
    source, job = await open_job(config, options, folder, send=send)
    if send and not (options.fresh or options.retry):
        found = await refuse_reasked(config, source, job, options)
        if found is not None:
            log.warning("%s", found)
    if send and options.prepared is not None:
        options.prepared(source, job)
    with (
        Marks(source.num_rows, len(job.steps), scratch_of(config)) as marks,
        occurrences_of(config) as occurrences,
    ):
        async with open_session(
            job,
            send=send,
            fresh=options.fresh,
            scope=scope_of(config.input, options.limit),
            retry=options.retry,
            interrupt=options.interrupt if send else None,
            clock=options.clock,
            drain=options.drain,
        ) as session:
            units = None if folder is None else Units(config, folder, source, session=session, marks=marks)
            flow = session.flow(marks, occurrences, closed=units.ends.row if units is not None else None)
            yield _Work(config, options, source, session, marks, flow, units)


def settle_doubt_job(
    how: Literal["resend", "skip"] | None,
) -> Callable[[Config, RunOptions], Coroutine[object, object, Summary]]:
    """Give the job behind `retry`: carry out the operator's word on rows in doubt, then ask the chosen rows again."""

    async def settle_and_run(config: Config, options: RunOptions) -> Summary:
        if how is not None:
            await _settle_doubt(config, options, how)
        return await _run(config, options)

    async def job(config: Config, options: RunOptions) -> Summary:
        return await _alone(settle_and_run, config, options)

    return job


async def _settle_doubt(config: Config, options: RunOptions, how: Literal["resend", "skip"]) -> None:
    """Find the requests in doubt among this job's rows, and settle them."""
    source, job = await prepare(config, options)
    with (
        Marks(source.num_rows, len(job.steps), scratch_of(config)) as marks,
        occurrences_of(config) as occurrences,
    ):
        scope = scope_of(config.input, options.limit)
        async with open_session(job, send=False, scope=scope, clock=options.clock) as session:
            promise = await promise_of(config.endpoint, job.base_url, session.ledger)
            young = not promise.kept  # no key protects what was sent a moment ago
            await _ask(session, session.flow(marks, occurrences), source, options)
            for number in range(len(job.steps)):
                for row in range(0, source.num_rows, DOUBT_ROWS):
                    count = min(DOUBT_ROWS, source.num_rows - row)
                    asked = {key for key in marks.read(row, count, number).keys if key is not None}
                    known = await session.ledger.lookup(list(asked))
                    keys = [k for k, r in known.items() if r.in_doubt or (young and r.state == "sent")]
                    await session.ledger.settle_doubt(keys, how, young=young)


async def _ask(session: Session, flow: Flow, source: Source, options: RunOptions) -> None:
    """See to it that every request is answered in the ledger, in whatever order answers come."""
    options.progress.asking(source.num_rows, flow, session.engine)
    batches = prefetched(source.batches(columns=session.job.columns, written=True))
    async with contextlib.aclosing(batches):
        await flow.run(batches)


async def _assemble(work: _Work, summary: Summary) -> None:
    """Write the output in input order from what the ledger holds, and put it in place whole."""
    config, source, options, job = work.config, work.source, work.options, work.session.job
    options.progress.phase("writing the output", source.num_rows)
    given = job.passed
    with open_sink(config.output, job.output_schema, scratch=scratch_of(config), given=given) as sink:
        batches = prefetched(source.batches(columns=given))
        async with contextlib.aclosing(batches):
            async for batch in work.session.assembler(work.marks).batches(batches):
                options.interrupt.check()
                await asyncio.to_thread(sink.write, batch)
                options.progress.advance(batch.num_rows)
        await asyncio.to_thread(sink.commit, manifest(job, source, summary))


async def _drained(session: Session, error: EnrichError, seconds: float) -> None:
    """Await what is in flight, so that the summary counts it."""
    if session.engine is not None:
        session.engine.stop(error)
        await session.engine.drain(seconds)


async def _close(session: Session, summary: Summary) -> None:
    with contextlib.suppress(
        RunStopped
    ):  # a full disk: the run counts as dead, which the next one copes with
        await session.ledger.close_run(summary.to_dict())


async def _report(config: Config, session: Session, options: RunOptions) -> None:
    """Write the page on this run where one is wanted; what stands in its way is told, and does not undo the run."""
    if config.report is None:
        return
    options.progress.phase("writing the report", None)
    try:
        await write_report(config, session.ledger, config.report)
    except EnrichError as error:
        log.warning("no report: %s", error)
