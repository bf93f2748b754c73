"""What a run may take of budgets that outlive it: what each request may cost at worst, and what became of it.

Claims reserve in the ledger, in the same commit; here is what is asked for, what is settled, and what is said when
nothing more fits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from enrich.config import UNITS
from enrich.errors import BudgetSpent, EnrichError
from enrich.pace import periods
from enrich.pace.lengths import FIRST_ANSWER, Lengths
from enrich.pace.prices import MILLION, Charge, Prices, usd_of
from enrich.pace.purse import Amounts, Reserving, Settlement, Wish
from enrich.records import Completion, Failure, Fate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from enrich.config import BudgetWindow, ModelPrices
    from enrich.engine.ticket import Ticket
    from enrich.ledger.protocol import Ledger
    from enrich.pace.purse import Refusal
    from enrich.records import Ask, Record, Reply

CREDITS, USD = UNITS.index("credits"), UNITS.index("usd")
NOTHING = Amounts()
ALL = (None,) * len(UNITS)  # of what was reserved


class Wallet:
    """The windows of a budget that a run spends of, kept in its ledger.

    Args:
        windows: as configured.
        prices: what models are told to cost.
        ledger: keeps count.
        read: turns a raw reply into a completion or a failure.
        attempts: how often one request may be paid for at worst: more than once where the endpoint keeps no keys.
        shelf: where the ledger remembers what models were charged.
    """

    def __init__(
        self,
        windows: Sequence[BudgetWindow],
        prices: Mapping[str, ModelPrices],
        ledger: Ledger,
        read: Callable[[Reply], Completion | Failure],
        *,
        attempts: int = 1,
        shelf: str = "prices",
    ) -> None:
        self._windows = windows
        self._told = prices
        self._ledger = ledger
        self._read = read
        self._attempts = attempts
        self._shelf = shelf
        self._tags = sorted({window.tag for window in windows})
        self._learned: dict[str, dict[str, Prices]] = {"credits": {}, "usd": {}}
        self._lengths = Lengths()
        self._unpriced: set[str] = set()  # units in which an answer named no charge
        self._settlements: list[Settlement] = []
        self._abandoned: list[bytes] = []
        self._prices_are_new = False
        self._writing: asyncio.Task[None] | None = None
        self.failed: Callable[[Exception], None] = lambda _: None

    async def open(self) -> None:
        """Take over what earlier runs learned, and settle what they left."""
        await self._recall_prices()
        await self._settle_for_others()

    async def close(self) -> None:
        """Write down what is still to be."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    # --- what a request may cost ---------------------------------------------------------------------------

    def reserving(self, tickets: Sequence[Ticket]) -> Reserving:
        """Give what a claim of these requests is to reserve.

        Raises:
            BudgetSpent: it is told in what the endpoint does not name.
        """
        for ticket in tickets:
            ticket.wish = self._wish(ticket)
        return Reserving(self._windows, [ticket.wish for ticket in tickets if ticket.wish is not None])

    def _wish(self, ticket: Ticket) -> Wish:
        """Bound what a request may cost.

        No tokenizer makes more than one token of a byte: so tokens are bounded, and dollars where prices are told. What
        they are charged is only known from earlier answers, and so are the lengths that this is bounded by.
        """
        size, model = ticket.ask.weight, ticket.ask.model
        prompt, answer = self._lengths.worst(size, ticket.max_tokens)
        longest = ticket.max_tokens if ticket.max_tokens is not None else max(answer, FIRST_ANSWER)
        credits_, usd = (self._worst(unit, model, prompt, longest) for unit in ("credits", "usd"))
        told = self._told.get(model)
        if told is not None:
            usd = (size * max(told.input, told.cached or 0.0) + longest * told.output) / MILLION
        unknown = tuple(unit for unit, known in ((CREDITS, credits_), (USD, usd)) if known is None)
        self._must_be_priced(unknown)
        each = (size + longest, credits_ or 0.0, usd or 0.0)
        return Wish(Amounts(1.0, *(self._attempts * amount for amount in each)), unknown)

    def _worst(self, unit: str, model: str, prompt: float, answer: float) -> float | None:
        """Give what so many tokens may cost by what this model was charged; None before it was."""
        prices = self._learned[unit].get(model)
        return prices.worst(prompt, answer) if prices is not None else None

    def _must_be_priced(self, unknown: Sequence[int]) -> None:
        for window in self._windows:
            for unit in unknown:
                limit = getattr(window, UNITS[unit])
                if limit is not None and UNITS[unit] in self._unpriced:
                    raise BudgetSpent(
                        f"{_named(window, unit, limit)} cannot be held: the endpoint names no charge",
                        hint="give it in `tokens`, or in `usd` with `prices`.",
                    )

    # --- what became of it ---------------------------------------------------------------------------------

    def settle(self, ticket: Ticket, result: Completion | None) -> None:
        """Note how a request ended for which something was reserved; it is written down soon."""
        wish, ticket.wish = ticket.wish, None
        if wish is None:
            return
        key = ticket.ask.key
        if result is not None:
            self._learn(ticket.ask, result)
            again = ticket.history.unknowns / self._attempts if self._attempts > 1 else 0.0
            self._settlements.append(self._paid(key, ticket.ask.model, result, wish.amounts, again))
        elif (
            ticket.history.unknowns or not ticket.fresh
        ):  # perhaps it is paid for: who asks it next finds out
            self._abandoned.append(key)
        else:
            self._settlements.append(Settlement(key, None))
        self._write_soon()

    def _paid(
        self, key: bytes, model: str, result: Completion, worst: Amounts = NOTHING, again: float = 0.0
    ) -> Settlement:
        """Say what a completion cost; what its usage does not tell is None: all that was reserved."""
        usage = result.usage
        told = (1.0, usage.tokens, usage.credits, usd_of(usage, self._told, result.model, model))
        more = Amounts(0.0, *worst[1:])
        return Settlement(
            key, tuple(None if a is None else a + again * m for a, m in zip(told, more, strict=True))
        )

    def _learn(self, ask: Ask, result: Completion) -> None:
        usage, model = result.usage, ask.model
        if usage.prompt_tokens is not None:
            self._lengths.learn(ask.weight, usage.prompt_tokens, usage.completion_tokens or 0)
        usd = usd_of(usage, self._told, result.model, model)
        for unit, amount in (("credits", usage.credits), ("usd", usd)):
            if amount is None:
                self._unpriced.add(unit)
            elif usage.prompt_tokens is not None:
                known = self._learned[unit]
                self._prices_are_new |= model not in known
                charge = Charge(usage.prompt_tokens, usage.completion_tokens or 0, amount)
                known.setdefault(model, Prices()).learn(result.model, charge)

    def _write_soon(self) -> None:
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="beatra-spending")

    async def _write(self) -> None:
        """Write down what is due; what comes meanwhile goes together, after it."""
        try:
            while self._settlements or self._abandoned or self._prices_are_new:
                settlements, self._settlements = self._settlements, []
                abandoned, self._abandoned = self._abandoned, []
                if self._prices_are_new:
                    self._prices_are_new = False
                    await self._ledger.remember(self._shelf, self._prices_as_note())
                if settlements:
                    await self._ledger.settle_spending(settlements)
                if abandoned:
                    await self._ledger.abandon_spending(abandoned)
        except EnrichError as error:  # what was reserved stays so: the next run settles it
            self.failed(error)
        finally:
            self._writing = None

    # --- what others left ----------------------------------------------------------------------------------

    async def may_fit_later(self, refusals: Sequence[Refusal]) -> bool:
        """Say whether requests that were refused may fit soon; settles what runs that died left reserved."""
        await self._recall_prices()
        settled = await self._settle_for_others()
        return settled or any(refusal.awaited for refusal in refusals)

    async def _settle_for_others(self) -> bool:
        """Settle what runs reserved that are not at work any more, as far as the ledger knows how it ended."""
        holds = await self._ledger.stale_holds(self._tags)
        keys = list(dict.fromkeys(hold.key for hold in holds))
        records = await self._ledger.lookup(keys) if keys else {}
        found = [self._found(key, records.get(key)) for key in keys]
        settlements = [settlement for settlement in found if settlement is not None]
        if settlements:
            await self._ledger.settle_spending(settlements)
        return bool(settlements)

    def _found(self, key: bytes, record: Record | None) -> Settlement | None:
        """Say what a request cost by what the ledger knows of it; None where that is open."""
        if record is None:  # it was withdrawn
            return Settlement(key, None)
        if record.reply is not None:
            result = self._read(record.reply)
            return self._paid(key, record.model, result) if isinstance(result, Completion) else None
        failure = record.failure
        if record.state == "failed" and failure is not None:
            harmless = record.attempts == 1 and failure.fate is not Fate.UNKNOWN
            return Settlement(key, None if harmless else ALL)
        return Settlement(key, ALL) if record.skipped else None

    # --- what models were charged --------------------------------------------------------------------------

    async def _recall_prices(self) -> None:
        """Learn of other runs what models were charged that this one has not asked yet."""
        note = await self._ledger.recall(self._shelf) or {}
        if not self._lengths.answers and "lengths" in note:
            self._lengths = Lengths(**note["lengths"])
        for unit, known in self._learned.items():
            for model, charges in note.get(unit, {}).items():
                if model not in known:
                    prices = known[model] = Prices()
                    for served, *charge in charges:
                        prices.learn(served, Charge(*charge))

    def _prices_as_note(self) -> dict[str, Any]:
        lengths = self._lengths.to_dict()
        return {"lengths": lengths} | {
            unit: {
                model: [(served, *charge) for served, pair in prices.to_list() for charge in pair]
                for model, prices in known.items()
            }
            for unit, known in self._learned.items()
        }


