"""Group commit: one thread takes everything that is queued, commits it once, then resolves all its futures."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

Task = TypeVar("Task")


class GroupCommit(Generic[Task]):
    """A queue of tasks for one thread.

    Args:
        commit: called in the thread with all the tasks there are; gives a result, or an exception to raise, for
            each, in order, when they are on disk.
        name: the thread's name.

    A task is queued the moment it is submitted: cancelling whoever waits for it does not stop it. The thread is woken
    once per turn of the event loop: waking it for each task would cost more than the task.
    """

    def __init__(self, commit: Callable[[Sequence[Task]], Sequence[Any]], name: str) -> None:
        self._commit = commit
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._queue: list[tuple[Task, asyncio.Future[Any]]] = []
        self._idle = True
        self._open = True
        self._turns: SimpleQueue[Literal["look", "end"]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> asyncio.Future[Any]:
        """Queue a task.

        Raises:
            RuntimeError: `close` was called.
        """
        if not self._open:
            raise RuntimeError("the ledger is closed")
        future = self._loop.create_future()
        with self._lock:
            self._queue.append((task, future))
            idle, self._idle = self._idle, False
        if idle:
            self._loop.call_soon(self._turns.put, "look")
        return future

    async def close(self) -> None:
        """Carry out what is queued, then end the thread."""
        self._open = False
        self._turns.put("look")
        self._turns.put("end")
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while self._turns.get() == "look":
            while tasks := self._take():
                try:
                    results = self._commit([task for task, _ in tasks])
                except Exception as error:  # noqa: BLE001  # whatever it is: nobody who waits may hang
                    results = [error] * len(tasks)
                if self._loop.is_closed():  # nobody waits any more
                    return
                self._loop.call_soon_threadsafe(_resolve, tasks, results)

    def _take(self) -> list[tuple[Task, asyncio.Future[Any]]]:
        with self._lock:
            taken, self._queue = self._queue, []
            self._idle = not taken
            return taken


def _resolve(tasks: Sequence[tuple[Any, asyncio.Future[Any]]], results: Sequence[Any]) -> None:
    for (_, future), result in zip(tasks, results, strict=True):
        if future.done():
            continue  # whoever waited was cancelled; the task is done all the same
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
