"""How a shared limit is handed out: leases of paced slots, as a pure function that the SQL of `postgres.sql` repeats.

Every process that works for one account asks for its next few slots. Each window is a lane in which slots follow each
other at an even distance: the lane keeps when its next slot is free, and a lease takes slots from all lanes at once.
Nothing is counted and nothing is given back, so a process that dies takes no more with it than its last small lease.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Protocol, runtime_checkable

PERIOD: Final = 0.25  # seconds' worth of the whole limit that the leases of all processes together hold
LIVE: Final = 15.0  # seconds for which a window holds for everybody after it was last declared
# Seconds after the start of the server: what it forgot when it crashed is over by then.
RESTARTED: Final = 1.0


@dataclass(frozen=True, slots=True)
class SharedWindow:
    """A window as a process declares it.

    Attributes:
        tokens: whether it bounds tokens, else requests.
        amount: in any span of ``seconds``.
        spacing: seconds from one unit to the next.
    """

    tokens: bool
    amount: float
    seconds: float
    spacing: float


@dataclass(frozen=True, slots=True)
class Cut:
    """What a process learned from the 429 that began an episode.

    Attributes:
        episode: the last one it knew of. Where another process has told of a later one, this is a part of that.
        known: requests per second that the limit was found to yield all processes together.
    """

    episode: int
    known: float


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a process asks for, and what it has to tell since it last asked.

    Attributes:
        want: slots that it could use; 0 to hear the news only.
        each: tokens that a request is expected to use.
        settled: tokens used beyond what was expected; below zero when they were fewer.
        sent: requests sent.
    """

    windows: tuple[SharedWindow, ...] = ()
    want: int = 0
    each: float = 0.0
    settled: float = 0.0
    sent: int = 0
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Slots, and how the account stands. Times are seconds of the database's clock.

    Attributes:
        now: when it was given.
        start: of the first slot.
        step: seconds from one slot to the next.
        count: of slots.
        episode: number of the last episode of 429s; 0 before the first.
        known: as in `Cut`.
        sent: requests that all processes have sent, as far as they have told.
        runs: live runs that share the limit, this one included.
    """

    now: float
    start: float
    step: float
    count: int
    episode: int
    known: float
    sent: int
    runs: int


@runtime_checkable
class Leases(Protocol):
    """A ledger that can share a limit between processes."""

    async def fingerprint(self, *secrets: str) -> bytes:
        """Give 16 bytes that name an account here without giving its key away."""

    async def lease(self, account: bytes, request: LeaseRequest) -> Lease:
        """Tell what is new and take the next slots; waits for a lost database."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One window of an account.

    Attributes:
        next: when its next slot is free.
        until: when it ceases to hold, unless it is declared again.
    """

    window: SharedWindow
    next: float
    until: float


@dataclass(frozen=True, slots=True)
class Account:
    """All that is kept of an account; the columns of the tables ``pace`` and ``lane``."""

    sent: int = 0
    episode: int = 0
    known: float = 0.0
    lanes: tuple[Lane, ...] = ()


def grant(
    account: Account, request: LeaseRequest, *, now: float, runs: int = 1, started: float = 0.0
) -> tuple[Account, Lease]:
    """Give a process its next slots: the function ``lease`` of the database, word for word.

    Args:
        account: as it stands.
        request: what is asked for, and told.
        now: seconds.
        runs: live runs that share the account.
        started: when the server was started, in the same seconds.

    Returns:
        How the account stands then, and what the process gets.
    """
    account = _told(account, request)
    lanes = [_settled(lane, request, now, runs) for lane in _declared(account, request, now)]
    live = [lane for lane in lanes if lane.until > now]
    start = max([now, started + RESTARTED, *(lane.next for lane in live)])
    step = max((_cost(lane.window, request) for lane in live), default=0.0)
    count = _share(request.want, step, runs)
    if count:
        last = start + (count - 1) * step
        lanes = [_taken(lane, request, last) if lane.until > now else lane for lane in lanes]
    account = replace(account, lanes=tuple(_kept(lane, now) for lane in lanes))
    return account, Lease(now, start, step, count, account.episode, account.known, account.sent, runs)


def _told(account: Account, request: LeaseRequest) -> Account:
    """Take in what a process has to tell: the first cut of an episode counts."""
    account = replace(account, sent=account.sent + request.sent)
    cut = request.cut
    if cut is None or cut.episode != account.episode:
        return account
    return replace(account, episode=account.episode + 1, known=cut.known)


def _declared(account: Account, request: LeaseRequest, now: float) -> list[Lane]:
    known = {lane.window: lane for lane in account.lanes}
    mine = {
        window: replace(known.get(window, Lane(window, now, 0.0)), until=math.inf)
        for window in request.windows
    }
    return list((known | mine).values())


def _settled(lane: Lane, request: LeaseRequest, now: float, runs: int) -> Lane:
    """Move a lane by what was used beyond, or short of, what its slots were given for.

    A lane cannot lie further ahead than its window and a slot for everybody: the clock must have been turned back.
    """
    window = lane.window
    at = min(lane.next, now + 2 * window.seconds + runs * _cost(window, request))
    if window.tokens:
        at = max(max(at, now) + request.settled * window.spacing, now)
    return replace(lane, next=at)


def _cost(window: SharedWindow, request: LeaseRequest) -> float:
    """Give the seconds that one request takes up in a window."""
    return window.spacing * request.each if window.tokens else window.spacing


def _share(want: int, step: float, runs: int) -> int:
    """Give how many slots one of so many processes may take at once."""
    return min(want, max(1, math.ceil(PERIOD / (step * runs)))) if step > 0 else want


def _taken(lane: Lane, request: LeaseRequest, last: float) -> Lane:
    """Move a lane behind the last slot that was given."""
    cost = _cost(lane.window, request)
    return replace(lane, next=last + cost) if cost > 0 else lane


def _kept(lane: Lane, now: float) -> Lane:
    """Let a declared lane hold until a while after its next slot."""
    return replace(lane, until=max(lane.next, now) + LIVE) if math.isinf(lane.until) else lane
