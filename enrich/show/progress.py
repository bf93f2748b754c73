"""A run's progress on a stream while it goes on: a bar that is redrawn on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Self, TextIO

from enrich.base.loops import meanwhile

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator

    from rich.console import Group

    from enrich.show.snapshot import Snapshot
    from enrich.show.watch import Watch

LINE_EVERY = 10.0  # seconds between lines where there is no terminal
BAR_EVERY = 0.1  # seconds between redraws on a terminal, at least
BAR_AT_LEAST = 2.0  # seconds between redraws, at most, however slow the machine
SHARE_OF_CORE = 0.02  # of one core that redraws may take
LONGEST_BAR, SHORTEST_BAR = 40, 6  # cells


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
    return min(max(BAR_EVERY, cost / SHARE_OF_CORE), BAR_AT_LEAST)


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
