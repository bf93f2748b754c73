"""Everything that is wrong is found here, before anything is sent: input, templates, output."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from enrich.files.rehearsal import rehearse
from enrich.files.sink import preflight
from enrich.files.source import Source, open_source
from enrich.files.table_output import refuse_part
from enrich.runs.fresh import scope_of
from enrich.runs.job import Job, compile_job, refuse_overlap
from enrich.runs.partition_todo import folder_columns, open_todo, plan_folder
from enrich.runs.partitions import UNFINISHED
from enrich.runs.session import open_session
from enrich.runs.since import own_columns, recall_mark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from enrich.config import Config
    from enrich.runs.options import RunOptions
    from enrich.runs.partition_todo import Folder
    from enrich.runs.partitions import UnitStanding
    from enrich.runs.session import Session


@dataclass(slots=True)
class Opened:
    """A job that can begin: nothing is wrong with it that can be found before anything is sent, and its ledger is open.

    Attributes:
        source: where its rows come from.
    """

    config: Config
    options: RunOptions
    source: Source
    session: Session


@contextlib.asynccontextmanager
async def opened(
    config: Config, options: RunOptions, folder: Folder | None = None, *, send: bool = True
) -> AsyncIterator[Opened]:
    """Find everything that is wrong before anything is spent, and open the ledger.

    Args:
        config: the job.
        options: as for a run.
        folder: of a folder of outputs, what is to be made, as `look_at_folder` says.
        send: whether requests are going to be sent.
    """
    source, job = await _compiled(config, options, folder, send=send)
    async with open_session(
        job,
        fresh=options.fresh,
        scope=scope_of(config.input, options.limit),
        retry=options.retry,
        anew=options.anew,
        clock=options.clock,
        accept_model=options.accept_model,
    ) as session:
        yield Opened(config, options, source, session)


async def look_at_folder(config: Config, options: RunOptions) -> Folder | None:
    """Say what is to be done in a folder of outputs; None when the output is a file."""
    options.progress.phase("reading the input", None)
    if not config.output.partitioned:
        return None
    return await plan_folder(config, _wanted(options), limit=options.limit, clock=options.clock)


async def _compiled(
    config: Config, options: RunOptions, folder: Folder | None, *, send: bool
) -> tuple[Source, Job]:
    """Open the input and compile the job."""
    refuse_part(config.output, options.limit)
    if folder is None:
        mark = await recall_mark(config, options)
        opening = partial(open_source, config.input, limit=options.limit, mark=mark, own=own_columns(config))
        source = await asyncio.to_thread(opening)
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
    if config.gold is not None:
        from enrich.report.gold import check_gold

        await asyncio.to_thread(check_gold, config, job.output_schema)
    if folder is None or folder.todo:
        output = config.output if folder is None else folder.todo[0].output
        await asyncio.to_thread(preflight, output, job.output_schema)
        if send:
            check = options.interrupt.check
            await asyncio.to_thread(rehearse, source, job.output_schema, output, check=check)
    options.interrupt.check()
    return source, job


def _wanted(options: RunOptions) -> Callable[[UnitStanding], bool]:
    """Say which units of a folder are to be made: for `retry`, those that are done and have such rows, or chosen ones."""
    if options.anew is not None:
        units = options.anew.units or frozenset()
        return lambda unit: unit.unit.name in units
    if options.retry:
        asked = options.retry | {"in_doubt"}
        return lambda unit: unit.state == "done" and unit.has(asked) and not unit.has(("pending",))
    return lambda standing: options.fresh or standing.state != "done" or standing.has(UNFINISHED)
