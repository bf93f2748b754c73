"""Turns for requests from a limit that many processes share: slots leased a little ahead, news with every lease."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from enrich.errors import LedgerError
from enrich.pace.lease import PERIOD, LeaseRequest, SharedWindow
from enrich.pace.windows import SLACK, TOKENS_KEPT, request_windows, token_windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config import LimitsConfig
    from enrich.pace.lease import Cut, Lease, Leases
    from enrich.pace.windows import Window

LEAD = 0.1  # seconds before the last slot at which the next ones are asked for
FRESH = 2 * PERIOD  # seconds after which what was heard last is too old to send by
LATE_SHARE = 0.03  # of the shortest window: by how much a slot may be used late
LATEST = 0.05  # seconds, the same at most
EARLIEST = 0.03  # seconds, the same at least
CATCH_UP = 0.8  # of the distance between slots that is kept while late ones are made up for
MOST_WANTED = 4_096  # slots asked for at once


@dataclass(slots=True)
class _Batch:
    """Slots that were leased together. Monotonic seconds.

    Attributes:
        at: of the next one.
        left: how many there are still.
        late: seconds after its time at which a slot is void.
        tokens: that each was given for.
    """

    at: float
    step: float
    left: int
    late: float
    tokens: float

    @property
    def last(self) -> float:
        return self.at + (self.left - 1) * self.step

    def pop(self) -> float:
        at = self.at
        self.at += self.step
        self.left -= 1
        return at


@dataclass(slots=True)
class _News:
    """What the next lease is to tell; see `LeaseRequest`."""

    settled: float = 0.0
    sent: int = 0
    cut: Cut | None = None


class LeasedSlots:
    """`Slots` of a limit that many processes share through their ledger; a context manager.

    A slot may be used a little late, so that nobody loses what a busy machine delayed; the windows are paced for
    that. One that was missed by more is void: nothing is saved up, so nothing comes in a burst after a pause, a lost
    database or a process that stood still.
    """

    def __init__(
        self,
        leases: Leases,
        account: bytes,
        limits: LimitsConfig,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = leases
        self._account = account
        self._monotonic = monotonic
        self._late = _lateness([*request_windows(limits), *token_windows(limits)])
        self._windows = tuple(shared_windows(limits, self._late))
        self._news = _News()
        self._each = 0.0  # tokens that the next requests are expected to use
        self._batches: deque[_Batch] = deque()
        self._want = 16
        self._granted = 0  # slots of the last lease
        self._used = 0  # slots since the last lease was asked for
        self._missed = 0  # slots that became void since then
        self._spacing = 0.0  # of the last slot that was taken
        self._turned = float("-inf")  # when it was taken
        self._heard = float("-inf")  # when the last lease came
        self._offset: float | None = None  # monotonic seconds less the database's
        self._asked = asyncio.Event()
        self._came = asyncio.Event()
        self._error: BaseException | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._sent = 0
        self._total = 0.0  # requests of all runs, as far as is known
        self._marked = (0.0, 0)  # both, at the mark
        self._hear: Callable[[Lease, bool], None] = lambda _lease, _told: None
        self.runs = 1

    async def __aenter__(self) -> Self:
        await self._lease(0)
        self._keeper = asyncio.create_task(self._keep(), name="beatra-leases")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop leasing, and tell what is still to be told."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._error is None:
            with contextlib.suppress(LedgerError):  # a database that is gone: the estimates stand
                await self._lease(0)

    # --- turns ---------------------------------------------------------------------------------------------

    async def take(self, tokens: float) -> None:
        """Wait until one request of about so many tokens may go by the shared limit.

        Raises:
            LedgerError: the database was gone for too long.
        """
        self._each = tokens
        while True:
            now = self._monotonic()
            batch = self._next(now)
            if batch is None or now - self._heard > FRESH:
                await self._ask()
                continue
            wait = max(batch.at, self._turned + CATCH_UP * self._spacing) - now
            if wait > 0:
                self._ask_ahead()
                await asyncio.sleep(wait)
                continue
            self._use(batch, now, tokens)
            return

    def _next(self, now: float) -> _Batch | None:
        """Drop slots that are void, and give the batch that the next one is from."""
        while self._batches:
            batch = self._batches[0]
            while batch.left and batch.at + batch.late < now:
                batch.pop()
                self._missed += 1
                self._news.settled -= batch.tokens
            if batch.left:
                return batch
            self._batches.popleft()
        return None

    def _use(self, batch: _Batch, now: float, tokens: float) -> None:
        self._turned, self._spacing = now, batch.step
        batch.pop()
        self._used += 1
        self._news.settled += tokens - batch.tokens
        if not batch.step and batch.left < self._granted // 4:
            self._ask_ahead()

    def _ask_ahead(self) -> None:
        """Ask for the next slots before the last ones are over: the limit is what holds this run up."""
        last = self._batches[-1]
        if not last.step or last.last < self._monotonic() + LEAD:
            self._asked.set()

    async def _ask(self) -> None:
        """Wait for a lease; one that was asked for ahead may have failed before."""
        if self._error is None:
            self._came.clear()
            self._asked.set()
            await self._came.wait()
        if self._error is not None:
            raise self._error

    # --- leases --------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Lease whenever it is asked for, one at a time."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._lease(self._wanted())
            except LedgerError as error:
                self._error = error
                return
            finally:
                self._came.set()

    async def _lease(self, want: int) -> None:
        news, self._news = self._news, _News()
        request = LeaseRequest(
            windows=self._windows,
            want=want,
            each=self._each,
            settled=news.settled,
            sent=news.sent,
            cut=news.cut,
        )
        began = self._monotonic()
        self._take_in(await self._leases.lease(self._account, request), request, began)

    def _wanted(self) -> int:
        """Give how many slots to ask for: twice as many while all are used, as many as were used otherwise."""
        if self._batches and self._batches[-1].last > self._monotonic() + LEAD:
            return 0  # it is for the news only
        self._want = max(1, self._used) if self._missed else min(2 * self._want, MOST_WANTED)
        self._used = self._missed = 0
        return self._want

    def _take_in(self, lease: Lease, request: LeaseRequest, began: float) -> None:
        now = self._monotonic()
        late = self._late if lease.step else PERIOD
        offset = self._clock_offset(lease.now, began, now)
        if lease.count:
            self._batches.append(_Batch(lease.start + offset, lease.step, lease.count, late, request.each))
        self._granted = lease.count
        self._heard = now
        self._total = float(lease.sent)
        self.runs = max(1, lease.runs)
        self._hear(lease, request.cut is not None)

    def _clock_offset(self, theirs: float, began: float, now: float) -> float:
        """Tell the database's clock from ours: the least delay seen is the truest, within what is possible now."""
        latest = now - theirs
        offset = latest if self._offset is None else min(self._offset + 1e-3, latest)
        self._offset = max(offset, began - theirs)
        return self._offset

    # --- what there is to tell -----------------------------------------------------------------------------

    @property
    def others(self) -> float:
        """Give the requests that all runs have sent per request of this one, since `mark`."""
        total, own = self._marked
        return max(1.0, (self._total + self._news.sent - total) / max(1, self._sent - own))

    def mark(self) -> None:
        """Count `others` from here."""
        self._marked = (self._total + self._news.sent, self._sent)

    def listen(self, hear: Callable[[Lease, bool], None]) -> None:
        """Have every lease told to ``hear``, and whether it answers a cut of this process."""
        self._hear = hear

    def sent(self) -> None:
        """Note that a request goes now."""
        self._sent += 1
        self._news.sent += 1

    def settle(self, reserved: float, used: float) -> None:
        """Replace an estimate of tokens by what was used; the next lease tells."""
        self._news.settled += used - reserved

    def cut(self, cut: Cut) -> None:
        """Tell the others, now, what a 429 taught."""
        self._news.cut = cut
        self._asked.set()


def shared_windows(limits: LimitsConfig, late: float) -> list[SharedWindow]:
    """Give the windows as lanes, paced so that they hold although slots may be used so many seconds late.

    A span of a window's seconds holds slots from that span and ``late`` before it: at an even distance, at most
    ``amount × (1 − SLACK)`` and the one it begins with.
    """
    requests = [
        SharedWindow(False, w.amount, w.seconds, (w.seconds + late) / (w.amount * (1 - SLACK)))  # noqa: FBT003  # in place
        for w in request_windows(limits)
    ]
    tokens = [
        SharedWindow(True, w.amount, w.seconds, (w.seconds + late) / (w.amount * (1 - SLACK - TOKENS_KEPT)))  # noqa: FBT003  # in place
        for w in token_windows(limits)
    ]
    return requests + tokens


def _lateness(windows: list[Window]) -> float:
    """Give by how many seconds a slot may be used late: next to nothing of the shortest window."""
    shortest = min((window.seconds for window in windows), default=LATEST / LATE_SHARE)
    return min(max(EARLIEST, LATE_SHARE * shortest), LATEST)
