"""A cap on requests in flight: how it shows, how it is kept to, and how it is seen to have risen or to be none."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from enrich.pace.closed import Closed
    from enrich.pace.sent import Sent

IN_A_ROW: Final = 2  # times that a request that ended made room, in a row, that show a cap
MEMORY: Final = 32  # requests that were taken lately, none of which may have gone with more in flight
REFUSALS: Final = 8  # among the latest requests, from which a cap is told at one glance
SPELLS: Final = 6  # times that refusals must have come, with requests taken in between, for that
SURELY: Final = 0.6  # share that is refused of those that went with so many in flight
EVERY: Final = 4  # refusals, of which the last one is reason for a glance
# Seconds until one more than the cap is tried: at first, and at most; they double with each refusal.
PROBE, PROBE_MOST = 0.5, 30.0
STRIKES: Final = 3  # refusals with fewer in flight that drop it
DOUBT: Final = 4  # times the refusals that the next glance needs after that
# Seconds after which a request that was not refused counts as taken, at least; else six round trips.
BACK: Final = 0.02


class Cap:
    """So many requests at a time are taken, as far as refusals show it.

    Attributes:
        value: requests at a time; None while no cap was seen.
    """

    def __init__(self, value: int | None = None) -> None:
        self.value = value
        self._first = value or 0  # as it was seen first
        self._seen = 0
        self._doubt = 1  # grows when what was taken for a cap was none, or is another's as well
        self._wait = PROBE
        self._next = 0.0
        self._step = 1
        self._probe: tuple[int, float] | None = None
        self._strikes = 0
        self._taken: deque[int] = deque(maxlen=MEMORY)  # in flight when they went, of those taken lately

    # --- how it shows ---

    def took(self, in_flight: int) -> None:
        """Note that a request was taken with so many others in flight."""
        self._taken.append(in_flight)

    def shows(self, closed: Closed, now: float) -> bool:
        """Tell whether a request that ended made room, or time did; says whether a cap is known now."""
        assert closed.probe is not None  # noqa: S101  # the caller's
        if not closed.probe.freed or closed.in_vain:
            self._seen = 0
            return False
        if closed.refusals == 0:
            return False
        if max(self._taken, default=0) > closed.in_flight + 1:  # more were taken just before
            self._seen = 0
            return False
        self._seen += 1
        if self._seen < IN_A_ROW:
            return False
        self._set(max(1, closed.in_flight), now)
        return True

    def shows_in(self, requests: Iterable[Sent], trip: float, now: float) -> bool:
        """Tell a cap from the latest requests: from so many in flight on nearly all are refused, below that none.

        Of a rate, or by chance, requests are refused and taken with equally many in flight, one soon after the other.

        Args:
            requests: in their order.
            trip: seconds until a refusal is back.
            now: monotonic seconds.
        """
        back = max(BACK, 6 * trip)
        latest = [each for each in requests if each.refused or each.landed or now - each.at > back]
        refused = [each.in_flight for each in latest if each.refused]
        if len(refused) < self._doubt * REFUSALS or (cap := min(refused)) < 1:
            return False
        spells = sum(after.refused and not before.refused for before, after in itertools.pairwise(latest))
        below = sum(each.in_flight < cap for each in latest)
        above = sum(each.in_flight >= cap for each in latest)
        if spells < SPELLS or below < above or len(refused) < SURELY * above:
            return False
        self._set(cap, now)
        return True

    def _set(self, value: int, now: float) -> None:
        self.value = self._first = value
        self._strikes = 0
        self._next = now + self._wait
        logging.getLogger("enrich").info("at most %d requests are taken at a time", value)

    # --- how it is kept to ---

    def full(self, in_flight: int) -> bool:
        """Say whether as many are in flight as are taken."""
        return self.value is not None and in_flight >= self.value

    def sent(self, number: int, now: float) -> None:
        """Note that one more than the cap goes, to see whether it is taken."""
        self._probe = number, now
        self._next = now + self._wait

    def wait(self, in_flight: int, trip: float, now: float) -> float:
        """Give the seconds until the next request may go."""
        if self._probe is None:
            return max(0.0, self._next - now)
        at, back = self._probe[1], max(BACK, 6 * trip)
        if now - at < back:
            return max(0.001, at + back - now)
        self._probe = None  # it was taken: there is more room
        assert self.value is not None  # noqa: S101  # the caller's
        self.value += self._step
        self._step *= 2
        self._wait, self._next = PROBE, now
        return 0.0 if in_flight < self.value else max(0.0, self._next - now)

    def explains(self, sent: Sent, now: float) -> bool:
        """Say whether a cap explains a refusal."""
        if self.value is None:
            return False
        if self._probe is not None and self._probe[0] == sent.number:
            self._probe, self._step = None, 1
            self._wait = min(PROBE_MOST, 2 * self._wait)
            self._next = now + self._wait
            return True
        if sent.in_flight >= self._first - 1:  # what is refused with fewer, somebody else is holding up
            self.value, self._step = max(1, min(self.value, sent.in_flight)), 1
            return True
        self._strikes += 1
        if self._strikes >= STRIKES:
            self.value, self._seen, self._strikes = None, 0, 0
            self._doubt *= DOUBT
            return False
        return True
