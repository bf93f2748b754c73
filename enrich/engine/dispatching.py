"""The dispatcher: all the waiting. A request goes when the outage, the ceiling, its model's limit, the budget and the windows let it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from enrich.engine.ticket import Stage
from enrich.errors import RunStopped
from enrich.pace.bound import Cause
from enrich.pace.windows import TICK

if TYPE_CHECKING:
    from collections import deque

    from enrich.engine.desk import Desk
    from enrich.engine.judging import Judge
    from enrich.engine.ticket import Ticket
    from enrich.engine.working import Workers

CLAIM_HOLDS = (
    3_600.0  # seconds; who claimed longer ago, or was suspended meanwhile, asks the ledger once more
)
LOOK = 1.0  # seconds between looks at requests that wait, for those whose row's time is over


class Dispatcher:
    """Lets requests go one at a time, in the order they came; a model whose limit is reached lets the others by."""

    def __init__(self, desk: Desk, judge: Judge, workers: Workers) -> None:
        self._desk = desk
        self._judge = judge
        self._workers = workers

    async def work(self) -> None:
        """Send until the run stops."""
        desk = self._desk
        try:
            while desk.stopped is None:
                ready = await self._next_queue()
                if ready is not None:
                    await self._let_go(ready)
        except RunStopped as error:
            desk.stop(error)

    # --- whose turn it is -------------------------------------------------------------------------------

    async def _next_queue(self) -> deque[Ticket] | None:
        """Give the model whose first request may go now; else wait until something changes."""
        desk = self._desk
        if not any(desk.ready.values()):
            await self._wait(None, self._why_nothing_is_ready())
            return None
        if await self._expire():
            return None
        blocked = self._blocked()
        if blocked is not None:
            wait, cause = blocked
            await self._wait(wait, cause)
            return None
        soonest, cause = math.inf, Cause.ENDPOINT
        for model, ready in desk.ready.items():
            if ready:
                wait = desk.pace.wait(model)
                if wait <= 0:
                    return ready
                if wait < soonest:
                    soonest, cause = wait, desk.pace.why_wait(model)
        if soonest > TICK:
            await self._wait(soonest, cause)
        else:  # those that may go by then go together, whatever else happens meanwhile
            with desk.pace.bound.by(cause):
                await asyncio.sleep(TICK)
        return None

    def _blocked(self) -> tuple[float, Cause] | None:
        """Say what keeps every request from going, and for how many seconds at most; None when nothing does."""
        desk = self._desk
        pause = desk.pace.paused_for()
        if pause:
            return pause, Cause.OUTAGE
        most = 1 if desk.outage.on else min(self._workers.fitting, desk.pace.ceiling)
        if desk.in_flight >= most:
            if desk.outage.on:
                return math.inf, Cause.OUTAGE
            return math.inf, Cause.CONCURRENCY if most < desk.pace.ceiling else desk.pace.why_no_more
        return None if self._workers.free else (math.inf, Cause.LEDGER)

    def _why_nothing_is_ready(self) -> Cause:
        desk = self._desk
        if desk.claiming and not desk.in_flight:
            return Cause.LEDGER
        if any(gate.waiting for gate in desk.gates):
            return Cause.LIMITS
        if desk.feeding and len(desk.tickets) <= desk.look_ahead:
            return Cause.SOURCE
        return Cause.END

    async def _wait(self, seconds: float | None, cause: Cause) -> None:
        """Wait until something changes, at most so long, for a reason."""
        desk = self._desk
        retries = any(ready and ready[0].failure is not None for ready in desk.ready.values())
        if seconds is not None and (math.isfinite(seconds) or retries):
            seconds = min(seconds, LOOK) if retries else seconds
        else:
            seconds = None
        with desk.pace.bound.by(cause):
            await desk.woken(desk.dispatchable, seconds)

    async def _expire(self) -> bool:
        """Give up those whose row's time is over while they waited; says whether there was one."""
        for ready in self._desk.ready.values():
            if ready and ready[0].failure is not None:
                ticket = ready[0]
                if await self._judge.expire(ticket):
                    ready.remove(ticket)
                    self._desk.claimable.set()
                    return True
        return False

    # --- letting it go ----------------------------------------------------------------------------------

    async def _let_go(self, ready: deque[Ticket]) -> None:
        desk = self._desk
        ticket = self._next_affordable(ready)
        if ticket is None:
            with desk.pace.bound.by(Cause.BUDGET):
                await desk.change()
            return
        await desk.pace.turn(ticket.tokens)
        while desk.stopped is None and (blocked := self._blocked()) is not None:
            wait, cause = blocked
            with desk.pace.bound.by(cause):
                await desk.woken(desk.dispatchable, wait if math.isfinite(wait) else None)
        if desk.stopped is not None:
            return
        if desk.clock.boottime() - ticket.claimed_at > CLAIM_HOLDS:
            await self._claim_anew(ticket)
        else:
            self._launch(ticket)

    def _next_affordable(self, ready: deque[Ticket]) -> Ticket | None:
        """Take the next ready request that the budget allows; None when it must wait for what is in flight."""
        first = ready[0]
        if self._reserve(first):
            return ready.popleft()
        retry = next((ticket for ticket in ready if ticket.reservation is not None), None)
        if retry is not None and self._reserve(retry):
            ready.remove(retry)
        return retry

    def _reserve(self, ticket: Ticket) -> bool:
        """Reserve what a request may cost; False when it does not fit beside what is in flight."""
        budget, size = self._desk.budget, ticket.ask.weight
        if budget.active and ticket.reservation is None:
            ticket.reservation = budget.reserve(size, ticket.max_tokens)
            if ticket.reservation is None:
                return False
        ticket.tokens = budget.likely_tokens(size, ticket.max_tokens)
        return True

    def _launch(self, ticket: Ticket) -> None:
        desk = self._desk
        ticket.stage = Stage.FLYING
        desk.in_flight += 1
        ticket.sent = desk.pace.sent(ticket.ask.model, ticket.tokens)
        self._workers.take(ticket)
        if not desk.has_plenty(ticket.ask.model):
            desk.claimable.set()

    async def _claim_anew(self, ticket: Ticket) -> None:
        """Have the ledger decide once more: another run may have sent it, or it has grown too old."""
        desk = self._desk
        if ticket.surely_unpaid:  # its age counts from when it is really sent
            await desk.ledger.withdraw([ticket.ask.key])
        desk.pace.released(ticket.tokens)
        ticket.tokens, ticket.attempt = 0.0, 0
        desk.enter(ticket, first=True)
