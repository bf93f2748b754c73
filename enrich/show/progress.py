"""What a person sees while a run goes on: a live bar on a terminal, a line now and then elsewhere, or JSON events."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TextIO

from enrich.base.words import duration
from enrich.errors import RunStopped
from enrich.show.bound import bound_by

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator, Coroutine

    from rich.console import Group

    from enrich.config import LimitsConfig
    from enrich.engine.engine import Engine
    from enrich.ledger.protocol import Ledger

LINE_EVERY = 10.0  # seconds between lines where there is no terminal
BAR_EVERY = 0.1  # seconds between redraws on a terminal, at least
BAR_AT_LEAST = 2.0  # seconds between redraws, at most, however slow the machine
SHARE = 0.02  # of one core that redraws may take
PULSE_EVERY = 2.0  # seconds between notes in the ledger, for `status --watch`
RECENT = 30.0  # seconds that the rate looks back
QUIET_AFTER = 10.0  # seconds without any event after which a line says what is waited for
LONGEST_BAR, SHORTEST_BAR = 40, 6  # cells


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands.

    Attributes:
        phase: what is being done.
        done: rows done in this phase.
        total: rows of this phase, when known.
        seconds: since the phase began.
        rate: rows per second, lately.
        eta: seconds that are left, when that can be said.
        ceiling: the most requests that may be in flight now; 0 where none are sent.
        failures: rows that failed, by cause, the most frequent first.
        retries: attempts that were made again, by cause.
        waiting_for: why nothing moves, when nothing moves.
        elapsed: seconds since the run began.
        found: what was found out of the endpoint's limits.
        bound_by: what holds the run up most.
    """

    phase: str
    done: int
    total: int | None
    seconds: float
    rate: float = 0.0
    eta: float | None = None
    in_flight: int = 0
    ceiling: int = 0
    tokens: int = 0
    credits: float = 0.0
    failures: tuple[tuple[str, int], ...] = ()
    retries: tuple[tuple[str, int], ...] = ()
    waiting_for: str = ""
    elapsed: float = 0.0
    found: str = ""
    bound_by: str = ""

    @property
    def place(self) -> str:
        """Tell how far it is: rows, rate, time left."""
        of = f" of {self.total:,}" if self.total else ""
        parts = [f"{self.done:,}{of} rows"]
        if self.rate:
            parts.append(f"{self.rate:,.0f}/s" if self.rate >= 10 else f"{self.rate:,.1f}/s")
        if self.eta is not None:
            parts.append(f"{duration(self.eta)} left")
        return " · ".join(parts)

    @property
    def facts(self) -> str:
        """Tell what is under way and what was spent."""
        parts = []
        if self.elapsed >= 1:
            parts.append(f"{duration(self.elapsed)} so far")
        if self.ceiling and self.in_flight > self.ceiling:
            parts.append(f"{self.in_flight:,} in flight, going down to {self.ceiling:,}")
        elif self.ceiling:
            parts.append(f"{self.in_flight:,} in flight of {self.ceiling:,}")
        if self.found:
            parts.append(self.found)
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens")
        if self.credits:
            parts.append(f"{self.credits:,.4g} credits")
        return " · ".join(parts)

    @property
    def failed(self) -> str:
        """Tell what failed for good."""
        return f"failed: {_causes(self.failures)}" if self.failures else ""

    @property
    def retried(self) -> str:
        """Tell what was tried again."""
        return f"retried: {_causes(self.retries)}" if self.retries else ""

    def line(self) -> str:
        """Tell it on one line."""
        parts = (f"{self.phase}: {self.place}", self.facts, self.retried, self.failed, self.waiting_for)
        return " · ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        causes = {"failures": dict(self.failures), "retries": dict(self.retries)}
        return {**asdict(self), **causes}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Snapshot:
        """Read what `to_dict` gave."""
        causes = {name: tuple(value[name].items()) for name in ("failures", "retries")}
        return cls(**{**value, **causes})


def _causes(counts: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in counts)


class Rows(Protocol):
    """What counts rows: a flow, or several."""

    @property
    def rows_done(self) -> int:
        """Give the rows that have their verdict."""

    @property
    def rows_asked(self) -> int:
        """Give those of them of which something was sent."""

    def failure_codes(self) -> tuple[tuple[str, int], ...]:
        """Give why rows failed, and how many, the most frequent first."""


