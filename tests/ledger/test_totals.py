"""What a ledger holds adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from enrich.ledger.sqlite import open_ledger
from enrich.records import Reply
from tests.helpers.sqlite import (
    LOST,
    LaterClock,
    fill,
    make_ask,
    opened,
)

if TYPE_CHECKING:
    from pathlib import Path


async def test_totals_sum_to_the_requests(path: Path) -> None:
    """Every request is counted in exactly one state."""
    async with opened(path) as ledger:
        await fill(ledger, [1, 2, 3])
        await ledger.claim([make_ask(4), make_ask(5)])
        await ledger.fail(make_ask(4).key, LOST, final=True)
        totals = await ledger.totals()
    assert (totals.requests, totals.answered, totals.failed, totals.sent) == (5, 3, 1, 1)
    ledger = await open_ledger(path, clock=LaterClock())
    assert await ledger.settle_doubt([make_ask(5).key], "skip") == 1
    totals = await ledger.totals()
    assert (totals.sent, totals.in_doubt, totals.skipped) == (0, 0, 1)
    await ledger.close()


@pytest.mark.parametrize(
    ("usage", "tokens", "credits_"),
    [
        (f'{{"total_tokens": 3, "credits": {"1" * 5_000}}}', 3, None),
        ('{"total_tokens": 3, "credits": 1e999}', 3, None),
        (f'{{"total_tokens": {"9" * 5_000}, "credits": 0.5}}', None, 0.5),
        ('{"total_tokens": "\\ud800", "credits": 0.5}', None, 0.5),
        (f'{{"total_tokens": {"[" * 900}{"]" * 900}, "credits": 0.5}}', None, 0.5),
        ('{"total_tokens": {"a": 1}, "credits": "much"}', None, None),
        ("[]", None, None),
    ],
)
async def test_amounts_beyond_reason_are_none(
    path: Path, usage: str, tokens: int | None, credits_: float | None
) -> None:
    """Numbers beyond all numbers, and what is no number, are left out of a line, and of the sums of all lines."""
    body = f'{{"choices": [{{"message": {{"content": "x"}}, "finish_reason": "stop"}}], "usage": {usage}}}'
    async with opened(path) as ledger:
        await fill(ledger, [1])
        await ledger.claim([make_ask(2)])
        await ledger.answer(make_ask(2).key, Reply(body.encode(), None, 1.0))
        lines = [line async for lines, _ in ledger.listing(["answered"]) for line in lines]
        totals = await ledger.totals()
        read_alone = {number async for replies in ledger.replies(totals.unread) for number in replies}
    assert [(line.tokens, line.credits) for line in lines[1:]] == [(tokens, credits_)]
    assert totals.answered == 2
    assert 2 in read_alone or totals.credits == (credits_ or 0.0) + (lines[0].credits or 0.0)


USAGE = '"usage": {"total_tokens": 3, "credits": 0.5}'


@pytest.mark.parametrize(
    "body",
    [
        f'{{"choices": [], {USAGE}}}',
        f'{{"choices": [], {USAGE}, "system_fingerprint": "x"}}',
        f'{{{USAGE}, "choices": [{{"message": {{"content": "see \\"usage\\": below"}}}}]}}',
        f'{{"said": "usage", {USAGE}}}',
        f'{{"x": {{"usage": {{"total_tokens": 9}}}}, {USAGE}}}',
        f'{{"x": [{{"usage": {{"total_tokens": 9}}}}, 7], {USAGE}}}',
        f'{{\n  "choices": [],\n  {USAGE.replace(":", " :")}\n}}\n',
        '{"usage": {"total_tokens": 3, "credits": 0.5, "usage": {"total_tokens": 9}}}',
    ],
)
async def test_a_usage_is_found_wherever_it_stands(path: Path, body: str) -> None:
    """Before and behind other keys, beside others of its name: in a line as in a reading of the whole answer."""
    async with opened(path) as ledger:
        await ledger.claim([make_ask(number) for number in (1, 2, 3)])
        for number in (1, 2, 3):  # an odd one between plain ones
            plain = f'{{"choices": [], {USAGE}}}'
            said = body if number == 2 else plain
            await ledger.answer(make_ask(number).key, Reply(said.encode(), None, 1.0))
        ((lines, unread),) = [found async for found in ledger.listing(["answered"])]
        read = {
            place: (lines[place].tokens, lines[place].credits) for place in range(3) if place not in unread
        }
        totals = await ledger.totals()
    assert set(read.values()) == {(3, 0.5)}
    assert {0, 2} <= set(read)
    assert (totals.tokens[2], totals.credits) == (9, 1.5)
    assert totals.unread == ()
