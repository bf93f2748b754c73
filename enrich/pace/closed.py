"""When everything is refused: few requests test when that is over, and what comes again and again is known next time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FIRST_GAP: Final = 0.01  # seconds before the first probe
QUICK, SLOW = 1.5, 1.25  # growth of the gap between probes: in the first second, and after it
BELIEVED: Final = 2.0  # growth of the gap where the server says how long it lasts
LONGEST_GAP: Final = 30.0  # seconds between probes
WHOLE: Final = 1.0  # second to which a Retry-After may be rounded up
AGREE: Final = 0.8  # seconds apart that two refusals must be for what they say of the end to be compared
NEAR: Final = 0.05  # seconds to which the end is pinned down by asking at the right moments
WAIT: Final = 0.02  # seconds after which a probe that was not refused counts as let through, at least
LOOKS: Final = 2  # windows halfway through which a request is spent to see that they are no shorter
WINDOW_AFTER: Final = 1.5  # seconds that a refusal of everything lasts at least to be a window's
WINDOW_REQUESTS: Final = 5  # that a window lets through at least


@dataclass(slots=True)
class Probe:
    """A request that tests whether it is over: when it went, and whether because another one had ended."""

    number: int
    at: float
    freed: bool


class Closed:
    """A time in which everything is refused.

    Attributes:
        since: when the first refused one was sent.
        freed: requests that ended since the last probe was refused.
        refusals: probes that were refused.
        in_vain: those of them that went because another request had ended.
        looks: whether to look halfway to the expected end if it is not over by then.
    """

    def __init__(self, since: float, now: float, trip: float, expected: float | None) -> None:
        self.since = since
        self.probe: Probe | None = None
        self.refusals = 0
        self.freed = 0
        self.in_flight = 0
        self.tests_more = False
        self.looks = False
        self.expected = expected
        self._trip = trip
        self._gap = max(FIRST_GAP, 2 * trip)
        self.next = now + self._gap if expected is None else max(now, expected)
        self.in_vain = 0
        self._first_claim: tuple[float, float] | None = None
        self.counts_down = False
        self._low, self._high = -math.inf, math.inf

    def wait(self, now: float) -> float:
        """Give the seconds until the next probe may go; without end while one is out."""
        return math.inf if self.probe is not None else max(0.0, self.next - now)

    def silence(self, now: float) -> float:
        """Give the seconds until the probe that is out counts as let through."""
        if self.probe is None:
            return math.inf
        return max(0.0, self.probe.at + max(WAIT, 6 * self._trip) - now)

    def sent(self, number: int, now: float) -> None:
        """Note that a probe goes."""
        self.probe = Probe(number, now, self.freed > 0)

    def ended(self, now: float) -> None:
        """Note that a request that was let through has ended: where they are counted at a time, there is room now."""
        self.freed += 1
        if self.in_vain < 2 and self.expected is None:
            self.next = min(self.next, now)

    def claim(self, at: float, retry_after: float | None) -> None:
        """Take in what a refusal says of the end.

        Args:
            at: when the refused request was sent.
            retry_after: seconds that it says.
        """
        if retry_after is None:
            return
        high = at + retry_after + self._trip
        whole = retry_after == int(retry_after)
        low = at + retry_after - (WHOLE if whole else 2 * self._trip)
        if low > self._high + 0.01 or high < self._low - 0.01:  # it says the same again and again
            self._low, self._high, self.counts_down, self._first_claim = low, high, False, (at, retry_after)
            return
        self._low, self._high = max(low, self._low), min(high, self._high)
        if self._first_claim is None:
            self._first_claim = (at, retry_after)
        elif at - self._first_claim[0] >= AGREE and retry_after < self._first_claim[1]:
            self.counts_down = True

    def refused(self, now: float) -> None:
        """A probe was refused: plan the next one."""
        if self.probe is not None and self.probe.freed:
            self.in_vain += 1
        self.probe, self.freed = None, 0
        self.refusals += 1
        self.next = now + self._next_gap(now)

    def _next_gap(self, now: float) -> float:
        elapsed = now - self.since
        if self.expected is not None:  # it should be over: look often, then ever less often
            if now < self.expected:
                halfway, self.looks = self.looks, False
                return (self.expected - now) / (2 if halfway else 1)
            self._gap = max(FIRST_GAP, 0.25 * (now - self.expected))
            if now > self.expected + 0.5 * max(1.0, self.expected - self.since):
                self.expected = None
            return self._gap
        if self.counts_down and now < self._high:
            return self._pin(now)
        believed = math.isfinite(self._high) and self._high - now > 2 * self._gap
        factor = BELIEVED if believed else QUICK if elapsed < 1 else SLOW
        longest = LONGEST_GAP if believed else max(2 * FIRST_GAP, (factor - 1) * elapsed)
        self._gap = min(factor * self._gap, max(longest, self._gap), LONGEST_GAP)
        if math.isfinite(self._high) and self._high > now:
            return min(self._gap, self._high - now)
        return self._gap

    def _pin(self, now: float) -> float:
        """Ask at the moment that halves what is unknown of the end; when that is little, at the end."""
        if self._high - self._low <= NEAR:
            return max(self._trip, self._high - now)
        middle = (self._low + self._high) / 2
        soonest = now + max(FIRST_GAP, self._trip)
        at = middle - math.floor(middle - soonest)  # a whole number of seconds before the middle
        return at - now if soonest <= at < self._low else max(FIRST_GAP, self._high - now)


@dataclass(slots=True)
class ClosedWindow:
    """So many requests in each span of so many seconds, the next of which begins at a known time.

    Attributes:
        amount: requests.
        seconds: of a span.
        begins: when the one that is open now began.
        used: requests let through in it.
        more: further requests that test whether there is more; doubles.
        strikes: how often it was open when it should not have been, one time after the other.
        looks: how often nothing was let through halfway to its end.
    """

    amount: int
    seconds: float
    begins: float
    used: int = 0
    more: int = 0
    strikes: int = 0
    looks: int = 0

    @property
    def ends(self) -> float:
        """Give when the next one begins."""
        return self.begins + self.seconds
