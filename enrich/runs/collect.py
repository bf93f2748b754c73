"""`collect`: an output from what the ledger holds, on the way of a run; nothing is sent."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from enrich.runs.prepare import look_at_folder
from enrich.runs.published import publish_output
from enrich.runs.run import Work, alone, open_work
from enrich.runs.summary import collected, nothing_to_do

if TYPE_CHECKING:
    from enrich.config import Config
    from enrich.records import Summary
    from enrich.runs.options import RunOptions


async def collect_job(config: Config, options: RunOptions) -> Summary:
    """Assemble an output from the ledger as it stands; send nothing. Unanswered rows are ``pending``."""
    return await alone(_collect, config, options)


async def _collect(config: Config, options: RunOptions) -> Summary:
    """Write the output from what the ledger holds; what it lacks is ``pending``."""
    begun = time.monotonic()
    folder = await look_at_folder(config, options)
    if folder is not None and not folder.todo:
        return nothing_to_do(config, folder, time.monotonic() - begun)
    async with open_work(config, options, folder, send=False) as work:
        return await publish_output(work, await work.write(_gather, lambda _: None))


def _gather(work: Work) -> Summary:
    return replace(collected(work.session, work.flow), partitions=work.partitions())
