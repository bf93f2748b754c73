"""What passes between those who spend and the ledger, which keeps count of budgets that outlive a run.

What is reserved counts in every window until it is settled, what is spent in the windows of the moment it was settled at:
so whichever moment the endpoint books a request at, no window of its books is passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from enrich.pace import periods

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import BudgetWindow

SLOT = 900  # seconds by which spending is kept apart; all zones' days begin at whole quarters of an hour since 1972
NOBODY = 0  # the run that holds what no run works at any more


class Amounts(NamedTuple):
    """So much of each unit, in the order of `enrich.config.UNITS`."""

    requests: float = 0.0
    tokens: float = 0.0
    credits: float = 0.0
    usd: float = 0.0

    def plus(self, other: Amounts, times: float = 1.0) -> Amounts:
        """Add another's, so many times."""
        return Amounts(*(a + times * b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Purse:
    """One window of a budget at a moment.

    Attributes:
        window: as it is configured.
        now: that moment, in wall seconds since the epoch.
        since: the first slot of its current span.
        limits: at most so much of each unit; infinite where it limits none.
    """

    window: BudgetWindow
    now: float
    since: int
    limits: Amounts

    @classmethod
    def at(cls, window: BudgetWindow, now: float) -> Purse:
        """Give a window as it is now (wall seconds since the epoch)."""
        told = (window.requests, window.tokens, window.credits, window.usd)
        limits = Amounts(*(math.inf if limit is None else float(limit) for limit in told))
        return cls(window, now, int(periods.begin(window.per, window.zone, now) // SLOT), limits)

    @property
    def tag(self) -> str:
        """Give whose it is."""
        return self.window.tag


@dataclass(frozen=True, slots=True)
class Wish:
    """What one request may cost at worst.

    Attributes:
        unknown: places of units of which nobody knows what it may cost: it must be alone with what is left of them.
    """

    amounts: Amounts
    unknown: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reserving:
    """What a claim wants to reserve.

    Attributes:
        windows: of whose budgets.
        wishes: one for each request of the claim.
    """

    windows: Sequence[BudgetWindow]
    wishes: Sequence[Wish]


@dataclass(frozen=True, slots=True)
class Used:
    """How a window stands.

    Attributes:
        holds: requests that something is reserved for.
    """

    spent: Amounts
    held: Amounts
    holds: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request may not be sent.

    Attributes:
        purse: that it does not fit in.
        unit: the place of the unit that there is not enough of.
        wish: what it may cost at worst.
        awaited: whether a run at work holds something there, so that it may fit later.
    """

    purse: Purse
    unit: int
    used: Used
    wish: Wish
    awaited: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """What is reserved for a request under a tag.

    Attributes:
        run: that works at it.
    """

    key: bytes
    tag: str
    run: int
    amounts: Amounts


class Settlement(NamedTuple):
    """What became of what was reserved for a request.

    Attributes:
        spent: what it cost of each unit, None where that is not told: all that was reserved; None where it cost nothing.
    """

    key: bytes
    spent: tuple[float | None, ...] | None
