"""Group commit: one thread takes everything that is queued, commits it once, then resolves all its futures.

What may wait a moment is committed together with what comes meanwhile: a commit costs its two wake-ups of a thread and its
way to the disk, however little it holds.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

ENOUGH = 32  # tasks that wait for nobody any more: larger groups make a task little cheaper

Task = TypeVar("Task")


@dataclass(slots=True)
class Commits:
    """How many commits there were, and the seconds that they took together; the thread that makes them counts."""

    count: int = 0
    seconds: float = 0.0


class GroupCommit(Generic[Task]):
    """A queue of tasks for one thread.

    Args:
        commit: called in the thread with all the tasks there are; gives a result, or an exception to raise, for
            each, in order, when they are on disk.
        name: the thread's name.

    Attributes:
        done: the commits so far.

    A task is queued the moment it is submitted: cancelling whoever waits for it does not stop it. The thread is woken
    once per turn of the event loop, and not before some task is due: waking it for each would cost more than the task.
    """

    def __init__(self, commit: Callable[[Sequence[Task]], Sequence[Any]], name: str) -> None:
        self.done = Commits()
        self._commit = commit
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._queue: list[tuple[Task, asyncio.Future[Any]]] = []
        self._timer: asyncio.Handle | None = None  # for what is not due yet
        self._at = math.inf  # when it is, on the loop's clock
        self._due = False  # whether the thread is to take what is queued
        self._idle = True
        self._open = True
        self._turns: SimpleQueue[Literal["look", "end"]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Task, *, within: float = 0.0) -> asyncio.Future[Any]:
        """Queue a task.

        Args:
            task: to be carried out.
            within: seconds that it may wait for others.

        Raises:
            RuntimeError: `close` was called.
        """
        if not self._open:
            raise RuntimeError("the ledger is closed")
        future = self._loop.create_future()
        with self._lock:
            self._queue.append((task, future))
            count = len(self._queue)
        if within <= 0.0 or count >= ENOUGH:
            self._hurry()
        elif self._loop.time() + within < self._at:
            self._cancel_timer()
            self._at = self._loop.time() + within
            self._timer = self._loop.call_later(within, self._hurry)
        return future

    def _hurry(self) -> None:
        """Have all that is queued carried out with the next commit."""
        self._cancel_timer()
        with self._lock:
            self._due = True
            idle, self._idle = self._idle, False
        if idle:
            self._loop.call_soon(self._turns.put, "look")

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._at = None, math.inf

    async def close(self) -> None:
        """Carry out what is queued, then end the thread."""
        self._open = False
        self._cancel_timer()
        with self._lock:
            self._due = True
        self._turns.put("look")
        self._turns.put("end")
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while self._turns.get() == "look":
            while tasks := self._take():
                began = time.monotonic()
                try:
                    results = self._commit([task for task, _ in tasks])
                except Exception as error:  # noqa: BLE001  # whatever it is: nobody who waits may hang
                    results = [error] * len(tasks)
                self.done.count += 1
                self.done.seconds += time.monotonic() - began
                if self._loop.is_closed():  # nobody waits any more
                    return
                self._loop.call_soon_threadsafe(_resolve, tasks, results)

    def _take(self) -> list[tuple[Task, asyncio.Future[Any]]]:
        with self._lock:
            taken: list[tuple[Task, asyncio.Future[Any]]] = []
            if self._due:
                taken, self._queue = self._queue, taken
            self._due = False
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
