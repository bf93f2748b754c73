"""What the engine's parts share: the requests that are under way, where each of them waits, and whether to go on."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from enrich.engine.key_doubt import KeyDoubt
from enrich.engine.outage import Alike, Outage
from enrich.engine.response_ids import ResponseIds
from enrich.engine.ticket import Stage, Stats, Ticket
from enrich.ledger.rows import storable
from enrich.records import Completion, Settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from enrich.base.clock import Clock
    from enrich.engine.retry import Policy
    from enrich.engine.ticket import Landing
    from enrich.engine.wallet import Wallet
    from enrich.ledger.protocol import Ledger
    from enrich.pace.budget import Budget
    from enrich.pace.pace import Pace
    from enrich.records import Ask, Failure, Reply

LOOK_AHEAD = 2  # times what may be in flight: requests made ready ahead of the dispatcher
FEWEST_AHEAD = 64  # requests, the same at least


class Waiting(Protocol):
    """Where requests wait before they come in."""

    @property
    def waiting(self) -> int:
        """Give the number of requests that wait."""


class Desk:
    """The requests under way, each in one place: new, ready to go, in flight, or waiting to be tried again.

    New and ready ones wait per model, so that one whose limit is reached holds up no other.

    Attributes:
        in_flight: requests that are out.
        feeding: sources of rows that are not at their end.
        gates: where requests of steps with limits of their own wait.
        claiming: requests that the ledger is being asked about.
        stopped: why nothing more is sent; None while the run goes on.
        on_landing: told of every attempt as it ends.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        pace: Pace,
        budget: Budget,
        policy: Policy,
        clock: Clock,
        on_retry: Callable[[Ask, Failure, float | None], None] | None,
        run: int,
        wallet: Wallet | None = None,
        on_landing: Callable[[Landing], None] | None = None,
    ) -> None:
        self.ledger = ledger
        self.pace = pace
        self.budget = budget
        self.wallet = wallet
        if wallet is not None:
            wallet.failed = self.stop
        self.policy = policy
        self.clock = clock
        self.run = run
        self.on_landing = on_landing
        self.outage = Outage(deadline=policy.deadline)
        self.alike = Alike()
        self.key_doubt = KeyDoubt()
        self.response_ids = ResponseIds()
        self.stats = Stats(perhaps_paid_twice=None if policy.unknown is None else 0)
        self.stopped: Exception | None = None
        self.stopped_at: float | None = None  # monotonic seconds
        self.in_flight = 0
        self.feeding = 0
        self.claiming = 0
        self.gates: Sequence[Waiting] = ()
        self.tickets: dict[bytes, Ticket] = {}
        self.new: dict[str, deque[Ticket]] = {}
        self.ready: dict[str, deque[Ticket]] = {}
        self.dispatchable = asyncio.Event()
        self.claimable = asyncio.Event()
        self.changed = asyncio.Event()
        self._later: list[tuple[float, int, Ticket]] = []
        self._order = itertools.count()
        self._on_retry = on_retry

    # --- coming and going -------------------------------------------------------------------------------

    def enter(self, ticket: Ticket, *, first: bool = False) -> None:
        """Take in a new request, or one that is to be asked as if it were."""
        waiting = self.new.setdefault(ticket.ask.model, deque())
        ticket.stage = Stage.NEW
        if first:
            waiting.appendleft(ticket)
        else:
            waiting.append(ticket)
        self.claimable.set()

    def make_ready(self, ticket: Ticket) -> None:
        """Let a request that is claimed wait for its turn; one that is tried again goes first."""
        ticket.stage = Stage.READY
        ready = self.ready.setdefault(ticket.ask.model, deque())
        if ticket.failure is None or self.outage.on:
            ready.append(ticket)
        else:
            ready.appendleft(ticket)
        self.dispatchable.set()

    def postpone(self, ticket: Ticket, after: float) -> None:
        """Let a request wait so many seconds before it is tried again."""
        ticket.stage = Stage.LATER
        heapq.heappush(self._later, (time.monotonic() + after, next(self._order), ticket))
        self.claimable.set()
        self.changed.set()

    def due(self) -> Iterator[Ticket]:
        """Take out the requests whose wait is over."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            yield heapq.heappop(self._later)[2]

    def next_sent_before(self) -> Ticket | None:
        """Take out the request that waits for its next attempt the shortest; None where none does."""
        sent = [entry for entry in self._later if entry[2].attempt]
        if not sent:
            return None
        entry = min(sent)
        self._later.remove(entry)
        heapq.heapify(self._later)
        return entry[2]

    @property
    def due_in(self) -> float | None:
        """Give the seconds until the next one is to be tried again; None when none is."""
        return max(0.001, self._later[0][0] - time.monotonic()) if self._later else None

    def drop(self, ticket: Ticket) -> None:
        """Forget a request that nothing became of: it stays `sent` in the ledger."""
        self.tickets.pop(ticket.ask.key, None)
        self.changed.set()

    @property
    def ahead(self) -> int:
        """Give how many requests of a model may be durable and wait for their turn: enough for commits of many at once."""
        return max(1, min(self.ledger.ahead, self.pace.ceiling))

    def has_plenty(self, model: str) -> bool:
        """Say whether more than half of a model's requests ahead are ready: no few are claimed to fill the rest."""
        return len(self.ready.get(model, ())) > self.ahead // 2

    @property
    def look_ahead(self) -> int:
        """Give how many requests should be under way, so that there is always one that may go."""
        return LOOK_AHEAD * max(self.pace.ceiling, FEWEST_AHEAD)

    def awaited_since(self) -> float:
        """Give when the oldest request that is not settled yet was first sent."""
        return min((t.first_sent for t in self.tickets.values() if t.first_sent), default=math.inf)

    # --- stopping and waiting ---------------------------------------------------------------------------

    def stop(self, reason: Exception) -> None:
        """Send nothing more; the first reason stands."""
        if self.stopped is None:
            self.stopped = reason
            self.stopped_at = time.monotonic()
        for event in (self.dispatchable, self.claimable, self.changed):
            event.set()

    async def woken(self, event: asyncio.Event, wait: float | None) -> None:
        """Wait for an event, at most so many seconds."""
        event.clear()
        if self.stopped is not None:
            return
        if wait is None:
            await event.wait()
            return
        timer = asyncio.get_running_loop().call_later(wait, event.set)  # cheaper than a task with a time-out
        try:
            await event.wait()
        finally:
            timer.cancel()

    async def change(self) -> None:
        """Wait until a request settles or the run stops."""
        self.changed.clear()
        if self.stopped is None:
            await self.changed.wait()

    # --- how a request ends -----------------------------------------------------------------------------

    def give_back(self, ticket: Ticket, result: Completion | None) -> None:
        """Settle with the budgets what was reserved for a request."""
        if self.wallet is not None:
            self.wallet.settle(ticket, result)
        reservation, ticket.reservation = ticket.reservation, None
        if reservation is None:
            if result is not None:
                self.budget.learn(ticket.ask.weight, result)
        elif result is None and not ticket.sent_at:
            self.budget.release(reservation)
        else:
            maybe_paid = ticket.history.unknowns > 0
            self.budget.settle(reservation, ticket.ask.weight, result, maybe_paid=maybe_paid)

    def finish(
        self,
        ticket: Ticket,
        result: Completion | Failure,
        *,
        reply: Reply | None = None,
        in_doubt: bool = False,
    ) -> bool:
        """End a request that this run sent; says whether another one is asked in its place."""
        settled = Settled(
            ticket.ask.key,
            result,
            in_doubt=in_doubt,
            fresh=True,
            began=ticket.first_sent,
            attempts=ticket.attempt,
            request_id=storable(reply.request_id) if reply and reply.request_id else None,
            latency_ms=reply.latency_ms if reply else None,
            parent=ticket.ask.parent,
            asked=ticket.ask.model,
        )
        return self.tell(ticket, settled)

    def tell(self, ticket: Ticket, settled: Settled) -> bool:
        """Tell those who asked how it ended; says whether any of them asks something else instead."""
        ticket.stage = Stage.TOLD
        self.tickets.pop(ticket.ask.key, None)
        going_on = [done(settled) for done in ticket.done]
        self.dispatchable.set()
        self.changed.set()
        return any(going_on)

    def note_retry(self, ticket: Ticket, failure: Failure, after: float | None) -> None:
        """Count an attempt that is made again, and tell of it."""
        self.stats.retries[failure.code] += 1
        if self._on_retry is not None:
            self._on_retry(ticket.ask, failure, after)
