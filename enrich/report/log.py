"""Read a report's requests from the ledger: one pass, in memory that does not grow with it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from enrich.records import UsageSum
from enrich.report.facts import FailedRow, FailureCause, Latency, ModelUse, Requests, Sample, Timeline
from enrich.report.texts import ANSWER_CHARACTERS, PROMPT_CHARACTERS, cut, split_error
from enrich.wire.completion import completion_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from enrich.ledger.protocol import Entry, FailedAttempt, Ledger
    from enrich.records import Completion

    Times = npt.NDArray[np.float64]

MAX_SLICES = 240  # of a timeline; more than a screen shows
# seconds of one slice, to choose from
WIDTHS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 10_800, 21_600, 86_400)
RATIO = 1.02  # between the edges of two latency buckets: percentiles are within 1 %
LAST_BUCKET = 86_400_000.0  # milliseconds; the last bucket
BUCKETS = math.ceil(math.log(LAST_BUCKET) / math.log(RATIO))
MAX_BARS = 40  # of the latency chart
STANDINS = 100  # requests that stand in for sample rows when there is no output
STANDIN_FAILURES = 300  # requests that stand in for failed rows


@dataclass(frozen=True, slots=True)
class Log:
    """What one pass over the ledger gives.

    Attributes:
        prompts: of the keys that were asked for.
        failures: failed requests, in place of rows.
        samples: answered requests, in place of rows.
    """

    requests: Requests
    prompts: dict[bytes, str]
    failures: tuple[FailedRow, ...]
    samples: tuple[Sample, ...]


async def read_log(
    ledger: Ledger, *, run: int | None, begin: float, end: float, wanted: Collection[bytes]
) -> Log:
    """Read the requests that a run sent.

    Args:
        ledger: read as a whole, once.
        run: its number; None means all runs.
        begin: wall-clock seconds since the epoch; the first request's time counts instead when ``run`` is None.
        end: when the run ended.
        wanted: the keys whose prompts are to be shown.
    """
    tally: _Tally | None = None
    prompts: dict[bytes, str] = {}
    async for entries in ledger.scan():
        for entry in entries:
            if entry.ask.key in wanted:
                prompts[entry.ask.key] = prompt_text(entry.ask.body)
        if tally is None:
            tally = _Tally(_Slices(entries[0].record.sent_at if run is None else begin, end))
        tally.add([entry for entry in entries if run is None or entry.record.run == run])
    tally = tally or _Tally(_Slices(begin, end))
    return Log(tally.requests(), prompts, tuple(tally.failures), tuple(tally.samples))


# --- over time, and how long ----------------------------------------------------------------------------


class _Slices:
    """Counts events per slice, and how many attempts were under way, from begins and ends alone.

    The integral of what is under way up to an edge is Σ(edge - begin) - Σ(edge - end) over what lies before the
    edge: two sums per edge are all that is kept.
    """

    def __init__(self, begin: float, end: float) -> None:
        span = max(end - begin, WIDTHS[0])
        self._width = next((w for w in WIDTHS if span / w <= MAX_SLICES), span / MAX_SLICES)
        self._begin = begin
        self._count = math.ceil(span / self._width)
        self._answers = np.zeros(self._count)
        self._failures = np.zeros(self._count)
        self._begun = np.zeros(self._count + 1)  # attempts begun less attempts ended, before the edge
        self._weight = np.zeros(self._count + 1)  # the sum of their times, the same way

    def add(self, ends: Times, seconds: Times, failed: Times) -> None:
        """Add answered attempts by their end and length, and failed ones by their time."""
        self._answers += self._per_slice(ends)
        self._failures += self._per_slice(failed)
        self._edge(ends - seconds, +1)
        self._edge(ends, -1)

    def _per_slice(self, times: Times) -> Any:
        index = np.clip((times - self._begin) // self._width, 0, self._count - 1).astype(np.int64)
        return np.bincount(index, minlength=self._count)

    def _edge(self, times: Times, sign: int) -> None:
        since = np.clip(times - self._begin, 0, self._count * self._width)
        index = np.ceil(since / self._width).astype(np.int64)
        self._begun += sign * np.bincount(index, minlength=self._count + 1)
        self._weight += sign * np.bincount(index, weights=since, minlength=self._count + 1)

    def timeline(self) -> Timeline:
        """Give everything per second, and the mean of what was under way."""
        edges = np.arange(self._count + 1) * self._width
        integral = np.cumsum(self._begun) * edges - np.cumsum(self._weight)
        under_way = np.maximum(np.diff(integral) / self._width, 0)
        return Timeline(
            self._begin,
            self._width,
            _rounded(self._answers / self._width),
            _rounded(self._failures / self._width),
            _rounded(under_way),
        )


def _rounded(values: Times) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in values)


class _Latencies:
    """A histogram whose buckets grow by a fixed ratio."""

    def __init__(self) -> None:
        self._buckets = np.zeros(BUCKETS + 1, np.int64)
        self._longest = 0.0

    def add(self, milliseconds: Times) -> None:
        """Add answers."""
        if not milliseconds.size:
            return
        index = np.log(np.clip(milliseconds, 1, LAST_BUCKET)) // math.log(RATIO)
        self._buckets += np.bincount(index.astype(np.int64), minlength=BUCKETS + 1)
        self._longest = max(self._longest, float(milliseconds.max()))

    def latency(self) -> Latency | None:
        """Give percentiles and the chart's bars; None without answers."""
        total = int(self._buckets.sum())
        if not total:
            return None
        used = np.flatnonzero(self._buckets)
        first, last = int(used[0]), int(used[-1]) + 1
        step = max(1, math.ceil((last - first) / MAX_BARS))
        starts = range(first, last, step)
        edges = [RATIO**bucket for bucket in (*starts, starts[-1] + step)]
        return Latency(
            answers=total,
            edges=tuple(round(edge, 2) for edge in edges),
            counts=tuple(int(self._buckets[start : start + step].sum()) for start in starts),
            p50=self._percentile(total, 0.50),
            p95=self._percentile(total, 0.95),
            p99=self._percentile(total, 0.99),
            longest=round(self._longest, 1),
        )

    def _percentile(self, total: int, share: float) -> float:
        bucket = int(np.searchsorted(np.cumsum(self._buckets), math.ceil(share * total)))
        return round(min(math.pow(RATIO, bucket + 0.5), self._longest), 1)


