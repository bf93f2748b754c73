"""What is reserved and spent under a tag, in both ledgers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from enrich.config import BudgetWindow
from enrich.pace.purse import Amounts, Reserving, Settlement, Wish
from tests.helpers.ledgers import REPLY, make_ask

if TYPE_CHECKING:
    from enrich.ledger.protocol import Claim, Ledger
    from tests.helpers.ledgers import FakeClock, Open

ALL = (None,) * 4
DAY = BudgetWindow(tokens=100, per="day", tag="t")


async def claim(
    ledger: Ledger,
    *names: str,
    tokens: float = 40.0,
    windows: tuple[BudgetWindow, ...] = (DAY,),
    unknown: int | None = None,
) -> list[Claim]:
    """Claim requests that may take so many tokens each."""
    wish = Wish(Amounts(1.0, tokens), () if unknown is None else (unknown,))
    reserving = Reserving(windows, [wish] * len(names))
    return await ledger.claim([make_ask(name) for name in names], reserving=reserving)


def verdicts(claims: list[Claim]) -> list[str]:
    """Give what became of claims."""
    return [claim.verdict for claim in claims]


async def settle(ledger: Ledger, name: str, tokens: float | None) -> None:
    """Settle a request; None: it cost nothing."""
    spent = None if tokens is None else (1.0, tokens, 0.0, 0.0)
    await ledger.settle_spending([Settlement(make_ask(name).key, spent)])


async def test_what_does_not_fit_is_refused_and_not_claimed(ledger: Ledger) -> None:
    """Of three that may take 40 of 100 two are claimed; the third leaves no trace and fits when one has cost less."""
    claims = await claim(ledger, "a", "b", "c")
    assert verdicts(claims) == ["mine", "mine", "refused"]
    refusal = claims[2].refusal
    assert refusal is not None
    assert (refusal.used.held.tokens, refusal.used.spent.tokens, refusal.awaited) == (80.0, 0.0, True)
    assert make_ask("c").key not in await ledger.lookup([make_ask("c").key])
    await settle(ledger, "a", 10.0)
    assert verdicts(await claim(ledger, "c")) == ["mine"]
    assert verdicts(await claim(ledger, "d")) == ["refused"]


async def test_a_settlement_counts_once(ledger: Ledger) -> None:
    """Told twice it is spent once; what cost nothing frees all of it, what nobody knows is spent as reserved."""
    await claim(ledger, "a", "b")
    for _ in range(2):
        await settle(ledger, "a", 30.0)
    await settle(ledger, "b", None)
    assert verdicts(await claim(ledger, "c", tokens=70.0)) == ["mine"]
    await ledger.settle_spending([Settlement(make_ask("c").key, ALL)])
    assert verdicts(await claim(ledger, "d", tokens=1.0)) == ["refused"]


async def test_many_at_once_never_pass_the_limit(ledger: Ledger, another: Open) -> None:
    """Several runs that claim at the same moment get what there is, and no more."""
    others = [ledger, await another(), await another()]
    for one in others[1:]:
        await one.open_run({})
    claims = await asyncio.gather(
        *(claim(one, f"{place} {n}", tokens=7.0) for place, one in enumerate(others) for n in range(20))
    )
    assert sum(one.verdict == "mine" for (one,) in claims) == 14


async def test_a_request_is_reserved_for_once(ledger: Ledger, another: Open) -> None:
    """A run that takes a request over from one that died holds it in its place; one that is answered is not held."""
    await claim(ledger, "a", "b")
    await ledger.answer(make_ask("b").key, REPLY)
    await ledger.close_run({})
    later = await another()
    await later.open_run({})
    assert {hold.key for hold in await later.stale_holds(["t"])} == {make_ask("a").key, make_ask("b").key}
    assert await later.stale_holds(["other"]) == []
    assert verdicts(await claim(later, "a", "b", tokens=45.0)) == ["mine", "done"]
    (hold,) = await later.stale_holds(["t"])  # the answered one's, to be settled by its usage
    assert (hold.key, hold.amounts.tokens) == (make_ask("b").key, 40.0)
    await later.abandon_spending([make_ask("a").key])
    (refused,) = await claim(later, "c")
    assert refused.refusal is not None
    assert not refused.refusal.awaited  # nobody at work frees it


async def test_a_new_day_is_a_new_budget(ledger: Ledger, clock: FakeClock) -> None:
    """What was spent yesterday counts no more; what is reserved still does; a total never opens again."""
    await claim(ledger, "a", "b")
    await settle(ledger, "a", 40.0)
    clock.advance(86_400)
    assert verdicts(await claim(ledger, "c", tokens=61.0)) == ["refused"]
    assert verdicts(await claim(ledger, "c", tokens=60.0)) == ["mine"]
    await settle(ledger, "b", 40.0)  # yesterday's request, settled today
    total = BudgetWindow(tokens=140, per="total", tag="t")
    assert verdicts(await claim(ledger, "d", tokens=1.0, windows=(total,))) == ["refused"]


async def test_every_window_holds(ledger: Ledger) -> None:
    """Two tags and two units at once: the narrowest decides, and each counts for itself."""
    team = BudgetWindow(requests=3, per="month", tag="team")
    house = BudgetWindow(tokens=100, requests=9, per="total", tag="house")
    assert verdicts(await claim(ledger, "a", "b", "c", tokens=40.0, windows=(team, house))) == [
        "mine",
        "mine",
        "refused",
    ]
    await settle(ledger, "a", 1.0)
    assert verdicts(await claim(ledger, "c", "d", tokens=10.0, windows=(team, house))) == ["mine", "refused"]
    assert verdicts(await claim(ledger, "d", tokens=10.0, windows=(house,))) == ["mine"]


async def test_what_nobody_can_price_goes_alone(ledger: Ledger) -> None:
    """It holds all that is left, and waits for what others hold; settled, the rest is free."""
    window = BudgetWindow(credits=10, per="total", tag="t")
    claims = await claim(ledger, "a", "b", windows=(window,), unknown=2)
    assert verdicts(claims) == ["mine", "refused"]
    assert verdicts(await claim(ledger, "c", windows=(window,))) == ["mine"]  # it is told to cost nothing
    await ledger.settle_spending([Settlement(make_ask("a").key, (1.0, 5.0, 4.0, 0.0))])
    assert verdicts(await claim(ledger, "b", windows=(window,), unknown=2)) == ["refused"]
    await ledger.settle_spending([Settlement(make_ask("c").key, None)])
    assert verdicts(await claim(ledger, "b", windows=(window,), unknown=2)) == ["mine"]
    await ledger.settle_spending([Settlement(make_ask("b").key, ALL)])
    assert verdicts(await claim(ledger, "d", windows=(window,), unknown=2)) == ["refused"]
