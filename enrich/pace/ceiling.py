"""How many requests may be in flight: more as long as they are answered as fast as before, fewer when they only queue."""

from __future__ import annotations

import logging
import math
from typing import Final

START: Final = 40  # requests in flight before anything is known of the endpoint
FEWEST: Final = 8  # answers by which a generation is judged
# Of as many as may be in flight, by which a generation is judged: the slowest are not waited for.
HALF, MOST = 0.5, 0.9
# Requests and seconds below which half will do: what they would be too many for is soon done.
SMALL, QUICK = 256, 2.0
# Parts of the first generation, of which the last takes longer than the first where they queue.
ORDERED: Final = 4
FAST, STEADY = 4.0, 1.25  # growth per generation: at first, and once queueing was met
FLAT: Final = 1.25  # times the latency of the beginning up to which it counts as the same
QUEUED: Final = 1.6  # times that from which on requests must be queueing at the server
# Times what the server works on at once that is kept in flight, so that it never lacks work.
SPARE: Final = 1.25
IN_USE: Final = 0.75  # of the ceiling that must be in use for it to grow
FELL: Final = 0.8  # of the latency before that is left after a cut, at most, where requests did queue
DRIFT: Final = 0.2  # by which the usual latency follows each generation
IDLE: Final = 0.1  # of what the endpoint works on, by its gauges: fewer that wait are only on their way in
KNOWN: Final = 0.5  # of the requests in flight that its gauges must show before more are sent
ADMITS: Final = 1.1  # times as many worked on as at the last look: those that wait are still being taken in
FRESH: Final = 5.0  # seconds for which gauges count, and answers' times do not

log = logging.getLogger("enrich")


