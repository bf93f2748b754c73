"""Runs a coroutine from synchronous code, on a loop of our own, also where a loop is already running."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

GC_THRESHOLD = 50_000  # allocations between young collections; the default 700 costs a tenth of a request


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Give uvloop's loops where it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def run_sync(main: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a coroutine to its end and give its result.

    In a thread of its own when this thread's event loop is running (a notebook, a web handler): asyncio is
    left as it is.

    Args:
        main: makes the coroutine; called in the thread that runs it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(main)
    with ThreadPoolExecutor(1, thread_name_prefix="beatra-enrich") as executor:
        return executor.submit(_run, main).result()


def _run(main: Callable[[], Coroutine[object, object, T]]) -> T:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())


def tune_collector() -> None:
    """Set the garbage collector for a process that does nothing but run a job: what was imported stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)
