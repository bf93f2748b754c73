"""Idempotency: a key gets its answer again for nothing, for a day."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from enrich.sandbox import Sandbox, SandboxOptions
from tests.helpers.sandbox import (
    Caller,
    TurnedClock,
    ask,
    new_key,
)

if TYPE_CHECKING:
    import aiohttp


async def test_the_same_key_gets_the_same_answer_for_nothing(caller: Caller, sandbox: Sandbox) -> None:
    """A replay is byte for byte the paid answer under a new request id; only the first is charged."""
    key = new_key()
    first, again = await caller.chat(key=key), await caller.chat(key=key.upper())
    assert first.body == again.body
    assert first.headers["X-Request-Id"] != again.headers["X-Request-Id"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert sandbox.books.total.charges == 1
    assert sandbox.books.replays == 1


async def test_without_a_key_every_request_is_charged(caller: Caller, sandbox: Sandbox) -> None:
    """The same body twice without a key is paid for twice, and the books show it."""
    await caller.chat()
    await caller.chat()
    [tally] = sandbox.books.bodies.values()
    assert (tally.requests, tally.charges) == (2, 2)


async def test_a_key_is_bound_to_its_body(caller: Caller) -> None:
    """Another body under a used key is a final 409."""
    key = new_key()
    await caller.chat(key=key)
    answer = await caller.chat(ask("something else"), key=key)
    assert (answer.status, answer.error["code"]) == (409, "idempotency_key_reused")
    assert answer.error["retryable"] is False


async def test_a_key_that_is_no_uuid_is_refused(caller: Caller) -> None:
    """The header must be a uuid."""
    answer = await caller.chat(key="row-17")
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


async def test_a_key_in_flight_is_a_retryable_409(session: aiohttp.ClientSession) -> None:
    """While the first request runs, a second one with its key is told to come again; both are charged once."""
    key = new_key()
    async with Sandbox(SandboxOptions(latency=0.3)) as sandbox:
        caller = Caller(session, sandbox.base_url)
        first = asyncio.create_task(caller.chat(key=key))
        await sandbox.books.received(1)
        second = await caller.chat(key=key)
        assert (second.status, second.error["code"]) == (409, "idempotency_in_progress")
        assert second.error["retryable"] is True
        assert (await caller.chat(key=key)).status == 409
        assert (await first).status == 200
        assert (await caller.chat(key=key)).body == (await first).body
    assert sandbox.books.keys[key].charges == 1


async def test_a_client_that_hangs_up_has_paid(session: aiohttp.ClientSession) -> None:
    """A request whose client gives up is completed and charged; its key gets the answer afterwards."""
    key = new_key()
    async with Sandbox(SandboxOptions(latency=0.2)) as sandbox:
        caller = Caller(session, sandbox.base_url)
        first = asyncio.create_task(caller.chat(key=key))
        await sandbox.books.received(1)
        first.cancel()
        answer = await caller.chat(key=key)
        while answer.status == 409:
            await asyncio.sleep(0.05)
            answer = await caller.chat(key=key)
        assert answer.headers["Idempotency-Replayed"] == "true"
    assert sandbox.books.total.charges == 1


async def test_a_key_is_forgotten_after_a_day(session: aiohttp.ClientSession) -> None:
    """23:59 after the first request the answer is free, at 24:00 it is paid for again."""
    clock, key = TurnedClock(), new_key()
    async with Sandbox(SandboxOptions(), clock=clock) as sandbox:
        caller = Caller(session, sandbox.base_url)
        first = await caller.chat(key=key)
        clock.now += 24 * 3600 - 60
        assert (await caller.chat(key=key)).body == first.body
        clock.now += 60
        late = await caller.chat(key=key)
    assert "Idempotency-Replayed" not in late.headers
    assert sandbox.books.keys[key].charges == 2
