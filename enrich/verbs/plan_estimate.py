"""From counts and measurements to what a run would cost and how long it would take. Pure functions."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from enrich.config.limits import UNTOLD
from enrich.pace.budget import BYTES_PER_TOKEN, FIRST_GUESS
from enrich.pace.windows import request_windows, token_windows
from enrich.verbs.forecast import Estimate, extrapolate
from enrich.verbs.plan_result import JobPlan, StepPlan, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import BudgetConfig, JobConfig, LimitsConfig
    from enrich.records import Trouble


# The range of the guess before anything was measured: dense scripts in UTF-8 at one end, plain English at the other.
FEWEST_BYTES_PER_TOKEN, MOST_BYTES_PER_TOKEN = 2.0, 5.0
LONGEST_GUESS = 1_024  # tokens of an answer at the upper end, where no limit is set


FURTHER = (
    "cached_tokens",
    "reasoning_tokens",
    "credits",
    "credits_usd",
)  # amounts that not every answer names
USUAL_LATENCIES = (0.5, 2.0, 8.0)  # seconds of an answer: quick, usual, slow; before any was seen


@dataclass(frozen=True, slots=True)
class Measured:
    """What one row cost at one step.

    Attributes:
        size: bytes of its request; 0 when it asked nothing.
        tokens: in all.
        named: what else the answer names, of `FURTHER`; None for what it does not name.
        latency_ms: None when it asked nothing, or got no answer.
        prompt_tokens: of its request.
    """

    size: int
    tokens: float
    named: dict[str, float | None]
    latency_ms: float | None
    prompt_tokens: float = 0.0


class Spent(NamedTuple):
    """What the sample cost."""

    attempts: int
    requests: int
    credits: float
    credits_usd: float = 0.0
    rate: float | None = None  # requests per second, where the sample met the endpoint's limit


class Counted(NamedTuple):
    """A step's plan with the bytes that are to be sent, and the longest answer its requests allow."""

    plan: StepPlan
    size: int
    max_tokens: int | None


def estimated(
    config: JobConfig,
    rows: int,
    steps: Sequence[Counted],
    measured: Sequence[Sequence[Measured]],
    spent: Spent,
    *,
    drawn: bool,
    rate: float | None = None,
    why: tuple[Trouble, ...] = (),
    changed: tuple[str, ...] = (),
) -> JobPlan:
    """Put a plan together from what was counted and measured.

    Args:
        config: the job.
        rows: that the input has.
        steps: what was counted, per step.
        measured: what some rows cost, per step.
        spent: what the sample cost.
        drawn: whether the measured rows were drawn at random.
        rate: requests per second that the endpoint lets through, where an earlier run learned it.
        why: why rows cannot be asked.
        changed: steps whose schema has changed.
    """
    tokens = Estimate(0.0, 0.0, 0.0)
    size = sum(step.size for step in steps) / max(1, sum(step.plan.to_ask for step in steps))
    for step, seen in zip(steps, measured, strict=True):
        step_tokens = _extrapolated(step, [(m.size, m.tokens) for m in seen])
        tokens = tokens.plus(step_tokens or _guessed(step, size))
    named = {name: _named(name, steps, measured) for name in FURTHER}
    latencies = [m.latency_ms for seen in measured for m in seen if m.latency_ms is not None]
    latency = statistics.fmean(latencies) if latencies else None
    plans = tuple(step.plan for step in steps)
    seconds, bound_by = _seconds(config.limits, plans, tokens, latency, spent.rate or rate)
    assumed = seconds is None and any(plan.to_ask + plan.waiting for plan in plans)
    if assumed:
        seconds, bound_by = _assumed(config.limits, plans)
    over, perhaps = _over(config.budget, plans, tokens, named["credits"])
    return JobPlan(
        rows,
        plans,
        tokens,
        named["credits"],
        seconds,
        bound_by,
        max((sum(m.latency_ms is not None for m in seen) for seen in measured), default=0),
        drawn,
        spent.requests,
        spent.credits,
        latency,
        over,
        perhaps,
        assumed,
        why,
        changed,
        cached_tokens=named["cached_tokens"],
        reasoning_tokens=named["reasoning_tokens"],
        credits_usd=named["credits_usd"],
        sampled_credits_usd=spent.credits_usd,
    )


def _named(name: str, steps: Sequence[Counted], measured: Sequence[Sequence[Measured]]) -> Estimate | None:
    """Estimate what answers name over all steps; None where some of the measured rows do not name it."""
    whole = Estimate(0.0, 0.0, 0.0)
    for step, seen in zip(steps, measured, strict=True):
        amounts = [(m.size, amount) for m in seen if (amount := m.named[name]) is not None]
        of_step = _extrapolated(step, amounts) if len(amounts) == len(seen) else None
        if of_step is None:
            return None
        whole = whole.plus(of_step)
    return whole


def _extrapolated(step: Counted, seen: Sequence[tuple[int, float]]) -> Estimate | None:
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


def _guessed(step: Counted, mean_size: float) -> Estimate:
    """Guess a step's tokens from bytes alone; requests that are not known yet count as the mean of the others."""
    requests = step.plan.to_ask + step.plan.waiting
    size = step.size + step.plan.waiting * mean_size
    longest = step.max_tokens or LONGEST_GUESS
    return Estimate(
        size / BYTES_PER_TOKEN + requests * min(longest, FIRST_GUESS),
        step.size / MOST_BYTES_PER_TOKEN + step.plan.to_ask,
        size / FEWEST_BYTES_PER_TOKEN + requests * longest,
    )


def _seconds(
    limits: LimitsConfig,
    steps: Sequence[StepPlan],
    tokens: Estimate,
    latency: float | None,
    rate: float | None,
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
        most = limits.concurrency or UNTOLD
        each = latency / 1000 / most
        times = Estimate(requests * each, fewest * each, requests * each)
        found.append((times, f"{most:,} in flight, {latency:,.0f} ms each"))
    if rate:
        times = Estimate(requests / rate, fewest / rate, requests / rate)
        found.append((times, f"the endpoint's own limit, about {rate * 60:,.3g} requests a minute"))
    if not found or not requests:
        return None, ""
    return max(found, key=lambda item: item[0].likely)


def _assumed(limits: LimitsConfig, steps: Sequence[StepPlan]) -> tuple[Estimate, str]:
    """Give the time that it takes if answers take as long as they usually do."""
    rounds = max(1.0, sum(step.to_ask + step.waiting for step in steps) / (limits.concurrency or UNTOLD))
    quick, usual, slow = USUAL_LATENCIES
    how = f"{quick:g} to {slow:g} s an answer and up to {limits.concurrency or UNTOLD:,} in flight"
    return Estimate(rounds * usual, rounds * quick, rounds * slow), how


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
            over.append(f"the budget is {limit:,} {name}; the run would take about {number(estimate.likely)}")
        elif estimate.high > limit:
            perhaps.append(f"the budget is {limit:,} {name}; the run may take up to {number(estimate.high)}")
    return tuple(over), tuple(perhaps)
