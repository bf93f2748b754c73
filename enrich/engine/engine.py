"""The engine: one dispatcher that does all the waiting, a fixed pool of workers that do all the sending.

submit → new → claim in the ledger, a little ahead → dispatcher (pause · ceiling · budget · windows) → worker → answer
in the ledger → read → done. What must be tried again waits in a heap and goes the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import heapq
import itertools
import logging
import math
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

from enrich.base.clock import SystemClock
from enrich.engine.key_doubt import KeyDoubt, may_be_about_the_row
from enrich.engine.outage import Alike, Outage, alike_error, stop_error
from enrich.engine.response_ids import ResponseIds
from enrich.engine.retry import (
    Again,
    FailRow,
    History,
    NextModel,
    StopRun,
    decide,
    is_rate_limit,
    waits_too_long,
)
from enrich.errors import RunStopped
from enrich.ledger.protocol import DOUBT_AFTER, attempt_id
from enrich.ledger.rows import storable
from enrich.records import TOO_MANY_FILES, Completion, Failure, Fate, Record, Reply, Settled, key_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.base.clock import Clock
    from enrich.engine.key_doubt import KeyWord
    from enrich.engine.retry import Policy
    from enrich.ledger.protocol import Claim, Ledger
    from enrich.pace.budget import Budget, Reservation
    from enrich.pace.pace import Pace
    from enrich.records import Ask

CLAIM_HOLDS = (
    3_600.0  # seconds; who claimed longer ago, or was suspended meanwhile, asks the ledger once more
)
HELD_WAIT = 0.2  # seconds between looks at a request that another process is sending
SHORTEST = 1.0  # second that an attempt gets at least, however late it is for its row
IN_FLIGHT_BYTES = 64 << 20  # of answers that may be on their way at once
FEWEST_IN_FLIGHT = 32  # requests, however large their answers
ANSWER_WEIGHT = 0.05  # of the newest answer in the mean size
FEWER = 0.8  # of what was in flight when no file could be opened any more
SPARE = 64  # workers beyond those whose requests are in flight: they wait for the ledger


log = logging.getLogger("enrich")


class Transport(Protocol):
    """Sends one attempt; see `enrich.wire.client.Client`."""

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
    TOLD = "told"


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way through the engine.

    Attributes:
        attempt: the number of the attempt that is allowed, over all runs; 0 before the ledger was asked.
        claimed_at: when the ledger was asked for that, in seconds since the machine started.
        fresh: whether this run was the first to send it: no earlier attempt can have been charged.
        number: of the latest attempt, as the pace counts them.
        went_out: whether this run really sent it: an attempt reached the endpoint, or may have.
        doubled: whether it was sent again after an unknown outcome where that may be paid for.
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
    claimed_at: float = 0.0
    fresh: bool = True
    went_out: bool = False
    doubled: bool = False
    first_sent: float = 0.0
    sent_at: float = 0.0
    history: History = field(default_factory=History)
    failure: Failure | None = None
    number: int = 0
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
    perhaps_paid_twice: int | None = None
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
        run: this run's number in the ledger.
        clock: tells the age of claims; the machine's by default.
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
    ) -> None:
        self._clock = clock or SystemClock()
        self._ledger = ledger
        self._transport = transport
        self._read = read
        self._budget = budget
        self._policy = policy
        self._workers = workers
        self._answer_size = 1.0  # bytes; the newest answers weigh most
        self._most = workers  # in flight; lowered where this machine sets a limit
        self._on_retry = on_retry
        self._run = run
        self.pace = pace
        self.outage = Outage()
        self.stats = Stats(perhaps_paid_twice=None if policy.unknown is None else 0)
        self.stopped: Exception | None = None
        self._stopped_at: float | None = None  # monotonic seconds
        self.in_flight = 0
        self._tickets: dict[bytes, Ticket] = {}
        self._new: deque[Ticket] = deque()
        self._later: list[tuple[float, int, Ticket]] = []
        self._order = itertools.count()
        self._ready: deque[Ticket] = deque()
        self._idle: deque[asyncio.Future[Ticket]] = deque()
        self._dispatchable = asyncio.Event()
        self._claimable = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._alike = Alike()
        self._key_doubt = KeyDoubt()
        self._response_ids = ResponseIds()

    async def __aenter__(self) -> Self:
        for name, loop in (("dispatcher", self._dispatch()), ("claimer", self._claim_ahead())):
            self._spawn(loop, name)
        for number in range(self._workers + min(self._workers, SPARE)):
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

    @property
    def held(self) -> str:
        """Say why the next request waits for the budget; empty when it does not."""
        return self._budget.held

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
        self._claimable.set()

    async def change(self) -> None:
        """Wait until a request settles or the run stops."""
        self._changed.clear()
        if self.stopped is None:
            await self._changed.wait()

    def stop(self, reason: Exception) -> None:
        """Send nothing more; the first reason stands. What is in flight is awaited by `drain`."""
        if self.stopped is None:
            self.stopped = reason
            self._stopped_at = time.monotonic()
        for event in (self._dispatchable, self._claimable, self._changed):
            event.set()

    async def drain(self, seconds: float) -> None:
        """Wait for what is in flight, at most so long after the stop; withdraw what was claimed but surely not paid for."""
        deadline = (self._stopped_at or time.monotonic()) + seconds
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

    # --- the claimer: intents, a batch at a time, a little ahead of the sending ------------------------

    async def _claim_ahead(self) -> None:
        while self.stopped is None:
            batch = self._next_batch()
            if not batch:
                await self._something_to_claim()
                continue
            try:
                await self._claim(batch)
            except RunStopped as error:
                self.stop(error)
            finally:
                for ticket in batch:
                    if ticket.stage is Stage.CLAIMING:  # stopped before its turn
                        self._postpone(ticket, 0.0)
                self._changed.set()  # who drains waits for no claim any more

    def _next_batch(self) -> list[Ticket]:
        """Take the requests that may go next: those whose wait is over first, then the oldest new ones.

        A probe of an outage is one that was sent before, the next in turn: a new one might be paid for without an answer.
        """
        batch: list[Ticket] = []
        most = 1 if self.outage.on else self._ledger.ahead
        room = min(most, self._ahead) - len(self._ready)
        now = time.monotonic()
        if self.outage.on and room > 0 and (probe := self._probe()) is not None:
            batch.append(probe)
        while len(batch) < most and self._later and self._later[0][0] <= now:  # whether or not there is room:
            batch.append(heapq.heappop(self._later)[2])  # they may hold what the budget has left
        while len(batch) < room and self._new:
            batch.append(self._new.popleft())
        asked_at = self._clock.boottime()
        for ticket in batch:
            ticket.stage, ticket.claimed_at = Stage.CLAIMING, asked_at
        return batch

    def _probe(self) -> Ticket | None:
        """Take the request that waits for its next attempt the shortest; a new one where none was sent yet."""
        sent = [entry for entry in self._later if entry[2].attempt]
        if not sent:
            return self._new.popleft() if self._new else None
        entry = min(sent)
        self._later.remove(entry)
        heapq.heapify(self._later)
        return entry[2]

    @property
    def _ahead(self) -> int:
        """Give how many requests may be durable and waiting for their turn: enough for commits of many at once."""
        return max(1, min(self._ledger.ahead, self.pace.ceiling))

    async def _something_to_claim(self) -> None:
        """Wait until a retry is due, or there is a new request and room for it."""
        wait = max(0.001, self._later[0][0] - time.monotonic()) if self._later else None
        await self._woken(self._claimable, wait)

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
        self._give_back(ticket, None)
        failure = Failure("model_unavailable", "not asked: other rows found it so", Fate.UNSENT)
        self._tell(ticket, Settled(ticket.ask.key, failure, fresh=True))
        return True

    async def _claim_again(self, ticket: Ticket) -> None:
        assert ticket.failure is not None  # noqa: S101  # only a failure brings a ticket here again
        young = ticket.fresh and self._policy.deadline < DOUBT_AFTER
        if young and ticket.failure.fate is Fate.UNSENT:  # the attempt that was claimed is still to be made
            self._make_ready(ticket)
            return
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
            if self._policy.unknown is not None:
                ticket.history = replace(ticket.history, unknowns=claim.unknowns)
            if self._policy.forbids(claim.unknowns):
                self._give_back(ticket, None)
                failure = claim.record.failure if claim.record is not None else None
                self._finish(ticket, failure or _NO_ANSWER, in_doubt=True)
                return
            self._make_ready(ticket)
        elif claim.verdict == "held":
            self._give_back(ticket, None)
            self._postpone(ticket, HELD_WAIT)
        else:
            assert claim.record is not None  # noqa: S101  # the protocol's promise
            self._give_back(ticket, None)
            self._tell(ticket, settled_record(claim.record, self._read, run=self._run))

    def _make_ready(self, ticket: Ticket) -> None:
        ticket.stage = Stage.READY
        if ticket.failure is None or self.outage.on:
            self._ready.append(ticket)
        else:
            self._ready.appendleft(ticket)
        self._dispatchable.set()

    # --- the dispatcher: all the waiting --------------------------------------------------------------

    async def _dispatch(self) -> None:
        while await self._may_send():
            if not self._ready:
                await self._woken(self._dispatchable, None)
                continue
            try:
                ticket = self._next_affordable()
            except RunStopped as error:
                self.stop(error)
                return
            if ticket is None:
                await self.change()
                continue
            await self.pace.turn(ticket.tokens)
            if not await self._may_send():
                return
            if self._clock.boottime() - ticket.claimed_at > CLAIM_HOLDS:
                await self._claim_anew(ticket)
            else:
                self._launch(ticket)

    async def _may_send(self) -> bool:
        """Wait for the end of a pause and for room below the ceiling; False when the run has stopped."""
        while self.stopped is None:
            pause = self.pace.paused_for()
            most = 1 if self.outage.on else min(self._most, self.pace.ceiling, self._fitting)
            if not pause and self.in_flight < most and self._idle:
                return True
            await self._woken(self._dispatchable, pause or None)
        return False

    async def _woken(self, event: asyncio.Event, wait: float | None) -> None:
        """Wait for an event, at most so many seconds."""
        event.clear()
        if self.stopped is not None:
            return
        if wait is None:
            await event.wait()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), wait)

    def _next_affordable(self) -> Ticket | None:
        """Take the next ready request that the budget allows; None when it must wait for what is in flight."""
        first = self._ready[0]
        if self._reserve(first):
            return self._ready.popleft()
        retry = next((ticket for ticket in self._ready if ticket.reservation is not None), None)
        if retry is not None and self._reserve(retry):
            self._ready.remove(retry)
        return retry

    def _reserve(self, ticket: Ticket) -> bool:
        """Reserve what a request may cost; False when it does not fit beside what is in flight."""
        size = len(ticket.ask.body)
        if self._budget.active and ticket.reservation is None:
            ticket.reservation = self._budget.reserve(size, ticket.max_tokens)
            if ticket.reservation is None:
                return False
        ticket.tokens = self._budget.likely_tokens(size, ticket.max_tokens)
        return True

    def _launch(self, ticket: Ticket) -> None:
        ticket.stage = Stage.FLYING
        self.in_flight += 1
        self._idle.popleft().set_result(ticket)
        if len(self._ready) <= self._ahead // 2:
            self._claimable.set()

    async def _claim_anew(self, ticket: Ticket) -> None:
        """Have the ledger decide once more: another run may have sent it, or it has grown too old."""
        if ticket.surely_unpaid:  # its age counts from when it is really sent
            await self._ledger.withdraw([ticket.ask.key])
        self.pace.released(ticket.tokens)
        ticket.tokens, ticket.attempt, ticket.stage = 0.0, 0, Stage.NEW
        self._new.appendleft(ticket)
        self._claimable.set()

    # --- the workers: all the sending -----------------------------------------------------------------

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            turn: asyncio.Future[Ticket] = loop.create_future()
            self._idle.append(turn)
            self._dispatchable.set()
            await self._fly(await turn)

    async def _fly(self, ticket: Ticket) -> None:
        ticket.sent_at = time.monotonic()
        ticket.number = self.pace.sent()
        ticket.first_sent = ticket.first_sent or ticket.sent_at
        left = ticket.first_sent + self._policy.deadline - ticket.sent_at
        key = ticket.ask.key
        if self._policy.unknown is not None and ticket.history.unknowns and not ticket.doubled:
            ticket.doubled = True
            self.stats.perhaps_paid_twice = (self.stats.perhaps_paid_twice or 0) + 1
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
            self._slow_down(ticket, result, in_flight)
            await self._failed(ticket, result)

    def _slow_down(self, ticket: Ticket, failure: Failure, in_flight: int) -> None:
        """Tell the pace what a refusal says of the endpoint; a wait that ends the run is no measure for the next one."""
        if waits_too_long(failure):
            return
        if failure.code == TOO_MANY_FILES:
            self._make_fewer(in_flight)
            return
        if is_rate_limit(failure) or (failure.code == _BUSY_PROXY and not self.outage.on):
            self.pace.limited(ticket.number, failure.retry_after, in_flight=in_flight, sent_at=ticket.sent_at)
        elif (failure.status or 0) >= 500:
            self.pace.troubled()

    @property
    def _fitting(self) -> int:
        """Give how many answers of the size that they have lately may be on their way at once."""
        return max(FEWEST_IN_FLIGHT, int(IN_FLIGHT_BYTES / self._answer_size))

    def _make_fewer(self, in_flight: int) -> None:
        """Have fewer requests in flight from now on: this machine lets no more connections be opened."""
        fewer = max(1, int(in_flight * FEWER))
        if fewer < self._most:
            if self._most == self._workers:
                log.warning(
                    "this machine lets no more files be opened: %s requests in flight at the most",
                    f"{fewer:,}",
                )
            self._most = fewer

    async def _keep(self, ticket: Ticket, reply: Reply, in_flight: int) -> None:
        """Make a raw answer durable, then read it."""
        self._answer_size += ANSWER_WEIGHT * (len(reply.body) - self._answer_size)
        await self._ledger.answer(ticket.ask.key, reply)
        result = self._read(reply)
        if isinstance(result, Failure):
            self._slow_down(ticket, result, in_flight)
            await self._failed(ticket, result, unusable=reply.body)
            return
        self.outage.success(ticket.sent_at)
        self._key_doubt.served(ticket.sent_at)
        self._alike.succeeded()
        usage = result.usage
        self.pace.answered(
            ticket.number, in_flight=in_flight, reserved=ticket.tokens, used=usage.total_tokens
        )
        self._give_back(ticket, result)
        self._count(result, reply)
        self._finish(ticket, result, reply=reply)

    def _count(self, completion: Completion, reply: Reply) -> None:
        stats, usage = self.stats, completion.usage
        stats.answered += 1
        stats.prompt_tokens += usage.prompt_tokens or 0
        stats.completion_tokens += usage.completion_tokens or 0
        stats.total_tokens += usage.total_tokens or 0
        stats.credits += usage.credits or 0.0
        stats.latencies.append(reply.latency_ms)

    async def _failed(self, ticket: Ticket, failure: Failure, *, unusable: bytes | None = None) -> None:
        """Carry out what the rules say of a failed attempt; ``unusable`` is the answer that it got all the same."""
        self.pace.released(ticket.tokens)
        ticket.tokens = 0.0
        ticket.failure = failure
        waited = time.monotonic() - ticket.first_sent
        self._note_outage(ticket, failure)
        if self.outage.on and not (self._policy.unknown is not None and failure.fate is Fate.UNKNOWN):
            ticket.history = _waited_out(ticket.history, failure, waited)
        else:
            ticket.history = ticket.history.add(failure, waited=waited)
        decision = decide(
            failure,
            ticket.history,
            self._policy,
            has_fallback=ticket.fallback is not None,
            random=random.random,
            key=self._word_on_key(ticket, failure),
        )
        match decision:
            case Again(after=after):
                if unusable is not None:
                    await self._ledger.reject(ticket.ask.key, failure, final=False, answer=unusable)
                self._again(ticket, failure, after)
            case StopRun(kind=kind):
                if unusable is not None:
                    await self._ledger.reject(ticket.ask.key, failure, final=False, answer=unusable)
                self._postpone(ticket, 0.0)
                self.stop(stop_error(kind, failure, ticket.ask.model))
            case NextModel():
                await self._give_up(ticket, failure, unusable=unusable, in_doubt=False)
            case FailRow(in_doubt=in_doubt):
                await self._give_up(ticket, failure, unusable=unusable, in_doubt=in_doubt)

    def _word_on_key(self, ticket: Ticket, failure: Failure) -> KeyWord:
        """Say what a refusal of access that names no cause is about, as far as it is known."""
        if not may_be_about_the_row(failure):
            return "key"
        return self._key_doubt.refused(ticket.ask.key, ticket.sent_at)

    def _note_outage(self, ticket: Ticket, failure: Failure) -> None:
        pause = self.outage.failure(failure, ticket.sent_at)
        if pause is not None:
            self.pace.pause(pause, f"the endpoint is out of service ({failure.code})")
        if self.outage.never_finishes:
            self.stop(stop_error("stream_end", failure, ""))
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
        self._claimable.set()
        self._changed.set()

    async def _give_up(
        self, ticket: Ticket, failure: Failure, *, unusable: bytes | None, in_doubt: bool
    ) -> None:
        """End a request without an answer; another one may take its place."""
        if unusable is not None:
            await self._ledger.reject(ticket.ask.key, failure, final=not in_doubt, answer=unusable)
        if in_doubt or unusable is None:
            await self._ledger.fail(ticket.ask.key, failure, final=not in_doubt)
        self._give_back(ticket, None)
        if self._finish(ticket, failure, in_doubt=in_doubt):
            self._note_retry(ticket, failure, None)
        else:
            self._note_failed(ticket, failure)

    def _note_failed(self, ticket: Ticket, failure: Failure) -> None:
        """Stop when the first rows, without exception, fail in the same way: the rest would fare no better."""
        self.stats.failed += 1
        self.stats.failures[failure.code] += 1
        if self._alike.failed(failure, ticket.first_sent, self._awaited_since):
            self.stop(alike_error(failure, self._alike.rows))

    def _awaited_since(self) -> float:
        """Give when the oldest request that is not settled yet was first sent."""
        return min((t.first_sent for t in self._tickets.values() if t.first_sent), default=math.inf)

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

    def _finish(
        self,
        ticket: Ticket,
        result: Completion | Failure,
        *,
        reply: Reply | None = None,
        in_doubt: bool = False,
    ) -> bool:
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
        )
        return self._tell(ticket, settled)

    def _tell(self, ticket: Ticket, settled: Settled) -> bool:
        """Tell those who asked how it ended; says whether any of them asks something else instead."""
        ticket.stage = Stage.TOLD
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


_BUSY_PROXY = (
    "http_503"  # a 503 without an envelope: nginx's limit_req says so by default, where others say 429
)
_NO_ANSWER = Failure("in_doubt", "sent in an earlier run; no answer was kept", Fate.UNKNOWN)
_BUSY = frozenset({Stage.CLAIMING, Stage.FLYING, Stage.RECORDING})


def _waited_out(history: History, failure: Failure, waited: float) -> History:
    """Add an attempt that an outage swallowed: it uses up none of the row's attempts."""
    unknowns = max(history.unknowns, int(failure.fate is Fate.UNKNOWN))
    return replace(history, failures=history.failures + 1, unknowns=unknowns, waited=waited)


def settled_record(record: Record, read: Callable[[Reply], Completion | Failure], *, run: int = 0) -> Settled:
    """Say how a request that the ledger knows ended.

    An answer that cannot be read counts as its failure; the next claim sends it again under its key.

    Args:
        record: what the ledger knows.
        read: turns a raw reply into a completion or a failure.
        run: this run's number, which tells what is fresh.
    """
    reply = record.reply
    result = (record.failure or _NO_ANSWER) if reply is None else read(reply)
    return Settled(
        record.key,
        result,
        in_doubt=record.state == "sent" if reply is None else isinstance(result, Failure),
        skipped=record.skipped,
        fresh=record.run == run,
        attempts=record.attempts,
        request_id=reply.request_id if reply else None,
        latency_ms=reply.latency_ms if reply else None,
        parent=record.parent,
    )
