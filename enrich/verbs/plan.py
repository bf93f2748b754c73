"""What a run would do, and cost, before it does: counted over the input, measured on a sample, held to the budget."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from enrich.base.location import is_url
from enrich.files.prefetch import prefetched
from enrich.prompt.prefix import Prefix
from enrich.rows.statuses import Marks
from enrich.runs.cohort import rows_of
from enrich.runs.fresh import changed_schemas
from enrich.runs.learned import recall_rate
from enrich.runs.prepare import Opened, look_at_folder, opened
from enrich.runs.reasked import find_reasked
from enrich.runs.scratch import occurrences_of
from enrich.runs.session import sending
from enrich.runs.summary import summarize
from enrich.runs.unchanged import Done, all_answered, note_done, still_done
from enrich.verbs.cache_doctor import PrefixPlan, measured_prefix
from enrich.verbs.census import Census, ChosenRow, Standing
from enrich.verbs.forecast import Estimate
from enrich.verbs.plan_estimate import FURTHER, Counted, Measured, Spent, estimated
from enrich.verbs.plan_result import JobPlan, StepPlan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import pyarrow as pa

    from enrich.config import Config, JobConfig
    from enrich.records import Ask, Outcome, Trouble
    from enrich.runs.options import RunOptions
    from enrich.runs.reasked import Rows
    from enrich.runs.session import Session

FROM_LEDGER = 1_000  # answered rows that are measured when none is asked


async def plan_job(
    config: Config, options: RunOptions, *, sample: int = 0, seed: int = 0, drawn: bool = False
) -> JobPlan:
    """Count what a run would send and estimate what it would cost.

    Args:
        config: the job.
        options: as for a run.
        sample: rows that are really asked and measured. Their answers are kept: what was asked for an earlier plan
            or run is not asked again.
        seed: chooses the sample; the same seed chooses the same rows.
        drawn: whether what is answered already was drawn at random.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        RunStopped, RunInterrupted: the sample could not be asked to its end; what was answered is kept.
    """
    since = time.time()
    async with opened(config, options, await look_at_folder(config, options), send=bool(sample)) as begun:
        anew = options.anew
        if anew is not None:
            anew.check(begun.source)
        elif not sample and (done := await still_done(begun)) is not None:
            return _unchanged(begun, done)
        reasked = await find_reasked(begun) if sample and anew is None else None  # before any is asked
        survey = Survey(begun, seed)
        plan, steps = await survey.plan(sample, drawn=drawn)
        if not sample and anew is None and any(step.to_ask or step.waiting for step in plan.steps):
            reasked = await find_reasked(begun)
        if reasked is None and anew is None and survey.version is not None:
            done = survey.done(steps)
            if done is not None and await begun.session.ledger.version() == survey.version:
                await note_done(begun, done, since)
        return replace(plan, reasked=reasked)


def _unchanged(begun: Opened, done: Sequence[Done]) -> JobPlan:
    """Give the plan of a job that has nothing left to ask, known without going through its rows."""
    steps = [
        StepPlan(step.name, one.skipped, 0, one.in_ledger, 0, one.copies, 0)
        for step, one in zip(begun.session.job.steps, done, strict=True)
    ]
    nothing = Estimate(0.0, 0.0, 0.0)
    return JobPlan(
        rows=begun.source.num_rows,
        steps=tuple(steps),
        tokens=nothing,
        credits=nothing,
        seconds=None,
        bound_by="",
        measured=0,
        drawn=False,
        sampled=0,
        sampled_credits=0.0,
        latency_ms=None,
        over=(),
        perhaps_over=(),
        unchanged=True,
    )


def _near(config: JobConfig) -> Path:
    """Give a file beside which a plan may keep what it needs: the output, or the ledger where none or a URL is written."""
    if config.output is not None and not is_url(config.output.path):
        return Path(config.output.path)
    ledger = config.ledger_location()
    return Path(tempfile.gettempdir(), "plan") if is_url(ledger) else Path(ledger)


class Begun(Protocol):
    """A job that can begin on rows that can be gone through more than once: an input's, or a frame's."""

    @property
    def config(self) -> JobConfig:
        """What is asked, and how."""

    @property
    def options(self) -> RunOptions:
        """What the caller asks of it."""

    @property
    def source(self) -> Rows:
        """Its rows."""

    @property
    def session(self) -> Session:
        """Its ledger, open."""


class Survey:
    """Looks at a job's rows: all of them without asking, or chosen ones.

    Args:
        begun: the job.
        seed: chooses the sample.
        named: what the ledger calls a job that writes no file.

    Attributes:
        rate: requests per second that the endpoint lets through, as far as runs have learned it.
        why: why rows cannot be asked.
        changed: steps whose schema is another than in the last run.
        prefixes: what the requests of each step begin with.
        version: of the ledger, if it was the same from the first row to the last, and every row is answered.
    """

    def __init__(self, begun: Begun, seed: int, named: str | None = None) -> None:
        self._begun = begun
        self._config = begun.config
        self._source = begun.source
        self._job = begun.session.job
        self._options = begun.options
        self._seed = seed
        self._named = named
        self.rate: float | None = None
        self.why: tuple[Trouble, ...] = ()
        self.prefixes: list[Prefix] = []
        self.changed: tuple[str, ...] = ()
        self.version: str | None = None
        self._scratch = next(folder for folder in _near(begun.config).absolute().parents if folder.is_dir())

    async def plan(self, sample: int, *, drawn: bool) -> tuple[JobPlan, list[Counted]]:
        """Count, ask a sample of so many rows (none of 0), and measure; gives the plan, and what was counted per step."""
        anew = self._options.anew
        of: Standing = "all" if sample else "known" if anew is None else "left"
        steps, chosen = await self.count(sample or FROM_LEDGER, of=of)
        spent = await self.ask(chosen) if sample else Spent(0, 0, 0.0)
        if spent.attempts:
            steps, chosen = await self.count(sample, of="known")
        measured = await self.measure(chosen)
        plan = estimated(
            self._config,
            self._source.num_rows,
            steps,
            measured,
            spent,
            drawn=bool(sample) or drawn,
            rate=self.rate,
            why=self.why,
            changed=self.changed,
        )
        return replace(plan, prefixes=self.judged(steps, measured)), steps

    async def count(self, size: int, *, of: Standing) -> tuple[list[Counted], list[ChosenRow]]:
        """Go through all rows without asking; gives what is to be done per step, and a sample of rows."""
        rows, steps = self._source.num_rows, len(self._job.steps)
        with (
            occurrences_of(self._config) as occurrences,
            Marks(rows, steps, self._scratch, keep=False) as marks,
            Census(rows, steps, seed=self._seed, directory=self._scratch) as census,
        ):
            session = await self._begun.session.look()
            before = await session.ledger.version()
            prefixes = [Prefix(step.builder) for step in self._job.steps]

            def observe(row: int, step: int, ask: Ask, left: bool) -> None:  # noqa: FBT001  # the signature that Flow calls
                census(row, step, ask, left)
                prefixes[step].add(ask)

            flow = session.flow(marks, occurrences, observe)
            self._options.progress.asking(rows, flow, None)
            batches = prefetched(iter(self._source.batches(columns=self._job.columns, written=True)))
            async with contextlib.aclosing(batches):
                await flow.run(_until(batches, self._options))
            self.prefixes = prefixes
            self.why = tuple(trouble for trouble in session.troubles.ranked() if not trouble.asked)
            self.changed = await changed_schemas(self._job, session.ledger)
            self.rate = await recall_rate(self._job, session.ledger)
            if await session.ledger.version() == before and all_answered(flow.tally):
                self.version = before
            return await asyncio.to_thread(self._counted, marks, census, size, of=of)

    def _counted(
        self, marks: Marks, census: Census, size: int, *, of: Standing
    ) -> tuple[list[Counted], list[ChosenRow]]:
        marks.find_copies()
        steps = []
        for number, (step, count) in enumerate(zip(self._job.steps, census.counts(marks), strict=True)):
            reasons = marks.reasons(number)
            skipped, failing = reasons["skipped"], reasons["error"]
            first = count.known + count.left + count.waiting
            copies = max(0, self._source.num_rows - skipped - failing - first)
            votes = step.builder.step.ballot
            most = votes.most if votes is not None else 1
            models = max(1, step.conversation.escalation.count)
            plan = StepPlan(
                step.name, skipped, failing, count.known, count.left, copies, count.waiting, most, models
            )
            limit = step.builder.step.max_completion_tokens or step.builder.step.max_tokens
            steps.append(Counted(plan, count.size, limit if isinstance(limit, int) else None))
        return steps, census.sample(marks, size, of=of)

    def done(self, steps: Sequence[Counted]) -> list[Done] | None:
        """Give how the steps stand where nothing is left to ask, for the next plan; None where something is."""
        plans = [step.plan for step in steps]
        left = any(plan.to_ask or plan.waiting or plan.failing for plan in plans)
        if left or self.why or self.changed:
            return None
        return [Done(plan.skipped, plan.in_ledger, plan.copies) for plan in plans]

    async def ask(self, units: Sequence[ChosenRow]) -> Spent:
        """Ask what is not answered yet about these rows."""
        if not units:
            return Spent(0, 0, 0.0)
        batch = await asyncio.to_thread(self._rows_of, units)
        with (
            Marks(len(units), len(self._job.steps), self._scratch) as marks,
            occurrences_of(self._config) as occurrences,
        ):
            looked = await self._begun.session.look()
            interrupt, named = self._options.interrupt, self._named
            async with sending(looked, interrupt=interrupt, named=named) as session:
                begun = time.monotonic()
                flow = session.flow(marks, occurrences)
                self._options.progress.asking(len(units), flow, session.engine)
                await flow.run(_one(batch))
                summary = summarize(session, flow.tally, 0, f"{len(units):,} rows sampled for a plan")
                await session.ledger.close_run(summary.to_dict())
                limited = "rate_limited" in summary.retries
                rate = summary.requests / (time.monotonic() - begun) if limited else None
                return Spent(summary.attempts, summary.requests, summary.credits, summary.credits_usd, rate)

    async def measure(self, units: Sequence[ChosenRow]) -> list[list[Measured]]:
        """Read what these rows cost, per step; a row that is pending at a step is left out there.

        Of rows that are to be asked anew that is what the answers cost that they have.
        """
        found: list[list[Measured]] = [[] for _ in self._job.steps]
        if not units:
            return found
        batch = await asyncio.to_thread(self._rows_of, units)
        with (
            Marks(len(units), len(self._job.steps), self._scratch) as marks,
            occurrences_of(self._config) as occurrences,
        ):
            anew = self._options.anew
            before = replace(anew, rows=None) if anew is not None else None
            session = await self._begun.session.look(anew=before)
            await session.flow(marks, occurrences).run(_one(batch))
            await asyncio.to_thread(marks.find_copies)
            for number, step in enumerate(self._job.steps):
                outcomes = await session.assembler(marks).outcomes(number, step, 0, len(units))
                found[number] = [
                    _measured(unit.sizes[number], outcome)
                    for unit, outcome in zip(units, outcomes, strict=True)
                    if outcome.status != "pending"
                ]
        return found

    def judged(
        self, steps: Sequence[Counted], measured: Sequence[Sequence[Measured]]
    ) -> tuple[PrefixPlan, ...]:
        """Judge what the requests of each step begin with, by what a byte of theirs was in tokens."""
        least = self._config.endpoint.cache_from
        return tuple(
            measured_prefix(step, prefix, counted.plan.to_ask, _tokens_per_byte(seen), least)
            for step, prefix, counted, seen in zip(
                self._job.steps, self.prefixes, steps, measured, strict=True
            )
        )

    def _rows_of(self, units: Sequence[ChosenRow]) -> pa.RecordBatch:
        """Read chosen rows, which are in input order."""
        return rows_of(self._source, [unit.row for unit in units], self._job.columns, written=True)


async def _until(
    batches: AsyncIterator[pa.RecordBatch], options: RunOptions
) -> AsyncIterator[pa.RecordBatch]:
    """Give batches until the run is interrupted."""
    async for batch in batches:
        options.interrupt.check()
        yield batch


async def _one(batch: pa.RecordBatch) -> AsyncIterator[pa.RecordBatch]:
    yield batch


def _tokens_per_byte(seen: Sequence[Measured]) -> float | None:
    told = [(one.size, one.prompt_tokens) for one in seen if one.size and one.prompt_tokens]
    return sum(tokens for _, tokens in told) / sum(size for size, _ in told) if told else None


def _measured(size: int, outcome: Outcome) -> Measured:
    asked = outcome.key is not None and outcome.source != "copy"
    answered = outcome.source is not None
    amounts = {name: getattr(outcome, name) for name in FURTHER}
    return Measured(
        size if asked else 0,
        float(outcome.total_tokens or 0),
        {
            name: None if answered and amount is None else float(amount or 0)
            for name, amount in amounts.items()
        },
        outcome.latency_ms if asked else None,
        float(outcome.prompt_tokens or 0),
    )
