"""The main path of a file job: prepare, ask, assemble; `collect` and `retry` go the same way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from enrich.errors import EnrichError, OutputLocked, RunInterrupted, RunStopped, UsageError
from enrich.files.prefetch import prefetched
from enrich.files.sink import open_sink
from enrich.pace.budget import BYTES_PER_TOKEN
from enrich.rows.by_prefix import by_prefix
from enrich.rows.statuses import Marks
from enrich.runs.anew import note_anew, settle_anew
from enrich.runs.fresh import changed_schemas, note_schemas, settle_fresh
from enrich.runs.lock import held
from enrich.runs.partition_files import Units
from enrich.runs.partition_todo import places
from enrich.runs.prepare import Opened, look_at_folder, opened
from enrich.runs.published import publish_output
from enrich.runs.reasked import NEITHER, note_way, refuse_reasked
from enrich.runs.repeat import note_finished, repeated
from enrich.runs.scratch import occurrences_of, scratch_of
from enrich.runs.session import sending
from enrich.runs.since import note_mark
from enrich.runs.summary import (
    check_finished,
    finished,
    left_alone,
    manifest,
    none_chosen,
    nothing_to_do,
    stopped,
)
from enrich.runs.trust import trust_of
from enrich.runs.unchanged import counted_done, note_done
from enrich.show.metrics_file import metered
from enrich.show.pulse import pulsing
from enrich.show.telemetry import traced

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable, Coroutine

    from enrich.config import Config
    from enrich.records import RowStatus, Summary
    from enrich.rows.flow import Flow
    from enrich.runs.options import RunOptions
    from enrich.runs.partition_todo import Folder
    from enrich.runs.session import Session

log = logging.getLogger("enrich")


async def run_job(config: Config, options: RunOptions) -> Summary:
    """Run a job: every row gets its answer or a reason why not, the output is replaced whole.

    A run that must stop early keeps what is paid for and leaves the output as it was; the summary says so.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        OutputLocked: another run holds this output.
    """
    return await alone(run_held, config, options)


async def alone(
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
class Work(Opened):
    """A job under way: how its rows stand, and the files they go to.

    Attributes:
        units: the files of a folder of outputs; None when the output is one file.
    """

    marks: Marks
    flow: Flow
    units: Units | None

    async def write(
        self, finish: Callable[[Work], Summary], allow: Callable[[Counter[RowStatus]], None]
    ) -> Summary:
        """Take every row to its verdict and put the output in place, or each of its files as soon as it is whole.

        Args:
            finish: sums the run up.
            allow: raises when what was found must not replace an output.
        """
        asking = ask_rows(self, self.flow)
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


async def run_held(config: Config, options: RunOptions) -> Summary:
    """Ask what is not answered and write the output; a run that must stop sums up how far it came."""
    output, watch = config.output.path, options.progress
    work = metered(_run_held(config, options), watch, path=config.metrics_file, output=output)
    return await traced(work, watch, endpoint=config.endpoint, output=output)


async def _run_held(config: Config, options: RunOptions) -> Summary:
    begun, since = time.monotonic(), time.time()
    if options.anew is not None and not options.anew.met:
        return none_chosen(config, options.anew, time.monotonic() - begun)
    folder = await look_at_folder(config, options)
    if folder is not None and not folder.todo:
        return nothing_to_do(config, folder, time.monotonic() - begun)
    if (before := await repeated(config, options)) is not None:
        return await _with_gold(config, before)
    if any(step.escalation is not None and step.escalation.guarantee is not None for step in config.steps):
        from enrich.runs.guarantee import keep_guarantees  # which needs what scores answers

        if (unmet := await keep_guarantees(config, options, folder)) is not None:
            return unmet
    async with open_work(config, options, folder, send=True) as work:
        session = work.session
        await _tell_of_schemas(session)
        async with pulsing(options.progress, session.ledger, run=session.run, output=config.output.path):
            try:
                await note_way(work)
                summary = await publish_output(work, await work.write(_finish, check_finished))
                await note_mark(config, options, work.source, session.ledger, work.flow.tally)
                if options.anew is not None:
                    await settle_anew(session.job, session.ledger, session.scope)
                elif not options.retry:
                    steps = [step.builder.fingerprint for step in session.job.steps]
                    await settle_fresh(session.ledger, steps, session.scope)
                await note_schemas(session.job, session.ledger)
                answered = sum(count for status, count in work.flow.tally.items() if status not in NEITHER)
                await note_way(work, answered)
                await _note_done(work, since)
            except (RunStopped, RunInterrupted, UsageError) as error:
                await _drained(session, error, options.drain)
                summary = stopped(session, work.flow, work.source, error, options)
                summary = replace(summary, partitions=work.partitions())
            summary = replace(summary, guarantee=await trust_of(session.job, session.ledger) or None)
            await _close(session, summary)
            await _report(config, session, options)
            if not (options.retry or options.anew):
                await note_finished(work, summary, since)
            return await _with_gold(config, summary)


async def _note_done(work: Work, since: float) -> None:
    """Keep that nothing is left to ask, for who asks next; the run itself is good without.

    Args:
        work: that was done.
        since: wall seconds since the epoch, before the input was looked at.
    """
    if work.units is None:
        steps = len(work.session.job.steps)
        done = await asyncio.to_thread(counted_done, work.marks, work.flow.tally, steps)
        if done is not None:
            await note_done(work, done, since)


async def _tell_of_schemas(session: Session) -> None:
    for name in await changed_schemas(session.job, session.ledger):
        log.warning(
            "the schema of step %s has changed since the last run: what was answered under the old one is asked anew, "
            "and paid for; with `reuse: true` in the step, answers that conform to the new one are kept",
            name,
        )


def _finish(work: Work) -> Summary:
    return finished(work.session, work.flow.tally, work.partitions())


@contextlib.asynccontextmanager
async def open_work(
    config: Config, options: RunOptions, folder: Folder | None, *, send: bool
) -> AsyncIterator[Work]:
    """Open what a job works on; whatever is wrong with it is found before anything is sent."""
    async with contextlib.AsyncExitStack() as stack:
        begun = await stack.enter_async_context(opened(config, options, folder, send=send))
        source, session = begun.source, begun.session
        if send:
            await _before_sending(begun)
        marks = stack.enter_context(Marks(source.num_rows, len(session.job.steps), scratch_of(config)))
        occurrences = stack.enter_context(occurrences_of(config))
        if send:
            sender = sending(
                await session.look(),
                interrupt=options.interrupt,
                drain=options.drain,
                on_landing=options.progress.on_landing,
            )
            session = await stack.enter_async_context(sender)
        units = None if folder is None else Units(config, folder, source, session=session, marks=marks)
        flow = session.flow(marks, occurrences, closed=units.ends.row if units is not None else None)
        yield Work(config, options, source, session, marks, flow, units)


async def _before_sending(begun: Opened) -> None:
    """Refuse what would be paid for again unasked, and tell who wants to know what is to be done."""
    options = begun.options
    if options.anew is not None:
        options.anew.check(begun.source)
        await note_anew(begun.session.job, begun.session.ledger, options.anew, begun.session.scope)
    elif not (options.fresh or options.retry) and (found := await refuse_reasked(begun)) is not None:
        log.warning("%s", found)
    if begun.config.gold is not None:
        from enrich.report.gold import shown_to_model

        if said := shown_to_model(begun.config, begun.session.job.columns):
            log.warning("%s", said)
    if options.prepared is not None:
        options.prepared(begun.source, begun.session.job)


async def ask_rows(begun: Opened, flow: Flow) -> None:
    """See to it that every request is answered in the ledger, in whatever order answers come."""
    source, session = begun.source, begun.session
    begun.options.progress.asking(source.num_rows, flow, session.engine)
    batches = source.batches(columns=session.job.columns, written=True)
    if begun.config.order == "prefix" and session.job.columns:
        least = int(begun.config.endpoint.cache_from * BYTES_PER_TOKEN)
        builder, folder = session.job.steps[0].builder, scratch_of(begun.config)
        portions = prefetched(by_prefix(batches, builder, least=least, folder=folder))
        async with contextlib.aclosing(portions):
            await flow.run_portions(portions)
        return
    rows = prefetched(batches)
    async with contextlib.aclosing(rows):
        await flow.run(rows)


async def _assemble(work: Work, summary: Summary) -> None:
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


async def _with_gold(config: Config, summary: Summary) -> Summary:
    """Score the output against values given by hand; what stands in the way is told, and does not undo the run."""
    if config.gold is None or summary.exit_code not in (0, 3):
        return summary
    from enrich.report.gold import gold_scores

    try:
        scores = await asyncio.to_thread(gold_scores, config)
    except EnrichError as error:
        log.warning("no gold: %s", error)
        return summary
    return replace(summary, gold={score.column: score.to_dict() for score in scores})


async def _report(config: Config, session: Session, options: RunOptions) -> None:
    """Write the page on this run where one is wanted; what stands in its way is told, and does not undo the run."""
    if config.report is None:
        return
    from enrich.report.page import write_report

    options.progress.phase("writing the report", None)
    try:
        await write_report(config, session.ledger, config.report)
    except EnrichError as error:
        log.warning("no report: %s", error)
