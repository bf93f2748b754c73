"""When the next request may go: the pause, the adaptive ceiling and the learned rate; `Slots` keep the windows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enrich.pace.lease import CLIMB, FASTEST_PROBE, Cut, growth
from enrich.pace.windows import SMOOTH, OwnSlots

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config import LimitsConfig
    from enrich.pace.lease import Lease
    from enrich.pace.windows import Slots

START_CEILING = 48  # requests in flight before anything is known of the endpoint
GROWTH = 3.0  # by which the ceiling grows per clean answer before the first 429: it quadruples each round
REGROWTH = 1.0  # by which it grows per clean answer after that; halves with each cut of the ceiling
SLOWEST_REGROWTH = 1.0  # by which it grows per round at least
CUT = 0.8  # of the ceiling that is left after an episode of 429s
IN_USE = 0.8  # share of the ceiling that must be in use for it to grow, and for a 429 to cut it

UNDER = 0.98  # of the delivered rate that is sent after a 429
SLOWEST_PROBE = 0.002  # growth of the learned rate per second, relative, when it is known well
PROBE_DOUBLES = 5.0  # seconds without a 429 after which the growth doubles: the limit must have risen
PROBE_COST = 10.0  # per second of pause that a 429 brings: by how much slower it is probed for
STRETCH = 1.1  # growth of the rate after which a new stretch begins
DOUBT = 8.0  # times the blur of a count: the seconds after which it weighs as much as what was known
TOO_FEW = 30  # requests between two 429s below which they may have come together by chance
STRETCHES = 64  # that are looked at
PAUSE_REQUESTS = 3.0  # requests' worth of pause after a 429 that names none
TIMER = 0.001  # seconds; an event loop's timer is no finer
FIRST_PAUSE = 0.1  # seconds, the same before a rate is known
BACKOFF = 0.25  # seconds of pause when nothing was let through after one; doubles
BACKOFF_MAX = 30.0  # seconds

log = logging.getLogger("enrich")


@dataclass(slots=True)
class _Mark:
    """From where on the delivered rate is measured.

    Attributes:
        at: monotonic seconds.
        number: of the first request after it.
        paused: seconds of pause since.
        rejected: requests since that were answered 429.
        first: whether it is the run's start and not a 429.
    """

    at: float
    number: int
    paused: float = 0.0
    rejected: int = 0
    first: bool = True


class Pace:
    """Holds a run to the limits it was given and to those it finds.

    Only the dispatcher waits here, so requests go in the order they came. Requests are numbered as they are sent;
    a 429 for one that was sent before the last cut belongs to the same episode, and an answer to one is no sign of
    recovery.

    How a limit is learned. When a 429 comes, the server has just let through all it would: between two such
    moments it let through what its limit yields in that time, no more (and less only where it was not asked
    for more). So requests let through ÷ time between two 429 episodes is the limit's rate, exactly, without
    knowing how much it lets through at once. The run goes on a little below that, and creeps up until the next
    429; the better the rate is known, the slower. At a rate that close a failed probe costs a handful of refusals.

    Where the limit is shared, all this is one for all runs: the rate is that of all together, an episode that one of
    them has seen pauses and cuts for everybody, once. The ceiling is each run's own; all are cut by the same share
    and grow the slower the more there are.

    Attributes:
        rate: the learned rate in requests per second; None until a 429 was seen.
        pause_cause: why there is a pause, for people.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        *,
        slots: Slots | None = None,
        learned: dict[str, Any] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = limits.concurrency
        self._adaptive = limits.adaptive
        self._monotonic = monotonic
        self._slots = slots or OwnSlots(limits, monotonic)
        start = max(1, START_CEILING // self._slots.runs)
        self._ceiling = min(self._most, start) if self._adaptive else self._most
        self._growth = GROWTH
        self._room = 0.0  # of the next request by which the ceiling grows
        self._sent = 0
        self._cut_number = 0  # of the last request sent before the last cut
        self._steady_number = 0  # answers to requests up to this one are no reason to grow
        self._refused = 0  # of the requests sent since the last cut
        self._droughts = 0  # episodes in a row between which nothing was let through
        self._mark: _Mark | None = None  # the last episode
        self._known = 0.0  # what the limit was last found to yield, in requests per second
        self._checked_rate = 0.0  # the rate when the last stretch began
        self._stretches: deque[tuple[float, int]] = deque(
            maxlen=STRETCHES
        )  # when, and the first request in it
        self._burst = 0.0  # requests that the limit is thought to let through at once
        self._next_turn = 0.0
        self._paused_until = 0.0
        self._probe = FASTEST_PROBE  # growth of the rate per second, relative
        self._patience = PROBE_DOUBLES  # seconds without a 429 after which the growth doubles
        self._quiet_since = monotonic()
        self.rate: float | None = None
        self.pause_cause = ""
        self._episode: int | None = None  # the last one heard of
        self._cuts = 0  # of everybody's ceiling, that were heard of
        self._telling: Cut | None = None  # what the others may not know yet
        if learned and self._adaptive:
            self._learn_from(learned)
        self._slots.listen(self._hear)

    @property
    def ceiling(self) -> int:
        """Give how many requests may be in flight now: a single one while it is to show that a drought is over."""
        return 1 if self._droughts else self._ceiling

    # --- before a request ---

    async def turn(self, tokens: float) -> None:
        """Wait until one request of about so many tokens may go by every window and the learned rate."""
        if self.rate is not None and not self._slots.paces_rate:
            await self._wait_for_rate(self.rate)
        await self._slots.take(tokens)

    async def _wait_for_rate(self, rate: float) -> None:
        now = self._monotonic()
        if self._next_turn > now - SMOOTH / 5:  # the rate is what holds the run up: see whether there is more
            self._creep(now, rate)
        self._next_turn = max(self._next_turn, now - SMOOTH) + 1 / rate
        wait = self._next_turn - now
        if wait > TIMER:
            await asyncio.sleep(wait)

    def _creep(self, now: float, rate: float) -> None:
        """Let the learned rate grow by what the time of one request is worth."""
        if now - self._quiet_since > self._patience:
            self._quiet_since = now
            self._probe = min(FASTEST_PROBE, 2 * self._probe)
            self._growth = min(REGROWTH, 2 * self._growth)
            log.info("no 429 at %.4g requests/s: trying more", rate)
        self.rate = rate = rate + growth(rate, self._probe)
        self._note_stretch(now, rate)

    def _note_stretch(self, now: float, rate: float) -> None:
        if rate > STRETCH * self._checked_rate:
            self._checked_rate = rate
            self._stretches.append((now, self._sent + 1))

    def sent(self) -> int:
        """Note that a request goes now; gives its number."""
        self._sent += 1
        if self._mark is None:
            self._mark = _Mark(self._monotonic(), self._sent)
            self._slots.mark()
        self._slots.sent()
        return self._sent

    def paused_for(self) -> float:
        """Give the seconds that nobody may send; 0 when there is no pause."""
        return max(0.0, self._paused_until - self._monotonic()) if self._paused_until else 0.0

    def pause(self, seconds: float, cause: str) -> None:
        """Keep everybody from sending; the longest pause wins."""
        now = self._monotonic()
        until = now + seconds
        if until <= self._paused_until:
            return
        if self._mark is not None:
            self._mark.paused += until - max(now, self._paused_until)
        self._paused_until, self.pause_cause = until, cause
        self._next_turn = max(self._next_turn, until)
        log.info("paused for %.3g s: %s", seconds, cause)

    # --- after a request ---

    def answered(
        self, number: int, *, in_flight: int, reserved: float = 0.0, used: float | None = None
    ) -> None:
        """Note an answer: settle its tokens, let the ceiling grow when it is in use.

        Args:
            number: as `sent` gave it.
            in_flight: requests in flight when it was answered, itself included.
            reserved: tokens that were estimated.
            used: tokens that were used, when the server said so.
        """
        if used is not None:
            self._slots.settle(reserved, used)
        if number > self._cut_number:
            self._droughts = 0
        if number > self._steady_number and self._adaptive and in_flight >= IN_USE * self._ceiling:
            self._grow()

    def _grow(self) -> None:
        self._room += max(self._growth, SLOWEST_REGROWTH / self._ceiling) / self._slots.runs
        whole = int(self._room)
        self._room -= whole
        self._ceiling = min(self._most, self._ceiling + whole)

    def released(self, reserved: float) -> None:
        """Give back the tokens of a request that brought no answer."""
        self._slots.settle(reserved, 0.0)

    def troubled(self) -> None:
        """Note an answer of 5xx: what is in flight now is no reason to send more."""
        self._steady_number = self._sent
        self._quiet_since = self._monotonic()
        self._slots.trouble()

    def limited(self, number: int, retry_after: float | None, *, in_flight: int, sent_at: float) -> None:
        """Note a 429: one cut per episode, and a pause for everybody.

        Args:
            number: as `sent` gave it.
            retry_after: seconds the server asks to wait.
            in_flight: requests in flight when it was answered, itself included.
            sent_at: monotonic seconds.
        """
        if self._mark is not None and number >= self._mark.number:
            self._mark.rejected += 1
        # What went out after a cut and before the end of its pause was on its way to a worker when the cut came.
        begins = number > self._cut_number and sent_at >= self._paused_until
        wait = retry_after
        if begins:
            drought = number - self._cut_number - 1 <= self._refused and self._cut_number > 0
            self._droughts = self._droughts + 1 if drought else 0
            wait = max(self._backoff(), retry_after or 0.0)
            if self._adaptive:
                self._cut(number, in_flight=in_flight, sent_at=sent_at, wait=wait)
            self._cut_number = self._steady_number = self._sent
            self._refused = 0
        self._refused += number > self._cut_number
        if wait is not None:
            cause = "rate limited (429)" if retry_after is None else "the endpoint asked to wait (429)"
            self._slots.pause(wait, cause)
            self.pause(wait, cause)

    def _backoff(self) -> float:
        if self._droughts:
            return min(BACKOFF * 2.0 ** min(self._droughts - 1, 10), BACKOFF_MAX)
        return FIRST_PAUSE if self.rate is None else min(PAUSE_REQUESTS / self.rate, FIRST_PAUSE)

    def _cut(self, number: int, *, in_flight: int, sent_at: float, wait: float) -> None:
        """Learn from the 429 that begins an episode."""
        mark, before = self._mark, self.rate
        if mark is None:
            return  # of a run before this one
        if self._droughts:
            mark.paused = 0.0  # it was just shown that nothing ran over meanwhile
            return
        through = self._through(mark, number)
        seconds = max(sent_at - mark.at, 1e-3)
        if not mark.first and seconds < 2 * self._slots.blur:
            return  # of the same episode, as another run saw it
        if mark.first:
            self._learn_first(through, seconds, wait)
        else:
            self._learn(mark, number, sent_at, wait)
        self.rate = self._checked_rate = UNDER * self._known
        self._stretches.clear()
        self._mark = _Mark(sent_at, number, rejected=1, first=False)
        self._patience = PROBE_DOUBLES * (1 + PROBE_COST * wait)
        still_learning = before is None or self.rate < IN_USE * before
        lower = in_flight >= IN_USE * self._ceiling and not still_learning
        if lower:
            self._lower_ceiling()
        self._quiet_since = self._monotonic()
        self._slots.mark()
        self._telling = Cut(
            self._episode or 0, self._known, self._burst, self.rate, self._probe, self._patience, lower
        )
        self._slots.cut(self._telling)
        log.info(
            "429 after %d requests in %.3g s: going on at %.4g requests/s, at most %d in flight",
            through,
            seconds,
            self.rate,
            self._ceiling,
        )

    def _lower_ceiling(self) -> None:
        self._ceiling = max(1, int(CUT * self._ceiling))
        self._growth = min(REGROWTH, self._growth / 2)

    def _through(self, mark: _Mark, number: int) -> float:
        """Give how many requests were let through since a mark, up to this one and those of other runs included."""
        return max(1, number - mark.number - mark.rejected + 1) * self._slots.others

    def _learn_first(self, through: float, seconds: float, wait: float) -> None:
        """Guess a rate: what was let through at once takes about the pause to come back, as far as is known."""
        self._known = through / (seconds + wait)
        self._burst = through * wait / (seconds + wait)
        self._probe = CLIMB

    def _learn(self, mark: _Mark, number: int, sent_at: float, wait: float) -> None:
        """Take the most that was surely sustained as the limit's rate, its likely error as the speed of the next probe.

        From one 429 to the next the limit yields at least what was let through. Where it may have yielded more,
        because the run paused or was slow at first, what was let through over some later stretch, less what the
        limit lets through at once, is a lower bound as well.
        """
        through = self._through(mark, number)
        seconds = max(sent_at - mark.at, 1e-3)
        bounds = [through / seconds, (through - self._burst) / max(seconds - mark.paused, 1e-3)]
        others, blur = self._slots.others, self._slots.blur
        bounds += [
            ((number - n) * others - self._burst) / max(sent_at - at + blur, 1e-3)
            for at, n in self._stretches
        ]
        rate = self._known + (max(bounds) - self._known) * seconds / (seconds + DOUBT * blur)
        if through < TOO_FEW:
            rate = max(rate, CUT * self._known)
        error = min(1.0, 2 / through + abs(rate / self._known - 1))
        self._probe = min(FASTEST_PROBE, max(SLOWEST_PROBE, error / (1 + PROBE_COST * wait)))
        self._known = rate

    # --- from other runs ---

    def _hear(self, lease: Lease, told: bool) -> None:  # noqa: FBT001  # a callback's arguments
        """Take in how the account stands; ``told`` says that the others know of this run's own cut by now."""
        if (pause := lease.paused_until - lease.now) > self.paused_for() + TIMER:
            self.pause(pause, lease.cause)
        if not self._adaptive or (self._telling is not None and not told):
            return
        own, self._telling = self._telling, None
        if self._episode is None:
            self._cuts = lease.cuts
        elif lease.episode != self._episode:
            self._join_episode(lease, own)
        self._episode = lease.episode
        if lease.rate is not None:
            self._known, self._burst, self._probe = lease.known, lease.burst, lease.probe
            self._checked_rate = self._checked_rate or lease.rate
            self._note_stretch(self._monotonic(), lease.rate)
            self.rate = lease.rate

    def _join_episode(self, lease: Lease, own: Cut | None) -> None:
        """Make an episode one's own that another run saw first; one that this run saw was cut for already."""
        for _ in range(lease.cuts - self._cuts - (own is not None and own.lower)):
            self._lower_ceiling()
        self._cuts = lease.cuts
        if own is not None:
            return
        self._cut_number = self._steady_number = self._sent
        self._refused = 0
        self._stretches.clear()
        self._checked_rate = UNDER * lease.known
        age = max(0.0, lease.now - lease.cut_at)
        self._mark = _Mark(self._monotonic() - age, self._sent + 1, paused=self.paused_for(), first=False)
        self._slots.mark()
        log.info("another run met a 429: going on at %.4g requests/s together", lease.rate or 0.0)

    # --- between runs ---

    def learned(self) -> dict[str, Any]:
        """Give what the next run may start from."""
        return {"ceiling": self._ceiling, "rate": self._known or None}

    def _learn_from(self, learned: dict[str, Any]) -> None:
        ceiling, rate = learned.get("ceiling"), learned.get("rate")
        if isinstance(ceiling, int) and ceiling > 0:
            self._ceiling = min(self._most, ceiling)
        if isinstance(rate, int | float) and rate > 0:
            self._known = rate
            self.rate = self._checked_rate = UNDER * rate
            self._probe = 10 * SLOWEST_PROBE