def spent(refusal: Refusal) -> BudgetSpent:
    """Say that a budget is spent: whose, of which time, how much of it, and when it opens again."""
    purse, unit, used = refusal.purse, refusal.unit, refusal.used
    window = purse.window
    unknown = unit in refusal.wish.unknown
    next_ = (
        "what the next request costs is not known"
        if unknown
        else (f"the next request may take {_amount(refusal.wish.amounts[unit])}")
    )
    again = periods.opens(window.per, window.zone, purse.now)
    opens = f"; it opens again at {again:%Y-%m-%d %H:%M %Z}" if again is not None else ""
    said = f"{_amount(used.spent[unit])} used, {_amount(used.held[unit])} reserved; {next_}"
    hint = "raise it in `budget.windows` and run again" + (
        ", or run again then." if again is not None else "."
    )
    if used.holds:
        hint += " What is reserved is free again when the jobs that ended early have been run again."
    limit = purse.limits[unit]
    return BudgetSpent(f"{_named(window, unit, limit)} is spent ({said}{opens})", hint=hint)


def _named(window: BudgetWindow, unit: int, limit: float) -> str:
    per = "in total" if window.per == "total" else f"a {window.per}"
    whose = f" of `{window.tag}`" if window.tag else ""
    return f"the budget of {_amount(limit)} {UNITS[unit]} {per}{whose}"


def _amount(number: float) -> str:
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.6g}"
