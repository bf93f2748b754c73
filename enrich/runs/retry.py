"""`retry`: the operator's word on rows in doubt is carried out, then the chosen rows are asked as in any run."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from enrich.rows.statuses import Marks
from enrich.runs.prepare import look_at_folder, opened
from enrich.runs.promise import promise_of
from enrich.runs.run import alone, ask_rows, run_held
from enrich.runs.scratch import occurrences_of, scratch_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from enrich.config import Config
    from enrich.records import Summary
    from enrich.runs.options import RunOptions

DOUBT_ROWS = 65_536  # rows looked at once for requests in doubt


def retry_job(
    how: Literal["resend", "skip"] | None,
) -> Callable[[Config, RunOptions], Coroutine[object, object, Summary]]:
    """Give the job behind `retry`: carry out the operator's word on rows in doubt, then ask the chosen rows again."""

    async def settle_and_run(config: Config, options: RunOptions) -> Summary:
        if how is not None:
            await _settle_doubt(config, options, how)
        return await run_held(config, options)

    async def job(config: Config, options: RunOptions) -> Summary:
        return await alone(settle_and_run, config, options)

    return job


async def _settle_doubt(config: Config, options: RunOptions, how: Literal["resend", "skip"]) -> None:
    """Find the requests in doubt among this job's rows, and settle them."""
    async with contextlib.AsyncExitStack() as stack:
        folder = await look_at_folder(config, options)
        begun = await stack.enter_async_context(opened(config, options, folder))
        source, session = begun.source, replace(begun.session, retry=frozenset())
        steps = len(session.job.steps)
        marks = stack.enter_context(Marks(source.num_rows, steps, scratch_of(config)))
        occurrences = stack.enter_context(occurrences_of(config))
        promise = await promise_of(config.endpoint, session.job.base_url, session.ledger)
        young = not promise.kept  # no key protects what was sent a moment ago
        await ask_rows(begun, session.flow(marks, occurrences))
        for number in range(steps):
            for row in range(0, source.num_rows, DOUBT_ROWS):
                count = min(DOUBT_ROWS, source.num_rows - row)
                known = await session.ledger.lookup(list(marks.asked(row, count, number)))
                keys = [k for k, r in known.items() if r.in_doubt or (young and r.state == "sent")]
                await session.ledger.settle_doubt(keys, how, young=young)
