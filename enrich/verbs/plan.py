"""What a run would do, and cost, before it does: counted over the input, measured on a sample, held to the budget."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
from bisect import bisect_left
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from enrich.base.location import is_url
from enrich.base.words import counted, duration
from enrich.pace.budget import BYTES_PER_TOKEN, FIRST_ANSWER, FIRST_GUESS
from enrich.pace.windows import request_windows, token_windows
from enrich.rows.flow import prefetched
from enrich.rows.statuses import Marks
from enrich.runs.fresh import scope_of
from enrich.runs.prepare import prepare
from enrich.runs.scratch import occurrences_of
from enrich.runs.session import open_session
from enrich.runs.summary import summarize
from enrich.verbs.census import Census, Unit
from enrich.verbs.forecast import FEWEST, Estimate, extrapolate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from enrich.config import BudgetConfig, Config, LimitsConfig
    from enrich.files.source import Source
    from enrich.records import Outcome
    from enrich.runs.job import Job
    from enrich.runs.options import RunOptions
    from enrich.runs.session import Session

FROM_LEDGER = 1_000  # answered rows that are measured when none is asked
FEWEST_BYTES_PER_TOKEN, MOST_BYTES_PER_TOKEN = (
    1.0,
    8.0,
)  # the range of the guess, before anything was measured


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What a run would do at one step. Requests are distinct ones.

    Attributes:
        skipped: rows for which `when` is false, or that miss a value they may miss.
        failing: rows that cannot be rendered.
        in_ledger: requests that are settled already.
        to_ask: requests that would be sent.
        waiting: rows whose request cannot be known before an earlier step is answered.
    """

    name: str
    skipped: int
    failing: int
    in_ledger: int
    to_ask: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What one row cost at one step.

    Attributes:
        size: bytes of its request; 0 when it asked nothing.
        credits: None when the answer named none.
        latency_ms: None when it asked nothing, or got no answer.
    """

    size: int
    tokens: float
    credits: float | None
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do and cost.

    Attributes:
        tokens: that the run would use.
        credits: that the run would be charged; None as long as no answer named a charge.
        seconds: that it would take; None without any limit or measurement.
        bound_by: the limit that makes it take so long.
        measured: rows that tokens, credits and seconds are extrapolated from; 0: they are guessed.
        drawn: whether these were drawn at random, not just those that happened to be answered.
        sampled: requests that were sent for this plan; they are paid for and part of no estimate.
        sampled_credits: what these cost.
        latency_ms: the mean, of the rows measured.
        over: what is over the budget, a sentence each.
        perhaps_over: what is over it at the upper end of the range.
    """

    rows: int
    steps: tuple[StepPlan, ...]
    tokens: Estimate
    credits: Estimate | None
    seconds: Estimate | None
    bound_by: str
    measured: int
    drawn: bool
    sampled: int
    sampled_credits: float
    latency_ms: float | None
    over: tuple[str, ...]
    perhaps_over: tuple[str, ...]

    @property
    def in_ledger(self) -> int:
        """Give the distinct requests that are settled already."""
        return sum(step.in_ledger for step in self.steps)

    @property
    def to_ask(self) -> int:
        """Give the distinct requests that would be sent now; more may follow from the answers of earlier steps."""
        return sum(step.to_ask for step in self.steps)

    @property
    def exit_code(self) -> int:
        """Give 4 when the budget would be spent before the end."""
        return 4 if self.over else 0

    @property
    def _trust(self) -> str:
        if self.measured < FEWEST:
            return ": too few for more than a rough range"
        return "; the ranges hold in 99 of 100 cases" + ("" if self.drawn else ", if these are like the rest")

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "rows": self.rows,
            "skipped": sum(step.skipped for step in self.steps),
            "failing": sum(step.failing for step in self.steps),
            "requests": self.in_ledger + self.to_ask,
            "in_ledger": self.in_ledger,
            "to_ask": self.to_ask,
            "waiting": sum(step.waiting for step in self.steps),
            "tokens": asdict(self.tokens),
            "credits": asdict(self.credits) if self.credits is not None else None,
            "seconds": asdict(self.seconds) if self.seconds is not None else None,
            "bound_by": self.bound_by,
            "measured_rows": self.measured,
            "drawn_at_random": self.drawn,
            "latency_ms": self.latency_ms,
            "sampled_requests": self.sampled,
            "sampled_credits": self.sampled_credits,
            "over_budget": list(self.over),
            "perhaps_over_budget": list(self.perhaps_over),
            "steps": [asdict(step) for step in self.steps],
            "exit_code": self.exit_code,
        }

    def text(self) -> str:
        """Write it for people."""
        lines = [f"rows        {self.rows:,}", *map(_step_line, self.steps)]
        if self.sampled:
            cost = f" for {_number(self.sampled_credits)} credits" if self.sampled_credits else ""
            lines.append(f"sampled     {counted(self.sampled, 'request')} asked just now{cost}")
        unknown = "not known before an answer was seen"
        lines.append(f"tokens      {_range(self.tokens, whole=True)}")
        lines.append(f"credits     {_range(self.credits) if self.credits is not None else unknown}")
        if self.seconds is not None:
            lines.append(f"time        about {duration(self.seconds.likely)}, at {self.bound_by}")
        if self.measured:
            lines.append(f"basis       measured on {counted(self.measured, 'answered row')}{self._trust}")
        else:
            lines.append("basis       a guess from the size of the prompts")
        lines += [f"over budget {text}" for text in self.over]
        lines += [f"perhaps     {text}" for text in self.perhaps_over]
        if not self.measured and self.to_ask:
            lines.append("Hint: --sample 50 asks 50 rows and measures; their answers are kept.")
        return "\n".join(lines)


