"""What a ledger holds adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.ledger.sqlite import open_ledger
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
