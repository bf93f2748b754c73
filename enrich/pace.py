"""When the next request may go: the windows, the shared pause, the adaptive ceiling and the learned rate."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiolimiter import AsyncLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config import LimitsConfig

SMOOTH = 0.05  # seconds' worth of requests that may go at once
SLACK = 0.005  # share of a window that may go at once, and that is kept back for it
JITTER = 0.03  # seconds by which requests may draw together on their way
GUARDED = 1_000  # requests per window up to which the window is held to when they really went
TOKENS_KEPT = 0.025  # share of a token window that is kept back for estimates that were too low

START_CEILING = 48  # requests in flight before anything is known of the endpoint
GROWTH = 3.0  # by which the ceiling grows per clean answer before the first 429: it quadruples each round
REGROWTH = 1.0  # by which it grows per clean answer after that; halves with each cut of the ceiling
SLOWEST_REGROWTH = 1.0  # by which it grows per round at least
CUT = 0.8  # of the ceiling that is left after an episode of 429s
IN_USE = 0.8  # share of the ceiling that must be in use for it to grow, and for a 429 to cut it

UNDER = 0.98  # of the delivered rate that is sent after a 429
FASTEST_PROBE = 1.0  # growth of the learned rate per second, relative, when next to nothing is known of it
SLOWEST_PROBE = 0.002  # the same when it is known well
PROBE_DOUBLES = 5.0  # seconds without a 429 after which the growth doubles: the limit must have risen
MOST_PER_REQUEST = 0.02  # growth of the learned rate per request, relative
PROBE_COST = 10.0  # per second of pause that a 429 brings: by how much slower it is probed for
STRETCH = 1.1  # growth of the rate after which a new stretch begins
TOO_FEW = 30  # requests between two 429s below which they may have come together by chance
STRETCHES = 64  # that are looked at
PAUSE_REQUESTS = 3.0  # requests' worth of pause after a 429 that names none
TIMER = 0.001  # seconds; an event loop's timer is no finer
FIRST_PAUSE = 0.1  # seconds, the same before a rate is known
BACKOFF = 0.25  # seconds of pause when nothing was let through after one; doubles
BACKOFF_MAX = 30.0  # seconds

log = logging.getLogger("enrich")


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``amount`` requests or tokens in any span of ``seconds``."""

    amount: float
    seconds: float

    @property
    def burst(self) -> float:
        """Give how much may go at once: enough to make up for a late timer, too little to be a spike."""
        return 1 + min(SLACK * self.amount, SMOOTH * self.amount / self.seconds)

    @property
    def rate(self) -> float:
        """Give the units per second that, with the burst on top, stay within the window wherever it starts.

        A span of ``seconds`` in the server's books holds what left here within ``seconds + JITTER``, and that is
        at most ``burst + rate × (seconds + JITTER)``, which this makes ``amount + 1 − SLACK × amount``: below
        ``amount + 1``, and requests are whole.
        """
        sustained = max(self.amount * (1 - SLACK) - (self.burst - 1), self.amount / 2)
        return sustained / (self.seconds + JITTER)


def request_windows(limits: LimitsConfig) -> list[Window]:
    """List the windows that bound requests."""
    windows = [Window(w.requests, w.seconds) for w in limits.windows if w.requests is not None]
    if limits.requests_per_minute is not None:
        windows.append(Window(limits.requests_per_minute, 60.0))
    return windows


def token_windows(limits: LimitsConfig) -> list[Window]:
    """List the windows that bound tokens."""
    windows = [Window(w.tokens, w.seconds) for w in limits.windows if w.tokens is not None]
    if limits.tokens_per_minute is not None:
        windows.append(Window(limits.tokens_per_minute, 60.0))
    return windows


class Guard:
    """Holds a window to when its requests really went, which may be later than when they were let go.

    A limiter spaces the moments at which requests are let go. Where the process was held up in between, the next ones
    follow more closely than it meant. Large windows have room for that; small ones have not.
    """

    def __init__(self, window: Window, monotonic: Callable[[], float]) -> None:
        self._span = window.seconds + JITTER
        self._times: deque[float] = deque(maxlen=math.floor(window.amount))
        self._monotonic = monotonic

    def wait(self) -> float:
        """Give the seconds until one more request leaves the window within its limit."""
        times = self._times
        if len(times) < (times.maxlen or 0):
            return 0.0
        return max(0.0, times[0] + self._span - self._monotonic())

    def sent(self, now: float) -> None:
        """Note that a request goes now."""
        self._times.append(now)