async def plan_job(config: Config, options: RunOptions, *, sample: int = 0, seed: int = 0) -> Plan:
    """Count what a run would send and estimate what it would cost.

    Args:
        config: the job.
        options: as for a run.
        sample: rows that are really asked and measured. Their answers are kept: what was asked for an earlier plan
            or run is not asked again.
        seed: chooses the sample; the same seed chooses the same rows.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
        RunStopped, RunInterrupted: the sample could not be asked to its end; what was answered is kept.
    """
    source, job = await prepare(config, options, send=bool(sample))
    survey = _Survey(config, source, job, options, seed)
    steps, chosen = await survey.count(sample or FROM_LEDGER, known_only=not sample)
    spent = await survey.ask(chosen) if sample else Spent(0, 0, 0.0)
    if spent.attempts:
        steps, chosen = await survey.count(sample, known_only=True)
    measured = await survey.measure(chosen)
    return _plan(config, source.num_rows, steps, measured, spent, drawn=bool(sample))


class Spent(NamedTuple):
    """What the sample cost."""

    attempts: int
    requests: int
    credits: float


class _Counted(NamedTuple):
    """A step's plan with the bytes that are to be sent, and the longest answer its requests allow."""

    plan: StepPlan
    size: int
    max_tokens: int | None


def _near(config: Config) -> Path:
    """Give a file beside which a plan may keep what it needs: the output, or the ledger of an output that is a URL."""
    if not is_url(config.output.path):
        return Path(config.output.path)
    ledger = config.ledger_location()
    return Path(tempfile.gettempdir(), "plan") if is_url(ledger) else Path(ledger)


