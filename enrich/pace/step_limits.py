"""A step's own limits: its requests wait here before they join those of the other steps."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from enrich.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.pace.windows import Slots
    from enrich.records import Settled

    Done = Callable[[Settled], bool]


class Gate:
    """Lets the requests of one step through no faster than its limits allow, in the order they came.

    An attempt that is made again does not pass here once more: it is held to the run's limits.

    Args:
        concurrency: the most requests that may be through and not ended yet; None for any number.
        slots: where turns come from.
    """

    def __init__(self, concurrency: int | None, slots: Slots) -> None:
        self._free = asyncio.Semaphore(concurrency) if concurrency is not None else None
        self._slots = slots
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

    async def keep(self, stop: Callable[[Exception], None]) -> None:
        """Let requests through, until cancelled.

        Args:
            stop: told why, when no turns come any more.
        """
        try:
            while True:
                await self._let_through()
        except LedgerError as error:
            stop(error)

    async def _let_through(self) -> None:
        while not self._waiting:
            self._came.clear()
            await self._came.wait()
        if self._free is not None:
            await self._free.acquire()
        await self._slots.take(0.0)
        self._slots.sent()
        submit, done = self._waiting.popleft()
        submit(done=partial(self._leave, done))

    def _leave(self, done: Done, settled: Settled) -> bool:
        if self._free is not None:
            self._free.release()
        return done(settled)
