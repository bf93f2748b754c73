"""The progress of a call from Python: a bar in a notebook, a bar on a terminal, nothing where nobody looks."""

from __future__ import annotations

import asyncio
import contextlib
import html
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from enrich.base.loops import meanwhile
from enrich.show.progress import BAR_EVERY, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from enrich.show.snapshot import Snapshot
    from enrich.show.watch import Watch


@contextlib.asynccontextmanager
async def displayed(watch: Watch, *, wanted: bool | None) -> AsyncIterator[None]:
    """Show progress while the block runs.

    Args:
        watch: what to show.
        wanted: None shows it in notebooks and terminals; True elsewhere too, as a line now and then.
    """
    terminal = sys.stderr.isatty()
    if wanted is not False and in_notebook():
        async with _in_cell(watch):
            yield
    elif wanted or (wanted is None and terminal):
        async with shown(watch, sys.stderr, live=terminal):
            yield
    else:
        yield


def in_notebook() -> bool:
    """Say whether this runs in a Jupyter kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


@contextlib.asynccontextmanager
async def _in_cell(watch: Watch) -> AsyncIterator[None]:
    """Show a bar below the cell; it stays there with the last figures."""
    from IPython.display import display

    handle = display(_picture(watch.snapshot()), raw=True, display_id=True)  # type: ignore[no-untyped-call]  # IPython's
    assert handle is not None  # noqa: S101  # a display with an id has a handle

    async def redraw() -> None:
        while True:
            await asyncio.sleep(BAR_EVERY)
            handle.update(_picture(watch.snapshot()), raw=True)

    try:
        async with meanwhile(redraw(), "beatra-progress"):
            yield
    finally:
        handle.update(_picture(replace(watch.snapshot(), phase="asked", ceiling=0)), raw=True)


def _picture(now: Snapshot) -> dict[str, str]:
    """Draw the bar, as HTML and as text."""
    place = f' value="{now.done}" max="{now.total}"' if now.total else ""
    line = now.line()
    return {
        "text/html": f'<progress{place} style="width: 20em"></progress> {html.escape(line)}',
        "text/plain": line,
    }
