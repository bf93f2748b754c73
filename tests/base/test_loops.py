"""Coroutines from synchronous code: real loops, real threads, real signals."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from enrich.base.loops import loop_factory, run_stoppable, run_sync

if TYPE_CHECKING:
    from collections.abc import Callable

WHO = contextvars.ContextVar("who", default="nobody")


class Ended(Exception):  # what a scheduler's handler raises
    """A task is ended from outside."""


async def thread_of(value: object) -> tuple[object, threading.Thread]:
    """Give a value, and the thread that runs this."""
    await asyncio.sleep(0)
    return value, threading.current_thread()


@pytest.mark.parametrize("run", [run_sync, lambda main: run_stoppable(main, lambda: None)])
def test_result_and_error_are_the_coroutine_s(run: Callable[..., object]) -> None:
    """What it returns is given, what it raises is raised."""

    async def fails() -> None:
        raise KeyError("mine")

    assert run(lambda: asyncio.sleep(0, "done")) == "done"
    with pytest.raises(KeyError, match="mine"):
        run(fails)


def test_without_a_running_loop_it_stays_in_this_thread() -> None:
    """No thread is made where none is needed: signal handlers, debuggers and profilers find the coroutine."""
    assert run_sync(lambda: thread_of(1)) == (1, threading.current_thread())


async def test_within_a_running_loop_it_has_a_thread_of_its_own() -> None:
    """A notebook's loop is left as it is: neither patched nor replaced."""
    own = asyncio.get_running_loop()
    value, thread = run_sync(lambda: thread_of(1))
    assert (value, thread is threading.current_thread()) == (1, False)
    assert asyncio.get_running_loop() is own


def test_a_loop_s_tasks_end_with_it() -> None:
    """What a coroutine has left behind is cancelled and awaited, so that nothing goes on unseen."""
    ended: list[str] = []

    async def left() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append("left")

    async def main() -> set[asyncio.Task[None]]:
        tasks = {asyncio.create_task(left())}
        await asyncio.sleep(0)
        return tasks

    run_sync(main)
    assert ended == ["left"]


def test_an_exception_from_a_handler_stops_it_in_good_order() -> None:
    """A signal handler that raises stops the coroutine inside its loop; its end is awaited, then the exception goes on."""
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    asked = threading.Event()
    where: list[threading.Thread] = []
    way: list[str] = []
    stops: list[asyncio.Event] = []

    async def main() -> None:
        stops.append(asyncio.Event())
        where.append(threading.current_thread())
        way.append("begun")
        await asyncio.sleep(0.1)  # until the caller waits
        signal.pthread_kill(main_thread, signal.SIGUSR1)
        await stops[0].wait()
        await asyncio.sleep(0)
        way.append("ended in good order")

    def stop() -> None:
        where.append(threading.current_thread())
        stops[0].set()
        asked.set()

    def handler(*_: object) -> None:
        raise Ended

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Ended):
            run_stoppable(main, stop)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert asked.is_set()
    assert way == ["begun", "ended in good order"]
    assert where[0] is where[1] is not threading.current_thread()


def test_an_error_of_the_coroutine_s_own_asks_nobody_to_stop() -> None:
    """What the coroutine raises is no request to stop it."""
    asked: list[str] = []

    async def fails() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run_stoppable(fails, lambda: asked.append("stop"))
    assert asked == []


def test_the_caller_s_context_goes_along() -> None:
    """A scheduler's log handler finds its task by a context variable: it is there in the other thread."""
    token = WHO.set("task 7")
    try:

        async def who() -> str:
            return WHO.get()

        assert run_stoppable(who, lambda: None) == "task 7"
    finally:
        WHO.reset(token)


def test_the_fast_loop_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop's, else asyncio's own: both run."""
    uvloop = pytest.importorskip("uvloop")

    async def kind() -> str:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    assert loop_factory() is uvloop.new_event_loop
    assert run_sync(kind) == "uvloop"
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run_sync(kind) == "asyncio"
