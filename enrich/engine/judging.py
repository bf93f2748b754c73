"""The judge: what a failed attempt says of its row, of the endpoint and of the run, and what is done about it."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from enrich.engine.key_doubt import may_be_about_the_row
from enrich.engine.outage import alike_error, stop_error
from enrich.engine.retry import (
    UNREAD,
    UNUSABLE,
    Again,
    FailRow,
    History,
    NextModel,
    StopRun,
    decide,
    given_up,
    is_rate_limit,
    waits_too_long,
)
from enrich.records import Fate

if TYPE_CHECKING:
    from enrich.engine.desk import Desk
    from enrich.engine.key_doubt import KeyWord
    from enrich.engine.ticket import Ticket
    from enrich.records import Failure

_BUSY_PROXY = (
    "http_503"  # a 503 without an envelope: nginx's limit_req says so by default, where others say 429
)


class Judge:
    """Carries out what the rules say of failures."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def tell_pace(self, ticket: Ticket, failure: Failure) -> None:
        """Tell the pace what a failure says of the endpoint; a wait that ends the run is no measure for the next one."""
        assert ticket.sent is not None  # noqa: S101  # it was sent
        pace, status = self._desk.pace, failure.status or 0
        busy = is_rate_limit(failure) or (failure.code == _BUSY_PROXY and not self._desk.outage.on)
        if busy and not waits_too_long(failure):
            pace.limited(ticket.sent, failure.retry_after)
        else:
            pace.failed(ticket.sent, trouble=status >= 500, timed_out=failure.code == "timeout")

    async def failed(self, ticket: Ticket, failure: Failure, *, unusable: bytes | None = None) -> None:
        """Carry out what the rules say of a failed attempt; ``unusable`` is the answer that it got all the same."""
        desk = self._desk
        ticket.tokens = 0.0
        ticket.failure = failure
        waited = time.monotonic() - ticket.first_sent
        if failure.code not in UNREAD:
            self._note_outage(ticket, failure)
        costly = desk.policy.unknown is not None and failure.fate is Fate.UNKNOWN
        answered = failure.code in UNUSABLE  # whole, of no use: no outage kept it from coming
        if desk.outage.on and not (costly or answered):
            ticket.history = _waited_out(ticket.history, failure, waited)
        else:
            ticket.history = ticket.history.add(failure, waited=waited)
        if (
            desk.outage.fruitless and unusable is None
        ):  # the run has stopped for it: the next one asks this row
            desk.postpone(ticket, 0.0)
            return
        decision = decide(
            failure,
            ticket.history,
            desk.policy,
            has_fallback=ticket.fallback is not None,
            own_model=ticket.own_model,
            random=random.random,
            key=self._word_on_key(ticket, failure),
        )
        match decision:
            case Again(after=after):
                if unusable is not None:
                    await desk.ledger.reject(ticket.ask.key, failure, final=False, answer=unusable)
                desk.note_retry(ticket, failure, max(after, desk.pace.paused_for()))
                desk.postpone(ticket, after)
            case StopRun(kind=kind):
                if unusable is not None:
                    await desk.ledger.reject(ticket.ask.key, failure, final=False, answer=unusable)
                desk.postpone(ticket, 0.0)
                desk.stop(stop_error(kind, failure, ticket.ask.model, desk.policy.key))
            case NextModel():
                await self._give_up(ticket, failure, unusable=unusable, in_doubt=False)
            case FailRow(in_doubt=in_doubt):
                await self._give_up(ticket, failure, unusable=unusable, in_doubt=in_doubt)

    async def expire(self, ticket: Ticket) -> bool:
        """Give a request up whose row's time is over while it waited for its turn; says whether that was so."""
        if ticket.failure is None or not ticket.first_sent:
            return False
        if time.monotonic() - ticket.first_sent <= self._desk.policy.deadline:
            return False
        if self._desk.outage.fruitless:
            self._desk.stop(stop_error("fruitless", ticket.failure, ""))
            return False
        await self._give_up(
            ticket, ticket.failure, unusable=None, in_doubt=given_up(ticket.failure, ticket.history).in_doubt
        )
        return True

    def _word_on_key(self, ticket: Ticket, failure: Failure) -> KeyWord:
        """Say what a refusal of access that names no cause is about, as far as it is known."""
        if not may_be_about_the_row(failure):
            return "key"
        return self._desk.key_doubt.refused(ticket.ask.key, ticket.sent_at)

    def _note_outage(self, ticket: Ticket, failure: Failure) -> None:
        desk = self._desk
        pause = desk.outage.failure(failure, ticket.ask.key, ticket.sent_at)
        if pause is not None:
            desk.pace.pause(pause, f"the endpoint is out of service ({failure.code})")
        if desk.outage.never_finishes:
            desk.stop(stop_error("stream_end", failure, ""))
        elif desk.outage.hopeless:
            desk.stop(stop_error("outage", failure, ""))
        elif desk.outage.fruitless:
            desk.stop(stop_error("fruitless", failure, ""))

    async def _give_up(
        self, ticket: Ticket, failure: Failure, *, unusable: bytes | None, in_doubt: bool
    ) -> None:
        """End a request without an answer; another one may take its place."""
        desk = self._desk
        if unusable is not None:
            await desk.ledger.reject(ticket.ask.key, failure, final=not in_doubt, answer=unusable)
        if in_doubt or unusable is None:
            await desk.ledger.fail(ticket.ask.key, failure, final=not in_doubt)
        desk.give_back(ticket, None)
        if desk.finish(ticket, failure, in_doubt=in_doubt):
            desk.note_retry(ticket, failure, None)
        else:
            self._note_failed(ticket, failure)

    def _note_failed(self, ticket: Ticket, failure: Failure) -> None:
        """Stop when the first rows, without exception, fail in the same way: the rest would fare no better."""
        desk = self._desk
        desk.stats.failed += 1
        desk.stats.failures[failure.code] += 1
        if desk.alike.failed(failure, ticket.first_sent, desk.awaited_since):
            desk.stop(alike_error(failure, desk.alike.rows))


def _waited_out(history: History, failure: Failure, waited: float) -> History:
    """Add an attempt that an outage swallowed: it uses up none of the row's attempts."""
    unknowns = max(history.unknowns, int(failure.fate is Fate.UNKNOWN))
    return replace(history, failures=history.failures + 1, unknowns=unknowns, waited=waited)