class TokenBucket:
    """A leaky bucket whose level is corrected once the true amount is known.

    Reserve an estimate before sending, settle when the usage arrives: an answer that was longer than
    estimated delays the next request, a shorter one lets it go sooner. Over any span of the window's length
    no more is used than leaks out in it (``amount × (1 − SLACK − TOKENS_KEPT)``) and what the level can rise by: the
    capacity (``SLACK × amount``), one request, and by how much those in flight turn out longer than estimated.
    """

    def __init__(self, window: Window, monotonic: Callable[[], float]) -> None:
        self._rate = window.amount * (1 - SLACK - TOKENS_KEPT) / (window.seconds + JITTER)
        self._capacity = window.amount * SLACK
        self._monotonic = monotonic
        self._level = 0.0
        self._at = monotonic()

    def wait(self) -> float:
        """Give the seconds until the next request may reserve."""
        now = self._monotonic()
        self._level = max(0.0, self._level - (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (self._level - self._capacity) / self._rate)

    def settle(self, reserved: float, used: float) -> None:
        """Replace an estimate, or nothing (0), by what is reserved or was used."""
        self._level += used - reserved


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

    Attributes:
        rate: the learned rate in requests per second; None until a 429 was seen.
        pause_cause: why there is a pause, for people.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        *,
        learned: dict[str, Any] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = limits.concurrency
        self._adaptive = limits.adaptive
        self._monotonic = monotonic
        self._limiters = [AsyncLimiter(w.burst, w.burst / w.rate) for w in request_windows(limits)]
        self._guards = [Guard(w, monotonic) for w in request_windows(limits) if 1 <= w.amount <= GUARDED]
        self._buckets = [TokenBucket(w, monotonic) for w in token_windows(limits)]
        self._ceiling = min(self._most, START_CEILING) if self._adaptive else self._most
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
        if learned and self._adaptive:
            self._learn_from(learned)

    @property
    def ceiling(self) -> int:
        """Give how many requests may be in flight now: a single one while it is to show that a drought is over."""
        return 1 if self._droughts else self._ceiling

    # --- before a request ---

    async def turn(self, tokens: float) -> None:
        """Wait until one request of about so many tokens may go by every window and the learned rate."""
        for bucket in self._buckets:
            while (wait := bucket.wait()) > 0:  # noqa: ASYNC110  # the time is known, and may grow meanwhile
                await asyncio.sleep(wait)
        for limiter in self._limiters:
            await limiter.acquire()
        if self.rate is not None:
            await self._wait_for_rate(self.rate)
        for guard in self._guards:
            while (wait := guard.wait()) > 0:  # noqa: ASYNC110  # the time is known
                await asyncio.sleep(wait)
        for bucket in self._buckets:
            bucket.settle(0.0, tokens)

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
        self.rate = rate = rate + min(self._probe, MOST_PER_REQUEST * rate)
        if rate > STRETCH * self._checked_rate:
            self._checked_rate = rate
            self._stretches.append((now, self._sent + 1))

    def sent(self) -> int:
        """Note that a request goes now; gives its number."""
        self._sent += 1
        for guard in self._guards:
            guard.sent(self._monotonic())
        if self._mark is None:
            self._mark = _Mark(self._monotonic(), self._sent)
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
            for bucket in self._buckets:
                bucket.settle(reserved, used)
        if number > self._cut_number:
            self._droughts = 0
        if number > self._steady_number and self._adaptive and in_flight >= IN_USE * self._ceiling:
            self._grow()

    def _grow(self) -> None:
        self._room += max(self._growth, SLOWEST_REGROWTH / self._ceiling)
        whole = int(self._room)
        self._room -= whole
        self._ceiling = min(self._most, self._ceiling + whole)

    def released(self, reserved: float) -> None:
        """Give back the tokens of a request that brought no answer."""
        for bucket in self._buckets:
            bucket.settle(reserved, 0.0)

    def troubled(self) -> None:
        """Note an answer of 5xx: what is in flight now is no reason to send more."""
        self._steady_number = self._sent
        self._quiet_since = self._monotonic()

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
        begins = number > self._cut_number
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
            self.pause(
                wait, "rate limited (429)" if retry_after is None else "the endpoint asked to wait (429)"
            )

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
        through = max(1, number - mark.number - mark.rejected + 1)
        seconds = max(sent_at - mark.at, 1e-3)
        if mark.first:
            self._learn_first(through, seconds, wait)
        else:
            self._learn(mark, number, sent_at, wait)
        self.rate = self._checked_rate = UNDER * self._known
        self._stretches.clear()
        self._mark = _Mark(sent_at, number, rejected=1, first=False)
        self._patience = PROBE_DOUBLES * (1 + PROBE_COST * wait)
        still_learning = before is None or self.rate < IN_USE * before
        if in_flight >= IN_USE * self._ceiling and not still_learning:
            self._ceiling = max(1, int(CUT * self._ceiling))
            self._growth = min(REGROWTH, self._growth / 2)
        self._quiet_since = self._monotonic()
        log.info(
            "429 after %d requests in %.3g s: going on at %.4g requests/s, at most %d in flight",
            through,
            seconds,
            self.rate,
            self._ceiling,
        )

    def _learn_first(self, through: int, seconds: float, wait: float) -> None:
        """Guess a rate: what was let through at once takes about the pause to come back, as far as is known."""
        self._known = through / (seconds + wait)
        self._burst = through * wait / (seconds + wait)
        self._probe = FASTEST_PROBE

    def _learn(self, mark: _Mark, number: int, sent_at: float, wait: float) -> None:
        """Take the most that was surely sustained as the limit's rate, its likely error as the speed of the next probe.

        From one 429 to the next the limit yields at least what was let through. Where it may have yielded more,
        because the run paused or was slow at first, what was let through over some later stretch, less what the
        limit lets through at once, is a lower bound as well.
        """
        through = max(1, number - mark.number - mark.rejected + 1)
        seconds = max(sent_at - mark.at, 1e-3)
        bounds = [through / seconds, (through - self._burst) / max(seconds - mark.paused, 1e-3)]
        bounds += [(number - n - self._burst) / max(sent_at - at, 1e-3) for at, n in self._stretches]
        rate = max(bounds)
        if through < TOO_FEW:
            rate = max(rate, CUT * self._known)
        error = min(1.0, 2 / through + abs(rate / self._known - 1))
        self._probe = min(FASTEST_PROBE, max(SLOWEST_PROBE, error / (1 + PROBE_COST * wait)))
        self._known = rate

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
