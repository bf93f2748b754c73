"""A table that grows is read from the mark on, up to where an earlier run has seen and published it.

The mark lies in the ledger's database, for each input, output and way of asking: a changed prompt has none, and sees all
rows, which tells what asking them anew would cost. It is set when the output is published and every row has its verdict.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

from enrich.answer.columns import step_fields
from enrich.config.since import OF_TABLES
from enrich.errors import LedgerError, RunStopped
from enrich.files.delta_table import last_version
from enrich.files.since import TABLE, Mark, highest
from enrich.ledger.opening import open_ledger
from enrich.runs.job import fingerprint
from enrich.runs.partitions import UNFINISHED
from enrich.schema.choice import choose
from enrich.schema.schema import step_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.ledger.protocol import Ledger
    from enrich.records import RowStatus
    from enrich.runs.options import RunOptions

log = logging.getLogger("enrich")


def own_columns(config: Config) -> frozenset[str]:
    """Give the columns that a job's steps may write, where it writes back to the table that it reads."""
    if not config.writes_back:
        return frozenset()
    schemas = [step_schema(step) for step in config.steps]
    written = {
        column.field.name
        for step, schema in zip(config.steps, schemas, strict=True)
        for column in choose(step, schema)
    }
    usual = {
        field.name
        for step, schema in zip(config.steps, schemas, strict=True)
        for field in step_fields(step.name, schema)
    }
    return frozenset(written | usual)


async def recall_mark(config: Config, options: RunOptions) -> Mark | None:
    """Give the mark from which rows are read; None where all are, as with ``--fresh``."""
    if config.input.since is None or options.fresh or options.anew is not None:
        return None
    try:
        ledger = await open_ledger(config.ledger_location(), read_only=True)
    except LedgerError:  # there is none yet, or who opens it to write says more
        return None
    try:
        told = await ledger.recall(_name(config))
    finally:
        await ledger.close()
    return _mark(config, told)


def _mark(config: Config, told: dict[str, Any] | None) -> Mark | None:
    """Read what was kept, if it is of this way of asking."""
    return None if told is None or told["of"] != fingerprint(config)[0] else Mark(**told["mark"])


async def note_mark(
    config: Config, options: RunOptions, source: Source, ledger: Ledger, tally: Mapping[RowStatus, int]
) -> None:
    """Keep up to where rows were seen, when they are published; rows without a verdict keep the mark where it was.

    Args:
        config: the job.
        options: as for its run.
        source: its rows.
        ledger: where the mark lies.
        tally: how its rows stand.
    """
    if config.input.since is None or options.limit is not None or options.anew is not None:
        return
    if left := sum(tally.get(status, 0) for status in UNFINISHED):
        log.warning(
            "input.since: %s without an answer that may still come: the next run begins where this one did",
            f"{left:,} {'row is' if left == 1 else 'rows are'}",
        )
        return
    before = None if options.fresh else _mark(config, await ledger.recall(_name(config)))
    mark = await asyncio.to_thread(_reached, config, source, before)
    if mark is None:
        return
    told = {"of": fingerprint(config)[0], "mark": {"kind": mark.kind, "text": mark.text}}
    with contextlib.suppress(RunStopped):  # a full disk: the next run sees these rows again, and pays nothing
        await ledger.remember(_name(config), told)


def _reached(config: Config, source: Source, before: Mark | None) -> Mark | None:
    """Say up to where rows were seen: never less far than before."""
    version, since = source.files[0].version_of_table, config.input.since
    if since is None:
        return before
    if version is not None and since.column in OF_TABLES:
        written = last_version(config.output) if config.writes_back else None
        # where nobody else has written meanwhile, the next version is this run's own
        return Mark(TABLE, str(written if written == version + 1 else version))
    found = highest(source.schema.field(since.column), source.batches(columns=[since.column]))
    if found is None or (before is not None and before.kind == found.kind and before.value > found.value):
        return before
    return found


def _name(config: Config) -> str:
    rows: dict[str, Any] = config.input.model_dump(mode="json", exclude={"columns", "csv", "since"})
    column = config.input.since and config.input.since.column
    facts = json.dumps([rows, column, config.output.told], sort_keys=True)
    return f"since:{hashlib.sha256(facts.encode()).hexdigest()[:32]}"
