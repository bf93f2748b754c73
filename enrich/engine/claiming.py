"""The claimer: intents in the ledger, a batch at a time, a little ahead of the sending."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from enrich.engine.ticket import Stage, Ticket
from enrich.engine.wallet import spent
from enrich.errors import RunStopped
from enrich.ledger.protocol import DOUBT_AFTER
from enrich.records import Completion, Failure, Fate, Record, Reply, Settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from enrich.engine.desk import Desk
    from enrich.engine.wallet import Wallet
    from enrich.ledger.protocol import Claim
    from enrich.pace.purse import Refusal

HELD_WAIT = 0.2  # seconds between looks at a request that another process is sending
BUDGET_WAIT = 0.2  # seconds between looks at a budget that other requests have reserved what is left of

_NO_ANSWER = Failure("in_doubt", "sent in an earlier run; no answer was kept", Fate.UNKNOWN)


class Claimer:
    """Has every request allowed by the ledger before it is sent, and tells those that it knows the answer of."""

    def __init__(self, desk: Desk, read: Callable[[Reply], Completion | Failure]) -> None:
        self._desk = desk
        self._read = read

    async def work(self) -> None:
        """Claim until the run stops."""
        desk = self._desk
        while desk.stopped is None:
            batch = self._next_batch()
            if not batch:
                await desk.woken(desk.claimable, desk.due_in)
                continue
            desk.claiming = len(batch)
            try:
                await self._claim(batch)
            except RunStopped as error:
                desk.stop(error)
            finally:
                desk.claiming = 0
                for ticket in batch:
                    if ticket.stage is Stage.CLAIMING:  # stopped before its turn
                        desk.postpone(ticket, 0.0)
                desk.changed.set()  # who drains waits for no claim any more

    def _next_batch(self) -> list[Ticket]:
        """Take the requests that may go next: those whose wait is over first, then the oldest new ones of each model.

        A probe of an outage is one that was sent before: a new one might be paid for without an answer.
        """
        batch = list(self._probe()) if self._desk.outage.on else list(self._those_due())
        asked_at = self._desk.clock.boottime()
        for ticket in batch:
            ticket.stage, ticket.claimed_at = Stage.CLAIMING, asked_at
        return batch

    def _probe(self) -> Iterable[Ticket]:
        """Take the request that waits for its next attempt the shortest; a new one where none was sent yet."""
        desk = self._desk
        if any(desk.ready.values()):
            return
        probe = desk.next_sent_before()
        if probe is None:
            probe = next((waiting.popleft() for waiting in desk.new.values() if waiting), None)
        if probe is not None:
            yield probe

    def _those_due(self) -> Iterable[Ticket]:
        desk = self._desk
        most = desk.ledger.ahead
        taken = 0
        for ticket in desk.due():  # whether or not there is room: they may hold what the budget has left
            yield ticket
            taken += 1
            if taken >= most:
                return
        for model, waiting in desk.new.items():
            if desk.has_plenty(model):
                continue
            room = min(desk.ahead - len(desk.ready.get(model, ())), most - taken)
            while waiting and room > 0:
                yield waiting.popleft()
                taken, room = taken + 1, room - 1

    async def _claim(self, batch: list[Ticket]) -> None:
        again = [ticket for ticket in batch if ticket.attempt]
        first = [ticket for ticket in batch if not ticket.attempt and not self._passed_over(ticket)]
        for resend in (False, True):
            tickets = [ticket for ticket in first if ticket.resend is resend]
            if tickets:
                await self._claim_first(tickets, resend=resend)
        if again:
            await asyncio.gather(*map(self._claim_again, again))

    async def _claim_first(self, tickets: list[Ticket], *, resend: bool) -> None:
        wallet = self._desk.wallet
        reserving = wallet.reserving(tickets) if wallet is not None else None
        asks = [ticket.ask for ticket in tickets]
        claims = await self._desk.ledger.claim(asks, resend_failed=resend, reserving=reserving)
        refused: list[Ticket] = []
        for ticket, claim in zip(tickets, claims, strict=True):
            if claim.verdict != "mine":  # nothing was reserved
                ticket.wish = None
            if claim.verdict == "refused":
                refused.append(ticket)
            else:
                self._claimed(ticket, claim)
        if refused and wallet is not None:
            await self._refused(
                wallet, refused, [claim.refusal for claim in claims if claim.refusal is not None]
            )

    async def _refused(self, wallet: Wallet, tickets: list[Ticket], refusals: list[Refusal]) -> None:
        """Let requests wait that no budget has room for now, while others may free some; else the run stops."""
        desk = self._desk
        may_fit = await wallet.may_fit_later(refusals) or any(desk.new.values())
        for ticket in tickets:
            desk.give_back(ticket, None)
            desk.postpone(ticket, BUDGET_WAIT)
        if not may_fit:
            raise spent(refusals[0])

    def _passed_over(self, ticket: Ticket) -> bool:
        """Settle a request unsent whose model other rows found unavailable while it waited."""
        if ticket.fallback is None or not ticket.fallback():
            return False
        self._desk.give_back(ticket, None)
        failure = Failure("model_unavailable", "not asked: other rows found it so", Fate.UNSENT)
        self._desk.tell(ticket, Settled(ticket.ask.key, failure, fresh=True))
        return True

    async def _claim_again(self, ticket: Ticket) -> None:
        assert ticket.failure is not None  # noqa: S101  # only a failure brings a ticket here again
        young = ticket.fresh and self._desk.policy.deadline < DOUBT_AFTER
        if young and ticket.failure.fate is Fate.UNSENT:  # the attempt that was claimed is still to be made
            self._desk.make_ready(ticket)
            return
        attempt = await self._desk.ledger.again(ticket.ask.key, ticket.failure)
        if attempt is None:  # too old by now to be sent again
            self._desk.give_back(ticket, None)
            self._desk.finish(ticket, ticket.failure, in_doubt=True)
            return
        ticket.attempt = attempt
        self._desk.make_ready(ticket)

    def _claimed(self, ticket: Ticket, claim: Claim) -> None:
        if claim.verdict == "mine":
            ticket.attempt, ticket.body = claim.attempt, claim.body
            ticket.fresh = claim.attempt == 1
            policy = self._desk.policy
            if policy.unknown is not None:
                ticket.history = replace(ticket.history, unknowns=claim.unknowns)
            if policy.forbids(claim.unknowns):
                self._desk.give_back(ticket, None)
                failure = claim.record.failure if claim.record is not None else None
                self._desk.finish(ticket, failure or _NO_ANSWER, in_doubt=True)
                return
            self._desk.make_ready(ticket)
        elif claim.verdict == "held":
            self._desk.give_back(ticket, None)
            self._desk.postpone(ticket, HELD_WAIT)
        else:
            assert claim.record is not None  # noqa: S101  # the protocol's promise
            self._desk.give_back(ticket, None)
            self._desk.tell(ticket, settled_record(claim.record, self._read, run=self._desk.run))


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
        asked=record.model,
    )
