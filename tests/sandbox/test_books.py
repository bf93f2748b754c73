"""The emulator's books count what was asked and charged."""

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


async def test_the_books_are_served(caller: Caller) -> None:
    """Totals, keys and bodies agree, and the attempts name what the client sent."""
    key = new_key()
    first = await caller.chat(key=key, headers={"X-Request-Id": "mine-1"})
    await caller.chat(key=key)
    await caller.chat(b"{", key=new_key())
    books = (await caller.get("/sandbox/ledger?attempts=1")).json
    usage = first.json["usage"]
    paid = {"requests": 2, "charges": 1, "credits": usage["credits"], "tokens": usage["total_tokens"]}
    assert books["keys"][key] == paid
    assert books["totals"]["requests"] == 3
    assert books["totals"]["credits"] == usage["credits"]
    assert books["totals"]["statuses"] == {"200": 2, "400": 1}
    attempt = books["attempts"][0]
    assert (attempt["key"], attempt["status"], attempt["x_request_id"]) == (key, 200, "mine-1")
    assert books["bodies"][attempt["body"]] == paid
    assert attempt["request_id"] == first.headers["X-Request-Id"] != "mine-1"
    assert "attempts" not in (await caller.get("/sandbox/ledger")).json


async def test_the_books_count_what_runs_at_once(session: aiohttp.ClientSession) -> None:
    """The most requests in flight and the busiest second are kept."""
    async with Sandbox(SandboxOptions(latency=0.1, latency_spread=0.1), clock=TurnedClock()) as sandbox:
        caller = Caller(session, sandbox.base_url)
        await asyncio.gather(*(caller.chat(ask(str(n))) for n in range(5)))
    assert (sandbox.books.max_in_flight, sandbox.books.in_flight) == (5, 0)
    assert sandbox.books.busiest_second == 5
