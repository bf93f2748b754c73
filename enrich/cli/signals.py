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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.base.interrupt import Interrupt

STOPPING = "\nstopping: nothing more is sent, what is in flight is awaited (again to leave at once)\n"
DOUBLED = 0.02  # seconds within which a second signal is the first once more: timeout(1) sends each one twice
SHOW_CURSOR = "\x1b[?25h"
LEAVING = "\nleft at once; everything that was answered is in the ledger\n"


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
            terminal.write(f"{SHOW_CURSOR}{LEAVING}" if terminal.isatty() else LEAVING)
            terminal.flush()
            os._exit(130)  # the ledger is safe at any instant; waiting threads would only delay this
        sys.stderr.write(STOPPING)
        sys.stderr.flush()
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
