"""A step's own limits: its requests wait here before they join those of the other steps."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from aiolimiter import AsyncLimiter

from enrich.slots import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config import StepLimits
    from enrich.records import Settled

    Done = Callable[[Settled], bool]


class Gate:
    """Lets the requests of one step through no faster than its limits allow, in the order they came.

    An attempt that is made again does not pass here once more: it is held to the run's limits.
    """

    def __init__(self, limits: StepLimits) -> None:
        self._free = asyncio.Semaphore(limits.concurrency) if limits.concurrency is not None else None
        self._limiter: AsyncLimiter | None = None
        if limits.requests_per_minute is not None:
            window = Window(limits.requests_per_minute, 60.0)
            self._limiter = AsyncLimiter(window.burst, window.burst / window.rate)
        self._waiting: deque[tuple[Callable[..., Any], Done]] = deque()
        self._came = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Give the number of requests that wait."""
        return len(self._waiting)

    def enter(self, submit: Callable[..., Any], done: Done, *, first: bool) -> None:
        """Have a request submitted when its turn comes.

        Args:
            submit: called with ``done``.
            done: told how the request ended.
            first: go before all that wait: its row's deadline is running.
        """
        if first:
            self._waiting.appendleft((submit, done))
        else:
            self._waiting.append((submit, done))
        self._came.set()

    async def keep(self) -> None:
        """Let requests through, until cancelled."""
        while True:
            while not self._waiting:
                self._came.clear()
                await self._came.wait()
            if self._free is not None:
                await self._free.acquire()
            if self._limiter is not None:
                await self._limiter.acquire()
            submit, done = self._waiting.popleft()
            submit(done=partial(self._leave, done))

    def _leave(self, done: Done, settled: Settled) -> bool:
        if self._free is not None:
            self._free.release()
        return done(settled)
