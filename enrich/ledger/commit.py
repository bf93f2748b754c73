"""Group commit: one thread takes everything that is queued, commits it once, then resolves all its futures."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

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

    A job is queued the moment it is submitted: cancelling whoever waits for it does not stop it.
    """

    def __init__(self, commit: Callable[[Sequence[Job]], Sequence[Any]], name: str) -> None:
        self._commit = commit
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._queue: list[tuple[Job, asyncio.Future[Any]]] = []
        self._taken: list[tuple[Job, asyncio.Future[Any]]] = []
        self._idle = True

    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Queue a job.

        Raises:
            RuntimeError: `close` was called.
        """
        future = self._loop.create_future()
        with self._lock:
            self._queue.append((job, future))
            idle, self._idle = self._idle, False
        if idle:
            self._thread.submit(self._drain).add_done_callback(self._drained)
        return future

    async def close(self) -> None:
        """Carry out what is queued, then end the thread."""
        await asyncio.to_thread(self._thread.shutdown)

    def _drain(self) -> None:
        while self._take():
            results = self._commit([job for job, _ in self._taken])
            self._loop.call_soon_threadsafe(_resolve, self._taken, results)

    def _take(self) -> bool:
        with self._lock:
            self._taken, self._queue = self._queue, []
            self._idle = not self._taken
            return not self._idle

    def _drained(self, done: Future[None]) -> None:
        """Hand an unexpected error of the thread to everybody who waits: nobody may hang."""
        error = done.exception()
        if error is None or self._loop.is_closed():
            return
        with self._lock:
            jobs, self._taken, self._queue, self._idle = self._taken + self._queue, [], [], True
        self._loop.call_soon_threadsafe(_resolve, jobs, [error] * len(jobs))


def _resolve(jobs: Sequence[tuple[Any, asyncio.Future[Any]]], results: Sequence[Any]) -> None:
    for (_, future), result in zip(jobs, results, strict=True):
        if future.done():
            continue  # whoever waited was cancelled; the job is done all the same
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
