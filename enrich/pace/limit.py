"""What refusals teach of one model's limit: a rate, a window, a cap on requests in flight, or nothing at all."""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from enrich.pace.cap import EVERY, Cap
from enrich.pace.chance import TINY
from enrich.pace.closed import LOOKS, WINDOW_AFTER, WINDOW_REQUESTS, Closed, ClosedWindow
from enrich.pace.rate import UNBOUND, Rate

if TYPE_CHECKING:
    from enrich.pace.sent import Sent

FEWEST_IN_A_ROW: Final = 3  # refusals of requests sent one after the other that close everything
MOST_IN_A_ROW: Final = 14  # the same at most
SURELY: Final = 6  # probes refused, after which it was no chance that all was
BY_CHANCE: Final = 1e-4  # how likely so many may be refused in a row by chance
# Requests that would have gone meanwhile: a time in which all is refused is then no rate's.
MISSED: Final = 20
LATEST: Final = 512  # requests by which it is told whether refusals follow the tokens
# Refusals among the latest requests from which it is told whether they follow the tokens.
TOKENS_REFUSALS: Final = 20
# Standard deviations by which the refused ones must be longer than the others for that.
TOKENS_SURELY: Final = 4.0
AROUND: Final = 12  # requests before and after a refused one, among which it is ranked
TRIP: Final = 0.01  # seconds until a refusal is back, before any was seen

log = logging.getLogger("enrich")