class _Survey:
    """Looks at a job's rows: all of them without asking, or chosen ones."""

    def __init__(self, config: Config, source: Source, job: Job, options: RunOptions, seed: int) -> None:
        self._config = config
        self._source = source
        self._job = job
        self._options = options
        self._seed = seed
        self._scratch = next(folder for folder in _near(config).absolute().parents if folder.is_dir())

    async def count(self, size: int, *, known_only: bool) -> tuple[list[_Counted], list[Unit]]:
        """Go through all rows without asking; gives what is to be done per step, and a sample of rows."""
        rows, steps = self._source.num_rows, len(self._job.steps)
        with (
            Marks(rows, steps, self._scratch, keep=False) as marks,
            Census(rows, steps, seed=self._seed, directory=self._scratch) as census,
            occurrences_of(self._config) as occurrences,
        ):
            async with self._session(send=False) as session:
                flow = session.flow(marks, occurrences, census)
                self._options.progress.asking(rows, flow, None)
                batches = prefetched(self._source.batches(columns=self._job.columns))
                async with contextlib.aclosing(batches):
                    await flow.run(_until(batches, self._options), most=0)
            return await asyncio.to_thread(self._counted, marks, census, size, known_only=known_only)

    def _counted(
        self, marks: Marks, census: Census, size: int, *, known_only: bool
    ) -> tuple[list[_Counted], list[Unit]]:
        marks.find_copies()
        steps = []
        for number, (step, count) in enumerate(zip(self._job.steps, census.counts(marks), strict=True)):
            reasons = marks.reasons(number)
            plan = StepPlan(
                step.name, reasons["skipped"], reasons["error"], count.known, count.left, count.waiting
            )
            limit = step.builder.step.max_completion_tokens or step.builder.step.max_tokens
            steps.append(_Counted(plan, count.size, limit if isinstance(limit, int) else None))
        return steps, census.sample(marks, size, known_only=known_only)

    async def ask(self, units: Sequence[Unit]) -> Spent:
        """Ask what is not answered yet about these rows."""
        if not units:
            return Spent(0, 0, 0.0)
        batch = await asyncio.to_thread(self._rows_of, units)
        with Marks(len(units), len(self._job.steps), self._scratch) as marks:
            async with self._session(send=True) as session:
                flow = session.flow(marks)
                self._options.progress.asking(len(units), flow, session.engine)
                await flow.run(_one(batch), most=len(units))
                summary = summarize(session, flow.tally, 0, f"{len(units):,} rows sampled for a plan")
                await session.ledger.close_run(summary.to_dict())
                return Spent(summary.attempts, summary.requests, summary.credits)

    async def measure(self, units: Sequence[Unit]) -> list[list[Measured]]:
        """Read what these rows cost, per step; a row that is pending at a step is left out there."""
        found: list[list[Measured]] = [[] for _ in self._job.steps]
        if not units:
            return found
        batch = await asyncio.to_thread(self._rows_of, units)
        with Marks(len(units), len(self._job.steps), self._scratch) as marks:
            async with self._session(send=False) as session:
                await session.flow(marks).run(_one(batch), most=0)
                await asyncio.to_thread(marks.find_copies)
                for number, step in enumerate(self._job.steps):
                    outcomes = await session.assembler(marks).outcomes(number, step, 0, len(units))
                    found[number] = [
                        _measured(unit.sizes[number], outcome)
                        for unit, outcome in zip(units, outcomes, strict=True)
                        if outcome.status != "pending"
                    ]
        return found

    def _session(self, *, send: bool) -> contextlib.AbstractAsyncContextManager[Session]:
        options = self._options
        scope = scope_of(self._config.input, options.limit)
        return open_session(
            self._job, send=send, scope=scope, interrupt=options.interrupt, clock=options.clock
        )

    def _rows_of(self, units: Sequence[Unit]) -> pa.RecordBatch:
        """Read chosen rows, which are in input order."""
        if not self._job.columns:  # a prompt that is the same for all rows
            return next(self._source.batches(columns=[])).slice(0, len(units))
        wanted = [unit.row for unit in units]
        parts: list[pa.RecordBatch] = []
        start = 0
        for batch in self._source.batches(columns=self._job.columns):
            end = start + batch.num_rows
            low, high = bisect_left(wanted, start), bisect_left(wanted, end)
            if low < high:
                parts.append(batch.take(pa.array([row - start for row in wanted[low:high]], pa.int64())))
            if high == len(wanted):
                break
            start = end
        return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


async def _until(
    batches: AsyncIterator[pa.RecordBatch], options: RunOptions
) -> AsyncIterator[pa.RecordBatch]:
    """Give batches until the run is interrupted."""
    async for batch in batches:
        options.interrupt.check()
        yield batch


async def _one(batch: pa.RecordBatch) -> AsyncIterator[pa.RecordBatch]:
    yield batch


def _measured(size: int, outcome: Outcome) -> Measured:
    asked = outcome.key is not None and outcome.source != "copy"
    unpriced = outcome.source is not None and outcome.credits is None
    return Measured(
        size if asked else 0,
        float(outcome.total_tokens or 0),
        None if unpriced else outcome.credits or 0.0,
        outcome.latency_ms if asked else None,
    )


# --- from counts and measurements to estimates -------------------------------------------------------------


def _plan(
    config: Config,
    rows: int,
    steps: Sequence[_Counted],
    measured: Sequence[Sequence[Measured]],
    spent: Spent,
    *,
    drawn: bool,
) -> Plan:
    tokens = Estimate(0.0, 0.0, 0.0)
    credits_: Estimate | None = Estimate(0.0, 0.0, 0.0)
    size = sum(step.size for step in steps) / max(1, sum(step.plan.to_ask for step in steps))
    for step, seen in zip(steps, measured, strict=True):
        step_tokens = _extrapolated(step, [(m.size, m.tokens) for m in seen])
        tokens = tokens.plus(step_tokens or _guessed(step, size))
        prices = [(m.size, m.credits) for m in seen if m.credits is not None]
        step_credits = _extrapolated(step, prices) if len(prices) == len(seen) else None
        credits_ = credits_.plus(step_credits) if credits_ is not None and step_credits is not None else None
    latencies = [m.latency_ms for seen in measured for m in seen if m.latency_ms is not None]
    latency = statistics.fmean(latencies) if latencies else None
    plans = tuple(step.plan for step in steps)
    seconds, bound_by = _seconds(config.limits, plans, tokens, latency)
    over, perhaps = _over(config.budget, plans, tokens, credits_)
    return Plan(
        rows,
        plans,
        tokens,
        credits_,
        seconds,
        bound_by,
        max((sum(m.latency_ms is not None for m in seen) for seen in measured), default=0),
        drawn,
        spent.requests,
        spent.credits,
        latency,
        over,
        perhaps,
    )


