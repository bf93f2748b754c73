"""Group commit: one thread takes everything that is queued, commits it once, then resolves all its futures."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

Job = TypeVar("Job")


class GroupCommit(Generic[Job]):
    """A queue of jobs for one thread.

    Args:
        commit: called in the thread with all the jobs there are; gives a result, or an exception to raise, for
            each, in order, when they are on disk.
        name: the thread's name.

    A job is queued the moment it is submitted: cancelling whoever waits for it does not stop it. The thread is woken
    once per turn of the event loop: waking it for each job would cost more than the job.
    """

    def __init__(self, commit: Callable[[Sequence[Job]], Sequence[Any]], name: str) -> None:
        self._commit = commit
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._queue: list[tuple[Job, asyncio.Future[Any]]] = []
        self._idle = True
        self._open = True
        self._turns: SimpleQueue[Literal["look", "end"]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Queue a job.

        Raises:
            RuntimeError: `close` was called.
        """
        if not self._open:
            raise RuntimeError("the ledger is closed")
        future = self._loop.create_future()
        with self._lock:
            self._queue.append((job, future))
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
            while jobs := self._take():
                try:
                    results = self._commit([job for job, _ in jobs])
                except Exception as error:  # noqa: BLE001  # whatever it is: nobody who waits may hang
                    results = [error] * len(jobs)
                if self._loop.is_closed():  # nobody waits any more
                    return
                self._loop.call_soon_threadsafe(_resolve, jobs, results)

    def _take(self) -> list[tuple[Job, asyncio.Future[Any]]]:
        with self._lock:
            taken, self._queue = self._queue, []
            self._idle = not taken
            return taken


def _resolve(jobs: Sequence[tuple[Any, asyncio.Future[Any]]], results: Sequence[Any]) -> None:
    for (_, future), result in zip(jobs, results, strict=True):
        if future.done():
            continue  # whoever waited was cancelled; the job is done all the same
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
