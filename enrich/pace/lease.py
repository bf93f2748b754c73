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
# Seconds; who is asked to wait longer stops. Bounds what a clock that jumps can do.
LONGEST_PAUSE: Final = 300.0
# Seconds after the start of the server: what it forgot when it crashed is over by then.
RESTARTED: Final = 1.0
# Seconds ago that the learned rate's next slot was free, at most, for it to be in use.
SATURATED: Final = 0.01
FASTEST_PROBE: Final = 1.0  # growth of the learned rate per second, relative, at most
MOST_PER_REQUEST: Final = 0.02  # growth of the learned rate per request, relative
CLIMB: Final = 5.0  # growth per second, relative, but after the first 429 of all, which shows next to nothing
MOST_PER_CLIMB: Final = 0.25  # growth per request then, relative


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
        known: requests per second that the limit was found to yield.
        burst: requests that it is thought to let through at once.
        rate: requests per second at which all processes together go on.
        probe: growth of the rate per second, relative.
        patience: seconds without a 429 after which the growth doubles.
        lower: whether everybody's ceiling on requests in flight is lowered.
    """

    episode: int
    known: float
    burst: float
    rate: float
    probe: float
    patience: float
    lower: bool


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a process asks for, and what it has to tell since it last asked.

    Attributes:
        want: slots that it could use; 0 to hear the news only.
        each: tokens that a request is expected to use.
        settled: tokens used beyond what was expected; below zero when they were fewer.
        sent: requests sent.
        adaptive: whether it is held to the learned rate.
        trouble: whether the endpoint answered 5xx: no time to try more.
        pause: seconds for which nobody may send, from now.
        cause: of the pause, for people.
    """

    windows: tuple[SharedWindow, ...] = ()
    want: int = 0
    each: float = 0.0
    settled: float = 0.0
    sent: int = 0
    adaptive: bool = True
    trouble: bool = False
    pause: float = 0.0
    cause: str = ""
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Slots, and how the account stands. Times are seconds of the database's clock.

    Attributes:
        now: when it was given.
        start: of the first slot.
        step: seconds from one slot to the next.
        count: of slots; 0 during a pause.
        paused_until: before which nobody may send; 0 when there never was a pause.
        episode: number of the last episode of 429s; 0 before the first.
        cuts: how many episodes lowered everybody's ceiling.
        cut_at: when the last episode began.
        known, burst, probe: as in `Cut`.
        rate: the learned rate of all processes together; None before the first episode.
        sent: requests that all processes have sent, as far as they have told.
        runs: live runs that share the limit, this one included.
    """

    now: float
    start: float
    step: float
    count: int
    paused_until: float
    cause: str
    episode: int
    cuts: int
    cut_at: float
    known: float
    burst: float
    rate: float | None
    probe: float
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
    paused_until: float = 0.0
    cause: str = ""
    episode: int = 0
    cuts: int = 0
    cut_at: float = 0.0
    known: float = 0.0
    burst: float = 0.0
    rate: float | None = None
    probe: float = FASTEST_PROBE
    patience: float = 0.0
    quiet_since: float = 0.0
    rate_next: float = 0.0
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
    account = _told(account, request, now)
    lanes = [_settled(lane, request, now, runs) for lane in _declared(account, request, now)]
    live = [lane for lane in lanes if lane.until > now]
    rate = account.rate if request.adaptive else None
    costs = [_cost(lane.window, request) for lane in live] + ([1 / rate] if rate else [])
    start = max(
        [now, started + RESTARTED, *(lane.next for lane in live), *([account.rate_next] if rate else [])]
    )
    step = max(costs, default=0.0)
    count = 0 if account.paused_until > now else _share(request.want, step, runs)
    last = start + (count - 1) * step
    if count:
        lanes = [_taken(lane, request, last) if lane.until > now else lane for lane in lanes]
    lanes = [_kept(lane, now) for lane in lanes]
    if rate and count:
        account = _crept(account, rate, now=now, count=count, last=last)
    account = replace(account, lanes=tuple(lanes))
    return account, Lease(
        now=now,
        start=start,
        step=step,
        count=count,
        paused_until=account.paused_until,
        cause=account.cause,
        episode=account.episode,
        cuts=account.cuts,
        cut_at=account.cut_at,
        known=account.known,
        burst=account.burst,
        rate=account.rate,
        probe=account.probe,
        sent=account.sent,
        runs=runs,
    )


def _told(account: Account, request: LeaseRequest, now: float) -> Account:
    """Take in what a process has to tell: the longest pause wins, the first cut of an episode counts."""
    paused_until = min(account.paused_until, now + LONGEST_PAUSE)
    longer = request.pause > 0 and now + request.pause > paused_until
    account = replace(
        account,
        sent=account.sent + request.sent,
        paused_until=now + request.pause if longer else paused_until,
        cause=request.cause if longer else account.cause,
        quiet_since=now if request.trouble else account.quiet_since,
        rate_next=min(account.rate_next, now + LONGEST_PAUSE),
    )
    cut = request.cut
    if cut is None or cut.episode != account.episode:
        return account
    return replace(
        account,
        episode=account.episode + 1,
        cuts=account.cuts + cut.lower,
        cut_at=now,
        known=cut.known,
        burst=cut.burst,
        rate=cut.rate,
        probe=cut.probe,
        patience=cut.patience,
        quiet_since=now,
    )


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


def _crept(account: Account, rate: float, *, now: float, count: int, last: float) -> Account:
    """Move the learned rate's lane behind the last slot; let the rate grow when it is what holds everybody up."""
    probe, quiet_since = account.probe, account.quiet_since
    if account.rate_next > now - SATURATED:
        if now - quiet_since > account.patience:
            probe, quiet_since = min(FASTEST_PROBE, 2 * probe), now
        rate += count * growth(rate, probe)
    return replace(account, rate=rate, rate_next=last + 1 / rate, probe=probe, quiet_since=quiet_since)


def growth(rate: float, probe: float) -> float:
    """Give by how many requests per second the learned rate grows with each request that it held up.

    Args:
        rate: requests per second.
        probe: growth of the rate per second, relative.
    """
    return min(probe, (MOST_PER_REQUEST if probe <= FASTEST_PROBE else MOST_PER_CLIMB) * rate)
