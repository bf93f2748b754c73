"""What earlier runs decided for a step: which answers it asks for anew, for which rows, and under which schema."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from enrich.rows.step import strayed_name
from enrich.runs.learned import recall_formats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from enrich.config import InputConfig
    from enrich.ledger.protocol import Ledger
    from enrich.records import RowStatus
    from enrich.rows.step import Step
    from enrich.runs.job import Job


def scope_of(rows: InputConfig | None, limit: int | None = None) -> str:
    """Name the rows that a run is about: where they come from, and how many of them at most.

    A `--fresh` that was stopped is gone on with by runs of the same scope alone: other rows were never meant.
    """
    chosen = rows.model_dump(mode="json", include={"path", "partitions"}) if rows is not None else None
    return hashlib.sha256(json.dumps([chosen, limit], sort_keys=True).encode()).hexdigest()[:16]


async def under_way(ledger: Ledger, step: bytes, scope: str) -> int:
    """Give the generation of answers that a stopped `--fresh` of this step and scope was asking for; 0 without one."""
    told = await ledger.recall(_fresh_name(step, scope), vital=True)
    return int(told["generation"]) if told else 0


async def settle_fresh(ledger: Ledger, steps: Iterable[bytes], scope: str) -> None:
    """Note that every row of a scope was asked anew, if that was wanted."""
    for step in steps:
        if await under_way(ledger, step, scope):
            await ledger.remember(_fresh_name(step, scope), {"generation": 0})


def _fresh_name(step: bytes, scope: str) -> str:
    return f"fresh:{step.hex()}:{scope}"


async def changed_schemas(job: Job, ledger: Ledger) -> tuple[str, ...]:
    """Give the steps whose schema is another than in the last run that was finished, and that do not reuse answers."""
    changed = []
    for step in job.steps:
        told = await ledger.recall(_schema_name(step))
        if told and told["schema"] != _schema_digest(step) and not step.builder.step.reuse:
            changed.append(step.name)
    return tuple(changed)


async def note_schemas(job: Job, ledger: Ledger) -> None:
    """Note under which schema the steps were answered."""
    for step in job.steps:
        told = {"schema": _schema_digest(step)}
        if await ledger.recall(_schema_name(step)) != told:
            await ledger.remember(_schema_name(step), told)


def _schema_name(step: Step) -> str:
    return f"schema:{step.builder.fingerprint.hex()}"


def _schema_digest(step: Step) -> str:
    schema = step.builder.schema
    sent = None if schema is None else [step.builder.step.schema_mode, schema.response_format(step.name)]
    return hashlib.sha256(json.dumps(sent).encode()).hexdigest()[:16]


async def note_decisions(
    job: Job, ledger: Ledger, *, fresh: bool, scope: str, retry: frozenset[RowStatus]
) -> None:
    """Leave to later runs what this one decides: that all is asked anew, or that answers may stand under later keys."""
    for fingerprint in {step.builder.fingerprint for step in job.steps}:
        if fresh:
            generation = await ledger.generation(fingerprint, bump=True)
            await ledger.remember(_fresh_name(fingerprint, scope), {"generation": generation})
        if retry:
            await ledger.remember(strayed_name(fingerprint), {"strayed": True})


async def know_the_past(job: Job, ledger: Ledger, *, fresh: bool, scope: str) -> None:
    """Take from the ledger what was decided for these steps."""
    if not fresh:  # else what an endpoint refused once is tried again
        await recall_formats(job, ledger)
    for step in job.steps:
        fingerprint = step.builder.fingerprint
        newest = await ledger.generation(fingerprint)
        unfinished = await under_way(ledger, fingerprint, scope)
        step.generation = unfinished or newest
        step.conversation.older = 0 if unfinished else newest
        step.conversation.reused = 0
        strayed = await ledger.recall(strayed_name(fingerprint), vital=True)
        step.conversation.strayed = strayed is not None