class Progress(Protocol):
    """Who is told what a run is doing."""

    def phase(self, name: str, total: int | None) -> None:
        """A new phase begins."""

    def asking(self, total: int | None, flow: Rows, engine: Engine | None) -> None:
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
    """

    def __init__(self, limits: LimitsConfig | None = None) -> None:
        self._limits = limits
        self._phase = "starting"
        self._total: int | None = None
        self._done = 0
        self._flow: Rows | None = None
        self._engine: Engine | None = None
        self._begun = self._since = time.monotonic()
        self._past: deque[_Past] = deque()

    def phase(self, name: str, total: int | None) -> None:
        """Begin a phase."""
        self._phase, self._total, self._done = name, total, 0
        self._flow = None
        self._since = time.monotonic()
        self._past = deque([self._present()])

    def asking(self, total: int | None, flow: Rows, engine: Engine | None) -> None:
        """Begin the phase in which rows are asked."""
        self._engine = engine
        self.phase("asking" if engine is not None else "looking up", total)
        self._flow = flow

    def advance(self, rows: int) -> None:
        """Count rows in this phase."""
        self._done += rows

    def snapshot(self) -> Snapshot:
        """Say where the run stands."""
        now = self._present()
        rate, eta = self._rate(now)
        shown = Snapshot(
            self._phase, now.rows, self._total, now.at - self._since, rate, eta, elapsed=now.at - self._begun
        )
        engine = self._engine
        if engine is None:
            return shown
        stats = engine.stats
        shown = replace(
            shown,
            tokens=stats.total_tokens,
            credits=stats.credits,
            failures=self._flow.failure_codes()[:3] if self._flow is not None else (),
            retries=tuple(stats.retries.most_common(3)),
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
            found=", ".join(engine.pace.found()),
            bound_by=bound["text"] if bound is not None else "",
        )

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


# --- showing it ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def shown(
    watch: Watch,
    stream: TextIO,
    *,
    live: bool,
    log: logging.Logger | None = None,
    every: float = LINE_EVERY,
) -> AsyncIterator[None]:
    """Show a run's progress while the block runs.

    Args:
        watch: what to show.
        stream: where to, usually stderr.
        live: redraw a bar in place; else write a line at intervals.
        log: where lines go as records with a field ``progress``, instead of to the stream.
        every: seconds between lines.
    """
    how = _bar(watch, stream) if live else _lines(watch, stream, log, every)
    async with meanwhile(how, "beatra-progress"):
        yield


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[object, object, None], name: str) -> AsyncIterator[None]:
    """Do endless work in a task while the block runs."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _lines(watch: Watch, stream: TextIO, log: logging.Logger | None, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        now = watch.snapshot()
        if log is not None:
            log.info(now.line(), extra={"progress": now.to_dict()})
        else:
            stream.write(now.line() + "\n")
            stream.flush()


async def _bar(watch: Watch, stream: TextIO) -> None:
    with Picture(stream) as picture:
        while True:
            began = time.thread_time()
            picture.draw(watch.snapshot())
            cost = time.thread_time() - began
            await asyncio.sleep(gap(cost))


def gap(cost: float) -> float:
    """Give the seconds until the next redraw, from the CPU seconds that one takes."""
    return min(max(BAR_EVERY, cost / SHARE), BAR_AT_LEAST)


class Picture:
    """A picture of a run that is redrawn in place on a terminal, and gone at the end; a context manager."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw(self, now: Snapshot) -> None:
        """Draw a run as it stands."""
        self._live.update(_picture(now, self._console.width), refresh=True)


def _picture(now: Snapshot, width: int) -> Group:
    """Draw at most five lines, none wider than the terminal."""
    from rich.console import Group, RenderableType
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line(text: str, style: str) -> Text:
        return Text(text, style=style, no_wrap=True, overflow="ellipsis")

    room = min(LONGEST_BAR, width - len(now.phase) - len(now.place) - 3)
    head: RenderableType = line(f"{now.phase} {now.place}", "bold")
    if room >= SHORTEST_BAR:
        bar = ProgressBar(total=now.total, completed=now.done, width=room, pulse=not now.total)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(line(now.phase, "bold"), bar, line(now.place, ""))
        head = grid
    notes = ((now.facts, "dim"), (now.retried, "dim"), (now.failed, "red"), (now.waiting_for, "yellow"))
    return Group(head, *(line(f"  {text}", style) for text, style in notes if text))


# --- telling it to other processes -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a run notes in the ledger every now and then, for whoever watches from elsewhere.

    Attributes:
        run: its number in the ledger.
        at: wall-clock seconds since the epoch.
        ended: whether this was the last one.
    """

    run: int
    at: float
    ended: bool
    snapshot: Snapshot

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Pulse:
        """Read a note."""
        return cls(value["run"], value["at"], value["ended"], Snapshot.from_dict(value["snapshot"]))


def pulse_name(output: str) -> str:
    """Name the note of the run that writes an output."""
    return f"pulse:{output}"


@contextlib.asynccontextmanager
async def pulsing(watch: Watch, ledger: Ledger, *, run: int, output: str) -> AsyncIterator[None]:
    """Note in the ledger where a run stands, while the block runs."""

    async def note(*, ended: bool = False) -> None:
        value = {"run": run, "at": time.time(), "ended": ended, "snapshot": watch.snapshot().to_dict()}
        await ledger.remember(pulse_name(output), value)

    async def beat() -> None:
        with contextlib.suppress(RunStopped):  # a full disk: the run has more to say about that
            while True:
                await note()
                await asyncio.sleep(PULSE_EVERY)

    async with meanwhile(beat(), "beatra-pulse"):
        yield
    with contextlib.suppress(RunStopped):
        await note(ended=True)
