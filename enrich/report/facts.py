"""What a report shows, as frozen records: gathered once, then only rendered.

It is long because it is a list of them, each with what its fields are, and holds no behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enrich.ledger.protocol import RunInfo
    from enrich.measure.scores import Score


@dataclass(frozen=True, slots=True)
class Timeline:
    """A job in slices of equal length, without long times in which nothing was under way.

    Attributes:
        starts: wall-clock seconds since the epoch, of each slice.
        width: seconds of one slice.
        answers: answers per second, one number per slice.
        failures: failed attempts per second.
        in_flight: attempts under way, on average over the slice; of the attempts that were answered.
        credits: what all answers up to the slice's end cost.
        breaks: the places of slices before which time was left out.
    """

    starts: tuple[float, ...]
    width: float
    answers: tuple[float, ...]
    failures: tuple[float, ...]
    in_flight: tuple[float, ...]
    credits: tuple[float, ...]
    breaks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Latency:
    """How long answers took, in milliseconds.

    Attributes:
        edges: of the bars, one more than ``counts``; each a fixed ratio above the one before.
        counts: answers per bar.
        p50: half of the answers came within this time (within 1 %, as all percentiles here).
    """

    answers: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What one model served."""

    model: str
    answers: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    credits: float
    credits_usd: float


@dataclass(frozen=True, slots=True)
class WasteLine:
    """What some requests cost.

    Attributes:
        use: what became of their answers, in words.
    """

    use: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    credits: float


@dataclass(frozen=True, slots=True)
class CacheLine:
    """How much of the prompts of a step was read from a model's cache.

    Attributes:
        saved_usd: against reading all of it anew, where prices say; else None.
    """

    step: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    saved_usd: float | None

    @property
    def share(self) -> float:
        """Give the share of the prompts' tokens."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


@dataclass(frozen=True, slots=True)
class Waste:
    """What became of what a job's runs paid for, as far as they ended and said so.

    Attributes:
        lines: one for each use that there was; they add up to ``total``.
        duplicates: rows that were served by another row's answer of the same run, and what each would have cost.
        ledger: rows that were served by an answer of an earlier run, likewise.
        votes: requests that rows did not need, whose majority was certain before they had all their answers.
        cached_tokens: those of prompts that were read from a cache.
        cached_usd: what that saved in US dollars, where prices say; else None.
        caches: how much each step's models read, a line each.
        lost_attempts: attempts of unknown outcome.
        runs: how many said so.
    """

    lines: tuple[WasteLine, ...]
    total: WasteLine
    duplicates: WasteLine
    ledger: WasteLine
    votes: int
    cached_tokens: int
    cached_usd: float | None
    caches: tuple[CacheLine, ...]
    lost_attempts: int
    runs: int


@dataclass(frozen=True, slots=True)
class FailureCause:
    """One reason why attempts failed.

    Attributes:
        attempts: how many failed so.
        recovered: how many of them belong to a request that was answered in the end.
        message: of the first one.
        request_id: of the first one.
    """

    code: str
    attempts: int
    recovered: int
    status: int | None
    message: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Requests:
    """What the ledger tells of the requests that a report covers.

    Attributes:
        tries: requests by the number of attempts they took.
        elsewhere: answers of a pinned model's request that another model served.
    """

    requests: int
    attempts: int
    failed_attempts: int
    timeline: Timeline
    latency: Latency | None
    models: tuple[ModelUse, ...]
    causes: tuple[FailureCause, ...]
    tries: tuple[tuple[int, int], ...]
    elsewhere: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One question and its answer; texts are cut to a readable length.

    Attributes:
        row: the output's row, from 1; None when no output tells.
        parsed: column → value, as text.
        given: the row's own columns → value, as text.
        labels: its answers, as far as they are counted one by one: column and value.
    """

    row: int | None
    step: str
    status: str
    model: str
    key: bytes | None
    request_id: str
    tokens: int | None
    credits: float | None
    latency_ms: float | None
    answer: str
    parsed: tuple[tuple[str, str], ...] = ()
    prompt: str = ""
    given: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row without a usable answer.

    Attributes:
        key: of its request, if one was made.
        answer: what was answered all the same.
    """

    row: int | None
    step: str
    status: str
    code: str
    message: str
    request_id: str
    attempts: int
    key: bytes | None = None
    answer: str = ""
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How numbers are spread, in bars of equal width.

    Attributes:
        begin: of the first bar.
    """

    begin: float
    width: float
    counts: tuple[int, ...]
    least: float
    mean: float
    most: float