class Ceiling:
    """Finds out how much an endpoint works on at once, from how long its answers take.

    Requests are looked at in generations, each as many as may be in flight. While a generation is answered as fast as
    the first ones were, more in flight bring more answers, and the ceiling grows. When it takes much longer, the
    requests queue: the ceiling goes to as many as are worked on at once, which is the share of an answer's time in
    which it does not wait, and a quarter. If that does not make answers come sooner, they take longer for another reason: the ceiling goes back.

    Where the endpoint's own gauges tell how many it works on and how many wait, they take the place of all that.

    Attributes:
        value: requests that may be in flight.
        queueing: whether the endpoint was last seen to let requests queue.
        usual: seconds that an answer takes without a queue; None before the first.
        last: number of the request that went last; the pace keeps it.
    """

    def __init__(
        self, most: int, *, start: int | None = None, usual: float | None = None, adaptive: bool = True
    ) -> None:
        self.most = most
        self.queueing = False
        self.usual = usual
        self.last = 0
        self._adaptive = adaptive
        self.value = min(most, int(start or START)) if adaptive else most
        self._factor = FAST if usual is None else STEADY
        self._first = 1  # request of this generation
        self._latencies: list[float] = []
        self._orders: list[int] = []
        self._in_flight = 0  # at most
        self._slow = False  # the last generation was
        self._before: tuple[int, float] | None = None  # ceiling and latency before a cut that is being tested
        self._gauged_at = -math.inf  # monotonic seconds of the last look at gauges
        self._crowded: int | None = None  # what was worked on at the last look, where too many waited

    def answered(self, number: int, *, in_flight: int, sent_at: float, now: float) -> None:
        """Take in an answer.

        Args:
            number: of the request, in the order they went.
            in_flight: requests in flight, it included.
            sent_at: when it went, in monotonic seconds.
            now: likewise.
        """
        if not self._adaptive:
            return
        if number < self._first or now - self._gauged_at < FRESH:
            return
        self._latencies.append(now - sent_at)
        self._orders.append(number)
        self._in_flight = max(self._in_flight, in_flight)
        if len(self._latencies) >= max(FEWEST, int(self._enough * self.value)):
            self._judge()

    def gauged(self, working: int, waiting: int, *, in_flight: int, now: float) -> bool:
        """Take in the endpoint's own gauges; says whether more may be in flight than before.

        Args:
            working: requests of everybody that it works on.
            waiting: requests of everybody that wait for that.
            in_flight: requests of this run.
            now: monotonic seconds.
        """
        if not self._adaptive:
            return False
        if now - self._gauged_at >= FRESH:
            self._next_generation()
            self._before = None
        self._gauged_at = now
        crowded, self._crowded = self._crowded, None
        before = self.value
        if waiting > (SPARE - 1) * max(1, working):
            self._crowded, self.queueing, self._factor = working, True, STEADY
            if crowded is not None and working <= ADMITS * crowded:  # it takes in no more
                part = min(1.0, in_flight / (working + waiting))
                self._lower(max(FEWEST, int(SPARE * part * working) + 1), waiting)
        elif waiting <= IDLE * working and in_flight >= IN_USE * before and working >= KNOWN * in_flight:
            self._grow()
        else:
            self.queueing = self.queueing or waiting > IDLE * working
        return self.value > before

    def _lower(self, wanted: int, waiting: int) -> None:
        if wanted < self.value:
            log.info(
                "%d requests wait at the endpoint: at most %d in flight instead of %d",
                waiting,
                wanted,
                self.value,
            )
            self.value = wanted

    def timed_out(self) -> None:
        """Take in that an answer did not come in time: too many queue."""
        if self._adaptive:
            self.value = max(1, self.value // 2)
            self._factor, self.queueing = STEADY, True

    def troubled(self) -> None:
        """Take in that the endpoint is in trouble: answers to what is in flight now are no reason to send more."""
        self._first = self.last + 1
        self._latencies.clear()
        self._orders.clear()

    def _judge(self) -> None:
        latency = sum(self._latencies) / len(self._latencies)
        used = self._in_flight >= IN_USE * self.value
        if self._before is not None:
            self._settle(latency)
        elif self.usual is None:
            self._begin(latency, used=used)
        elif latency <= FLAT * self.usual:
            self.usual += DRIFT * (latency - self.usual)
            if used:
                self._grow()
        elif used:
            self.queueing = True
            if latency > QUEUED * self.usual and self._slow:  # for a whole generation, and not only its end
                self._cut(latency)
            self._slow = latency > QUEUED * self.usual
        self._next_generation()

    @property
    def _enough(self) -> float:
        """Give the share of a generation that must be answered for it to be judged."""
        return HALF if self.value < SMALL and self._latencies[-1] < QUICK else MOST

    def _begin(self, latency: float, *, used: bool) -> None:
        """Judge the first generation by itself: where requests queue, those that went later take longer."""
        by_order = [seconds for _, seconds in sorted(zip(self._orders, self._latencies, strict=True))]
        part = max(1, len(by_order) // ORDERED)
        first, last = sum(by_order[:part]) / part, sum(by_order[-part:]) / part
        if last > QUEUED * first and latency >= QUICK:
            self.usual = first
            self._cut(latency)
            return
        self.usual = latency
        if used:
            self._grow()

    def _grow(self) -> None:
        value = min(self.most, max(self.value + 1, int(self._factor * self.value)))
        self.queueing = False
        if value > self.value:
            log.info("answers come as fast as before: at most %d in flight instead of %d", value, self.value)
        self.value = value

    def _cut(self, latency: float) -> None:
        assert self.usual is not None  # noqa: S101  # the caller's
        wanted = max(FEWEST, int(SPARE * self._in_flight * self.usual / latency) + 1)
        if wanted >= self.value:
            return
        log.info(
            "answers take %.3g s instead of %.3g s: they queue; at most %d in flight instead of %d",
            latency,
            self.usual,
            wanted,
            self.value,
        )
        self._before = (self.value, latency)
        self.value, self._factor, self.queueing = min(self.most, wanted), STEADY, True

    def _settle(self, latency: float) -> None:
        """See whether a cut made answers come sooner."""
        assert self._before is not None  # noqa: S101  # the caller's
        value, before = self._before
        self._before = None
        if latency > FELL * before:
            self.usual, self.value, self.queueing = latency, max(self.value, value), False

    def _next_generation(self) -> None:
        self._first = self.last + 1
        self._latencies.clear()
        self._orders.clear()
        self._in_flight = 0