# --- adding up -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Use(UsageSum):
    answers: int = 0


@dataclass(slots=True)
class _Reason:
    first: FailedAttempt
    attempts: int = 0
    recovered: int = 0


@dataclass(slots=True)
class _Tally:
    """Adds requests up."""

    slices: _Slices
    latencies: _Latencies = field(default_factory=_Latencies)
    uses: dict[str, _Use] = field(default_factory=dict)
    reasons: dict[str, _Reason] = field(default_factory=dict)
    tries: Counter[int] = field(default_factory=Counter)
    elsewhere: int = 0
    failures: list[FailedRow] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def add(self, entries: Sequence[Entry]) -> None:
        ends, took, failed = [], [], []
        for entry in entries:
            self.tries[entry.record.attempts] += 1
            failed += [attempt.at for attempt in entry.failures]
            self._add_failures(entry)
            reply = entry.record.reply
            if reply is not None and entry.received_at is not None:
                ends.append(entry.received_at)
                took.append(reply.latency_ms)
            self._add_result(entry)
        latency = np.array(took, np.float64)
        self.latencies.add(latency)
        self.slices.add(np.array(ends, np.float64), latency / 1_000, np.array(failed, np.float64))

    def _add_failures(self, entry: Entry) -> None:
        for attempt in entry.failures:
            reason = self.reasons.setdefault(attempt.failure.code, _Reason(attempt))
            reason.attempts += 1
            reason.recovered += entry.record.state == "answered"

    def _add_result(self, entry: Entry) -> None:
        record = entry.record
        result = completion_of(record)
        if result is not None:
            served = result.model or record.model
            self.elsewhere += record.model not in ("auto", served)
            use = self.uses.setdefault(served, _Use())
            use.answers += 1
            use.add(result.usage)
            if len(self.samples) < STANDINS:
                self.samples.append(_sample(entry, result))
        elif (record.state == "failed" or record.in_doubt) and len(self.failures) < STANDIN_FAILURES:
            self.failures.append(_failed_row(entry))

    def requests(self) -> Requests:
        uses = sorted(self.uses.items(), key=lambda item: -item[1].answers)
        reasons = sorted(self.reasons.items(), key=lambda item: -item[1].attempts)
        return Requests(
            requests=self.tries.total(),
            attempts=sum(tries * count for tries, count in self.tries.items()),
            failed_attempts=sum(reason.attempts for reason in self.reasons.values()),
            timeline=self.slices.timeline(),
            latency=self.latencies.latency(),
            models=tuple(ModelUse(model=model, answers=use.answers, **use.amounts()) for model, use in uses),
            causes=tuple(_cause(code, reason) for code, reason in reasons),
            tries=tuple(sorted(self.tries.items())),
            elsewhere=self.elsewhere,
        )


def _cause(code: str, reason: _Reason) -> FailureCause:
    failure = reason.first.failure
    return FailureCause(
        code,
        reason.attempts,
        reason.recovered,
        failure.status,
        cut(failure.message, 200),
        failure.request_id or reason.first.attempt_id,
    )


def _sample(entry: Entry, completion: Completion) -> Sample:
    reply = entry.record.reply
    return Sample(
        row=None,
        step="",
        status="answered",
        model=completion.model or entry.record.model,
        key=entry.ask.key,
        request_id=(reply.request_id if reply is not None else None) or "",
        tokens=completion.usage.total_tokens,
        credits=completion.usage.credits,
        latency_ms=reply.latency_ms if reply is not None else None,
        answer=cut(completion.text or "", ANSWER_CHARACTERS),
        prompt=prompt_text(entry.ask.body),
    )


def _failed_row(entry: Entry) -> FailedRow:
    record = entry.record
    code, message = split_error(str(record.failure) if record.failure is not None else "")
    status = "in_doubt" if record.in_doubt else "error"
    last = entry.failures[-1].attempt_id if entry.failures else ""
    request_id = (record.failure.request_id if record.failure is not None else None) or last
    return FailedRow(None, "", status, code or status, message, request_id, record.attempts)


def prompt_text(body: bytes) -> str:
    """Give a request's messages as text, each under its role; cut to a readable length."""
    try:
        messages: Any = orjson.loads(body).get("messages", [])
        texts = [f"{message['role']}: {message['content']}" for message in messages]
    except (ValueError, AttributeError, KeyError, TypeError):
        return ""  # a damaged body; the ledger counts it
    return cut("\n\n".join(texts), PROMPT_CHARACTERS)
