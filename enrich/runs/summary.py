"""How a run ended: its summary, the reason in one sentence, the way on, and the manifest in the output."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from enrich.base.words import counted
from enrich.errors import (
    EnrichError,
    InputError,
    ModelChanged,
    OutputLocked,
    RowsUnasked,
    RunInterrupted,
    RunStopped,
    UsageError,
)
from enrich.records import FAILED, STATUSES, RowStatus, Summary
from enrich.runs.job import Job, origin
from enrich.show.bound import bound_by

if TYPE_CHECKING:
    from collections import Counter

    from enrich.base.command import Command
    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.rows.flow import Flow
    from enrich.runs.anew import Anew
    from enrich.runs.options import RunOptions
    from enrich.runs.partition_todo import Folder
    from enrich.runs.session import Session


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
    if twice := stats.perhaps_paid_twice:
        reason += (
            f"; {counted(twice, 'request')} may have been paid for more than once: the endpoint keeps no keys"
        )
    done = rows - statuses.get("pending", 0)
    return Summary(
        rows=rows,
        statuses={status: statuses.get(status, 0) for status in STATUSES},
        requests=stats.requests,
        attempts=stats.attempts,
        **stats.amounts(),
        seconds=seconds,
        rows_per_second=done / seconds if seconds > 0 else 0.0,
        output=output.path if output is not None else None,
        ledger=session.job.config.ledger_shown(),
        exit_code=exit_code,
        reason=reason,
        retries=dict(stats.retries),
        perhaps_paid_twice=stats.perhaps_paid_twice,
        resumable=resumable,
        causes=session.troubles.ranked(),
        sandbox=session.job.endpoint is None,
        reused=sum(step.conversation.reused for step in session.job.steps),
        unknown_finish=dict(session.troubles.unknown_finish.most_common()),
        bound_by=bound_by(session.engine.pace, session.job.config.limits) if session.engine else None,
        found=tuple(session.engine.pace.found()) if session.engine else (),
        waste=session.account.to_dict(stats, session.job.config.prices),
        by_step=tuple((step, status, n) for (step, status), n in session.account.rows.items()),
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


def check_finished(tally: Counter[RowStatus]) -> None:
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


def collected(session: Session, flow: Flow) -> Summary:
    """Sum up an output that was put together from what the ledger held."""
    pending = flow.tally["pending"]
    rows = sum(flow.tally.values())
    reason = f"{counted(rows, 'row')} collected" + (f", {pending:,} of them pending" if pending else "")
    return summarize(session, flow.tally, 0, reason)


def left_alone(config: Config, error: OutputLocked, seconds: float) -> Summary:
    """Sum up a run that did nothing, for another one has its output."""
    return idle(config, f"nothing done: {error.message}", seconds)


def nothing_to_do(config: Config, folder: Folder, seconds: float) -> Summary:
    """Sum up a run of a folder in which nothing is to be made."""
    counts = folder.counts([], [])
    waiting = f", {counts['pending']:,} never run" if counts["pending"] else ""
    reason = f"nothing to do: {counted(counts['unchanged'], 'partition')} unchanged{waiting}"
    return replace(idle(config, reason, seconds), partitions=counts)


def none_chosen(config: Config, anew: Anew, seconds: float) -> Summary:
    """Sum up a run that asks rows anew of which there are none."""
    summary = idle(config, f"no row is to be asked anew: {anew.where} is true of none", seconds)
    return replace(summary, rows=sum(anew.tally.values()), statuses={**summary.statuses, **anew.tally})


def idle(config: Config, reason: str, seconds: float) -> Summary:
    """Sum up a run that did nothing."""
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


def stopped(session: Session, flow: Flow, source: Source, error: EnrichError, options: RunOptions) -> Summary:
    """Sum up a run that ended before its rows: how far it came, why, and what to type to go on."""
    statuses = dict(flow.tally)
    done = sum(statuses.values())
    statuses["pending"] = statuses.get("pending", 0) + source.num_rows - done
    what = "interrupted" if isinstance(error, RunInterrupted) else f"stopped: {error.message}"
    hint = f" {error.hint[:1].upper()}{error.hint[1:]}" if error.hint else ""
    way_on = _way_on(options.command, error)
    reason = f"{what} after {done:,} of {counted(source.num_rows, 'row')}.{hint} Everything paid for is kept: {way_on}"
    # What would have kept a run from its start, an input that changes above all, stops one that has sent requests.
    begun_wrong = isinstance(error, UsageError)
    summary = summarize(
        session,
        statuses,
        RunStopped.exit_code if begun_wrong else error.exit_code,
        reason,
        resumable=error.passes or isinstance(error, InputError),
    )
    return replace(summary, model_changed=error.change) if isinstance(error, ModelChanged) else summary


def _way_on(command: Command | None, error: EnrichError) -> str:
    if command is None:
        return "the next run goes on from here."
    if isinstance(error, ModelChanged):
        return f"`{command.but('run', '--accept-model')}` goes on with it, `{command.but('collect')}` shows what there is."
    goes_on = command.but("run") if isinstance(error, RowsUnasked) else command
    return f"`{goes_on}` goes on from here, `{command.but('collect')}` shows what there is."


def manifest(job: Job, source: Source, summary: Summary) -> dict[str, Any]:
    """Give what an output says of its run; plain JSON."""
    return {
        **origin(job, source),
        "rows": summary.rows,
        "statuses": {status: count for status, count in summary.statuses.items() if count},
        "requests": summary.requests,
        "attempts": summary.attempts,
        **summary.amounts(),
    }
