"""The main path of a file job: prepare, ask, assemble; and its relatives that send nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from enrich.base.interrupt import DRAIN, Interrupt
from enrich.base.location import is_url
from enrich.base.words import counted
from enrich.errors import (
    EnrichError,
    InputError,
    OutputLocked,
    RowsUnasked,
    RunInterrupted,
    RunStopped,
    UsageError,
)
from enrich.files.sink import open_sink, preflight
from enrich.files.source import Source, open_source
from enrich.records import FAILED, STATUSES, RowStatus, Summary
from enrich.report.page import write_report
from enrich.rows.flow import prefetched
from enrich.rows.occurrences import Occurrences
from enrich.rows.statuses import Marks
from enrich.runs.fresh import scope_of, settle_fresh
from enrich.runs.job import Job, compile_job, origin, refuse_overlap
from enrich.runs.lock import Lock, held
from enrich.runs.partition_files import Units
from enrich.runs.partition_todo import folder_columns, open_todo, places, plan_folder
from enrich.runs.partitions import UNFINISHED
from enrich.runs.session import Session, open_session
from enrich.show.progress import Watch, pulsing

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Coroutine

    from enrich.base.clock import Clock
    from enrich.config import Config
    from enrich.rows.flow import Flow
    from enrich.runs.partition_todo import Folder
    from enrich.runs.partitions import Standing

DOUBT_ROWS = 65_536  # rows looked at once for requests in doubt
MOST_UNDER_WAY = 2  # times the concurrency: requests made ready ahead of the dispatcher

log = logging.getLogger("enrich")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a caller asks of one run, beside the configuration.

    Attributes:
        limit: only the first so many rows.
        fresh: ask everything anew.
        retry: only rows of these statuses, again.
        progress: told what is going on; whoever made it may show it.
        interrupt: fired by a signal handler.
        clock: tells the age of requests.
        command: what a user types to go on, for messages; empty where nobody types.
        drain: seconds that what is in flight may take after a stop.
        api_key: instead of the one that the configuration names; never shown.
        lock: what to do when another run holds the output.
        prepared: told what is to be done, before anything is sent.
    """

    limit: int | None = None
    fresh: bool = False
    retry: frozenset[RowStatus] = frozenset()
    progress: Watch = field(default_factory=Watch)
    interrupt: Interrupt = field(default_factory=Interrupt)
    clock: Clock | None = None
    command: str = "beatra-enrich run CONFIG"
    drain: float = DRAIN
    api_key: str | None = field(default=None, repr=False)
    lock: Lock = "fail"
    prepared: Callable[[Source, Job], None] | None = None


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
        return _left(config, error, time.monotonic() - begun)


async def _run(config: Config, options: RunOptions) -> Summary:
    begun = time.monotonic()
    folder = await _folder(config, options)
    if folder is not None and not folder.todo:
        return _nothing_to_do(config, folder, time.monotonic() - begun)
    source, job = await _opened(config, options, folder)
    if options.prepared is not None:
        options.prepared(source, job)
    with (
        Marks(source.num_rows, len(job.steps), scratch_of(config)) as marks,
        occurrences_of(config) as occurrences,
    ):
        async with (
            open_session(
                job,
                send=True,
                fresh=options.fresh,
                scope=scope_of(config.input, options.limit),
                retry=options.retry,
                interrupt=options.interrupt,
                clock=options.clock,
                drain=options.drain,
            ) as session,
            pulsing(options.progress, session.ledger, run=session.run, output=config.output.path),
        ):
            units = None
            if folder is not None:
                units = Units(config, folder, source, session=session, marks=marks)
            flow = session.flow(marks, occurrences, closed=units.ends.row if units is not None else None)
            try:
                if units is not None:
                    asking = _ask(session, flow, source, options)
                    await units.make(asking, options.interrupt, scratch_of(config), allow=_check_finished)
                    summary = finished(session, flow.tally, units.counts())
                else:
                    await _ask(session, flow, source, options)
                    _check_finished(flow.tally)
                    await asyncio.to_thread(marks.find_copies)
                    summary = finished(session, flow.tally)
                    await _assemble(session, marks, source, options, summary, config=config)
                if not options.retry:
                    steps = [step.builder.fingerprint for step in job.steps]
                    await settle_fresh(session.ledger, steps, session.scope)
            except (RunStopped, RunInterrupted, UsageError) as error:
                await _drained(session, error, options.drain)
                summary = _stopped(session, flow, source, error, options)
                if units is not None:
                    summary = replace(summary, partitions=units.counts())
            await _close(session, summary)
            await _report(config, session, options)
            return summary