@dataclass(frozen=True, slots=True)
class Spread:
    """What a column of answers holds, over all rows that are ok.

    Attributes:
        total: those rows, copies of the same request included.
        asked: without the copies.
        values: how often each value stands there, the commonest first; empty where they are too many to tell apart.
        nulls: rows without a value.
        histogram: of the numbers, or of the texts' and lists' lengths, where there is no telling of each value.
        unit: of what the histogram shows lengths; empty for numbers.
    """

    column: str
    total: int
    asked: int
    values: tuple[tuple[str, int], ...]
    nulls: int = 0
    histogram: Histogram | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class StepCost:
    """What the answers of one model at one step cost, as they stand in the output.

    Attributes:
        rows: without copies of the same request.
    """

    model: str
    rows: int
    prompt_tokens: int
    completion_tokens: int
    credits: float


@dataclass(frozen=True, slots=True)
class Shift:
    """How often each label of a column came, before and after another model answered.

    Attributes:
        labels: value, rows before, rows after.
    """

    column: str
    labels: tuple[tuple[str, int, int], ...]

    def shares(self) -> list[tuple[str, float, float]]:
        """Give each label's share of the rows before, and of those after."""
        sums = [max(1, sum(counts[side] for _, *counts in self.labels)) for side in (0, 1)]
        return [(name, before / sums[0], after / sums[1]) for name, before, after in self.labels]


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What changed at a pinned step with the model, over all rows that are ok.

    Attributes:
        before: rows of the model that answered first.
        after: rows in whose answer another one had a part.
        models_before: that answered, the commonest first.
    """

    before: int
    after: int
    models_before: tuple[str, ...]
    models_after: tuple[str, ...]
    shifts: tuple[Shift, ...]


@dataclass(frozen=True, slots=True)
class StepRows:
    """How the rows stand at one step.

    Attributes:
        unknown_finish: rows that are ok although their finish reason is in no table, by that reason.
        change: what changed with the model, where the step is pinned and another one answered.
    """

    name: str
    statuses: tuple[tuple[str, int], ...]
    sources: tuple[tuple[str, int], ...]
    credits: float
    spreads: tuple[Spread, ...]
    unknown_finish: tuple[tuple[str, int], ...] = ()
    costs: tuple[StepCost, ...] = ()
    change: ModelChange | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """What the output's rows tell.

    Attributes:
        failure_codes: failed rows per code, the commonest first; `failures` shows some of each.
        costliest: by credits, the dearest first.
        failed: rows that failed at one step at least.
        skipped: rows that every step skipped.
    """

    count: int
    steps: tuple[StepRows, ...]
    failure_codes: tuple[tuple[str, int], ...]
    failures: tuple[FailedRow, ...]
    samples: tuple[Sample, ...]
    costliest: tuple[Sample, ...]
    failed: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class StepWords:
    """One step, as the configuration has it.

    Attributes:
        facts: name → what it says, in words.
        messages: role → template.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    messages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class JobWords:
    """The job, as the configuration has it now."""

    facts: tuple[tuple[str, str], ...]
    steps: tuple[StepWords, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should look at.

    Attributes:
        hint: what to do about it.
    """

    title: str
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything on the page.

    Attributes:
        last: the newest run that ended, as the ledger keeps it.
        summary: of that run, as ``--json`` prints it.
        runs: all runs of the job, the newest first.
        job: what was to be done.
        manifest: of the output; empty when there is none of this run.
        content: whether prompts and answers may be shown.
        gold: how the output's answers agree with values given by hand, per column.
        waste: what became of what was paid for; None where no run says.
    """

    last: RunInfo
    summary: dict[str, Any]
    output: str
    ledger: str
    runs: tuple[RunInfo, ...]
    job: JobWords
    manifest: dict[str, Any]
    rows: Rows
    requests: Requests
    findings: tuple[Finding, ...]
    content: bool
    gold: tuple[Score, ...] = ()
    waste: Waste | None = None
