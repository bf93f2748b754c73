"""The engine: requests go in, each ends exactly once.

submit → new → claimed in the ledger, a little ahead (`claiming`) → its turn (`dispatching`) → sent, the answer in the
ledger, read (`working`) → done. What failed is judged (`judging`), waits and goes the same way.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Self

from enrich.base.clock import SystemClock
from enrich.engine.claiming import Claimer, settled_record
from enrich.engine.desk import Desk
from enrich.engine.dispatching import CLAIM_HOLDS, Dispatcher
from enrich.engine.gauging import Gauging
from enrich.engine.judging import Judge
from enrich.engine.ticket import BUSY_STAGES, Stats, Ticket
from enrich.engine.working import Transport, Workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from enrich.base.clock import Clock
    from enrich.engine.desk import Waiting
    from enrich.engine.outage import Outage
    from enrich.engine.retry import Policy
    from enrich.engine.ticket import Landing
    from enrich.engine.wallet import Wallet
    from enrich.ledger.commit import Commits
    from enrich.ledger.protocol import Ledger
    from enrich.pace.budget import Budget
    from enrich.pace.pace import Pace
    from enrich.records import Ask, Completion, Failure, Reply, Settled
    from enrich.wire.gauges import Load

__all__ = ["CLAIM_HOLDS", "Engine", "Stats", "Transport", "settled_record"]


class Engine:
    """Sends requests: each as seldom as it can, all together as fast as they may go.

    Args:
        ledger: where intents and answers become durable.
        transport: sends one attempt.
        read: turns a raw reply into a completion or a failure.
        pace: the limits.
        budget: what may be spent.
        policy: how hard a row is tried.
        workers: the most requests in flight.
        on_retry: told of every attempt that will be made again: the request, the failure, and the seconds until
            then; None where another request takes its place.
        run: this run's number in the ledger.
        clock: tells the age of claims; the machine's by default.
        wallet: what may be spent together with other runs; None where nothing is told.
        on_landing: told of every attempt as it ends.
        look: looks at the endpoint's own gauges; None where it has none, or where they say nothing.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        transport: Transport,
        read: Callable[[Reply], Completion | Failure],
        pace: Pace,
        budget: Budget,
        policy: Policy,
        workers: int,
        on_retry: Callable[[Ask, Failure, float | None], None] | None = None,
        run: int = 0,
        clock: Clock | None = None,
        wallet: Wallet | None = None,
        on_landing: Callable[[Landing], None] | None = None,
        look: Callable[[], Awaitable[Load | None]] | None = None,
    ) -> None:
        self._desk = Desk(
            ledger=ledger,
            pace=pace,
            budget=budget,
            policy=policy,
            clock=clock or SystemClock(),
            on_retry=on_retry,
            run=run,
            wallet=wallet,
            on_landing=on_landing,
        )
        judge = Judge(self._desk)
        self._claimer = Claimer(self._desk, read)
        self._workers = Workers(self._desk, judge, transport, read, most=workers, spawn=self._spawn)
        self._dispatcher = Dispatcher(self._desk, judge, self._workers)
        self._gauging = Gauging(self._desk, look) if look is not None else None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._spawn(self._dispatcher.work(), "dispatcher")
        self._spawn(self._claimer.work(), "claimer")
        if self._gauging is not None:
            self._spawn(self._gauging.work(), "gauging")
        self.pace.bound.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what can be seen of it -------------------------------------------------------------------------

    @property
    def pace(self) -> Pace:
        """Give the limits that it keeps."""
        return self._desk.pace

    @property
    def outage(self) -> Outage:
        """Give the judgement whether the endpoint is out of service."""
        return self._desk.outage

    @property
    def stats(self) -> Stats:
        """Give what was done so far."""
        return self._desk.stats

    @property
    def stopped(self) -> Exception | None:
        """Give why nothing more is sent; None while the run goes on."""
        return self._desk.stopped

    @property
    def in_flight(self) -> int:
        """Give the number of requests that are out."""
        return self._desk.in_flight

    @property
    def under_way(self) -> int:
        """Give the number of requests that are not settled yet."""
        return len(self._desk.tickets)

    @property
    def look_ahead(self) -> int:
        """Give how many requests should be under way, so that there is always one that may go."""
        return self._desk.look_ahead

    @property
    def held(self) -> str:
        """Say why the next request waits for the budget; empty when it does not."""
        return self._desk.budget.held

    @property
    def budget_left(self) -> dict[str, float]:
        """Give what may still be spent of what there is a budget for, by its name."""
        return self._desk.budget.left()

    @property
    def commits(self) -> Commits:
        """Give how many commits the ledger made, and how long they took."""
        return self._desk.ledger.commits

    # --- what it is told --------------------------------------------------------------------------------

    def feeding(self, *, on: bool) -> None:
        """Note that rows are read for it, or that some source of them is at its end."""
        self._desk.feeding += 1 if on else -1

    def behind(self, gates: Sequence[Waiting]) -> None:
        """Note where requests of steps with limits of their own wait before they are submitted."""
        self._desk.gates = gates

    def submit(
        self,
        ask: Ask,
        done: Callable[[Settled], bool],
        *,
        stream: bool = False,
        fallback: Callable[[], bool] | None = None,
        resend: bool = False,
        max_tokens: int | None = None,
        own_model: bool = False,
        began: float | None = None,
    ) -> None:
        """See to it that a request is answered; ``done`` is called once with how it ended.

        Args:
            ask: the request. One that is under way already is not sent again.
            done: called in the event loop; says whether it goes on with another request in this one's place.
            stream: whether the body asks for an event stream.
            fallback: given where there is another model to turn to; says whether other rows have found this one
                unavailable since: then the request is passed over, unsent.
            resend: ask again although it failed for good in an earlier run.
            max_tokens: the longest answer the request allows, for the budget.
            own_model: whether the row names its model: one that is not served fails the row, and stops no run.
            began: monotonic seconds when the row's first attempt began, for a request that follows another one:
                they share one deadline.
        """
        ticket = self._desk.tickets.get(ask.key)
        if ticket is not None:
            ticket.done.append(done)
            return
        ticket = Ticket(ask, [done], stream, fallback, resend, max_tokens, own_model, first_sent=began or 0.0)
        self._desk.tickets[ask.key] = ticket
        self._desk.enter(ticket, first=began is not None)  # what is begun is ended first

    async def change(self) -> None:
        """Wait until a request settles or the run stops."""
        await self._desk.change()

    def stop(self, reason: Exception) -> None:
        """Send nothing more; the first reason stands. What is in flight is awaited by `drain`."""
        self._desk.stop(reason)

    async def drain(self, seconds: float) -> None:
        """Wait for what is in flight, at most so long after the stop; withdraw what was claimed but surely not paid for."""
        desk = self._desk
        deadline = (desk.stopped_at or time.monotonic()) + seconds
        while any(t.stage in BUSY_STAGES for t in desk.tickets.values()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            desk.changed.clear()
            try:
                await asyncio.wait_for(desk.changed.wait(), left)
            except TimeoutError:
                break
        unpaid = [ticket for ticket in desk.tickets.values() if ticket.surely_unpaid]
        if unpaid:
            await desk.ledger.withdraw([ticket.ask.key for ticket in unpaid])
        if desk.wallet is not None:
            for ticket in unpaid:
                desk.wallet.settle(ticket, None)
            await desk.wallet.close()

    def _spawn(self, loop: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(loop, name=f"beatra-{name}")
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A task of ours that dies takes the run with it: nothing may hang in silence."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.stop(error if isinstance(error, Exception) else RuntimeError(repr(error)))
