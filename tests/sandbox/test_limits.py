"""The emulator's limits and its money."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from enrich.sandbox import Sandbox, SandboxOptions
from tests.helpers.sandbox import (
    Caller,
    TurnedClock,
    new_key,
)

if TYPE_CHECKING:
    import aiohttp


@pytest.mark.parametrize(
    ("options", "let_through"),
    [
        (SandboxOptions(rpm=120), 2),
        (SandboxOptions(rate=3), 3),
        (SandboxOptions(rate=1, burst=5), 5),
        (SandboxOptions(tpm=60), 1),
    ],
)
async def test_more_than_the_limit_is_a_429(
    session: aiohttp.ClientSession, options: SandboxOptions, let_through: int
) -> None:
    """A spike is let through up to the burst; the limit refills with time and refusals cost nothing."""
    clock = TurnedClock()
    async with Sandbox(options, clock=clock) as sandbox:
        caller = Caller(session, sandbox.base_url)
        answers = [await caller.chat() for _ in range(8)]
        clock.now += 60
        assert (await caller.chat()).status == 200
    assert [a.status for a in answers] == [200] * let_through + [429] * (8 - let_through)
    assert answers[-1].error["code"] == "rate_limited"
    assert answers[-1].error["retryable"] is True
    assert "Retry-After" not in answers[-1].headers
    assert sandbox.books.to_dict()["totals"]["rejected_429"] == 8 - let_through


@pytest.mark.parametrize(
    ("given", "sent"), [(1.2, r"2"), (7, "7"), ("soon", "soon"), ("date", r"\w{3}, .* GMT")]
)
async def test_a_429_can_say_when_to_come_again(
    session: aiohttp.ClientSession, given: float | str, sent: str
) -> None:
    """Retry-After takes whole seconds, a date, or any text."""
    async with Sandbox(SandboxOptions(rpm=1, retry_after=given), clock=TurnedClock()) as sandbox:
        caller = Caller(session, sandbox.base_url)
        await caller.chat()
        assert re.fullmatch(sent, (await caller.chat()).headers["Retry-After"])


async def test_a_spent_balance_is_a_402_until_it_is_topped_up(session: aiohttp.ClientSession) -> None:
    """Paid answers are still given again; new ones wait for money."""
    key = new_key()
    async with Sandbox(SandboxOptions(balance=0.000001)) as sandbox:
        caller = Caller(session, sandbox.base_url)
        assert (await caller.chat(key=key)).status == 200
        refused = await caller.chat(key=new_key())
        assert (refused.status, refused.error["code"]) == (402, "insufficient_balance")
        assert (await caller.chat(key=key)).status == 200
        sandbox.books.balance = 5.0
        assert (await caller.chat(key=new_key())).status == 200
