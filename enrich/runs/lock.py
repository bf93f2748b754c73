"""Holds an output against other runs: gives up at once, or waits until they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal

from enrich.errors import OutputLocked, RunInterrupted
from enrich.files.output_lock import hold_output

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractContextManager

    from enrich.base.interrupt import Interrupt

# What a run does when another one holds its output: wait for its end, fail (exit code 5), or leave it at that.
Lock = Literal["wait", "fail", "skip"]

log = logging.getLogger("enrich")


@contextlib.asynccontextmanager
async def held(places: Sequence[tuple[str, bool]], lock: Lock, interrupt: Interrupt) -> AsyncIterator[None]:
    """Hold outputs until the block ends.

    Args:
        places: paths, and whether each is held only against those who want it alone; everybody names them in one order.
        lock: with ``wait``, another run's end is awaited; it is told of in the log.
        interrupt: ends the waiting.

    Raises:
        OutputLocked: another run holds one, and it is not to be waited for.
        RunInterrupted: while it was waited for.
        OutputError: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for path, shared in places:
            try:
                stack.enter_context(hold_output(path, shared=shared))
            except OutputLocked as error:
                if lock != "wait":
                    raise
                log.warning("%s: waiting for it to end", error.message)
                await _entered(stack, hold_output(path, wait=True, shared=shared), interrupt)
        yield


async def _entered(
    stack: contextlib.ExitStack, hold: AbstractContextManager[None], interrupt: Interrupt
) -> None:
    """Enter a hold that blocks, in a thread that is left behind on an interrupt: the kernel wakes it, nothing polls."""
    entered: Future[None] = Future()

    def enter() -> None:
        try:
            hold.__enter__()
        except BaseException as error:  # noqa: BLE001  # handed to whoever waits
            if entered.set_running_or_notify_cancel():
                entered.set_exception(error)
            return
        if entered.set_running_or_notify_cancel():
            entered.set_result(None)
        else:
            hold.__exit__(None, None, None)  # nobody waits any more

    threading.Thread(target=enter, name="beatra-hold", daemon=True).start()
    waiting = asyncio.wrap_future(entered)
    interrupt.listener = lambda _: _cancel(waiting)
    try:
        interrupt.check()
        await waiting
    except (asyncio.CancelledError, RunInterrupted):
        if not entered.cancel() and entered.exception() is None:
            hold.__exit__(None, None, None)  # it was had at the last moment
        interrupt.check()
        raise
    finally:
        interrupt.listener = None
    stack.push(hold)


def _cancel(waiting: asyncio.Future[None]) -> None:
    waiting.cancel()