async def _collect(config: Config, options: RunOptions) -> Summary:
    begun = time.monotonic()
    folder = await _folder(config, options)
    if folder is not None and not folder.todo:
        return _nothing_to_do(config, folder, time.monotonic() - begun)
    source, job = await _opened(config, options, folder, send=False)
    with (
        Marks(source.num_rows, len(job.steps), scratch_of(config)) as marks,
        occurrences_of(config) as occurrences,
    ):
        scope = scope_of(config.input, options.limit)
        async with open_session(job, send=False, scope=scope, clock=options.clock) as session:
            units = None
            if folder is not None:
                units = Units(config, folder, source, session=session, marks=marks)
            flow = session.flow(marks, occurrences, closed=units.ends.row if units is not None else None)
            if units is not None:
                asking = _ask(session, flow, source, options)
                await units.make(asking, options.interrupt, scratch_of(config))
                return replace(_collected(session, flow), partitions=units.counts())
            await _ask(session, flow, source, options)
            await asyncio.to_thread(marks.find_copies)
            summary = _collected(session, flow)
            await _assemble(session, marks, source, options, summary, config=config)
            return summary


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
            await _ask(session, session.flow(marks, occurrences), source, options)
            for number in range(len(job.steps)):
                for row in range(0, source.num_rows, DOUBT_ROWS):
                    count = min(DOUBT_ROWS, source.num_rows - row)
                    keys = {key for key in marks.read(row, count, number).keys if key is not None}
                    known = await session.ledger.lookup(list(keys))
                    await session.ledger.settle_doubt([k for k, r in known.items() if r.in_doubt], how)


async def prepare(config: Config, options: RunOptions, *, send: bool = True) -> tuple[Source, Job]:
    """Find everything that is wrong before anything is spent; of a folder of outputs, look at what is to be made."""
    return await _opened(config, options, await _folder(config, options), send=send)


async def _folder(config: Config, options: RunOptions) -> Folder | None:
    """Say what is to be done in a folder of outputs; None when the output is a file."""
    options.progress.phase("reading the input", None)
    if not config.output.partitioned:
        return None
    return await plan_folder(config, _wanted(options), limit=options.limit, clock=options.clock)


async def _opened(
    config: Config, options: RunOptions, folder: Folder | None, *, send: bool = True
) -> tuple[Source, Job]:
    """Open the input and compile the job."""
    if folder is None:
        source = await asyncio.to_thread(open_source, config.input, limit=options.limit)
    else:
        source = await asyncio.to_thread(open_todo, config, folder, options.limit)
    job = compile_job(
        config,
        source.schema,
        api_key=options.api_key,
        key_needed=send,
        retry=options.retry,
        leave_out=() if folder is None else folder_columns(source),
    )
    refuse_overlap(config, source)
    if folder is None or folder.todo:
        output = config.output if folder is None else folder.todo[0].output
        await asyncio.to_thread(preflight, output, job.output_schema)
    options.interrupt.check()
    return source, job


def _wanted(options: RunOptions) -> Callable[[Standing], bool]:
    """Say which units of a folder are to be made: for `retry`, those that are done and have such rows."""
    if options.retry:
        asked = options.retry | {"in_doubt"}
        return lambda unit: unit.state == "done" and unit.has(asked) and not unit.has(("pending",))
    return lambda standing: options.fresh or standing.state != "done" or standing.has(UNFINISHED)