def _extrapolated(step: _Counted, seen: Sequence[tuple[int, float]]) -> Estimate | None:
    """Estimate one step from rows that are measured; None when there is something to estimate, but no such row.

    Requests that are known are estimated from rows that asked; rows that wait for an earlier step from all rows,
    for some of them will ask nothing.
    """
    asked = [(size, cost) for size, cost in seen if size]
    if (step.plan.to_ask and not asked) or (step.plan.waiting and not seen):
        return None
    known = extrapolate(*_columns(asked), count=step.plan.to_ask, size=step.size)
    flat = [(1, cost) for _, cost in seen]
    return known.plus(extrapolate(*_columns(flat), count=step.plan.waiting, size=step.plan.waiting))


def _columns(pairs: Sequence[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [float(size) for size, _ in pairs], [cost for _, cost in pairs]


def _guessed(step: _Counted, mean_size: float) -> Estimate:
    """Guess a step's tokens from bytes alone; requests that are not known yet count as the mean of the others."""
    requests = step.plan.to_ask + step.plan.waiting
    size = step.size + step.plan.waiting * mean_size
    longest = step.max_tokens or FIRST_ANSWER
    return Estimate(
        size / BYTES_PER_TOKEN + requests * min(longest, FIRST_GUESS),
        step.size / MOST_BYTES_PER_TOKEN + step.plan.to_ask,
        size / FEWEST_BYTES_PER_TOKEN + requests * longest,
    )


def _seconds(
    limits: LimitsConfig, steps: Sequence[StepPlan], tokens: Estimate, latency: float | None
) -> tuple[Estimate | None, str]:
    """Give the time at the limit that takes longest, and its name."""
    requests = sum(step.to_ask + step.waiting for step in steps)
    fewest = sum(step.to_ask for step in steps)
    found = [
        (Estimate(requests / rate, fewest / rate, requests / rate), f"{rate * 60:,.4g} requests a minute")
        for rate in (window.amount / window.seconds for window in request_windows(limits))
    ]
    for window in token_windows(limits):
        rate = window.amount / window.seconds
        times = Estimate(tokens.likely / rate, tokens.low / rate, tokens.high / rate)
        found.append((times, f"{rate * 60:,.4g} tokens a minute"))
    if latency is not None:
        each = latency / 1000 / limits.concurrency
        times = Estimate(requests * each, fewest * each, requests * each)
        found.append((times, f"{limits.concurrency:,} in flight, {latency:,.0f} ms each"))
    if not found or not requests:
        return None, ""
    return max(found, key=lambda item: item[0].likely)


def _over(
    budget: BudgetConfig, steps: Sequence[StepPlan], tokens: Estimate, credits_: Estimate | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compare with the budget: what is over it, and what is at the upper end of its range."""
    over: list[str] = []
    perhaps: list[str] = []
    fewest = sum(step.to_ask for step in steps)
    most = fewest + sum(step.waiting for step in steps)
    requests = Estimate(float(fewest), float(fewest), float(most))
    for name, limit, estimate in (
        ("requests", budget.requests, requests),
        ("tokens", budget.tokens, tokens),
        ("credits", budget.credits, credits_),
    ):
        if limit is None:
            continue
        if estimate is None:
            perhaps.append(f"the budget of {limit:,} credits: no price is known yet")
        elif estimate.likely > limit:
            over.append(
                f"the budget is {limit:,} {name}; the run would take about {_number(estimate.likely)}"
            )
        elif estimate.high > limit:
            perhaps.append(f"the budget is {limit:,} {name}; the run may take up to {_number(estimate.high)}")
    return tuple(over), tuple(perhaps)


# --- words -----------------------------------------------------------------------------------------------


def _step_line(step: StepPlan) -> str:
    parts = [f"{counted(step.to_ask, 'request')} to ask", f"{step.in_ledger:,} in the ledger"]
    if step.waiting:
        parts.append(f"up to {step.waiting:,} more after earlier answers")
    if step.skipped:
        parts.append(f"{counted(step.skipped, 'row')} skipped")
    if step.failing:
        parts.append(f"{counted(step.failing, 'row')} cannot be asked")
    return f"{step.name:11} {', '.join(parts)}"


def _range(estimate: Estimate, *, whole: bool = False) -> str:
    likely, low, high = (
        f"{value:,.0f}" if whole else _number(value)
        for value in (estimate.likely, estimate.low, estimate.high)
    )
    return likely if low == high else f"{likely}  ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.4g}"
