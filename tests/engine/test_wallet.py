"""What a run takes of budgets that outlive it: bounds of what a request costs, settlements, and what is said at the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from enrich.config import BudgetWindow, ModelPrices
from enrich.engine.retry import History
from enrich.engine.ticket import Ticket
from enrich.engine.wallet import Wallet, spent
from enrich.errors import BudgetSpent
from enrich.ledger.sqlite import open_ledger
from enrich.pace.purse import Amounts, Purse, Refusal, Used, Wish
from enrich.records import Completion, Reply, Usage
from enrich.wire import completion
from tests.helpers.ledgers import REFUSED, FakeClock, make_ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from enrich.ledger.protocol import Ledger

TOTAL = BudgetWindow(tokens=1_000, credits=10, per="total", tag="t")
SIZE = make_ask("a").weight


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """Give a ledger with an open run."""
    opened = await open_ledger(tmp_path / "ledger.db", clock=FakeClock())
    await opened.open_run({})
    yield opened
    await opened.close()


def wallet(ledger: Ledger, *windows: BudgetWindow, attempts: int = 1, **prices: ModelPrices) -> Wallet:
    """Make a wallet of these windows."""
    return Wallet(windows or (TOTAL,), prices, ledger, completion.read, attempts=attempts)


def ticket(name: str = "a", max_tokens: int | None = 20, **further: Any) -> Ticket:
    """Make a request on its way."""
    return Ticket(make_ask(name), [], False, None, False, max_tokens, attempt=1, **further)  # its place


def answered(**usage: Any) -> Completion:
    """Make an answer of 4 and 6 tokens for half a credit."""
    return Completion(
        "x",
        "m",
        "stop",
        Usage(**{"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10, "credits": 0.5} | usage),
    )


async def claimed(one: Wallet, ledger: Ledger, *tickets: Ticket) -> list[str]:
    """Claim requests with what the wallet reserves for them."""
    claims = await ledger.claim([t.ask for t in tickets], reserving=one.reserving(tickets))
    return [claim.verdict for claim in claims]


async def used(ledger: Ledger, window: BudgetWindow = TOTAL) -> Used:
    """Give how a window stands, by what refuses a request that is too large."""
    from enrich.pace.purse import Reserving

    wish = Wish(Amounts(1e9, 1e9, 1e9, 1e9))
    (claim,) = await ledger.claim([make_ask("probe")], reserving=Reserving((window,), [wish]))
    assert claim.refusal is not None
    return claim.refusal.used


async def test_tokens_are_bounded_by_bytes_and_a_price_list(ledger: Ledger) -> None:
    """A byte is a token at most; dollars follow from that where prices are told, and are unknown where not."""
    one = wallet(ledger, auto=ModelPrices(input=1e6, output=2e6, cached=3e6))
    (wish,) = one.reserving([ticket()]).wishes
    assert wish.amounts == Amounts(1, SIZE + 20, 0, 3 * SIZE + 2 * 20)
    assert wish.unknown == (2,)
    assert wallet(ledger).reserving([ticket()]).wishes[0].unknown == (2, 3)
    (unlimited,) = one.reserving([ticket(max_tokens=None)]).wishes
    assert unlimited.amounts.tokens == SIZE + 4_096


async def test_what_was_charged_prices_what_comes_in_every_process(ledger: Ledger) -> None:
    """After the first answer a request is bounded by its price; another wallet on the ledger knows it too."""
    one = wallet(ledger)
    first = ticket()
    assert await claimed(one, ledger, first) == ["mine"]
    one.settle(first, answered())
    await one.close()
    other = wallet(ledger)
    await other.open()
    for knowing in (one, other):
        (wish,) = knowing.reserving([ticket("b")]).wishes
        assert wish.unknown == (3,)
        assert 0.5 < wish.amounts.credits < 10
    state = await used(ledger)
    assert (state.spent, state.held) == ((1, 10, 0.5, 0), (0, 0, 0, 0))


async def test_an_answer_that_names_no_charge_takes_what_was_reserved(ledger: Ledger) -> None:
    """All of it counts as spent, and the next request is refused in words."""
    one = wallet(ledger)
    first = ticket()
    await claimed(one, ledger, first)
    one.settle(first, answered(credits=None))
    await one.close()
    assert (await used(ledger)).spent.credits == 10
    with pytest.raises(
        BudgetSpent,
        match="the budget of 10 credits in total of `t` cannot be held: the endpoint names no charge",
    ):
        one.reserving([ticket("b")])


async def test_what_may_be_paid_for_stays_reserved(ledger: Ledger) -> None:
    """A refused request frees what it held; one that was lost, or sent by a run before, holds it for nobody."""
    one = wallet(ledger)
    tickets = [ticket("a"), ticket("b", history=History(unknowns=1)), ticket("c", fresh=False)]
    for each in tickets:
        await claimed(wallet(ledger, BudgetWindow(tokens=1_000, per="total", tag="t")), ledger, each)
        one.settle(each, None)
    await one.close()
    state = await used(ledger)
    assert (state.holds, state.held.tokens, state.spent.tokens) == (2, 2 * (SIZE + 20), 0)


async def test_without_keys_each_lost_attempt_may_be_paid_for(ledger: Ledger) -> None:
    """Two attempts are reserved for, and the lost one counts at worst when the other is answered."""
    tokens = BudgetWindow(tokens=1_000, per="total", tag="t")
    one = wallet(ledger, tokens, attempts=2)
    each = ticket()
    await claimed(one, ledger, each)
    assert each.wish is not None
    assert each.wish.amounts.tokens == 2 * (SIZE + 20)
    each.history = History(unknowns=1)
    one.settle(each, answered())
    await one.close()
    assert (await used(ledger, tokens)).spent.tokens == 10 + SIZE + 20


async def test_what_runs_left_is_settled_by_what_the_ledger_knows(ledger: Ledger, tmp_path: Path) -> None:
    """An answer by its usage, a refusal for nothing, a withdrawn one for nothing; what nobody knows stays."""
    tokens = BudgetWindow(tokens=1_000, per="total", tag="t")
    names = ("answered", "failed", "withdrawn", "open")
    await claimed(wallet(ledger, tokens), ledger, *map(ticket, names))
    body = {
        "model": "m",
        "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
        "usage": {"total_tokens": 33},
    }
    await ledger.answer(make_ask("answered").key, Reply(json.dumps(body).encode(), None, 1.0))
    await ledger.fail(make_ask("failed").key, REFUSED, final=True)
    await ledger.withdraw([make_ask("withdrawn").key])
    await ledger.close_run({})
    later = await open_ledger(tmp_path / "ledger.db", clock=FakeClock())
    await later.open_run({})
    await wallet(later, tokens).open()
    state = await used(later, tokens)
    await later.close()
    assert (state.holds, state.spent.tokens, state.spent.requests) == (1, 33, 1)
    assert state.held.tokens == make_ask("open").weight + 20


def test_the_refusal_says_whose_which_how_much_and_when() -> None:
    """In units that people write, the window's own zone, and with what to do."""
    window = BudgetWindow(credits=500, per="day", tag="marketing", zone="Europe/Berlin")
    purse = Purse.at(window, 1_800_000_000.0)
    state = Used(Amounts(credits=480.25), Amounts(credits=15), 1)
    refusal = Refusal(purse, 2, state, Wish(Amounts(credits=8)), awaited=False)
    said = str(spent(refusal))
    assert said.startswith(
        "the budget of 500 credits a day of `marketing` is spent (480.25 used, 15 reserved; the next request may take 8; "
        "it opens again at 2027-01-16 00:00 CET)\nHint: raise it in `budget.windows`"
    )
    unpriced = Refusal(purse, 2, state, Wish(Amounts(), (2,)), awaited=False)
    assert "what the next request costs is not known" in str(spent(unpriced))
