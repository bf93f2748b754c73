"""What a person sees while a run goes on: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Group

    from enrich.engine import Engine

LINE_EVERY = 10.0  # seconds between lines where there is no terminal
BAR_EVERY = 0.25  # seconds between redraws on a terminal
QUIET_AFTER = 10.0  # seconds without any event after which a line says what is waited for


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands.

    Attributes:
        phase: what is being done.
        done: rows done in this phase.
        total: rows of this phase, when known.
        seconds: since the phase began.
        waiting_for: why nothing moves, when nothing moves.
    """

    phase: str
    done: int
    total: int | None
    seconds: float
    in_flight: int = 0
    ceiling: int = 0
    tokens: int = 0
    credits: float = 0.0
    failures: tuple[tuple[str, int], ...] = ()
    retries: int = 0
    waiting_for: str = ""

    @property
    def rate(self) -> float:
        """Give the rows per second of this phase so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Give the seconds that are left at this rate, when that can be said."""
        if not self.total or not self.done:
            return None
        return (self.total - self.done) / self.rate

    def line(self) -> str:
        """Tell it on one line."""
        of = f" of {self.total:,}" if self.total else ""
        parts = [f"{self.phase}: {self.done:,}{of} rows"]
        if self.done:
            parts.append(f"{self.rate:,.0f}/s")
        if self.ceiling:
            parts.append(f"{self.in_flight} in flight (ceiling {self.ceiling})")
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens")
        if self.credits:
            parts.append(f"{self.credits:,.4g} credits")
        if self.retries:
            parts.append(f"{self.retries:,} retries")
        if self.failures:
            parts.append("failed: " + ", ".join(f"{count:,} {code}" for code, count in self.failures))
        if (eta := self.eta) is not None:
            parts.append(f"{duration(eta)} left")
        if self.waiting_for:
            parts.append(self.waiting_for)
        return " · ".join(parts)


class Rows(Protocol):
    """What counts rows: a flow, or several."""

    @property
    def rows_done(self) -> int:
        """Give the rows that have their verdict."""


class Progress(Protocol):
    """Who is told what a run is doing."""

    def phase(self, name: str, total: int | None) -> None:
        """A new phase begins."""

    def asking(self, total: int | None, flow: Rows, engine: Engine | None) -> None:
        """Rows are being asked; flow and engine can be looked at from now on."""

    def advance(self, rows: int) -> None:
        """So many more rows are done in this phase."""


class Watch:
    """Keeps what is to be shown; `snapshot` reads it."""

    def __init__(self) -> None:
        self._phase = "starting"
        self._total: int | None = None
        self._done = 0
        self._flow: Rows | None = None
        self._engine: Engine | None = None
        self._since = time.monotonic()

    def phase(self, name: str, total: int | None) -> None:
        """Begin a phase."""
        self._phase, self._total, self._done = name, total, 0
        self._flow = None
        self._since = time.monotonic()

    def asking(self, total: int | None, flow: Rows, engine: Engine | None) -> None:
        """Begin the phase in which rows are asked."""
        self.phase("asking" if engine is not None else "looking up", total)
        self._flow, self._engine = flow, engine

    def advance(self, rows: int) -> None:
        """Count rows in this phase."""
        self._done += rows

    def snapshot(self) -> Snapshot:
        """Say where the run stands."""
        done = self._flow.rows_done if self._flow is not None else self._done
        seconds = time.monotonic() - self._since
        engine = self._engine
        if engine is None:
            return Snapshot(self._phase, done, self._total, seconds)
        stats = engine.stats
        return Snapshot(
            self._phase,
            done,
            self._total,
            seconds,
            in_flight=engine.in_flight,
            ceiling=engine.pace.ceiling if self._flow is not None else 0,
            tokens=stats.total_tokens,
            credits=stats.credits,
            failures=tuple(stats.failures.most_common(3)),
            retries=sum(stats.retries.values()),
            waiting_for=_waiting_for(engine) if self._flow is not None else "",
        )


def _waiting_for(engine: Engine) -> str:
    pause = engine.pace.paused_for()
    if pause > 0:
        return f"paused for {duration(pause)}: {engine.pace.pause_cause}"
    quiet = time.monotonic() - engine.stats.last_event
    if quiet > QUIET_AFTER:
        return f"nothing came for {duration(quiet)}: waiting for {engine.in_flight} in flight"
    return ""


def duration(seconds: float) -> str:
    """Write seconds as people do: ``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


@contextlib.asynccontextmanager
async def shown(watch: Watch, stream: TextIO, *, live: bool) -> AsyncIterator[None]:
    """Show a run's progress while the block runs.

    Args:
        watch: what to show.
        stream: where to, usually stderr.
        live: redraw a bar in place; else write a line at intervals.
    """
    task = asyncio.create_task(_bar(watch, stream) if live else _lines(watch, stream), name="beatra-progress")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _lines(watch: Watch, stream: TextIO) -> None:
    while True:
        await asyncio.sleep(LINE_EVERY)
        stream.write(watch.snapshot().line() + "\n")
        stream.flush()


async def _bar(watch: Watch, stream: TextIO) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_picture(watch.snapshot()), refresh=True)
            await asyncio.sleep(BAR_EVERY)


def _picture(now: Snapshot) -> Group:
    from rich.console import Group, RenderableType
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 1))
    of = f" of {now.total:,}" if now.total else ""
    eta = f"{duration(now.eta)} left" if now.eta is not None else ""
    bar = ProgressBar(total=now.total, completed=now.done, width=32, pulse=not now.total)
    head.add_row(Text(now.phase, style="bold"), bar, f"{now.done:,}{of} rows", f"{now.rate:,.0f}/s", eta)
    facts = []
    if now.ceiling:
        facts.append(f"{now.in_flight} in flight of {now.ceiling}")
    if now.tokens:
        facts.append(f"{now.tokens:,} tokens")
    if now.credits:
        facts.append(f"{now.credits:,.4g} credits")
    if now.retries:
        facts.append(f"{now.retries:,} retries")
    lines: list[RenderableType] = [head, Text("  " + " · ".join(facts), style="dim")]
    if now.failures:
        lines.append(Text("  failed: " + ", ".join(f"{n:,} {code}" for code, n in now.failures), style="red"))
    if now.waiting_for:
        lines.append(Text("  " + now.waiting_for, style="yellow"))
    return Group(*lines)
