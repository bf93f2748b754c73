"""What the live page shows: figures of the run, how they went lately, and the newest requests in the ledger.

However many requests there are, a look reads one note and at most `ROWS_AT_ONCE` requests that it has not read before.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import orjson

from enrich.base.texts import json_bytes
from enrich.errors import EnrichError, LedgerError
from enrich.ledger.opening import open_ledger, require_ledger
from enrich.records import STATUSES
from enrich.report.log import prompt_text
from enrich.report.texts import ANSWER_CHARACTERS, cut
from enrich.show.pulse import Pulse, pulse_name
from enrich.verbs.status import LATE_AFTER, LOST_AFTER
from enrich.wire.completion import completion_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from enrich.config import Config
    from enrich.ledger.protocol import Entry, Ledger
    from enrich.show.snapshot import Snapshot
    from enrich.show.watch import Watch

ROWS_AT_ONCE = 60  # requests read in one look
ROWS_KEPT = 300  # of the newest answered requests, and as many of those that failed
POINTS_MOST = 360  # points of the charts; then every other one goes


@dataclass(frozen=True, slots=True)
class Standing:
    """How the run stands as a whole.

    Attributes:
        name: ``none`` (none has begun), ``running``, ``lost`` (not heard of for long), ``ended``.
        said: the same for people.
    """

    name: str
    said: str


class Sight:
    """Looks at a run now and then; an async context manager.

    Args:
        config: its job.
        watch: what the run tells of itself; None of one that goes on elsewhere.
    """

    def __init__(self, config: Config, watch: Watch | None = None) -> None:
        self._config = config
        self._watch = watch
        self._ledger: Ledger | None = None
        self._snapshot: Snapshot | None = None
        self._standing = Standing("none", "No run of this job has begun yet.")
        self._history: deque[tuple[float, float, float]] = deque()
        self._apart = 0.0  # seconds between two points of the history, at least
        self._rows = {"answered": Shelf(), "failed": Shelf()}
        self._number = 0
        self._output = orjson.loads(json_bytes(config.output.path))  # as the ledger has it
        self._outputs: dict[int, str | None] = {}  # of the ledger's runs

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ledger is not None:
            await self._ledger.close()

    async def look(self, *, rows: bool) -> None:
        """Look anew.

        Args:
            rows: also at the newest requests.
        """
        with contextlib.suppress(LedgerError):  # it is not there yet, or being made
            await self._open()
        try:
            await self._figures()
            if rows and self._ledger is not None:
                for kind in self._rows:
                    await self._newest(self._ledger, kind)
        except EnrichError as error:
            self._standing = Standing(self._standing.name, f"The ledger cannot be read: {error.message}")

    def end(self, said: str) -> None:
        """Note how the run ended that told of itself."""
        if self._watch is not None:
            self._snapshot = self._watch.snapshot()
        self._standing = Standing("ended", said)

    async def _open(self) -> None:
        if self._ledger is None:
            location = self._config.ledger_location()
            require_ledger(location)
            self._ledger = await open_ledger(location, read_only=True, make=False)

    async def _figures(self) -> None:
        if self._standing.name == "ended" and self._watch is not None:
            return
        if self._watch is not None:
            now = self._watch.snapshot()
            self._standing = Standing("running", "")
        else:
            noted = await self._noted()
            if noted is None:
                return
            now = noted
        self._snapshot = now
        if not self._history or now.elapsed < self._history[-1][0]:  # another run has begun
            self._history.clear()
            self._apart = 0.0
        if not self._history or now.elapsed - self._history[-1][0] > self._apart:
            self._history.append((now.elapsed, now.rate, now.credits))
        if len(self._history) > POINTS_MOST:
            self._history = deque(list(self._history)[::2])
            self._apart = 1.5 * now.elapsed / POINTS_MOST

    async def _noted(self) -> Snapshot | None:
        """Read what a run elsewhere noted of itself."""
        if self._ledger is None:
            return None
        note = await self._ledger.recall(pulse_name(self._config.output.path))
        if note is None:
            return None
        pulse = Pulse.from_dict(note)
        age = time.time() - pulse.at
        if pulse.ended:
            last = await self._ledger.last_run()
            summary = last.summary if last is not None and last.number >= pulse.run else None
            self._standing = Standing("ended", (summary or {}).get("reason", "The last run has ended."))
        elif age > LOST_AFTER:
            said = f"Nothing was heard of the run for {age:,.0f} s: it was killed, or its machine sleeps."
            self._standing = Standing("lost", said)
        else:
            late = f"Nothing was heard of the run for {age:,.0f} s." if age > LATE_AFTER else ""
            self._standing = Standing("running", late)
        return pulse.snapshot

    async def _newest(self, ledger: Ledger, kind: str) -> None:
        shelf = self._rows[kind]
        found = await ledger.newest(ROWS_AT_ONCE, failed=kind == "failed", known=shelf.seen)
        if any(entry.record.run not in self._outputs for entry in found):
            self._outputs = {run.number: run.output for run in await ledger.runs()}
        for entry in reversed(found):
            shelf.see(entry.line)
            if self._outputs.get(entry.record.run) in (None, self._output):  # other jobs may share the ledger
                self._number += 1
                shelf.put({"n": self._number, "kind": kind, **_row(entry)})

    # --- what the page is told ---------------------------------------------------------------------------

    def told(self, after: int) -> dict[str, Any]:
        """Give all of it as plain JSON.

        Args:
            after: the number of the newest request that the page has already.
        """
        return {
            "output": self._config.output.path,
            "standing": self._standing.name,
            "said": self._standing.said,
            "figures": _figures(self._snapshot) if self._snapshot is not None else None,
            "history": {
                "at": [round(at, 1) for at, _, _ in self._history],
                "rate": [round(rate, 3) for _, rate, _ in self._history],
                "credits": [round(spent, 6) for _, _, spent in self._history],
            },
            "latency": _latency(row["latency_ms"] for row in self._rows["answered"].rows()),
            "models": Counter(row["model"] for row in self._rows["answered"].rows()).most_common(10),
            "rows": [row for shelf in self._rows.values() for row in shelf.rows() if row["n"] > after],
            "kept": ROWS_KEPT,
            "last": self._number,
        }


class Shelf:
    """Keeps the newest requests of one kind, as the page shows them.

    Attributes:
        seen: the numbers of the lines that were read of late, more than are kept: none of them is read again.
    """

    def __init__(self) -> None:
        self.seen: dict[int, None] = {}  # a set that knows its order
        self._rows: deque[dict[str, Any]] = deque(maxlen=ROWS_KEPT)

    def see(self, line: int) -> None:
        """Note that a line was read."""
        self.seen[line] = None
        if len(self.seen) > 4 * ROWS_KEPT:
            del self.seen[next(iter(self.seen))]

    def put(self, row: dict[str, Any]) -> None:
        """Keep one, and let go of the oldest."""
        self._rows.append(row)

    def rows(self) -> Iterable[dict[str, Any]]:
        """Give them, the oldest first."""
        return iter(self._rows)


def _row(entry: Entry) -> dict[str, Any]:
    """Tell of a request: what was asked, what was answered."""
    record = entry.record
    completion = completion_of(record)
    reply = record.reply
    failure = record.failure if reply is None else None
    usage = completion.usage if completion is not None else None
    request_id = (reply.request_id if reply is not None else None) or (failure and failure.request_id) or ""
    return {
        "key": record.key.hex(),
        "model": (completion.model if completion is not None else None) or record.model,
        "request_id": request_id,
        "attempts": record.attempts,
        "tokens": usage.total_tokens if usage is not None else None,
        "credits": usage.credits if usage is not None else None,
        "latency_ms": reply.latency_ms if reply is not None else None,
        "at": entry.received_at or record.sent_at,
        "prompt": prompt_text(entry.ask.body),
        "answer": cut((completion.text if completion is not None else None) or "", ANSWER_CHARACTERS),
        "error": cut(str(failure), ANSWER_CHARACTERS) if failure is not None else "",
    }


def _figures(now: Snapshot) -> dict[str, Any]:
    order: dict[str, int] = {status: place for place, status in enumerate(STATUSES)}
    steps: dict[str, dict[str, int]] = {}
    for step, status, count in now.rows:
        steps.setdefault(step, {})[status] = count
    for counts in steps.values():
        left = now.input_rows - sum(counts.values())
        if left > 0:
            counts["pending"] = counts.get("pending", 0) + left
    told = {
        step: sorted(counts.items(), key=lambda item: order.get(item[0], 99))
        for step, counts in steps.items()
    }
    return {
        **now.to_dict(),
        "failures": list(now.failures),
        "retries": list(now.retries),
        "budget_left": list(now.budget_left),
        "steps": list(told.items()),
        "place": now.place,
        "facts": now.facts,
        "commit_ms": 1_000 * now.commit_seconds / now.commits if now.commits else None,
    }


def _latency(times: Iterable[float | None]) -> dict[str, float] | None:
    """Give percentiles of the newest answers' latencies, in milliseconds."""
    known = sorted(time for time in times if time is not None)
    if not known:
        return None
    return {f"p{share}": known[min(len(known) - 1, share * len(known) // 100)] for share in (50, 95)}
