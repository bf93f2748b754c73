"""A door for code without an event loop, or with one that must not be blocked: it is held open in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from enrich.base.loops import loop_factory
from enrich.errors import RunInterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import pyarrow as pa

    from enrich.config import JobConfig
    from enrich.frames.door import Door
    from enrich.records import Summary

    AnyConfig = str | Path | Mapping[str, Any] | JobConfig

WATCH = 0.2  # seconds between two looks at whether anybody still wants the answers
STOPPED = "stopped; every answer that came is kept: run the same again and it goes on from here\n"
STOPPING = "stopping: nothing more is sent, what is in flight is awaited (interrupt again to leave at once)\n"

T = TypeVar("T")


class BlockingDoor:
    """A `Door` for code without an event loop; see `blocking`."""

    def __init__(self, door: Door, background: Background) -> None:
        self._door = door
        self._background = background

    @property
    def schema(self) -> pa.Schema:
        """Give the schema of the answers."""
        return self._door.schema

    @property
    def summary(self) -> Summary | None:
        """Say how it went; None before the door is closed."""
        return self._door.summary

    def ask(self, batch: pa.RecordBatch, *, is_given_up: Callable[[], bool] | None = None) -> pa.RecordBatch:
        """Take a batch through and give its answers; any number of threads may do so at once.

        Args:
            batch: of the schema that was promised.
            is_given_up: called now and then in this thread; once it is true, the run stops: nothing more is sent.

        Raises:
            RunStopped, RunInterrupted: the run stopped before the answers were there.
        """
        asked = self._background.begin(self._door.ask(batch))
        while is_given_up is not None and not wait([asked], timeout=WATCH).done:
            if is_given_up():
                self._background.call(self._door.stop(RunInterrupted()))
                break
        return asked.result()

    def answers(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Take every batch through; gives each with its answers. Batches are pulled by the calling thread."""
        door, call = self._door, self._background.call
        for batch in batches:
            call(door.put(batch))
            while door.due:
                yield call(door.get())
        while door.waiting:
            yield call(door.get())


class Background:
    """An event loop in a thread of its own, for callers that have none, or one that must not be blocked."""

    def __init__(self) -> None:
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        here = contextvars.copy_context()  # what a notebook shows finds its cell by it
        self._thread = threading.Thread(
            target=here.run, args=(self._main,), name="beatra-enrich", daemon=True
        )
        self._thread.start()
        self._loop, self._over = self._started.result()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        over = asyncio.Event()
        self._started.set_result((asyncio.get_running_loop(), over))
        await over.wait()

    def call(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine there and wait for its result."""
        return self.begin(coroutine).result()

    def begin(self, coroutine: Coroutine[object, object, T]) -> Future[T]:
        """Run a coroutine there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Cancel whatever still runs there and end the thread."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


@contextlib.contextmanager
def blocking(opening: AbstractAsyncContextManager[Door]) -> Iterator[BlockingDoor]:
    """Hold a door open in a background thread while the block runs.

    A first KeyboardInterrupt waits for what is in flight; a second leaves at once: the ledger is safe at any
    instant, and the thread goes on keeping what comes in.
    """
    background = Background()
    try:
        door = background.call(opening.__aenter__())
    except BaseException:
        background.close()
        raise
    try:
        yield BlockingDoor(door, background)
    except BaseException as error:
        if sys.is_finalizing():  # the thread is gone already; waiting for it would last for ever
            raise
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write(STOPPING)
        try:
            background.call(opening.__aexit__(type(error), error, error.__traceback__))
        finally:
            background.close()
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write(STOPPED)
        raise
    try:
        background.call(opening.__aexit__(None, None, None))
    finally:
        background.close()
