"""What a plan says, for programs and for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from enrich.base.words import counted, duration
from enrich.verbs.forecast import FEWEST_MEASURED, Estimate

if TYPE_CHECKING:
    from enrich.records import Trouble
    from enrich.runs.reasked import Reasked
    from enrich.verbs.cache_doctor import PrefixPlan


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What a run would do at one step. Requests are distinct ones.

    Attributes:
        skipped: rows for which `when` is false, or that miss a value they may miss.
        failing: rows that cannot be rendered.
        in_ledger: requests that are settled already.
        to_ask: requests that would be sent.
        copies: rows with the same request as an earlier one; they cost nothing.
        waiting: rows whose request cannot be known before an earlier step is answered.
        votes: answers at most of each row; the other figures are of first answers.
        models: that a row may be asked, one after the other; likewise.
    """

    name: str
    skipped: int
    failing: int
    in_ledger: int
    to_ask: int
    copies: int
    waiting: int
    votes: int = 1
    models: int = 1


@dataclass(frozen=True, slots=True)
class JobPlan:
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
        assumed: whether ``seconds`` rests on how long answers usually take, for none was seen.
        why: why rows cannot be asked: step, code, rows, and one of them for example.
        changed: steps whose schema is another than in the last run: what that changes of a request is asked anew.
        reasked: rows that were answered before and would be asked again, and why.
        unchanged: whether job, input and ledger are as they were when nothing was left to ask: no row was looked at.
        over: what is over the budget, a sentence each.
        perhaps_over: what is over it at the upper end of the range.
        cached_tokens: those of ``tokens`` that would be read from a cache; None where answers do not tell.
        reasoning_tokens: those of ``tokens`` that would be thought and not said; likewise.
        credits_usd: what ``credits`` would be in US dollars; likewise.
        sampled_credits_usd: what the sample cost in US dollars.
        prefixes: how much of each step's requests an endpoint can read from its cache.
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
    assumed: bool = False
    why: tuple[Trouble, ...] = ()
    changed: tuple[str, ...] = ()
    reasked: Reasked | None = None
    unchanged: bool = False
    cached_tokens: Estimate | None = None
    reasoning_tokens: Estimate | None = None
    credits_usd: Estimate | None = None
    sampled_credits_usd: float = 0.0
    prefixes: tuple[PrefixPlan, ...] = ()

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
        if self.measured < FEWEST_MEASURED:
            return ": too few for more than a rough range"
        return "; the ranges hold in 99 of 100 cases" + ("" if self.drawn else ", if these are like the rest")

    def _time(self) -> str:
        assert self.seconds is not None  # noqa: S101  # the caller has looked
        if not self.assumed:
            return f"about {duration(self.seconds.likely)}, at {self.bound_by}"
        return f"{duration(self.seconds.low)} to {duration(self.seconds.high)}, at {self.bound_by}"

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
            "cached_tokens": _plain(self.cached_tokens),
            "reasoning_tokens": _plain(self.reasoning_tokens),
            "credits": _plain(self.credits),
            "credits_usd": _plain(self.credits_usd),
            "seconds": _plain(self.seconds),
            "bound_by": self.bound_by,
            "seconds_assumed": self.assumed,
            "measured_rows": self.measured,
            "drawn_at_random": self.drawn,
            "latency_ms": self.latency_ms,
            "sampled_requests": self.sampled,
            "sampled_credits": self.sampled_credits,
            "sampled_credits_usd": self.sampled_credits_usd,
            "over_budget": list(self.over),
            "perhaps_over_budget": list(self.perhaps_over),
            "cannot_be_asked": [trouble.to_dict() for trouble in self.why],
            "changed_schemas": list(self.changed),
            "unchanged": self.unchanged,
            "reasked": asdict(self.reasked) if self.reasked is not None else None,
            "steps": [asdict(step) for step in self.steps],
            "prefixes": [prefix.to_dict() for prefix in self.prefixes],
            "exit_code": self.exit_code,
        }

    def text(self, sampling: str = "--sample 50") -> str:
        """Write it for people; ``sampling`` is what they type to have rows measured."""
        lines = [f"rows        {self.rows:,}", *map(_step_line, self.steps)]
        lines += [
            f"cannot ask  {counted(trouble.rows, 'row')} at step {trouble.step}: {trouble.code}, first in row "
            f"{trouble.row:,}: {trouble.message}"
            for trouble in self.why
        ]
        lines += [
            f"schema      of step {name} has changed since the last run: what was answered under the old one is asked "
            f"anew; with `reuse: true` in the step, answers that conform to the new one are kept"
            for name in self.changed
        ]
        if self.reasked is not None:
            lines.append(f"asked again {self.reasked}")
        if self.sampled:
            cost = f" for {number(self.sampled_credits)} credits" if self.sampled_credits else ""
            lines.append(f"sampled     {counted(self.sampled, 'request')} asked just now{cost}")
        unknown = "not known before an answer was seen"
        lines.append(f"tokens      {_range(self.tokens, whole=True)}")
        lines.append(f"credits     {_range(self.credits) if self.credits is not None else unknown}")
        for name, kind in (("  cached", self.cached_tokens), ("  reasoning", self.reasoning_tokens)):
            if kind is not None and kind.high:
                lines.insert(-1, f"{name:11} {_range(kind, whole=True)}")
        if self.credits_usd is not None and self.credits_usd.high:
            lines.append(f"USD         {_range(self.credits_usd)}")
        if self.seconds is not None:
            lines.append(f"time        {self._time()}")
        if self.unchanged:
            lines.append("basis       job, input and ledger are as they were when the job was finished")
        elif self.measured:
            lines.append(f"basis       measured on {counted(self.measured, 'answered row')}{self._trust}")
        else:
            lines.append("basis       a guess from the size of the prompts")
        lines += [f"cache       {line}" for prefix in self.prefixes for line in prefix.lines()]
        lines += [f"over budget {text}" for text in self.over]
        lines += [f"perhaps     {text}" for text in self.perhaps_over]
        if not self.measured and self.to_ask:
            lines.append(f"Hint: {sampling} asks 50 rows and measures; their answers are kept.")
        return "\n".join(lines)


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return asdict(estimate) if estimate is not None else None


def _step_line(step: StepPlan) -> str:
    parts = [f"{counted(step.to_ask, 'request')} to ask", f"{step.in_ledger:,} in the ledger"]
    if step.votes > 1:
        parts.append(f"each up to {step.votes - 1} more for a vote")
    if step.models > 1:
        parts.append(f"each up to {step.models - 1} more where there is doubt")
    if step.copies:
        parts.append(f"{counted(step.copies, 'row')} a copy of another")
    if step.waiting:
        parts.append(f"up to {step.waiting:,} more after earlier answers")
    if step.skipped:
        parts.append(f"{counted(step.skipped, 'row')} skipped")
    if step.failing:
        parts.append(f"{counted(step.failing, 'row')} cannot be asked")
    return f"{step.name:11} {', '.join(parts)}"


def _range(estimate: Estimate, *, whole: bool = False) -> str:
    likely, low, high = (
        f"{value:,.0f}" if whole else number(value)
        for value in (estimate.likely, estimate.low, estimate.high)
    )
    return likely if low == high else f"{likely}  ({low} to {high})"


def number(value: float) -> str:
    """Write an amount with as many digits as it deserves."""
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.4g}"
