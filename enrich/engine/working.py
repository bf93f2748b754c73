"""The workers: all the sending, and what comes back into the ledger before anything else is done with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from enrich.engine.pictures import Pictures
from enrich.engine.ticket import Landing, Stage
from enrich.errors import RunStopped
from enrich.ledger.protocol import attempt_id
from enrich.records import TOO_MANY_FILES, Completion, Failure, Fate, Reply, key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from enrich.engine.desk import Desk
    from enrich.engine.judging import Judge
    from enrich.engine.ticket import Ticket

SHORTEST = 1.0  # second that an attempt gets at least, however late it is for its row
SPARE_WORKERS = 64  # workers beyond those whose requests are in flight: they wait for the ledger


IN_FLIGHT_BYTES = 64 << 20  # of answers that may be on their way at once
FEWEST_IN_FLIGHT = 32  # requests, however large their answers
PATIENCE = 0.008  # seconds that an answer waits at most for others to be made durable with it
PATIENCE_SHARE = 0.15  # of the time that the answer took, likewise
ANSWER_WEIGHT = 0.05  # of the newest answer in the mean size
FEWER = 0.8  # of what was in flight when no file could be opened any more

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


class Workers:
    """As many tasks as requests were ever out at once, and some more; each sends one after the other.

    Args:
        desk: what the engine's parts share.
        judge: told of failures.
        transport: sends one attempt.
        read: turns a raw reply into a completion or a failure.
        most: requests in flight.
        spawn: starts a task.
    """

    def __init__(
        self,
        desk: Desk,
        judge: Judge,
        transport: Transport,
        read: Callable[[Reply], Completion | Failure],
        *,
        most: int,
        spawn: Callable[[Coroutine[object, object, None], str], None],
    ) -> None:
        self.most = most
        self._desk = desk
        self._judge = judge
        self._transport = transport
        self._read = read
        self._spawn = spawn
        self._idle: deque[asyncio.Future[Ticket]] = deque()
        self._count = 0
        self._fewer = False
        self._pictures = Pictures()
        self._answer_size = 1.0  # bytes; the newest answers weigh most

    @property
    def fitting(self) -> int:
        """Give how many requests may be in flight by what this machine can open and hold, in answers of this size."""
        return min(self.most, max(FEWEST_IN_FLIGHT, int(IN_FLIGHT_BYTES / self._answer_size)))

    def _make_fewer(self, in_flight: int) -> None:
        """Have fewer requests in flight from now on: this machine lets no more connections be opened."""
        fewer = max(1, int(in_flight * FEWER))
        if fewer < self.most:
            if not self._fewer:
                log.warning(
                    "this machine lets no more files be opened: %s requests in flight at the most",
                    f"{fewer:,}",
                )
            self._fewer, self.most = True, fewer

    @property
    def free(self) -> bool:
        """Say whether a worker can take a request; those that wait for the ledger cannot."""
        most = min(self.most, self._desk.pace.ceiling)
        return bool(self._idle) or self._count < most + min(most, SPARE_WORKERS)

    def take(self, ticket: Ticket) -> None:
        """Hand a request to a worker."""
        if self._idle:
            self._idle.popleft().set_result(ticket)
            return
        self._count += 1
        self._spawn(self._work(ticket), f"worker-{self._count}")

    async def _work(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._fly(ticket)
            turn: asyncio.Future[Ticket] = loop.create_future()
            self._idle.append(turn)
            self._desk.dispatchable.set()
            ticket = await turn

    async def _fly(self, ticket: Ticket) -> None:
        desk = self._desk
        ticket.sent_at = time.monotonic()
        ticket.first_sent = ticket.first_sent or ticket.sent_at
        left = ticket.first_sent + desk.policy.deadline - ticket.sent_at
        key = ticket.ask.key
        if desk.policy.unknown is not None and ticket.history.unknowns and not ticket.doubled:
            ticket.doubled = True
            desk.stats.perhaps_paid_twice = (desk.stats.perhaps_paid_twice or 0) + 1
        send = partial(
            self._transport.attempt,
            key=key_text(key),
            request_id=attempt_id(key, ticket.attempt),
            stream=ticket.stream,
            timeout=max(left, SHORTEST),
        )
        try:
            result = await (self._pictures.sent(ticket, send) if ticket.ask.pictures else send(ticket.body))
            await self._landed(ticket, result)
        except RunStopped as error:
            desk.stop(error)
        finally:
            if ticket.stage in (Stage.FLYING, Stage.RECORDING):  # nothing became of it: it stays `sent`
                desk.drop(ticket)

    async def _landed(self, ticket: Ticket, result: Reply | Failure) -> None:
        desk, stats = self._desk, self._desk.stats
        desk.in_flight -= 1
        stats.last_event = time.monotonic()
        ticket.stage = Stage.RECORDING
        desk.dispatchable.set()
        desk.response_ids.note(result.request_id, ticket.ask.key)
        if isinstance(result, Reply) or result.fate is not Fate.UNSENT:
            stats.attempts += 1
            stats.requests += not ticket.went_out
            ticket.went_out = True
        if isinstance(result, Reply):
            await self._keep(ticket, result)
        else:
            self._tell(ticket, result, time.monotonic() - ticket.sent_at)
            stats.lost += result.fate is Fate.UNKNOWN
            if result.code == TOO_MANY_FILES:
                self._make_fewer(desk.in_flight + 1)
            self._judge.tell_pace(ticket, result)
            await self._judge.failed(ticket, result)

    async def _keep(self, ticket: Ticket, reply: Reply) -> None:
        """Make a raw answer durable, then read it."""
        assert ticket.sent is not None  # noqa: S101  # it was sent
        desk = self._desk
        desk.pace.landed(ticket.sent)
        self._answer_size += ANSWER_WEIGHT * (len(reply.body) - self._answer_size)
        await desk.ledger.answer(ticket.ask.key, reply, within=self._patience(reply))
        result = self._read(reply)
        self._tell(ticket, result, reply.latency_ms / 1e3)
        if isinstance(result, Failure):
            self._judge.tell_pace(ticket, result)
            await self._judge.failed(ticket, result, unusable=reply.body)
            return
        desk.pace.answered(ticket.sent, used=result.usage.tokens)
        desk.outage.success(ticket.sent_at)
        desk.key_doubt.served(ticket.sent_at)
        desk.alike.succeeded()
        desk.give_back(ticket, result)
        self._count_answer(result, reply)
        desk.finish(ticket, result, reply=reply)

    def _tell(self, ticket: Ticket, result: Completion | Failure, seconds: float) -> None:
        """Tell who looks on how an attempt ended."""
        if self._desk.on_landing is None:
            return
        done = result if isinstance(result, Completion) else None
        self._desk.on_landing(
            Landing(
                ticket.ask.model,
                done.model if done is not None else None,
                seconds,
                ticket.attempt,
                ticket.stream,
                result.request_id if isinstance(result, Failure) else None,
                done.usage if done is not None else None,
                done.finish_reason if done is not None else None,
                result.code if isinstance(result, Failure) else None,
            )
        )

    def _patience(self, reply: Reply) -> float:
        """Give the seconds that an answer may wait for others to be made durable with it; none where no other is out."""
        return min(PATIENCE, PATIENCE_SHARE * reply.latency_ms / 1e3) if self._desk.in_flight else 0.0

    def _count_answer(self, completion: Completion, reply: Reply) -> None:
        stats = self._desk.stats
        stats.answered += 1
        stats.add(completion.usage)
        stats.latencies.append(reply.latency_ms)
