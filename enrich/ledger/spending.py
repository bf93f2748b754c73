"""Budgets that outlive a run: what is reserved and spent under each tag, inside the transactions that claim and settle."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from enrich.ledger.protocol import Claim
from enrich.pace.purse import NOBODY, SLOT, Amounts, Hold, Purse, Refusal, Used, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from enrich.ledger.rules import Rules
    from enrich.ledger.transaction import Transaction
    from enrich.pace.purse import Reserving, Settlement
    from enrich.records import Ask

NOTHING = Amounts()


def claim(
    rules: Rules, tx: Transaction, asks: Sequence[Ask], reserving: Reserving, *, resend_failed: bool
) -> list[Claim]:
    """Claim the requests that the budget allows, and reserve what those may cost that this run may send.

    One transaction at a time decides, so that no two find the same credits free.
    """
    tx.run("lock_budgets")
    books = _Books.open(tx, rules, reserving, [ask.key for ask in asks])
    fitting: list[Ask] = []
    refused: dict[bytes, Refusal] = {}
    reserved: dict[bytes, dict[str, Amounts]] = {}
    for ask, wish in zip(asks, reserving.wishes, strict=True):
        refusal = books.refusal(ask.key, wish)
        if refusal is not None:
            refused[ask.key] = refusal
            continue
        reserved[ask.key] = books.reserve(ask.key, wish)
        fitting.append(ask)
    claims = dict(zip((a.key for a in fitting), _claims(rules, tx, fitting, resend_failed), strict=True))
    mine = [key for key, one in claims.items() if one.verdict == "mine"]
    lines = [(key, tag, rules.run, *amounts) for key in mine for tag, amounts in reserved[key].items()]
    if lines:
        tx.many("hold", lines)
    return [claims.get(ask.key) or Claim("refused", refusal=refused[ask.key]) for ask in asks]


def _claims(rules: Rules, tx: Transaction, asks: Sequence[Ask], resend_failed: bool) -> list[Claim]:  # noqa: FBT001  # passed on
    return rules.claim(tx, asks, resend_failed=resend_failed) if asks else []


@dataclass(slots=True)
class _Books:
    """How the windows stand while one claim is decided on.

    Attributes:
        held: under each tag, by the requests of this claim, as it stands in the tables.
    """

    purses: list[Purse]
    used: list[Used]
    held: dict[tuple[bytes, str], Hold]
    alive: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def open(cls, tx: Transaction, rules: Rules, reserving: Reserving, keys: Sequence[bytes]) -> _Books:
        now = rules.now().wall
        purses = [Purse.at(window, now) for window in reserving.windows]
        held = {(hold.key, hold.tag): hold for hold in holds_of(tx, keys)}
        alive = {tag: _somebody_at_work(tx, rules, tag) for tag in {purse.tag for purse in purses}}
        return cls(purses, [used(tx, purse) for purse in purses], held, alive)

    def refusal(self, key: bytes, wish: Wish) -> Refusal | None:
        """Say why a request does not fit; None where it does."""
        for purse, state in zip(self.purses, self.used, strict=True):
            others = self._others(key, purse, state)
            alone = state.holds == ((key, purse.tag) in self.held)
            for unit, limit in enumerate(purse.limits):
                taken = state.spent[unit] + others[unit]
                fits = (
                    (alone and taken < limit)
                    if unit in wish.unknown
                    else (taken + wish.amounts[unit] <= limit)
                )
                if math.isfinite(limit) and not fits:
                    return Refusal(purse, unit, state, wish, awaited=self.alive[purse.tag])
        return None

    def reserve(self, key: bytes, wish: Wish) -> dict[str, Amounts]:
        """Set aside what a request may cost; gives it by tag: all that is left of a unit where its cost is unknown."""
        found: dict[str, Amounts] = {}
        for purse, state in zip(self.purses, self.used, strict=True):
            left = purse.limits.plus(state.spent, -1.0).plus(self._others(key, purse, state), -1.0)
            amounts = found.get(purse.tag, wish.amounts)
            found[purse.tag] = Amounts(
                *(
                    max(have, rest) if unit in wish.unknown and math.isfinite(rest) else have
                    for unit, (have, rest) in enumerate(zip(amounts, left, strict=True))
                )
            )
        for place, (purse, state) in enumerate(zip(self.purses, self.used, strict=True)):
            is_new = (key, purse.tag) not in self.held
            held = self._others(key, purse, state).plus(found[purse.tag])
            self.used[place] = Used(state.spent, held, state.holds + is_new)
        for tag, amounts in found.items():
            self.held[key, tag] = Hold(key, tag, NOBODY, amounts)
            self.alive[tag] = True
        return found

    def _others(self, key: bytes, purse: Purse, state: Used) -> Amounts:
        """Give what is reserved for other requests."""
        own = self.held.get((key, purse.tag))
        return state.held.plus(own.amounts, -1.0) if own else state.held


def _somebody_at_work(tx: Transaction, rules: Rules, tag: str) -> bool:
    """Say whether a run at work holds something under a tag."""
    is_alive = functools.cache(tx.is_alive)
    runs = [int(run) for (run,) in tx.run("holding_runs", (tag,)).fetchall()]
    return any(run != NOBODY and (run == rules.run or is_alive(run)) for run in runs)


def used(tx: Transaction, purse: Purse) -> Used:
    """Give how a window stands: one statement, so that nothing that is settled meanwhile is in neither sum."""
    line = tx.run("budget_used", (purse.tag, purse.since, purse.tag)).fetchone()
    return Used(Amounts(*map(float, line[:4])), Amounts(*map(float, line[4:8])), int(line[8]))


def holds_of(tx: Transaction, keys: Sequence[bytes]) -> list[Hold]:
    """Give what is reserved for these requests."""
    return [_hold(line) for line in tx.select("held_for", keys)]


def stale_holds(tx: Transaction, rules: Rules, tags: Iterable[str]) -> list[Hold]:
    """Give what is reserved under these tags by runs that are not at work any more."""
    is_alive = functools.cache(tx.is_alive)
    wanted = set(tags)
    return [
        hold
        for hold in map(_hold, tx.run("all_held").fetchall())
        if hold.tag in wanted and hold.run != rules.run and not (hold.run and is_alive(hold.run))
    ]


def settle(tx: Transaction, settlements: Sequence[Settlement], now: float) -> None:
    """Replace what was reserved by what was spent; what is settled already changes nothing."""
    known = {settlement.key: settlement for settlement in settlements}
    for hold in sorted(holds_of(tx, list(known)), key=lambda hold: (hold.tag, hold.key)):
        spent = known[hold.key].spent
        if tx.run("let_go", (hold.key, hold.tag)).rowcount and spent is not None:
            amounts = [held if told is None else told for told, held in zip(spent, hold.amounts, strict=True)]
            tx.run("spend", (hold.tag, int(now // SLOT), *amounts))


def abandon(tx: Transaction, keys: Sequence[bytes]) -> None:
    """Note that no run works at these requests any more: what is reserved for them stays so."""
    tx.many("abandon", [(NOBODY, key) for key in keys])


def _hold(line: Sequence[Any]) -> Hold:
    key, tag, run, *amounts = line
    tag = tag.decode("utf-8", "replace") if isinstance(tag, bytes) else tag
    return Hold(bytes(key), tag, int(run), Amounts(*map(float, amounts)))
