"""What is known of the answers of a cheap model that may stay, where a step's `escalate` has a guarantee; kept in the ledger."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from enrich.measure.guarantee import NONE

if TYPE_CHECKING:
    from enrich.ledger.protocol import Ledger
    from enrich.rows.step import Step
    from enrich.runs.job import Job


@dataclass(frozen=True, slots=True)
class Trust:
    """What was found for a step.

    Attributes:
        of: the column of answers that counts.
        threshold: the score from which on the cheap model's answer stays; None: none does.
        rows: of the sample.
        right: of these, how many are right so.
        kept: of these, how many stay with the cheap model.
        least: the share of all rows that is right at least.
        sure: in what share of such samples.
    """

    of: str
    guarantee: float
    sure: float
    threshold: float | None
    rows: int
    right: int
    kept: int
    least: float


async def know_trust(job: Job, ledger: Ledger) -> None:
    """Have steps with a guarantee know which answers of the cheap model stay, as far as that was found."""
    for step in job.steps:
        if step.conversation.escalation.guaranteed and job.config.output is not None:
            trust = await _recalled(job, step, ledger)
            step.conversation.escalation.threshold = None if trust is None else _threshold(trust)


def _threshold(trust: Trust) -> float:
    return NONE if trust.threshold is None else trust.threshold


async def trust_of(job: Job, ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Give what was found for each step with a guarantee, as plain JSON."""
    found = {}
    for step in job.steps:
        if (
            step.conversation.escalation.guaranteed
            and (trust := await _recalled(job, step, ledger)) is not None
        ):
            found[step.name] = asdict(trust)
    return found


async def _recalled(job: Job, step: Step, ledger: Ledger) -> Trust | None:
    told = await ledger.recall(_note(job, step), vital=True)
    return None if told is None or told["of"] != _digest(step) else Trust(**told["trust"])


async def remember_trust(job: Job, step: Step, ledger: Ledger, trust: Trust) -> None:
    """Keep what was found for a step, and have it known."""
    await ledger.remember(_note(job, step), {"of": _digest(step), "trust": asdict(trust)})
    step.conversation.escalation.threshold = _threshold(trust)


def _note(job: Job, step: Step) -> str:
    rows = job.config.input.path if job.config.input is not None else ""
    return f"guarantee:{hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]}:{step.name}"


def _digest(step: Step) -> str:
    """Tell what the finding rests on: the question, its answers and their rule, and what is asked of them."""
    builder = step.builder
    config = builder.step
    facts = [
        builder.fingerprint.hex(),
        config.escalation and config.escalation.model_dump(mode="json"),
        builder.schema and builder.schema.json,
        [config.check, config.reask, config.repair],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