async def _ask(session: Session, flow: Flow, source: Source, options: RunOptions) -> None:
    """See to it that every request is answered in the ledger, in whatever order answers come."""
    options.progress.asking(source.num_rows, flow, session.engine)
    batches = prefetched(source.batches(columns=session.job.columns))
    most = MOST_UNDER_WAY * session.job.config.limits.concurrency
    async with contextlib.aclosing(batches):
        await flow.run(batches, most=most)


async def _assemble(
    session: Session,
    marks: Marks,
    source: Source,
    options: RunOptions,
    summary: Summary,
    *,
    config: Config,
) -> None:
    """Write the output in input order from what the ledger holds, and put it in place whole."""
    job = session.job
    options.progress.phase("writing the output", source.num_rows)
    with open_sink(config.output, job.output_schema, scratch=scratch_of(config)) as sink:
        batches = prefetched(source.batches())
        async with contextlib.aclosing(batches):
            async for batch in session.assembler(marks).batches(batches):
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


# --- summaries ------------------------------------------------------------------------------------------


def summarize(
    session: Session,
    statuses: dict[RowStatus, int],
    exit_code: int,
    reason: str,
    *,
    resumable: bool = False,
) -> Summary:
    """Sum a run up; ``statuses`` counts its rows, ``reason`` says in one sentence how it ended."""
    output = session.job.config.output
    stats = session.stats
    seconds = time.monotonic() - session.started
    rows = sum(statuses.values())
    done = rows - statuses.get("pending", 0)
    return Summary(
        rows=rows,
        statuses={status: statuses.get(status, 0) for status in STATUSES},
        requests=stats.requests,
        attempts=stats.attempts,
        prompt_tokens=stats.prompt_tokens,
        completion_tokens=stats.completion_tokens,
        total_tokens=stats.total_tokens,
        credits=round(stats.credits, 9),
        seconds=seconds,
        rows_per_second=done / seconds if seconds > 0 else 0.0,
        output=output.path if output is not None else None,
        ledger=session.job.config.ledger_shown(),
        exit_code=exit_code,
        reason=reason,
        retries=dict(stats.retries),
        resumable=resumable,
    )


def finished(
    session: Session, tally: Counter[RowStatus], partitions: dict[str, int] | None = None
) -> Summary:
    """Sum up a run in which every row has its verdict; ``tally`` counts them, ``partitions`` a folder's files."""
    summary = _finished(session, tally)
    if partitions is None:
        return summary
    made, others = partitions["processed"], partitions["unchanged"]
    reason = f"{summary.reason}; {counted(made, 'partition')} made, {others:,} unchanged"
    return replace(summary, partitions=partitions, reason=reason)


def _finished(session: Session, tally: Counter[RowStatus]) -> Summary:
    config = session.job.config
    rows = sum(tally.values())
    failed = sum(tally[status] for status in FAILED)
    tolerated = config.tolerated(rows)
    if not failed:
        return summarize(session, tally, 0, f"{counted(rows, 'row')} done")
    causes = ", ".join(f"{tally[status]:,} {status}" for status in FAILED if tally[status])
    if failed <= tolerated:
        return summarize(
            session, tally, 0, f"{counted(rows, 'row')} done, {causes} (tolerated: {tolerated:,})"
        )
    return summarize(session, tally, 3, f"{counted(rows, 'row')} done, but {causes}")


def _check_finished(tally: Counter[RowStatus]) -> None:
    """Keep a `retry` from putting rows that were never asked in the place of a finished output.

    Raises:
        RowsUnasked: there are such rows.
    """
    pending = tally["pending"]
    if pending:
        verb = "was" if pending == 1 else "were"
        raise RowsUnasked(
            f"{counted(pending, 'row')} {verb} never asked in this form, and retry asks only rows that failed",
            hint="a changed prompt, model or parameter makes a new request.",
        )


