"""Requests live at random, over restarts and time, beside a plain model of what the ledger must say of them."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from enrich.ledger.protocol import DOUBT_AFTER
from enrich.records import Ask, Failure, Fate
from tests.helpers.ledgers import LOST, REFUSED, REPLY, FakeClock, Opener, make_ask

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Model:
    """One request, as it should be."""

    state: str
    run: int
    attempts: int
    sent_at: float
    refused: dict[int, bool] = field(default_factory=dict)  # attempt → whether all its failures were refusals
    failure: Failure | None = None
    given_up: bool = False  # its run sends it no more; another may


KEYS = st.sampled_from([make_ask(text) for text in "abcd"])
FAILURES = st.sampled_from([REFUSED, LOST])


class LedgerMachine(RuleBasedStateMachine):
    """Random lives of a few requests, against a dictionary; runs die and clocks turn on the way."""

    directory: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.opener = Opener("sqlite", self.directory / uuid.uuid4().hex, self.clock)
        self.model: dict[bytes, Model] = {}
        self.open()

    def open(self) -> None:
        """Open the ledger and a run."""
        self.ledger = self.runner.run(self.opener())
        self.run = self.runner.run(self.ledger.open_run({}))

    def teardown(self) -> None:
        """Close everything."""
        self.runner.run(self.ledger.close())
        self.runner.close()

    def too_old(self, model: Model) -> bool:
        """Say whether the server may have forgotten the key."""
        return self.clock.wall_s - model.sent_at > DOUBT_AFTER

    def expected(self, key: bytes, *, resend: bool) -> str:
        """Say what a claim must give."""
        model = self.model.get(key)
        if model is None:
            return "mine"
        if model.state == "answered":
            return "done"
        if model.state == "failed" and (model.run == self.run or not resend):
            return "done"
        if model.state == "failed":
            return (
                "in_doubt" if self.too_old(model) and sum(model.refused.values()) < model.attempts else "mine"
            )
        given_up = model.given_up and model.run == self.run
        return "in_doubt" if given_up or self.too_old(model) else "mine"

    @rule(asks=st.lists(KEYS, unique_by=lambda ask: ask.key), resend=st.booleans())
    def claim(self, asks: list[Ask], resend: bool) -> None:
        """Claim some requests."""
        expected = [self.expected(ask.key, resend=resend) for ask in asks]
        claims = self.runner.run(self.ledger.claim(asks, resend_failed=resend))
        assert [claim.verdict for claim in claims] == expected
        for ask, claim in zip(asks, claims, strict=True):
            model = self.model.get(ask.key)
            if claim.verdict == "mine":
                assert claim.body == ask.body
                self.model[ask.key] = self.taken(model)
                assert claim.attempt == self.model[ask.key].attempts
            elif claim.verdict == "in_doubt" and model is not None:
                model.state = "sent"

    def taken(self, model: Model | None) -> Model:
        """Say what a claimed request is like."""
        now = self.clock.wall_s
        if model is None:
            return Model("sent", self.run, 1, now)
        first = now if self.too_old(model) else model.sent_at
        attempts = model.attempts + 1
        return replace(model, state="sent", run=self.run, attempts=attempts, sent_at=first, given_up=False)

    def mine(self, ask: Ask, state: str = "sent") -> Model | None:
        """Give the request when it is this run's and in that state."""
        model = self.model.get(ask.key)
        return model if model and model.run == self.run and model.state == state else None

    @rule(ask=KEYS)
    def answer(self, ask: Ask) -> None:
        """Answer a request."""
        if model := self.mine(ask):
            self.runner.run(self.ledger.answer(ask.key, replace(REPLY, body=ask.body)))
            model.state = "answered"

    @rule(ask=KEYS, failure=FAILURES, final=st.booleans())
    def fail(self, ask: Ask, failure: Failure, final: bool) -> None:
        """Log a last failure."""
        if model := self.mine(ask):
            self.runner.run(self.ledger.fail(ask.key, failure, final=final))
            model.state = "failed" if final else "sent"
            model.given_up = not final
            self.logged(model, failure)

    @rule(ask=KEYS, failure=FAILURES)
    def again(self, ask: Ask, failure: Failure) -> None:
        """Try once more."""
        if model := self.mine(ask):
            attempt = self.runner.run(self.ledger.again(ask.key, failure))
            self.logged(model, failure)
            model.attempts += not self.too_old(model)
            assert attempt == (None if self.too_old(model) else model.attempts)

    @rule(ask=KEYS, final=st.booleans())
    def reject(self, ask: Ask, final: bool) -> None:
        """Take an answer back."""
        if model := self.mine(ask, "answered"):
            self.runner.run(self.ledger.reject(ask.key, LOST, final=final))
            model.state = "failed" if final else "sent"
            model.given_up = False
            self.logged(model, LOST)

    def logged(self, model: Model, failure: Failure) -> None:
        """Count a failure."""
        model.failure = failure
        before = model.refused.get(model.attempts, True)
        model.refused[model.attempts] = before and failure.fate is not Fate.UNKNOWN

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        """End the run, or let it die, and open another."""
        if clean:
            self.runner.run(self.ledger.close_run({}))
        self.runner.run(self.ledger.close())
        self.open()

    @precondition(lambda self: self.model)
    @rule(seconds=st.sampled_from([1.0, 3_600.0, DOUBT_AFTER]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @invariant()
    def the_ledger_agrees(self) -> None:
        """Everything the ledger says is what the model says."""
        keys = [make_ask(text).key for text in "abcd"]
        found = self.runner.run(self.ledger.lookup(keys))
        assert {key: record.state for key, record in found.items()} == {
            k: m.state for k, m in self.model.items()
        }
        for key, record in found.items():
            model = self.model[key]
            assert (record.attempts, record.run, record.sent_at) == (model.attempts, model.run, model.sent_at)
            assert record.in_doubt is (model.state == "sent" and self.too_old(model))
            if model.state != "answered":
                assert record.failure == model.failure


def test_random_lives_of_requests_match_a_dictionary(tmp_path: Path) -> None:
    """Whatever is done in whatever order, over restarts and time, the ledger says what a plain model says."""

    class Machine(LedgerMachine):
        directory = tmp_path

    run_state_machine_as_test(Machine, settings=settings(max_examples=30, stateful_step_count=25))
