"""Signals, for the command line alone: the first asks the run to stop in good order, the second leaves at once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from enrich.show.logs import as_json, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from enrich.base.interrupt import Interrupt

STOPPING = "stopping: nothing more is sent, what is in flight is awaited (again to leave at once)"
DOUBLED = 0.02  # seconds within which a second signal is the first once more: timeout(1) sends each one twice
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
SHOW_CURSOR = "\x1b[?25h"
LEAVING = "left at once; everything that was answered is in the ledger"


@contextlib.contextmanager
def graceful(interrupt: Interrupt) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupt.fire` while the block runs; must be entered inside the event loop."""
    loop = asyncio.get_running_loop()
    first = -math.inf

    def on_signal() -> None:
        nonlocal first
        if time.monotonic() - first < DOUBLED:
            return
        if interrupt.fired:
            # A bar may have taken stderr's place, and hidden the cursor.
            terminal = sys.__stderr__ or sys.stderr
            if as_json():
                tell(LEAVING)
            else:
                terminal.write(f"{SHOW_CURSOR if terminal.isatty() else ''}\n{LEAVING}\n")
                terminal.flush()
            os._exit(130)  # the ledger is safe at any instant; waiting threads would only delay this
        tell(STOPPING if as_json() else f"\n{STOPPING}")  # below the ^C that the terminal shows
        first = time.monotonic()
        interrupt.fire()

    with contextlib.ExitStack() as handled:
        for number in STOPS:
            handled.callback(_handle(loop, number, on_signal))
        yield


def _handle(
    loop: asyncio.AbstractEventLoop, number: int, handler: Callable[[], None]
) -> Callable[[], object]:
    """Have a handler called in the loop at a signal; gives what undoes it. Windows' loops take none: there Python itself tells."""
    try:
        loop.add_signal_handler(number, handler)
    except NotImplementedError:
        before = signal.signal(number, lambda *_: loop.call_soon_threadsafe(handler))
        return functools.partial(signal.signal, number, before)
    return functools.partial(loop.remove_signal_handler, number)
