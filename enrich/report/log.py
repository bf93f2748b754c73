"""Read a report's requests from the ledger: one pass, in memory that does not grow with it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from enrich.records import UsageSum
from enrich.report.facts import FailedRow, FailureCause, Latency, ModelUse, Requests, Sample
from enrich.report.texts import ANSWER_CHARACTERS, FAILED_CHARACTERS, PROMPT_CHARACTERS, cut, split_error
from enrich.report.timeline import Slices
from enrich.wire.completion import completion_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from enrich.ledger.protocol import Entry, FailedAttempt, Ledger
    from enrich.records import Completion

    Times = npt.NDArray[np.float64]

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


async def read_log(ledger: Ledger, *, others: Collection[int] = (), wanted: Collection[bytes] = ()) -> Log:
    """Read the requests that a job's runs sent.

    Args:
        ledger: read as a whole, once.
        others: the numbers of runs of other jobs that share the ledger.
        wanted: the keys whose prompts are to be shown, whichever run sent them.
    """
    tally = _Tally()
    prompts: dict[bytes, str] = {}
    async for entries in ledger.scan():
        for entry in entries:
            if entry.ask.key in wanted:
                prompts[entry.ask.key] = prompt_text(entry.ask.body)
        tally.add([entry for entry in entries if entry.record.run not in others])
    return Log(tally.requests(), prompts, tuple(tally.failures), tuple(tally.samples))


# --- how long -------------------------------------------------------------------------------------------


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

    slices: Slices = field(default_factory=Slices)
    latencies: _Latencies = field(default_factory=_Latencies)
    uses: dict[str, _Use] = field(default_factory=dict)
    reasons: dict[str, _Reason] = field(default_factory=dict)
    tries: Counter[int] = field(default_factory=Counter)
    elsewhere: int = 0
    failures: list[FailedRow] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def add(self, entries: Sequence[Entry]) -> None:
        ends, took, cost, failed = [], [], [], []
        for entry in entries:
            self.tries[entry.record.attempts] += 1
            failed += [attempt.at for attempt in entry.failures]
            self._add_failures(entry)
            charge = self._add_result(entry)
            reply = entry.record.reply
            if reply is not None and entry.received_at is not None:
                ends.append(entry.received_at)
                took.append(reply.latency_ms)
                cost.append(charge)
        latency = np.array(took, np.float64)
        self.latencies.add(latency[np.isfinite(latency)])  # a damaged one is not known
        self.slices.add(
            np.array(ends, np.float64),
            np.nan_to_num(latency) / 1_000,
            np.array(cost, np.float64),
            np.array(failed, np.float64),
        )

    def _add_failures(self, entry: Entry) -> None:
        for attempt in entry.failures:
            reason = self.reasons.setdefault(attempt.failure.code, _Reason(attempt))
            reason.attempts += 1
            reason.recovered += entry.record.state == "answered"

    def _add_result(self, entry: Entry) -> float:
        """Add what came of a request; gives what it cost."""
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
            return result.usage.credits or 0.0
        if (record.state == "failed" or record.in_doubt) and len(self.failures) < STANDIN_FAILURES:
            self.failures.append(_failed_row(entry))
        return 0.0

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
    taken_back = entry.failures[-1].answer if entry.failures else None
    return FailedRow(
        None,
        "",
        status,
        code or status,
        message,
        request_id,
        record.attempts,
        answer=cut((taken_back or b"").decode(errors="replace"), FAILED_CHARACTERS),
        prompt=cut(prompt_text(entry.ask.body), FAILED_CHARACTERS),
    )


def _content_text(content: Any) -> str:
    """Write a message's content; of parts the texts, and the others as they are kept."""
    if not isinstance(content, list):
        return f"{content}"
    return "\n".join(
        part["text"] if part["type"] == "text" else orjson.dumps(part).decode() for part in content
    )


def prompt_text(body: bytes) -> str:
    """Give a request's messages as text, each under its role; cut to a readable length."""
    try:
        messages: Any = orjson.loads(body).get("messages", [])
        texts = [f"{message['role']}: {_content_text(message['content'])}" for message in messages]
    except (ValueError, AttributeError, KeyError, TypeError):
        return ""  # a damaged body; the ledger counts it
    return cut("\n\n".join(texts), PROMPT_CHARACTERS)
