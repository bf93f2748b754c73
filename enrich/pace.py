"""When the next request may go: the windows, the shared pause, the adaptive ceiling and the learned rate."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiolimiter import AsyncLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config import LimitsConfig

START_CEILING = 32  # requests in flight before anything is known of the endpoint
CUT = 0.8  # of the ceiling that is left after an episode of 429s
GROW_ABOVE = 0.8  # share of the ceiling that must be in use before it grows
SMOOTH = 0.05  # seconds' worth of requests that may go at once
SLACK = 0.005  # share of a window that may go at once, and that is kept back for it
UNDER = 0.98  # of the delivered rate that is paced at once 429s were seen
PROBE_AFTER = 15.0  # seconds without a 429 before the learned rate is tried a little higher
PROBE_UP = 1.03  # by how much
BACKOFF = 0.25  # seconds of pause for a 429 that names none; doubles per episode in a row
BACKOFF_MAX = 30.0  # seconds


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
        """Give the units per second that, with the burst on top, stay within the window wherever it starts."""
        return max(self.amount * (1 - SLACK) - (self.burst - 1), self.amount / 2) / self.seconds


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


class TokenBucket:
    """A leaky bucket whose level is corrected once the true amount is known.

    Reserve an estimate before sending, settle when the usage arrives: an answer that was longer than
    estimated delays the next request, a shorter one lets it go sooner.
    """

    def __init__(self, window: Window, monotonic: Callable[[], float]) -> None:
        self._rate = window.amount / window.seconds * (1 - 2 * SLACK)
        self._capacity = window.amount * SLACK
        self._monotonic = monotonic
        self._level = 0.0
        self._at = monotonic()

    def wait(self) -> float:
        """Give the seconds until the next request may reserve."""
        self._leak()
        return max(0.0, (self._level - self._capacity) / self._rate)

    def reserve(self, tokens: float) -> None:
        """Take an estimate out of the window."""
        self._leak()
        self._level += tokens

    def settle(self, reserved: float, used: float) -> None:
        """Replace an estimate by what was used."""
        self._level += used - reserved

    def _leak(self) -> None:
        now = self._monotonic()
        self._level = max(0.0, self._level - (now - self._at) * self._rate)
        self._at = now


class Pace:
    """Holds a run to the limits it was given and to those it finds.

    Only the dispatcher waits here, so requests go in the order they came.

    Attributes:
        ceiling: the requests that may be in flight now.
        rate: the learned rate in requests per second; None until a 429 was seen.
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
        self._buckets = [TokenBucket(w, monotonic) for w in token_windows(limits)]
        self.ceiling = min(self._most, START_CEILING) if self._adaptive else self._most
        self.rate: float | None = None
        self._next_turn = 0.0
        self._paused_until = 0.0
        self._pause_cause = ""
        self._ever_limited = False
        self._episodes_in_a_row = 0
        self._episode_at = float("-inf")
        self._answers_since = 0
        self._counting_from = monotonic()
        self._probe_at = float("inf")
        self._probe_gap = PROBE_AFTER
        self._known_good: float | None = None
        if learned and self._adaptive:
            self._learn_from(learned)

    # --- before a request ---

    async def turn(self, tokens: float) -> None:
        """Wait until one request of about so many tokens may go by every window and the learned rate."""
        for bucket in self._buckets:
            while (wait := bucket.wait()) > 0:
                await asyncio.sleep(wait)
        for limiter in self._limiters:
            await limiter.acquire()
        if self.rate is not None:
            await self._wait_for_rate()
        for bucket in self._buckets:
            bucket.reserve(tokens)

    async def _wait_for_rate(self) -> None:
        assert self.rate is not None  # noqa: S101  # the caller looked
        now = self._monotonic()
        if now >= self._probe_at:
            self._probe(now)
        self._next_turn = max(self._next_turn, now - SMOOTH / 2) + 1 / self.rate
        wait = self._next_turn - now
        if wait > 0.001:  # an event loop's timer is no finer
            await asyncio.sleep(wait)

    def paused_for(self) -> float:
        """Give the seconds that nobody may send; 0 when there is no pause."""
        return max(0.0, self._paused_until - self._monotonic())

    @property
    def pause_cause(self) -> str:
        """Say why there is a pause, for people."""
        return self._pause_cause

    def pause(self, seconds: float, cause: str) -> None:
        """Keep everybody from sending; the longest pause wins."""
        until = self._monotonic() + seconds
        if until > self._paused_until:
            self._paused_until, self._pause_cause = until, cause

    # --- after a request ---

    def answered(
        self, sent_at: float, *, in_flight: int, reserved: float = 0.0, used: float | None = None
    ) -> None:
        """Note an answer: settle its tokens, let the ceiling grow when it is in use.

        Args:
            sent_at: monotonic seconds.
            in_flight: requests in flight when it was answered.
            reserved: tokens that were estimated.
            used: tokens that were used, when the server said so.
        """
        if used is not None:
            for bucket in self._buckets:
                bucket.settle(reserved, used)
        self._answers_since += 1
        if sent_at < self._episode_at:
            return  # sent before the cut: no sign of recovery
        self._episodes_in_a_row = 0
        if not self._adaptive or self.ceiling >= self._most or in_flight < GROW_ABOVE * self.ceiling:
            return
        self._grow()

    def _grow(self) -> None:
        step = 1.0 if not self._ever_limited else 1.0 / self.ceiling
        self._room = getattr(self, "_room", 0.0) + step
        whole = int(self._room)
        self._room -= whole
        self.ceiling = min(self._most, self.ceiling + whole)

    def released(self, reserved: float) -> None:
        """Give back the tokens of a request that brought no answer."""
        for bucket in self._buckets:
            bucket.settle(reserved, 0.0)

    def limited(self, sent_at: float, retry_after: float | None) -> None:
        """Note a 429: one cut per episode, and a pause for everybody."""
        now = self._monotonic()
        if retry_after is not None:
            self.pause(retry_after, "the endpoint asked to wait (429)")
        if sent_at < self._episode_at:
            return  # the same episode: it was sent before the cut
        backoff = min(BACKOFF * 2**self._episodes_in_a_row, BACKOFF_MAX)
        if retry_after is None:
            self.pause(backoff, "rate limited (429)")
        if self._adaptive:
            self._cut(now)
        self._ever_limited = True
        self._episodes_in_a_row += 1
        self._episode_at = now

    def _cut(self, now: float) -> None:
        if self._probe_gap > PROBE_AFTER and self._known_good is not None and self.rate != self._known_good:
            self.rate = self._known_good  # a probe failed: back to what held
        else:
            elapsed = max(now - self._counting_from, 1e-3)
            delivered = max(self._answers_since, 1) / elapsed
            self.rate = UNDER * delivered if self.rate is None else UNDER * min(delivered, self.rate)
            self._known_good = self.rate
        self.ceiling = max(1, int(self.ceiling * CUT))
        self._answers_since = 0
        self._counting_from = now
        self._probe_at = now + self._probe_gap

    def _probe(self, now: float) -> None:
        assert self.rate is not None  # noqa: S101  # only a learned rate is probed
        self._known_good = self.rate
        self.rate *= PROBE_UP
        self._probe_gap = 2 * PROBE_AFTER
        self._probe_at = now + self._probe_gap

    # --- between runs ---

    def learned(self) -> dict[str, Any]:
        """Give what the next run may start from."""
        return {"ceiling": self.ceiling, "rate": self.rate}

    def _learn_from(self, learned: dict[str, Any]) -> None:
        ceiling, rate = learned.get("ceiling"), learned.get("rate")
        if isinstance(ceiling, int) and ceiling > 0:
            self.ceiling = min(self._most, ceiling)
        if isinstance(rate, int | float) and rate > 0:
            self.rate, self._ever_limited = float(rate), True
            self._known_good = self.rate
            self._probe_at = self._monotonic() + PROBE_AFTER
