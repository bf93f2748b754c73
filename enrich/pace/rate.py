"""A limit on the rate, as refusals show it: what it yields, how fast to go, and which refusals no rate explains."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from enrich.pace.chance import MOST_BY_CHANCE, NOTABLE, Chance

START: Final = 1_000.0  # requests per second at which a run begins: what comes back first can still be heeded
CLIMB: Final = 5.0  # growth of the rate per second, relative, before anything was refused
RESERVE: Final = 0.03  # share of what an earlier run found, below which this one begins
SLOW_CLIMB: Final = 1.5  # growth from there
UNBOUND: Final = 1e5  # requests per second from which on nothing is held up
SMOOTH: Final = 0.05  # seconds' worth of requests that may go at once after a late timer
TIMER: Final = 0.001  # seconds; an event loop's timer is no finer
# Requests per second below which the turns that probes would use up are long enough to matter.
PROBED: Final = 20.0
MOST_PER_REQUEST: Final = 0.25  # growth of the rate per request, relative

CYCLE: Final = 1.5  # seconds between two refusals that are looked for at a limit that is known
CYCLE_REQUESTS: Final = 120  # requests, the same at least
# Requests, and requests per request per second: fewer where the limit is slow.
SLOW_CYCLE, SLOW_CYCLE_MORE = 12, 3.0
# Over the requests of a cycle: by how much the rate is below what is known when it begins.
CREDIT: Final = 8.0
SHALLOWEST, DEEPEST = 0.005, 0.3  # share of the known rate by which it is cut, at least and at most
# Times the error of what is known that it is cut at most: it must come to be surely below.
DEEPER: Final = 2.0
# The same at most once it was measured: a limit that saves nothing up yields less by so much.
DEEP: Final = 0.1
RISEN: Final = 2.0  # requests beyond what the limit yields that prove that it has risen
FASTER: Final = 6.0  # times the growth after each such proof
FASTEST: Final = 2.0  # growth per second, relative, at most
IDLE: Final = 0.05  # share of a time in which something else held the run up, from which it shows no limit
EMPTIES: Final = 24  # moments at which the limit had nothing left, that are remembered

TELLING: Final = 50  # requests of a run before what it found is told to the others
# Requests of a run, none of them refused, after which a limit that others met is not its own.
UNTOUCHED: Final = 10
UNFAIR: Final = 0.15  # of a run's part of a shared limit, by which it may have more or less

# Of what was known that is left, at most, where a much lower limit may explain what was refused.
FAR: Final = 0.85
FEW: Final = 6  # requests let through from which a rate can be told
FALLS: Final = 2  # times in a row that it may
STRAY: Final = 0.5  # how likely a refusal must be no limit's not to be heeded
UNSURE: Final = 0.8  # of the error of what is known, by which a rate must be below it to be surely below


@dataclass(frozen=True, slots=True)
class Empty:
    """A moment at which the limit had nothing left.

    Attributes:
        at: monotonic seconds.
        through: requests let through by then.
        slack: seconds by then in which something else than the rate held the run up.
    """

    at: float
    through: int
    slack: float


class Rate:
    """Learns a limit per second from what is refused.

    When something is refused because of a rate, the limit has just let through all that it would; between two such
    moments it let through what it yields in that time. So requests let through ÷ time between two of them is the
    limit, without knowing how much it lets through at once. The run goes on a little below that, gathers a few
    requests' worth of credit, and sweeps upwards until the next refusal: each sweep costs one or two refusals, and
    nothing waits for them.

    Refusals are held against that picture. A request sent while the rate is surely below the limit cannot be refused
    for it: when such requests are refused as often as the others, no rate explains it, the cut is taken back, and that
    share is from then on what is usual here. Only refusals beyond the usual share speak of a limit.

    Attributes:
        rate: requests per second that may be sent now; at least `UNBOUND` when nothing holds them up.
        known: requests per second that the limit lets through; None while none was seen.
        chance: what is refused whatever the rate.
        cuts: how often the rate was cut.
    """

    def __init__(self, now: float, *, expected: float | None = None, usual: float | None = None) -> None:
        self.known: float | None = None
        self.chance = Chance(usual)
        self.cuts = 0
        self.rate = START if expected is None else (1 - RESERVE) * expected
        self._growth = CLIMB if expected is None else SLOW_CLIMB
        self._freed_rate = UNBOUND  # to which it goes back when no rate was to blame
        self._next = 0.0
        self._began = now
        self._sent = self._refused = 0
        self._cut_number = 0
        self._empties: deque[Empty] = deque(maxlen=EMPTIES)
        self._error = 1.0  # of what is known, relative
        self._level = 0.0  # requests that the limit would let through at once, by what is known
        self._level_at = now
        self._falls = 0  # how often what is known fell far, one time soon after the other
        self._measured = False  # what is known: from one moment with nothing left to another
        self._risen = False  # whether it was seen to yield more than is known, since then
        self._slack = 0.0  # seconds in which something else held the run up
        self._passed_over = False  # a refusal since the last cut that may have been the limit's

    @property
    def proven(self) -> bool:
        """Say whether a limit is known: it was met more than once, and is what holds requests up."""
        return self.known is not None and self.cuts > 1 and self.rate < 2 * self.known

    # --- before a request ---

    def wait(self, now: float) -> float:
        """Give the seconds until the next request may go."""
        if self.rate >= UNBOUND:
            return 0.0
        wait = self._next - now
        return wait if wait > TIMER / 5 else 0.0

    def sent(self, now: float, *, probe: bool = False) -> bool:
        """Note that a request goes; says whether it is surely below the limit.

        Args:
            now: monotonic seconds.
            probe: whether it tests if a time is over in which all is refused: no rate spaces those.
        """
        self._sent += 1
        self.chance.went(now)
        if probe and self.rate < PROBED:
            self._next = now + 1 / self.rate
        elif self.rate < UNBOUND:
            if self._next > now - SMOOTH / 5:  # the rate is what holds the run up: see whether there is more
                self.rate += min(self._growth, MOST_PER_REQUEST * self.rate)
            self._slack += max(0.0, now - SMOOTH - self._next)
            self._next = max(self._next, now - SMOOTH) + 1 / self.rate
        safe = self._is_safe(now)
        if safe:
            self.chance.weigh(refused=False)
        return safe

    def _is_safe(self, now: float) -> bool:
        """Take one from what the limit would let through; says whether it surely has so much."""
        if self.known is None:
            self.chance.follow(refused=False)
            return False
        self._level += self.known * (now - self._level_at) - 1
        self._level_at = now
        blur = self._error * self.known * (now - self._empty_at)
        if self._level < -(RISEN + blur):
            self._rise()
        below = self.rate < self.known * (1 - UNSURE * self._error) / (1 - self.chance.usual)
        return self._measured and below and self._level >= blur

    @property
    def _empty_at(self) -> float:
        return self._empties[-1].at if self._empties else self._began

    def _rise(self) -> None:
        """More was let through than what is known would have yielded: the limit is higher."""
        assert self.known is not None  # noqa: S101  # the caller's
        self.known = max(self.known, self.rate * (1 - self.chance.usual))
        self._level, self._risen = 0.0, True
        self._growth = (
            min(max(FASTER * self._growth, 0.05), FASTEST) if self._growth < FASTEST else self._growth
        )

    # --- after a request ---

    def refused(self, number: int, sent_at: float, now: float, *, safe: bool) -> bool:
        """Note a refusal; says whether the rate was cut for it.

        Args:
            number: of the request among those sent.
            sent_at: when it went.
            now: likewise.
            safe: as `sent` said.
        """
        self._refused += 1
        self._level += 1
        self.chance.refused(number)
        if safe:
            self.chance.weigh(refused=True)
        elif self.known is None:
            self.chance.follow(refused=True)
        self.chance.sound(number, safe=safe)
        if self.chance.explains:
            if self._may_be_chance(number):
                self._free()
                return False
            self.chance.weigh_anew()  # so many are somebody's doing, if not this run's
        if number <= self._cut_number and not self._fell(number, sent_at):
            return False
        if not self.chance.alarmed:
            return False
        if self.known is not None and self._is_stray(number, self.known):
            return False
        self.cut(number, sent_at, now)
        return True

    def _may_be_chance(self, number: int) -> bool:
        """Say whether nothing speaks against it that what is refused is so whatever the rate."""
        if self.known is not None:
            self.chance.judge(number, self.known)
        return self.chance.share <= MOST_BY_CHANCE and not self.chance.judged_a_limit

    def _is_stray(self, number: int, known: float) -> bool:
        """Say whether a refusal is not the limit's, as all the latest requests together show; heed that."""
        verdict = self.chance.judge(number, known)
        if self.chance.judged_chance and self.chance.share <= MOST_BY_CHANCE:
            self._free()
            return True
        if verdict.stray <= STRAY and (self._passed_over or not self.chance.undecided):
            return False
        self._passed_over = True
        self.chance.heed()  # if it was the limit's after all, the next one will be too
        return True

    def count_refused(self, number: int) -> None:
        """Note the refusal of a request that has another cause."""
        self._refused += 1
        self._level += 1
        self.chance.refused_otherwise(number)

    def release(self, rate: float) -> None:
        """Go back to a rate: what was refused had another cause."""
        self._forget()
        self.known = None
        self.rate, self._growth = rate, CLIMB

    def _free(self) -> None:
        """No rate explains the refusals: take the cuts back, and their share for what is usual."""
        self.chance.accept()
        self._forget()
        self.known = None
        self.rate = self._freed_rate
        self._growth = CLIMB

    def _forget(self) -> None:
        self.chance.forget()
        self._empties.clear()
        self._cut_number = self._sent

    # --- a limit that others share ---

    @property
    def measured(self) -> float | None:
        """Give what this run gets of a limit that it has measured; None before that, and at its very start."""
        return self.known if self._measured and self._sent >= TELLING else None

    def share_of(self, rate: float, now: float) -> None:
        """Go to the part of a limit that falls to this run, where it gets much less or more of it."""
        if self.known is None:
            if self._refused == 0 and self._sent >= UNTOUCHED:
                return  # what refuses others does not refuse this run
            if self.cuts == 0 and self.rate > rate:
                self.rate, self._growth = rate, SLOW_CLIMB
            return
        if (
            self.chance.usual > NOTABLE
        ):  # others meet refusals too: so many are rather the limit's than anybody's chance
            self.chance.usual /= 2
        if abs(self.known / rate - 1) < UNFAIR:
            return
        self.known, self._level, self._level_at = rate, 0.0, now
        self._empties.clear()
        self._measured = False
        self._sweep(rate, float(CYCLE_REQUESTS) / 4)

    # --- what the limit is ---

    def cut(self, number: int, sent_at: float, now: float, *, most: float = math.inf) -> None:
        """Learn from a moment at which the limit had nothing left, and go on below it.

        Args:
            number: of the request that was refused.
            sent_at: when it went.
            now: likewise.
            most: requests per second that the limit can yield, by what else is known.
        """
        through = number - self._refused
        if self.known is None:
            self._freed_rate = max(self.rate, START)
            known = min(max(1.0, through) / max(sent_at - self._began, 1e-3), self.rate)
            count, self._measured = max(4.0, through), False
        else:
            verdict = self.chance.judge(number, self.known)
            known, count = self._estimate(through, sent_at, most)
            if self._measured:
                known = min(max(known, verdict.lowest), verdict.highest)
            self._note_fall(known, through)
        self._empties.append(Empty(sent_at, through, self._slack))
        self.known = known
        self._passed_over = False
        self.cuts += 1
        self.chance.heed()
        self._cut_number = self._sent
        self._sweep(known, count)
        self._level, self._level_at = 0.0, sent_at
        self._next = max(self._next, now)

    def _estimate(self, through: int, at: float, most: float) -> tuple[float, float]:
        """Give what the limit yields, in requests per second, and the count that this rests on.

        Both ends of a span between two empty moments pin it down to one request, as long as the rate was what held
        the run up in between: the longest span that agrees with the newest one counts. Otherwise it is at least that.
        """
        assert self.known is not None  # noqa: S101  # the caller's
        if not self._empties:
            return min(self.known, self.rate * (1 - self.chance.usual)), 20.0
        found, count = self._longest_span(through, at)
        if (
            self._risen
        ):  # it began with an unknown credit: between what it surely yields and what was too much
            self._risen = False
            self._empties.clear()
            self._measured = False
            return (max(found, self.known) + self.rate * (1 - self.chance.usual)) / 2, 6.0
        if count < 3:  # they come close together: look at more of them at once
            for empty in reversed(self._empties):
                n = through - empty.through
                if n >= FEW and not self._idle(empty, at):
                    found, count = n / max(at - empty.at, 1e-4), n
                    break
        self._measured = count >= 3
        if self._measured:
            return found, max(count, 4.0)
        return min(self.known * (1 - DEEPEST), most), 4.0

    def _longest_span(self, through: int, at: float) -> tuple[float, int]:
        """Give the requests per second that were let through in the longest span that counts, and how many."""
        lowest, highest = 0.0, math.inf
        found, count = 0.0, 0
        for empty in reversed(self._empties):
            n, seconds = through - empty.through, max(at - empty.at, 1e-4)
            if count and self._idle(empty, at):
                break
            lower, upper = max(lowest, (n - 1) / seconds), min(highest, (n + 1) / seconds)
            if lower > upper and count:
                break
            lowest, highest = lower, upper
            found, count = n / seconds, n
        if self._idle(self._empties[-1], at):  # it was not asked for all that it yields
            found = max(found, self.known or 0.0)
        return found, count

    def _idle(self, empty: Empty, at: float) -> bool:
        """Say whether, since a moment, something else than the rate held the run up."""
        return self._slack - empty.slack > IDLE * (at - empty.at)

    def _note_fall(self, known: float, through: int) -> None:
        """Drop what spoke against a limit when a much lower one may explain it; some few times, not for ever."""
        assert self.known is not None  # noqa: S101  # the caller's
        if self._empties and through - self._empties[-1].through > CYCLE_REQUESTS / 2:
            self._falls = 0
        if known < FAR * self.known and self._falls < FALLS:
            self._falls += 1
            self.chance.weigh_anew()

    def _fell(self, number: int, at: float) -> bool:
        """Say whether the requests let through since some moment show a limit far below the rate now."""
        if self.known is None:
            return False
        through = number - self._refused
        for empty in reversed(self._empties):
            n, seconds = through - empty.through, at - empty.at
            if seconds > 0 and n >= 3 and (n + 2) / seconds < 0.8 * self.known:
                while self._empties[0] is not empty:
                    self._empties.popleft()
                return True
        return False

    def _sweep(self, known: float, count: float) -> None:
        """Set out on the way from a little below the limit to a little above it; the better it is known, the slower."""
        assert self.known is not None  # noqa: S101  # the caller's
        cycle = max(CYCLE * known, min(CYCLE_REQUESTS, SLOW_CYCLE + SLOW_CYCLE_MORE * known))
        requests = min(cycle, 4 * count + 8)
        self._error = min(0.5, 1 / count)
        sure = self._measured and self.chance.ruled_out
        deepest = min(DEEPEST, max(DEEP, DEEPER * self._error)) if sure else DEEPEST
        depth = min(max(CREDIT / requests, SHALLOWEST), deepest)
        self.rate = known * (
            1 - depth
        )  # which makes up for no usual refusals: were they the limit's, they end here
        top = known * (1 + depth) / (1 - self.chance.usual)
        self._growth = (top - self.rate) / requests