class Limit:
    """One model's limit, as far as refusals show it.

    Attributes:
        in_flight: requests of this model.
        rate: what is known of a rate.
        window: when it lets through so many per span; None while it was not seen to.
        cap: on requests in flight.
        refused: requests that were.
    """

    def __init__(self, now: float, *, learned: dict[str, Any] | None = None, adaptive: bool = True) -> None:
        learned = learned or {}
        self.rate = Rate(now, expected=learned.get("rate"), usual=learned.get("usual"))
        self._adaptive = adaptive
        self.window: ClosedWindow | None = None
        self.cap = Cap(int(learned["cap"]) or None if "cap" in learned else None)
        self.closed: Closed | None = None
        self.in_flight = 0
        self.sent_count = self.refused = 0
        self._trip = TRIP
        self._row: list[tuple[int, float, float | None, int]] = []  # refused one after the other
        self._opened = (now, 0)  # when, and how many had been let through by then
        self._closed_before: deque[tuple[float, int]] = deque(
            maxlen=2
        )  # when, and how many had been let through by then
        self._window_opened: float | None = None  # after a time in which all was refused
        self._rate_before = self.rate.rate
        self._latest: deque[Sent] = deque(maxlen=LATEST)

    @property
    def through(self) -> int:
        """Give how many requests were let through, as far as is known."""
        return self.sent_count - self.refused

    @property
    def met(self) -> bool:
        """Say whether refusals are what holds requests up."""
        return self.closed is not None or self.cap.value is not None or self.rate.known is not None

    # --- before a request ---

    def wait(self, now: float) -> float:
        """Give the seconds until the next request may go: 0 for now, without end until something comes back."""
        if self.closed is not None and self.closed.silence(now) <= 0:
            self._reopen(now)
        if self.closed is not None:
            return min(self.closed.wait(now), self.closed.silence(now))
        if self.window is not None and self.window.used >= self.window.amount:
            self._close_window(now)
            return 0.0
        if self.cap.full(self.in_flight):
            return self.cap.wait(self.in_flight, self._trip, now)
        return self.rate.wait(now) if self._adaptive else 0.0

    def sent(self, now: float) -> bool:
        """Note that a request goes; says whether what is known of the rate rules out that it is refused."""
        self.sent_count += 1
        safe = self.rate.sent(now, probe=self.closed is not None)
        if self.cap.full(self.in_flight):
            self.cap.sent(self.sent_count, now)
        self.in_flight += 1
        if self.closed is not None:
            self.closed.sent(self.sent_count, now)
        if self.window is not None:
            self.window.used += 1
        return safe and self.closed is None

    # --- after a request ---

    def went(self, sent: Sent) -> None:
        """Note the request that `sent` was told of, for later."""
        self._latest.append(sent)

    def ended(self, sent: Sent, now: float) -> None:
        """Note that a request that was let through has ended."""
        self.in_flight -= 1
        self.cap.took(sent.in_flight)
        if self.closed is None:
            return
        probe = self.closed.probe
        if probe is not None and sent.number >= probe.number:
            self._reopen(now)
        else:
            self.closed.ended(now)

    def limited(self, sent: Sent, retry_after: float | None, now: float) -> None:
        """Note a refusal."""
        self.in_flight -= 1
        self.refused += 1
        sent.refused = True
        self._trip += 0.2 * (now - sent.at - self._trip)
        if self.window is not None:
            self.window.used -= 1
        if self.closed is not None:
            self.rate.count_refused(sent.number)
            self.closed.claim(sent.at, retry_after)
            if self.closed.probe is not None and self.closed.probe.number == sent.number:
                self.closed.refused(now)
            return
        self._note_row(sent, retry_after)
        if self._adaptive and self.cap.value is None and self.window is None and self.refused % EVERY == 0:
            self._glance(now)
        if len(self._row) >= self._enough_in_a_row():
            self._close(sent, now)
        elif not self._adaptive or self.cap.explains(sent, now) or self.window is not None:
            self.rate.count_refused(sent.number)
        else:
            self.rate.refused(sent.number, sent.at, now, safe=sent.safe)

    def _glance(self, now: float) -> None:
        if self.cap.shows_in(self._latest, self._trip, now):
            self._take_for_cap()

    def _take_for_cap(self) -> None:
        """What was refused is the cap's: no rate's, and no chance's."""
        self.rate.release(UNBOUND)
        self.rate.chance.usual = TINY

    def _note_row(self, sent: Sent, retry_after: float | None) -> None:
        if self._row and sent.number != self._row[-1][0] + 1:
            self._row.clear()
        self._row.append((sent.number, sent.at, retry_after, sent.in_flight))

    def _enough_in_a_row(self) -> int:
        share = max(
            self.rate.chance.usual, min(self.rate.chance.share, 0.5) if self.rate.known is None else 0.0
        )
        return min(MOST_IN_A_ROW, max(FEWEST_IN_A_ROW, math.ceil(math.log(BY_CHANCE) / math.log(share))))

    # --- when all is refused ---

    def _close(self, sent: Sent, now: float) -> None:
        """Everything is refused: nothing goes but probes."""
        first = self._row[0][1]
        expected = None
        if self.window is not None:
            expected = self.window.ends if first > self.window.begins + 0.2 * self.window.seconds else None
        elif self._adaptive and (self._window_opened is None or self._opened_requests() < WINDOW_REQUESTS):
            self._rate_before = self.rate.rate
            self.rate.count_refused(sent.number)
            self.rate.cut(sent.number, sent.at, now, most=self._most_yielded(first))
        else:
            self.rate.count_refused(sent.number)
        self.closed = Closed(first, now, self._trip, expected)
        self.closed.in_flight = self._row[0][3]
        for _, at, retry_after, _ in self._row:
            self.closed.claim(at, retry_after)
        self._row.clear()

    def _most_yielded(self, at: float) -> float:
        """Give the requests per second that a limit can yield that refused all twice before and does so again."""
        if len(self._closed_before) < 2:
            return math.inf
        then, through = self._closed_before[0]
        return (self.through - through + 2) / max(at - then, 1e-3)

    def _close_window(self, now: float) -> None:
        """As many went as the window lets through: see with one request whether it lets through more."""
        assert self.window is not None  # noqa: S101  # the caller's
        self.closed = Closed(now, now, self._trip, self.window.ends)
        self.closed.in_flight = self.in_flight
        self.closed.next = now
        self.closed.tests_more, self.closed.looks = True, self.window.looks < LOOKS

    def _opened_requests(self) -> int:
        return self.through - self._opened[1]

    def _reopen(self, now: float) -> None:
        """A probe came through."""
        closed, self.closed = self.closed, None
        assert closed is not None  # noqa: S101  # the caller's
        assert closed.probe is not None  # noqa: S101  # only a probe opens
        at, lasted = closed.probe.at, closed.probe.at - closed.since
        if closed.refusals >= SURELY:
            self._closed_before.append((closed.since, self.through - 1))
        else:
            self._closed_before.clear()
        self._row.clear()
        if self.window is not None:
            self._reopen_window(self.window, closed, at)
            return
        if self._adaptive and self.cap.shows(closed, now):
            self._take_for_cap()
        let = self._opened_requests()
        self._opened = (at, self.through - 1)
        if self.cap.value is not None or not self._adaptive:
            return
        if lasted >= WINDOW_AFTER and lasted * self._rate_before >= MISSED and let >= WINDOW_REQUESTS:
            if self._window_opened is not None:
                seconds = at - self._window_opened
                self.window = ClosedWindow(let, seconds, at, used=1)
                log.info("limited to %d requests per %.4g s", let, seconds)
            self._window_opened = at
            self.rate.release(self._rate_before)

    def _reopen_window(self, window: ClosedWindow, closed: Closed, at: float) -> None:
        if closed.tests_more and closed.refusals == 0:
            window.more = 2 * window.more or 1
            window.amount = window.used + window.more
            return
        window.more = 0
        if at < window.begins + 0.8 * window.seconds:  # it was open still, or again
            window.strikes += 1
            if window.strikes >= 3 or closed.refusals:
                self.window, self._window_opened = None, None
                self.rate.release(UNBOUND)
            return
        window.strikes = 0
        window.looks += closed.refusals > 1
        if not closed.tests_more:
            window.amount = max(1, window.used - 1)
        late = at - window.ends
        if abs(late) > 0.02 * window.seconds:
            window.seconds += 0.5 * late
        window.begins = at if closed.refusals else min(at, window.ends)
        window.used = 1
        self._opened = (at, self.through - 1)

    # --- what was found ---

    def found(self) -> list[str]:
        """Say what is known of it, for people."""
        said = []
        chance = self.rate.chance
        by_chance = chance.usual > 2 * TINY
        by_rate = self.rate.proven and (chance.unlikely or not by_chance)
        if self.window is not None:
            said.append(f"window: {self.window.amount:,} per {self.window.seconds:.3g} s")
        elif self.cap.value is not None:
            said.append(f"limited to {self.cap.value:,} at a time")
        elif (tokens := self._tokens_yielded()) is not None:
            return [f"limited to about {_two_figures(60 * tokens):,} tokens a minute"]
        elif by_rate and self.through > self.in_flight:
            said.append(f"limited to about {_figure(self.rate.known or 0.0)}/s")
        if by_chance and (not by_rate or chance.seen_below):
            said.append(f"{100 * chance.usual:.2g} % refused, whatever the rate")
        return said

    def _tokens_yielded(self) -> float | None:
        """Give the tokens per second that were let through, where refusals follow the tokens and not the requests.

        By chance, or for a rate, a long request is refused as often as a short one: the ranks of those refused, by
        their tokens, then average one half. Each is ranked among those that went about when it did: what is reserved
        for a request changes as answers come in, and so does what is refused.
        """
        latest = list(self._latest)
        ranks = [_rank(latest, n) for n, each in enumerate(latest) if each.refused]
        if len(ranks) < TOKENS_REFUSALS:
            return None
        beyond = sum(ranks) / len(ranks) - 0.5
        if beyond * math.sqrt(12 * len(ranks)) < TOKENS_SURELY:
            return None
        seconds = max(latest[-1].at - latest[0].at, 1e-3)
        return sum(each.tokens for each in latest if not each.refused) / seconds

    def learned(self) -> dict[str, float]:
        """Give what the next run may start from."""
        known: dict[str, float] = {}
        if self.rate.known is not None and self.window is None:
            known["rate"] = self.rate.known
        if self.rate.chance.usual > TINY:
            known["usual"] = self.rate.chance.usual
        if self.cap.value is not None:
            known["cap"] = self.cap.value
        return known


def _rank(requests: list[Sent], n: int) -> float:
    """Give the share of those that went just before and after a request that have fewer tokens; ties count half."""
    tokens = requests[n].tokens
    about = requests[max(0, n - AROUND) : n] + requests[n + 1 : n + 1 + AROUND]
    lower = sum((each.tokens < tokens) + 0.5 * (each.tokens == tokens) for each in about)
    return lower / len(about) if about else 0.5


def _figure(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _two_figures(number: float) -> int:
    digits = len(str(int(number))) - 2
    return int(round(number, -max(0, digits)))
