"""`run --trial`: ask a sample first, and say what came of it and what the rest would cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from enrich.base.words import counted
from enrich.report.gold import text_of
from enrich.report.texts import cut, percent
from enrich.runs.cohort import ask_cohort, draw
from enrich.runs.prepare import look_at_folder, opened
from enrich.verbs.plan import plan_job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from enrich.config import Config
    from enrich.records import Outcome, Summary
    from enrich.runs.options import RunOptions
    from enrich.schema.choice import Column
    from enrich.verbs.plan_result import JobPlan

MOST_LABELS = 20  # different answers up to which each is counted
SHOWN = 6  # of them told to people
LONGEST = 60  # characters of a label that is told


@dataclass(frozen=True, slots=True)
class Trial:
    """What a sample said, and what all rows would take from here.

    Attributes:
        rows: of the sample.
        statuses: rows per status, per step.
        labels: per column of answers that has few different ones, how often each came.
        cost: credits that the sample's answers cost in all, those of earlier runs included.
        summary: of asking: what was sent and spent just now.
        plan: of the whole job, from here on.
    """

    rows: int
    seed: int
    statuses: dict[str, dict[str, int]]
    labels: dict[str, dict[str, int]]
    cost: float
    summary: Summary
    plan: JobPlan

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "rows": self.rows,
            "seed": self.seed,
            "statuses": self.statuses,
            "labels": self.labels,
            "requests": self.summary.requests,
            "attempts": self.summary.attempts,
            **self.summary.amounts(),
            "credits_of_rows": self.cost,
            "rest": self.plan.to_dict(),
        }

    def text(self) -> str:
        """Write it for people."""
        sent = f"{counted(self.summary.requests, 'request')} sent"
        lines = [
            f"trial       {counted(self.rows, 'row')} drawn with seed {self.seed}: {sent}, {_credits(self.summary.credits)}"
        ]
        for step, statuses in self.statuses.items():
            lines.append(f"{step:11} {_shares(statuses, self.rows)}")
        lines += [
            f"  {column}: {_shares(labels, sum(labels.values()))}" for column, labels in self.labels.items()
        ]
        lines += ["", "The rest of the rows:", self.plan.text()]
        return "\n".join(lines)


def _credits(amount: float) -> str:
    return f"{amount:,.6g} credits"


def _shares(counts: dict[str, int], whole: int) -> str:
    shown = [
        f"{cut(name, LONGEST)} {count:,} ({percent(count, whole)})"
        for name, count in list(counts.items())[:SHOWN]
    ]
    left = len(counts) - SHOWN
    return ", ".join([*shown, *([f"{left:,} others"] if left > 0 else [])]) or "no row"


async def try_job(config: Config, options: RunOptions, size: int, seed: int) -> Trial:
    """Ask a sample of a job's rows, as its run would, and plan the rest.

    Args:
        config: the job.
        options: as for the run.
        size: rows of the sample.
        seed: of the draw; the same one draws the same rows, which are not asked again.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        RunStopped, RunInterrupted: the sample could not be asked to its end; what was answered is kept.
    """
    async with opened(config, options, await look_at_folder(config, options), send=True) as begun:
        rows = draw(begun.source, size, seed)
        job = begun.session.job
        if len(rows):
            answered = await ask_cohort(begun, rows, f"{counted(len(rows), 'row')} asked for a trial")
            outcomes, summary = answered.outcomes, answered.summary
        else:
            from enrich.runs.summary import idle

            outcomes, summary = tuple([] for _ in job.steps), idle(config, "there is no row to try", 0.0)
    plan = await plan_job(config, replace(options, fresh=False), drawn=True)
    names = [step.name for step in job.steps]
    statuses = {
        name: dict(Counter(str(o.status) for o in found).most_common())
        for name, found in zip(names, outcomes, strict=True)
    }
    labels: dict[str, dict[str, int]] = {}
    for step, found in zip(job.steps, outcomes, strict=True):
        labels |= labels_of(step.columns, found)
    cost = sum(outcome.credits or 0.0 for found in outcomes for outcome in found)
    return Trial(len(rows), seed, statuses, labels, cost, summary, plan)


def labels_of(columns: Iterable[Column], outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """Count the answers of each written column that has few different ones, over rows that are ok; the commonest first."""
    good = [outcome for outcome in outcomes if outcome.status == "ok"]
    found: dict[str, dict[str, int]] = {}
    columns = list(columns)
    typed = any(column.is_value for column in columns)
    for column in columns:
        if not column.is_value and (typed or column.of != "text"):
            continue
        counts = Counter(text_of(answer_of(column, outcome)) for outcome in good)
        if counts and len(counts) <= MOST_LABELS and len(counts) <= max(2, len(good) // 2):
            found[column.field.name] = dict(counts.most_common())
    return found


def answer_of(column: Column, outcome: Outcome) -> Any:
    """Give what an outcome says in a column of answers."""
    return (outcome.values or {}).get(column.of) if column.is_value else outcome.text