def _collected(session: Session, flow: Flow) -> Summary:
    pending = flow.tally["pending"]
    rows = sum(flow.tally.values())
    reason = f"{counted(rows, 'row')} collected" + (f", {pending:,} of them pending" if pending else "")
    return summarize(session, flow.tally, 0, reason)


def _left(config: Config, error: OutputLocked, seconds: float) -> Summary:
    """Sum up a run that did nothing, for another one has its output."""
    return _idle(config, f"nothing done: {error.message}", seconds)


def _nothing_to_do(config: Config, folder: Folder, seconds: float) -> Summary:
    """Sum up a run of a folder in which nothing is to be made."""
    counts = folder.counts([], [])
    waiting = f", {counts['pending']:,} never run" if counts["pending"] else ""
    reason = f"nothing to do: {counted(counts['unchanged'], 'partition')} unchanged{waiting}"
    return replace(_idle(config, reason, seconds), partitions=counts)


def _idle(config: Config, reason: str, seconds: float) -> Summary:
    return Summary(
        rows=0,
        statuses=dict.fromkeys(STATUSES, 0),
        requests=0,
        attempts=0,
        prompt_tokens=0,
        completion_tokens=0,
        total_tokens=0,
        credits=0.0,
        seconds=seconds,
        rows_per_second=0.0,
        output=config.output.path,
        ledger=config.ledger_shown(),
        exit_code=0,
        reason=reason,
    )


def _stopped(
    session: Session, flow: Flow, source: Source, error: EnrichError, options: RunOptions
) -> Summary:
    statuses = dict(flow.tally)
    done = sum(statuses.values())
    statuses["pending"] = statuses.get("pending", 0) + source.num_rows - done
    what = "interrupted" if isinstance(error, RunInterrupted) else f"stopped: {error.message}"
    hint = f" {error.hint[:1].upper()}{error.hint[1:]}" if error.hint else ""
    way_on = _way_on(options.command, error)
    reason = f"{what} after {done:,} of {counted(source.num_rows, 'row')}.{hint} Everything paid for is kept: {way_on}"
    # What would have kept a run from its start, an input that changes above all, stops one that has sent requests.
    begun_wrong = isinstance(error, UsageError)
    return summarize(
        session,
        statuses,
        RunStopped.exit_code if begun_wrong else error.exit_code,
        reason,
        resumable=error.passes or isinstance(error, InputError),
    )


def _way_on(command: str, error: EnrichError) -> str:
    if not command:
        return "the next run goes on from here."
    run = command.replace(" retry ", " run ")
    goes_on = run if isinstance(error, RowsUnasked) else command
    return f"`{goes_on}` goes on from here, `{run.replace(' run ', ' collect ')}` shows what there is."


def manifest(job: Job, source: Source, summary: Summary) -> dict[str, Any]:
    """Give what an output says of its run; plain JSON."""
    return {
        **origin(job, source),
        "rows": summary.rows,
        "statuses": {status: count for status, count in summary.statuses.items() if count},
        "requests": summary.requests,
        "attempts": summary.attempts,
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "total_tokens": summary.total_tokens,
        "credits": summary.credits,
    }


# --- small parts ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def occurrences_of(config: Config) -> Any:
    """Count equal requests while the block runs, where each is to have an answer of its own; else give None."""
    if config.dedupe:
        yield None
        return
    with Occurrences() as occurrences:
        yield occurrences


def scratch_of(config: Config) -> Path:
    """Give the folder for what a run keeps on disk until it ends: the output's, which is known to take files.

    Of an object it is the ledger's, or the system's where the ledger is a server.
    """
    if not is_url(config.output.path):
        return Path(config.output.path).parent
    ledger = config.ledger_location()
    folder = Path(tempfile.gettempdir()) if is_url(ledger) else Path(ledger).parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder
