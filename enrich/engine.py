"""The engine: one dispatcher that does all the waiting, a fixed pool of workers that do all the sending.

submit → new → dispatcher (pause · ceiling · windows · budget) → claim in the ledger → worker → answer in the
ledger → read → done. What must be tried again waits in a heap and goes through the same dispatcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import heapq
import itertools
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

from enrich.errors import RunStopped
from enrich.ledger.protocol import attempt_id
from enrich.outage import Outage, alike_error, stop_error
from enrich.records import Completion, Failure, Fate, Record, Reply, Settled, key_text
from enrich.response_ids import ResponseIds
from enrich.retry import Again, FailRow, History, NextModel, StopRun, decide

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.budget import Budget, Reservation
    from enrich.ledger.protocol import Claim, Ledger
    from enrich.pace import Pace
    from enrich.records import Ask
    from enrich.retry import Policy

ALIKE = 20  # rows, the first ones, that must fail in the same way to stop a run in which nothing succeeded
HELD_WAIT = 0.2  # seconds between looks at a request that another process is sending
SHORTEST = 1.0  # second that an attempt gets at least, however late it is for its row
AHEAD = 16  # requests that may be made durable before there is room for them in flight


class Transport(Protocol):
    """Sends one attempt; see `enrich.client.Client`."""

    async def attempt(
        self,
        body: bytes,
        *,
        key: str,
        request_id: str,
        stream: bool,
        timeout: float | None = None,  # noqa: ASYNC109  # how it ran out decides what is known of the attempt
    ) -> Reply | Failure:
        """Send the bytes once, in at most so many seconds."""


class Stage(enum.Enum):
    """Where a request is."""

    NEW = "new"
    CLAIMING = "claiming"
    READY = "ready"
    FLYING = "flying"
    RECORDING = "recording"
    LATER = "later"


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way through the engine.

    Attributes:
        attempt: the number of the attempt that is allowed, over all runs; 0 before the ledger was asked.
        fresh: whether this run was the first to send it: no earlier attempt can have been charged.
        went_out: whether this run really sent it: an attempt reached the endpoint, or may have.
    """

    ask: Ask
    done: list[Callable[[Settled], bool]]
    stream: bool
    fallback: Callable[[], bool] | None
    resend: bool
    max_tokens: int | None
    stage: Stage = Stage.NEW
    body: bytes = b""
    attempt: int = 0
    fresh: bool = True
    went_out: bool = False
    first_sent: float = 0.0
    sent_at: float = 0.0
    history: History = field(default_factory=History)
    failure: Failure | None = None
    tokens: float = 0.0
    reservation: Reservation | None = None

    @property
    def surely_unpaid(self) -> bool:
        """Say whether it was claimed, but every attempt was refused or never left this machine."""
        waiting = self.stage in (Stage.READY, Stage.LATER)
        return waiting and self.fresh and self.attempt > 0 and self.history.unknowns == 0


@dataclass(slots=True)
class Stats:
    """What the run has done so far. The engine writes it; the progress display and the summary read it."""

    requests: int = 0
    attempts: int = 0
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    credits: float = 0.0
    retries: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=1_000))
    last_event: float = field(default_factory=time.monotonic)


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
    ) -> None:
        self._ledger = ledger
        self._transport = transport
        self._read = read
        self._budget = budget
        self._policy = policy
        self._workers = workers
        self._on_retry = on_retry
        self.pace = pace
        self.outage = Outage()
        self.stats = Stats()
        self.stopped: Exception | None = None
        self.in_flight = 0
        self._tickets: dict[bytes, Ticket] = {}
        self._new: deque[Ticket] = deque()
        self._later: list[tuple[float, int, Ticket]] = []
        self._order = itertools.count()
        self._claiming: list[Ticket] = []
        self._claims = 0
        self._ready: deque[Ticket] = deque()
        self._idle: deque[asyncio.Future[Ticket]] = deque()
        self._dispatchable = asyncio.Event()
        self._claimable = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._alike: Counter[str] = Counter()
        self._response_ids = ResponseIds()

    async def __aenter__(self) -> Self:
        for name, loop in (("dispatcher", self._dispatch()), ("claimer", self._claim_batches())):
            self._spawn(loop, name)
        for number in range(self._workers):
            self._spawn(self._work(), f"worker-{number}")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- from outside ---------------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        """Give the number of requests that are not settled yet."""
        return len(self._tickets)

    def submit(
        self,
        ask: Ask,
        done: Callable[[Settled], bool],
        *,
        stream: bool = False,
        fallback: Callable[[], bool] | None = None,
        resend: bool = False,
        max_tokens: int | None = None,
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
            began: monotonic seconds when the row's first attempt began, for a request that follows another one:
                they share one deadline.
        """
        ticket = self._tickets.get(ask.key)
        if ticket is not None:
            ticket.done.append(done)
            return
        ticket = Ticket(ask, [done], stream, fallback, resend, max_tokens, first_sent=began or 0.0)
        self._tickets[ask.key] = ticket
        self._new.append(ticket)
        self._dispatchable.set()

    async def change(self) -> None:
        """Wait until a request settles or the run stops."""
        self._changed.clear()
        if self.stopped is None:
            await self._changed.wait()

    def stop(self, reason: Exception) -> None:
        """Send nothing more; the first reason stands. What is in flight is awaited by `drain`."""
        if self.stopped is None:
            self.stopped = reason
        for event in (self._dispatchable, self._claimable, self._changed):
            event.set()

    async def drain(self, seconds: float) -> None:
        """Wait for what is in flight, at most so long; withdraw what was claimed but surely not paid for."""
        deadline = time.monotonic() + seconds
        while any(t.stage in _BUSY for t in self._tickets.values()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        unpaid = [t.ask.key for t in self._tickets.values() if t.surely_unpaid]
        if unpaid:
            await self._ledger.withdraw(unpaid)

    # --- the dispatcher: all the waiting --------------------------------------------------------------

    async def _dispatch(self) -> None:
        while self.stopped is None:
            await self._pause_over()
            ticket = self._next_ticket()
            if ticket is None:
                await self._something_to_dispatch()
                continue
            try:
                admitted = await self._admit(ticket)
            except RunStopped as error:
                self._put_back(ticket)
                self.stop(error)
                return
            if not admitted:
                self._put_back(ticket)
                await self.change()
                continue
            if self._has_stopped():
                self._put_back(ticket)
                return
            ticket.stage = Stage.CLAIMING
            self._claims += 1
            self._claiming.append(ticket)
            self._claimable.set()

    def _has_stopped(self) -> bool:
        return self.stopped is not None

    async def _pause_over(self) -> None:
        while self.stopped is None and (wait := self.pace.paused_for()) > 0:
            await self._woken(wait)
        self._hand_out()

    def _next_ticket(self) -> Ticket | None:
        """Take the next request that may go: one whose wait is over first, else the oldest new one.

        A probe of an outage is a new one where there is one: what keeps failing says less of the endpoint.
        """
        under_way = self.in_flight + len(self._ready) + self._claims
        if under_way >= self._most_under_way():
            return None
        if self.outage.on and self._new:
            return self._new.popleft()
        if self._later and self._later[0][0] <= time.monotonic():
            return heapq.heappop(self._later)[2]
        return self._new.popleft() if self._new else None

    def _most_under_way(self) -> int:
        if self.outage.on:
            return 1  # one request probes
        ceiling = self.pace.ceiling
        return ceiling + min(AHEAD, ceiling // 8) if ceiling == self._workers else ceiling

    async def _something_to_dispatch(self) -> None:
        wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
        await self._woken(wait or None)

    async def _woken(self, wait: float | None) -> None:
        self._dispatchable.clear()
        if wait is None:
            await self._dispatchable.wait()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._dispatchable.wait(), wait)

    async def _admit(self, ticket: Ticket) -> bool:
        """Wait for the windows and reserve the budget; False when the budget must wait for what is in flight."""
        if self._budget.active and ticket.reservation is None:
            ticket.reservation = self._budget.reserve(len(ticket.ask.body), ticket.max_tokens)
            if ticket.reservation is None:
                return False
        ticket.tokens = self._budget.likely_tokens(len(ticket.ask.body), ticket.max_tokens)
        await self.pace.turn(ticket.tokens)
        return True

    def _put_back(self, ticket: Ticket) -> None:
        if ticket.attempt:
            heapq.heappush(self._later, (0.0, next(self._order), ticket))
        else:
            self._new.appendleft(ticket)

    # --- the claimer: intents, a batch at a time ------------------------------------------------------

    async def _claim_batches(self) -> None:
        while True:
            self._claimable.clear()
            batch, self._claiming = self._claiming, []
            if not batch:
                await self._claimable.wait()
                continue
            try:
                if self.stopped is None:
                    await self._claim(batch)
            except RunStopped as error:
                self.stop(error)
            finally:
                self._claims -= len(batch)
                if self.stopped is not None:
                    for ticket in batch:
                        if ticket.stage is Stage.CLAIMING:  # stopped before its turn
                            self._postpone(ticket, 0.0)
                self._changed.set()  # who drains waits for no claim any more

    async def _claim(self, batch: list[Ticket]) -> None:
        again = [ticket for ticket in batch if ticket.attempt]
        first = [ticket for ticket in batch if not ticket.attempt and not self._passed_over(ticket)]
        for resend in (False, True):
            tickets = [ticket for ticket in first if ticket.resend is resend]
            if tickets:
                claims = await self._ledger.claim([t.ask for t in tickets], resend_failed=resend)
                for ticket, claim in zip(tickets, claims, strict=True):
                    self._claimed(ticket, claim)
        if again:
            await asyncio.gather(*map(self._claim_again, again))

    def _passed_over(self, ticket: Ticket) -> bool:
        """Settle a request unsent whose model other rows found unavailable while it waited."""
        if ticket.fallback is None or not ticket.fallback():
            return False
        ticket.stage = Stage.LATER
        self._give_back(ticket, None)
        failure = Failure("model_unavailable", "not asked: other rows found it so", Fate.UNSENT)
        self._tell(ticket, Settled(ticket.ask.key, failure, fresh=True))
        return True

    async def _claim_again(self, ticket: Ticket) -> None:
        assert ticket.failure is not None  # noqa: S101  # only a failure brings a ticket here again
        attempt = await self._ledger.again(ticket.ask.key, ticket.failure)
        if attempt is None:  # too old by now to be sent again
            self._give_back(ticket, None)
            self._finish(ticket, ticket.failure, in_doubt=True)
            return
        ticket.attempt = attempt
        self._make_ready(ticket)

    def _claimed(self, ticket: Ticket, claim: Claim) -> None:
        if claim.verdict == "mine":
            ticket.attempt, ticket.body = claim.attempt, claim.body
            ticket.fresh = claim.attempt == 1
            self._make_ready(ticket)
        elif claim.verdict == "held":
            self._give_back(ticket, None)
            self._postpone(ticket, HELD_WAIT)
        else:
            assert claim.record is not None  # noqa: S101  # the protocol's promise
            self._give_back(ticket, None)
            self._tell(ticket, settled_record(claim.record, self._read))

    def _make_ready(self, ticket: Ticket) -> None:
        ticket.stage = Stage.READY
        self._ready.append(ticket)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give ready requests to idle workers, as many as may be in flight."""
        if self.stopped is not None or self.pace.paused_for() > 0:
            return
        most = min(self._workers, self.pace.ceiling) if not self.outage.on else 1
        while self._ready and self._idle and self.in_flight < most:
            worker = self._idle.popleft()
            if worker.cancelled():
                continue
            ticket = self._ready.popleft()
            ticket.stage = Stage.FLYING
            self.in_flight += 1
            worker.set_result(ticket)

    # --- the workers: all the sending -----------------------------------------------------------------

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            turn: asyncio.Future[Ticket] = loop.create_future()
            self._idle.append(turn)
            self._hand_out()
            await self._fly(await turn)

    async def _fly(self, ticket: Ticket) -> None:
        ticket.sent_at = time.monotonic()
        ticket.first_sent = ticket.first_sent or ticket.sent_at
        left = ticket.first_sent + self._policy.deadline - ticket.sent_at
        key = ticket.ask.key
        try:
            result = await self._transport.attempt(
                ticket.body,
                key=key_text(key),
                request_id=attempt_id(key, ticket.attempt),
                stream=ticket.stream,
                timeout=max(left, SHORTEST),
            )
            await self._landed(ticket, result)
        except RunStopped as error:
            self.stop(error)
        finally:
            if ticket.stage in (Stage.FLYING, Stage.RECORDING):  # nothing became of it: it stays `sent`
                self._tickets.pop(key, None)
                self._changed.set()

    async def _landed(self, ticket: Ticket, result: Reply | Failure) -> None:
        in_flight = self.in_flight
        self.in_flight -= 1
        self.stats.last_event = time.monotonic()
        ticket.stage = Stage.RECORDING
        self._dispatchable.set()
        self._response_ids.note(result.request_id, ticket.ask.key)
        if isinstance(result, Reply) or result.fate is not Fate.UNSENT:
            self.stats.attempts += 1
            self.stats.requests += not ticket.went_out
            ticket.went_out = True
        if isinstance(result, Reply):
            await self._keep(ticket, result, in_flight)
        else:
            await self._failed(ticket, result, unusable=False)

    async def _keep(self, ticket: Ticket, reply: Reply, in_flight: int) -> None:
        """Make a raw answer durable, then read it."""
        await self._ledger.answer(ticket.ask.key, reply)
        result = self._read(reply)
        if isinstance(result, Failure):
            await self._failed(ticket, result, unusable=True)
            return
        self.outage.success(ticket.sent_at)
        self._alike.clear()
        self._alike[""] = 1  # something succeeded: the rows do not all fail alike
        usage = result.usage
        self.pace.answered(
            ticket.sent_at, in_flight=in_flight, reserved=ticket.tokens, used=usage.total_tokens
        )
        self._give_back(ticket, result)
        self._count(result, reply)
        self._finish(ticket, result)

    def _count(self, completion: Completion, reply: Reply) -> None:
        stats, usage = self.stats, completion.usage
        stats.answered += 1
        stats.prompt_tokens += usage.prompt_tokens or 0
        stats.completion_tokens += usage.completion_tokens or 0
        stats.total_tokens += usage.total_tokens or 0
        stats.credits += usage.credits or 0.0
        stats.latencies.append(reply.latency_ms)

    async def _failed(self, ticket: Ticket, failure: Failure, *, unusable: bool) -> None:
        """Carry out what the rules say of a failed attempt."""
        self.pace.released(ticket.tokens)
        ticket.tokens = 0.0
        ticket.failure = failure
        waited = time.monotonic() - ticket.first_sent
        self._note_outage(ticket, failure)
        if self.outage.on:
            ticket.history = _waited_out(ticket.history, failure, waited)
        else:
            ticket.history = ticket.history.add(failure, waited=waited)
        decision = decide(
            failure, ticket.history, self._policy, has_fallback=ticket.fallback is not None, random=random.random
        )
        if failure.status == 429:
            self.pace.limited(ticket.sent_at, failure.retry_after)
        match decision:
            case Again(after=after):
                if unusable:
                    await self._ledger.reject(ticket.ask.key, failure, final=False)
                self._again(ticket, failure, after)
            case StopRun(kind=kind):
                if unusable:
                    await self._ledger.reject(ticket.ask.key, failure, final=False)
                self._postpone(ticket, 0.0)
                self.stop(stop_error(kind, failure, ticket.ask.model))
            case NextModel():
                await self._give_up(ticket, failure, unusable=unusable, in_doubt=False)
            case FailRow(in_doubt=in_doubt):
                await self._give_up(ticket, failure, unusable=unusable, in_doubt=in_doubt)

    def _note_outage(self, ticket: Ticket, failure: Failure) -> None:
        pause = self.outage.failure(failure, ticket.sent_at)
        if pause is not None:
            self.pace.pause(pause, f"the endpoint is out of service ({failure.code})")
        if self.outage.hopeless:
            self.stop(stop_error("outage", failure, ""))

    def _again(self, ticket: Ticket, failure: Failure, after: float) -> None:
        self._note_retry(ticket, failure, max(after, self.pace.paused_for()))
        self._postpone(ticket, after)

    def _note_retry(self, ticket: Ticket, failure: Failure, after: float | None) -> None:
        self.stats.retries[failure.code] += 1
        if self._on_retry is not None:
            self._on_retry(ticket.ask, failure, after)

    def _postpone(self, ticket: Ticket, after: float) -> None:
        ticket.stage = Stage.LATER
        heapq.heappush(self._later, (time.monotonic() + after, next(self._order), ticket))
        self._dispatchable.set()
        self._changed.set()

    async def _give_up(self, ticket: Ticket, failure: Failure, *, unusable: bool, in_doubt: bool) -> None:
        """End a request without an answer; another one may take its place."""
        if unusable:
            await self._ledger.reject(ticket.ask.key, failure, final=not in_doubt)
        if in_doubt or not unusable:
            await self._ledger.fail(ticket.ask.key, failure, final=not in_doubt)
        self._give_back(ticket, None)
        if self._finish(ticket, failure, in_doubt=in_doubt):
            self._note_retry(ticket, failure, None)
        else:
            self._note_failed(failure)

    def _note_failed(self, failure: Failure) -> None:
        """Stop when the first rows, without exception, fail in the same way: the rest would pay for nothing."""
        self.stats.failed += 1
        self.stats.failures[failure.code] += 1
        self._alike[failure.code] += 1
        if len(self._alike) == 1 and self._alike[failure.code] >= ALIKE:
            self.stop(alike_error(failure, ALIKE))

    def _give_back(self, ticket: Ticket, result: Completion | None) -> None:
        reservation, ticket.reservation = ticket.reservation, None
        if reservation is None:
            if result is not None:
                self._budget.learn(len(ticket.ask.body), result)
        elif result is None and not ticket.sent_at:
            self._budget.release(reservation)
        else:
            maybe_paid = ticket.history.unknowns > 0
            self._budget.settle(reservation, len(ticket.ask.body), result, maybe_paid=maybe_paid)

    def _finish(self, ticket: Ticket, result: Completion | Failure, *, in_doubt: bool = False) -> bool:
        return self._tell(
            ticket,
            Settled(ticket.ask.key, result, in_doubt=in_doubt, fresh=True, began=ticket.first_sent),
        )

    def _tell(self, ticket: Ticket, settled: Settled) -> bool:
        """Tell those who asked how it ended; says whether any of them asks something else instead."""
        self._tickets.pop(ticket.ask.key, None)
        going_on = [done(settled) for done in ticket.done]
        self._dispatchable.set()
        self._changed.set()
        return any(going_on)

    def _spawn(self, loop: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(loop, name=f"beatra-{name}")
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A task of ours that dies takes the run with it: nothing may hang in silence."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.stop(error if isinstance(error, Exception) else RuntimeError(repr(error)))


_BUSY = frozenset({Stage.CLAIMING, Stage.FLYING, Stage.RECORDING})


def _waited_out(history: History, failure: Failure, waited: float) -> History:
    """Add an attempt that an outage swallowed: it uses up none of the row's attempts."""
    unknowns = max(history.unknowns, int(failure.fate is Fate.UNKNOWN))
    return replace(history, failures=history.failures + 1, unknowns=unknowns, waited=waited)


def settled_record(record: Record, read: Callable[[Reply], Completion | Failure]) -> Settled:
    """Say how a request that the ledger knows ended.

    An answer that cannot be read counts as its failure; the next claim sends it again under its key.
    """
    if record.reply is not None:
        result = read(record.reply)
        return Settled(record.key, result, in_doubt=isinstance(result, Failure))
    failure = record.failure or Failure(
        "in_doubt", "sent in an earlier run; no answer was kept", Fate.UNKNOWN
    )
    return Settled(record.key, failure, in_doubt=record.state == "sent", skipped=record.skipped)
