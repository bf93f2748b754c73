"""Signals, for the command line alone: the first asks the run to stop in good order, the second leaves at once."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from enrich.show.logs import as_json, tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.base.interrupt import Interrupt

STOPPING = "stopping: nothing more is sent, what is in flight is awaited (again to leave at once)"
DOUBLED = 0.02  # seconds within which a second signal is the first once more: timeout(1) sends each one twice
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

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
