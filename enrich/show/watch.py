"""Keeps what a run is doing, for whoever shows it: how far it is, how fast it goes, what it waits for."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from enrich.base.words import duration
from enrich.show.bound import bound_by
from enrich.show.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from enrich.config import LimitsConfig
    from enrich.engine.engine import Engine
    from enrich.engine.ticket import Landing
    from enrich.records import RowStatus


RECENT = 30.0  # seconds that the rate looks back
CAUSES_MOST = 20  # causes counted apart: codes are the endpoint's words, of which there may be any number
QUIET_AFTER = 10.0  # seconds without any event after which a line says what is waited for


class RowCounter(Protocol):
    """What counts rows: a flow, or several."""

    @property
    def rows_done(self) -> int:
        """Give the rows that have their verdict."""

    @property
    def rows_asked(self) -> int:
        """Give those of them of which something was sent."""

    def rows_by_step(self) -> Mapping[tuple[str, RowStatus], int]:
        """Give how many rows stand how at each step."""

    def failure_codes(self) -> tuple[tuple[str, int], ...]:
        """Give why rows failed, and how many, the most frequent first."""


class Progress(Protocol):
    """Who is told what a run is doing."""

    def phase(self, name: str, total: int | None) -> None:
        """A new phase begins."""

    def asking(self, total: int | None, flow: RowCounter, engine: Engine | None) -> None:
        """Rows are being asked; flow and engine can be looked at from now on."""

    def advance(self, rows: int) -> None:
        """So many more rows are done in this phase."""


class _Past(NamedTuple):
    """Where a run stood at some moment."""

    at: float
    rows: int
    asked: int
    requests: int
    tokens: int


class Watch:
    """Keeps what is to be shown; `snapshot` reads it.

    Args:
        limits: what the time left must reckon with.

    Attributes:
        on_phase: told of each phase as it begins.
        on_landing: told of each attempt as it ends, of a run that was opened after this was set.
    """

    def __init__(self, limits: LimitsConfig | None = None) -> None:
        self._limits = limits
        self._phase = "starting"
        self._total: int | None = None
        self._done = 0
        self.on_phase: Callable[[str], None] | None = None
        self.on_landing: Callable[[Landing], None] | None = None
        self._flow: RowCounter | None = None
        self._counter: RowCounter | None = None  # the last flow, also when it has ended
        self._input_rows = 0
        self._engine: Engine | None = None
        self._begun = self._since = time.monotonic()
        self._past: deque[_Past] = deque()

    def phase(self, name: str, total: int | None) -> None:
        """Begin a phase."""
        self._phase, self._total, self._done = name, total, 0
        self._flow = None
        self._since = time.monotonic()
        self._past = deque([self._present()])
        if self.on_phase is not None:
            self.on_phase(name)

    def asking(self, total: int | None, flow: RowCounter, engine: Engine | None) -> None:
        """Begin the phase in which rows are asked."""
        self._engine = engine
        self.phase("asking" if engine is not None else "looking up", total)
        self._flow = self._counter = flow
        self._input_rows = total or 0

    def advance(self, rows: int) -> None:
        """Count rows in this phase."""
        self._done += rows

    def snapshot(self) -> Snapshot:
        """Say where the run stands."""
        now = self._present()
        rate, eta = self._rate(now)
        shown = Snapshot(
            self._phase,
            now.rows,
            self._total,
            now.at - self._since,
            rate,
            eta,
            elapsed=now.at - self._begun,
            rows=self._rows_by_step(),
            input_rows=self._input_rows,
        )
        engine = self._engine
        if engine is None:
            return shown
        stats = engine.stats
        shown = replace(
            shown,
            tokens=stats.total_tokens,
            cached_tokens=stats.cached_tokens,
            reasoning_tokens=stats.reasoning_tokens,
            credits=stats.credits,
            credits_usd=stats.credits_usd,
            failures=self._counter.failure_codes()[:CAUSES_MOST] if self._counter is not None else (),
            retries=_most_common(stats.retries),
            requests=stats.requests,
            attempts=stats.attempts,
            prompt_tokens=stats.prompt_tokens,
            completion_tokens=stats.completion_tokens,
            budget_left=tuple(engine.budget_left.items()),
            commits=engine.commits.count,
            commit_seconds=engine.commits.seconds,
        )
        if self._flow is None:
            return shown
        waiting_for = _waiting_for(engine)
        bound = bound_by(engine.pace, self._limits) if self._limits is not None else None
        return replace(
            shown,
            in_flight=engine.in_flight,
            ceiling=engine.pace.ceiling,
            waiting_for=waiting_for,
            pause=max(engine.pace.paused_for(), engine.pace.refused_for()),
            found=", ".join(engine.pace.found()),
            bound_by=bound["text"] if bound is not None else "",
        )

    def _rows_by_step(self) -> tuple[tuple[str, str, int], ...]:
        if self._counter is None:
            return ()
        return tuple((step, status, count) for (step, status), count in self._counter.rows_by_step().items())

    def _present(self) -> _Past:
        at, rows, asked = time.monotonic(), self._done, 0
        if self._flow is not None:
            rows, asked = self._flow.rows_done, self._flow.rows_asked
        if self._engine is None:
            return _Past(at, rows, asked, 0, 0)
        stats = self._engine.stats
        return _Past(at, rows, asked, stats.answered + stats.failed, stats.total_tokens)

    def _rate(self, now: _Past) -> tuple[float, float | None]:
        """Give the rows per second of the last half minute, and the seconds that are left."""
        past = self._past
        while len(past) > 1 and now.at - past[1].at > RECENT:
            past.popleft()
        if not past or now.at - past[-1].at >= RECENT / 100:
            past.append(now)
        then = past[0]
        rows, seconds = now.rows - then.rows, now.at - then.at
        if rows <= 0 or seconds <= 0:
            return 0.0, None
        rate = rows / seconds
        if not self._total:
            return rate, None
        left = self._total - now.rows
        pause = self._engine.pace.paused_for() if self._engine is not None else 0.0
        share = self._share_asked()
        asked = now.asked - then.asked
        by_pace = left * share * seconds / asked if asked else left / rate
        by_limits = left * share * self._seconds_a_row(then, now)
        return rate, max(by_pace, by_limits) + pause

    def _share_asked(self) -> float:
        """Give the share of rows of which something is sent, as lately: most of a resumed run's first rows come free.

        It is the mean over spans of time, not over rows: a thousand rows that came free within a moment say little
        of those behind them.
        """
        past = list(self._past)
        shares = [
            (after.asked - before.asked) / (after.rows - before.rows)
            for before, after in itertools.pairwise(past)
            if after.rows > before.rows
        ]
        return sum(shares) / len(shares) if shares else 1.0

    def _seconds_a_row(self, then: _Past, now: _Past) -> float:
        """Give the seconds that the configured limits allow a row that is asked at least, if the next ones are like the last."""
        if self._limits is None or self._engine is None:
            return 0.0
        from enrich.pace.windows import request_windows, token_windows

        rows = now.asked - then.asked
        if not rows:
            return 0.0
        requests = [
            (now.requests - then.requests) * w.seconds / w.amount for w in request_windows(self._limits)
        ]
        tokens = [(now.tokens - then.tokens) * w.seconds / w.amount for w in token_windows(self._limits)]
        return max([0.0, *requests, *tokens]) / rows


def _most_common(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    """Give the most frequent causes, and all others together."""
    told = counts.most_common(CAUSES_MOST)
    others = counts.total() - sum(count for _, count in told)
    return (*told, ("other", others)) if others else tuple(told)


def _waiting_for(engine: Engine) -> str:
    if engine.stopped is not None:
        return f"stopping: {engine.in_flight:,} in flight are awaited"
    pause = engine.pace.paused_for()
    if pause > 0:
        return f"paused for {duration(pause)}: {engine.pace.pause_cause}"
    if (refused := engine.pace.refused_for()) > 0:
        return f"paused for {duration(refused)}: the endpoint asked to wait (429)"
    if engine.outage.on:
        return "the endpoint is out of service: one request at a time tries it"
    return f"waiting for {engine.in_flight:,} in flight: {engine.held}" if engine.held else _silence(engine)


def _silence(engine: Engine) -> str:
    """Say what is waited for where nothing happened for long."""
    quiet = time.monotonic() - engine.stats.last_event
    if quiet <= QUIET_AFTER:
        return ""
    if engine.in_flight:
        return f"nothing came for {duration(quiet)}: waiting for {engine.in_flight:,} in flight"
    return f"nothing was sent for {duration(quiet)}: waiting for the limits"
