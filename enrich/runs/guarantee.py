"""The guarantee of `escalate`: which answers of the cheap model may stay, found on rows whose values are known, and kept."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from enrich.base.words import counted
from enrich.errors import (
    ConfigError,
    EnrichError,
    GuaranteeUnmet,
    RunInterrupted,
    RunStopped,
    UsageError,
    did_you_mean,
)
from enrich.measure.guarantee import Tried, find_threshold, needed
from enrich.report.gold import GoldTable, is_missing, number_of, owners_of, text_of
from enrich.runs.cohort import ask_cohort
from enrich.runs.example_rows import example_rows
from enrich.runs.prepare import opened
from enrich.runs.reasked import refuse_reasked
from enrich.runs.summary import idle
from enrich.runs.trust import Trust, remember_trust

if TYPE_CHECKING:
    from enrich.config import Config, Escalate
    from enrich.files.source import Source
    from enrich.ledger.protocol import Ledger
    from enrich.measure.guarantee import Found
    from enrich.records import Outcome, Summary
    from enrich.rows.step import Step
    from enrich.runs.options import RunOptions
    from enrich.runs.partition_todo import Folder
    from enrich.runs.prepare import Opened

SEED = 0  # of the sample, and of what is left out of a review


def review_note(output: str, column: str) -> str:
    """Name the note with what people said of a column of an output."""
    return f"review:{output}:{column}"


async def keep_guarantees(config: Config, options: RunOptions, folder: Folder | None) -> Summary | None:
    """Find out, where a step has a guarantee and it is not known yet, which answers of the cheap model may stay.

    Returns:
        How the run ended where it cannot go on; None where it may.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
    """
    if options.retry or options.anew is not None:  # rows that a run has asked: it found out before
        return None
    began = time.monotonic()
    async with opened(config, replace(options, fresh=False), folder, send=True) as begun:
        if not options.fresh:
            await refuse_reasked(begun)
        for number, step in enumerate(begun.session.job.steps):
            escalation = step.conversation.escalation
            if not escalation.guaranteed or escalation.threshold is not None:
                continue
            try:
                await _find(begun, number, step)
            except (RunStopped, RunInterrupted) as error:
                return _stopped(config, begun.source, error, time.monotonic() - began)
    return None


def _stopped(config: Config, source: Source, error: EnrichError, seconds: float) -> Summary:
    hint = f" Hint: {error.hint}" if error.hint else ""
    what = "interrupted" if isinstance(error, RunInterrupted) else f"stopped: {error.message}"
    summary = idle(config, f"{what}, before the rows were asked.{hint} Everything paid for is kept.", seconds)
    return replace(
        summary,
        rows=source.num_rows,
        statuses={**summary.statuses, "pending": source.num_rows},
        exit_code=error.exit_code,
        resumable=error.passes,
    )


async def _find(begun: Opened, number: int, step: Step) -> None:
    """Ask both models about a sample, find the threshold, and keep it.

    Raises:
        UsageError: no value is known.
        GuaranteeUnmet: the sample does not show what is to be promised.
        RunStopped, RunInterrupted: the sample could not be asked to its end.
    """
    escalate = step.builder.step.escalation
    assert escalate is not None  # noqa: S101  # the caller looked
    assert escalate.guarantee is not None  # noqa: S101  # likewise
    column, known = await known_values(
        begun.config, begun.source, begun.session.ledger, step.builder.step.name
    )
    for row in await asyncio.to_thread(example_rows, begun.source, [begun.session.job]):
        known.pop(int(row), None)  # the models are told their answers
    if not known:
        raise UsageError(
            f"steps.{step.name}.escalate.guarantee: every row whose value is known is an example of a prompt"
        )
    drawn = _drawn(known, escalate.sample)
    models = [stage.model for stage in escalate.stages]
    what = f"{counted(len(drawn), 'row')} asked of {models[0]} and {models[1]}, for the guarantee of step {step.name}"
    answered = await ask_cohort(begun, np.asarray(drawn, dtype=np.int64), what)
    field = next((c.of for c in step.columns if c.is_value and c.field.name == column), None)
    tried = [
        one
        for row, outcome in zip(drawn, answered.outcomes[number], strict=True)
        if (one := _tried(step, outcome, known[row], field)) is not None
    ]
    found = find_threshold(tried, escalate.guarantee, escalate.sure)
    if not found.met:
        raise _unmet(step.name, escalate, found)
    threshold = None if math.isinf(found.threshold) else found.threshold
    trust = Trust(
        column,
        escalate.guarantee,
        escalate.sure,
        threshold,
        found.rows,
        found.right,
        found.kept,
        round(found.least, 6),
    )
    await remember_trust(begun.session.job, step, begun.session.ledger, trust)


def _tried(step: Step, outcome: Outcome, known: Any, field: str | None) -> Tried | None:
    """Say of a row what both models made of it; None of one that is not asked at all."""
    if outcome.status == "skipped":
        return None
    stages = outcome.stages or (outcome,)
    right = [
        one.status == "ok" and _is_right(known, (one.values or {}).get(field) if field else one.text)
        for one in stages
    ]
    if len(stages) < 2:  # there is no answer of the other one
        return Tried(-math.inf, cheap=False, dear=False)
    return Tried(step.conversation.escalation.score(stages[0]), right[0], right[1])


def _is_right(known: Any, value: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_of(known) == float(value)
    return text_of(known) == text_of(value)


def _drawn(known: dict[int, Any], size: int) -> list[int]:
    rows = np.asarray(sorted(known), dtype=np.int64)
    chance = np.random.default_rng(SEED)
    return [int(row) for row in np.sort(chance.choice(rows, min(size, len(rows)), replace=False))]


def _unmet(name: str, escalate: Escalate, found: Found) -> GuaranteeUnmet:
    guarantee, last = escalate.guarantee or 0.0, escalate.stages[-1].model
    enough = needed(found.right, found.rows, guarantee, escalate.sure)
    rows = (
        f"about {enough:,} rows with known values would do if this share stays (escalate.sample); or "
        if enough
        else ""
    )
    return GuaranteeUnmet(
        f"steps.{name}.escalate: a share of {guarantee:g} cannot be promised: of {counted(found.rows, 'row')} even `{last}` has "
        f"{found.right:,} right, which shows {found.least:.4g} at least, in {100 * escalate.sure:g} of 100 such samples",
        hint=f"{rows}ask for less, for a better model than `{last}`, or for no guarantee.",
    )


# --- what is known ----------------------------------------------------------------------------------------


def scored_column(config: Config, name: str) -> str:
    """Give the column of answers of a step that counts as right or wrong.

    Raises:
        ConfigError: it is not said, or there is none of this name.
    """
    owners = owners_of(config)
    own = [column for column, owner in owners.items() if owner.step.name == name]
    escalate = next(step.escalation for step in config.steps if step.name == name)
    told = escalate.of if escalate is not None else None
    if told is not None:
        if told not in own:
            raise ConfigError(
                f"steps.{name}.escalate.of: the step has no column of answers `{told}`",
                hint=did_you_mean(told, own),
            )
        return told
    held = [column for column in own if config.gold is not None and column in config.gold.columns]
    typed = [column for column in own if column != name]
    chosen = held or typed or own
    if len(chosen) != 1:
        raise ConfigError(
            f"steps.{name}.escalate.guarantee: which answer counts as right or wrong is not said",
            hint=f"of: {chosen[0] if chosen else 'COLUMN'}, for one of {', '.join(chosen)}.",
        )
    return chosen[0]


async def known_values(
    config: Config, source: Source, ledger: Ledger | None, name: str
) -> tuple[str, dict[int, Any]]:
    """Give the column of answers that counts, and by row of the input, from 0, what is known of it: by hand, or by a review.

    Raises:
        ConfigError: which answer counts is not said.
        UsageError: nothing is known.
    """
    column = scored_column(config, name)
    known: dict[int, Any] = {}
    if config.gold is not None and column in config.gold.columns:
        known = await asyncio.to_thread(_by_hand, config, source, column)
    elif (
        ledger is not None
        and (told := await ledger.recall(review_note(config.output.path, column))) is not None
    ):
        known = {row: label for row, label in _evenly(told).items() if row < source.num_rows}
    if not known:
        raise UsageError(
            f"steps.{name}.escalate.guarantee: nothing is known of any row's `{column}`",
            hint=f"gold: {{{column}: COLUMN}} names a column with values by hand; or have a run's output reviewed first.",
        )
    return column, known


def _by_hand(config: Config, source: Source, column: str) -> dict[int, Any]:
    gold = config.gold
    assert gold is not None  # noqa: S101  # the caller looked
    table, name = GoldTable(gold) if gold.file is not None else None, gold.columns[column]
    read = name if table is None else gold.key or ""
    if read not in source.schema.names:
        raise ConfigError(
            f"gold: the input has no column `{read}`, which escalate.guarantee needs before a run",
            hint=did_you_mean(read, source.schema.names),
        )
    found: dict[int, Any] = {}
    row = 0
    for batch in source.batches(columns=[read]):
        cells = batch.column(0)
        values = cells.to_pylist() if table is None else table.of(cells, name)
        found |= {row + place: value for place, value in enumerate(values) if not is_missing(value)}
        row += batch.num_rows
    return found


def _evenly(kept: dict[str, Any]) -> dict[int, str]:
    """Give the labels of a review so that every row of the table had the same chance: of rare strata more rows are labelled."""
    labels: dict[str, str] = kept["labels"]
    rows = [
        (row, stratum) for row, stratum in zip(kept["rows"], kept["of"], strict=True) if str(row) in labels
    ]
    shares: dict[str, float] = {}
    for stratum, told in kept["strata"].items():
        if "known" not in told and told["rows"]:
            shares[stratum] = sum(of == stratum for _, of in rows) / told["rows"]
    least = min(shares.values(), default=0.0)
    chance = np.random.default_rng(SEED).random(len(rows))
    return {
        int(row): labels[str(row)]
        for (row, stratum), drawn in zip(rows, chance.tolist(), strict=True)
        if drawn * shares[stratum] < least
    }
