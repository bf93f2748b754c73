"""Event loops of our own, also where one is already running, and work that goes on beside a block of code."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from enrich.base.descriptors import require_descriptors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

T = TypeVar("T")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Give uvloop's loops where it is installed, else asyncio's.

    Raises:
        UsageError: this process may have too few files open for a loop and what it is for.
    """
    require_descriptors()
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


def run_stoppable(main: Callable[[], Coroutine[object, object, T]], stop: Callable[[], None]) -> T:
    """Run a coroutine to its end in a thread of its own; what is raised here meanwhile stops it, and goes on then.

    Schedulers end a task, and Ctrl-C a script, by an exception out of a signal handler. A second one leaves at once;
    the thread goes on to its end.

    Args:
        main: makes the coroutine; called in the thread that runs it.
        stop: asks the coroutine to end in good order; called in its event loop, or before that has begun.
    """
    loops: list[asyncio.AbstractEventLoop] = []

    async def noted() -> T:
        loops.append(asyncio.get_running_loop())
        return await main()

    here = contextvars.copy_context()  # a scheduler's log handlers find the task by it
    with ThreadPoolExecutor(1, thread_name_prefix="beatra-enrich") as executor:
        try:
            return executor.submit(here.run, _run, noted).result()
        except BaseException:
            if not loops:
                stop()
            elif not loops[0].is_closed():  # else the exception is the coroutine's own
                loops[0].call_soon_threadsafe(stop)
            raise


def _run(main: Callable[[], Coroutine[object, object, T]]) -> T:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())


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
