"""Which share of requests is refused whatever the rate, and when refusals are more than that: evidence, not proof."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from enrich.pace.verdict import Verdict, judge

TINY: Final = 0.0005  # share of refusals that needs no explanation
NOTABLE: Final = 0.05  # share beyond the usual that a limit shows at least
ALARM: Final = 4.0  # log-likelihood of refusals being more than usual, at which the rate is cut
LOUD_ALARM: Final = 7.0  # the same where some are refused at any rate
PROOF: Final = 4.0  # log-likelihood of refusals coming whatever the rate, at which they are taken for that
RULED_OUT: Final = -1.0  # the same, from which on that is ruled out
CLEARER: Final = 8.0  # times fewer refusals that are expected where the rate is surely below the limit
FALLEN: Final = 0.5  # share that is refused when a limit fell far
MEMORY: Final = 250.0  # requests over which the usual share is told
MOST_BY_CHANCE: Final = 0.4  # share that may be refused whatever the rate
LOOKED_AT, THIRD = 90, 20  # requests by which that is told at one glance: of all, and of each third at least
SLOWER: Final = 4.0  # times as slow as the first third that the last one must be for that
ALIKE: Final = 2.0  # times as many refusals in one third as in another that count as the same
JUDGED: Final = 120  # requests that are held against every limit that there could be
# Requests, and refusals among them, from which that tells something.
FEWEST_JUDGED, REFUSALS_JUDGED = 20, 3
# Requests per second below which it is done: it takes a millisecond or two, and where requests come faster, the next
# ones tell as much before long.
SLOW: Final = 50.0
SURER: Final = 2.0  # times the other proof that it must give
SURELY_A_LIMIT: Final = -6.0  # log-likelihood that it gives of chance, from which on that is ruled out
# The same, from which on it tells nothing; and the share that is refused up to which one refusal is then passed over.
UNDECIDED, FEW = -3.0, 0.1
BELOW: Final = (
    2  # refusals of requests that were surely below the limit, at which chance is told of beside it
)
FORGET: Final = 400  # requests after which the share that was refused counts half


class Chance:
    """Weighs refusals: by a limit, or by chance.

    Attributes:
        usual: share of the requests that is refused whatever the rate.
    """

    def __init__(self, usual: float | None = None) -> None:
        self.usual = min(MOST_BY_CHANCE, max(TINY, usual or 0.0))
        self._sent = 0
        self._all = [0.0, 0.0]  # all requests, and those refused
        self._safe = [0.0, 0.0]  # requests that were surely below the limit, and those refused of them
        self._alarm = 0.0
        self._sounded = 0  # request up to which what came counts in that
        self._verdict = Verdict()
        self._judged = 0  # refused request up to which that is
        self._doubt = 0.0  # log-likelihood of refusals that no rate explains
        self._proof = PROOF
        self._times: deque[float] = deque(maxlen=JUDGED)  # when the last requests went
        self._refusals: deque[int] = deque(maxlen=JUDGED)  # numbers of those that were refused

    @property
    def share(self) -> float:
        """Give the share of requests that is refused, lately."""
        return min(0.95, (self._all[1] + 0.5) / (self._all[0] + 20))

    @property
    def alarmed(self) -> bool:
        """Say whether more is refused than usual."""
        return self._alarm >= (ALARM if self.usual <= TINY else LOUD_ALARM)

    @property
    def explains(self) -> bool:
        """Say whether what is refused is so whatever the rate."""
        return self._doubt > self._proof or self._no_rate_matters()

    @property
    def ruled_out(self) -> bool:
        """Say whether refusals surely come of the rate."""
        return self._doubt <= RULED_OUT or self.judged_a_limit

    @property
    def unlikely(self) -> bool:
        """Say whether refusals rather come of the rate."""
        return self._doubt <= RULED_OUT or self._verdict.chance <= RULED_OUT

    @property
    def seen_below(self) -> bool:
        """Say whether, of what is surely below the limit, about as much is refused as is usual."""
        refused = self._safe[True]
        return refused >= BELOW and refused >= self.usual * sum(self._safe) / 2

    @property
    def judged_chance(self) -> bool:
        """Say whether the last verdict was that what is refused is so whatever the rate."""
        return self._verdict.chance > SURER * self._proof

    @property
    def judged_a_limit(self) -> bool:
        """Say whether the last verdict was that a limit surely is what refuses."""
        return self._verdict.chance < SURELY_A_LIMIT

    @property
    def undecided(self) -> bool:
        """Say whether the last verdict, on refusals that are few, told neither a limit nor chance."""
        return self.share <= FEW and self._verdict.chance != 0.0 and self._verdict.chance > UNDECIDED

    def went(self, now: float) -> None:
        """Note that a request goes."""
        self._sent += 1
        self._times.append(now)
        self._all[0] += 1
        if self._all[0] > FORGET:
            self._all = [n / 2 for n in self._all]

    def refused(self, number: int) -> None:
        """Note a refusal of a request that the rate let go."""
        self._refusals.append(number)
        self._all[1] += 1

    def refused_otherwise(self, number: int) -> None:
        """Note a refusal that has another cause."""
        self._refusals.append(number)

    def follow(self, *, refused: bool) -> None:
        """Let the usual share follow what is refused where no limit can be to blame."""
        if self.usual > TINY:
            self.usual = min(
                MOST_BY_CHANCE, max(TINY, self.usual + (refused - (not refused) * self.usual) / MEMORY)
            )

    def sound(self, number: int, *, safe: bool) -> None:
        """Add up how much likelier what came is under a limit than by the usual share of refusals.

        What went between the last refusal and this one was let through. Where the rate is surely below the limit,
        only a limit that fell far is to be feared.
        """
        more = min(0.95, self.usual + max(NOTABLE, 2 * self.usual))
        if safe and self.usual > TINY:
            more = max(more, FALLEN)
        let_through = max(0, number - self._sounded - 1)
        self._sounded = max(self._sounded, number)
        alarm = self._alarm + let_through * math.log((1 - more) / (1 - self.usual))
        self._alarm = max(0.0, alarm) + math.log(more / self.usual)

    def heed(self) -> None:
        """The alarm was heeded: listen for the next one."""
        self._alarm = 0.0

    def weigh(self, *, refused: bool) -> None:
        """Weigh a request that the limit cannot have refused: by chance, as often as any, or hardly ever."""
        self._safe[refused] += 1
        self.follow(refused=refused)
        share = min(0.95, max(self.share, 2 * self.usual))
        hardly = self.usual + (share - self.usual) / CLEARER
        taken = math.log((1 - share) / (1 - hardly))
        self._doubt = max(-PROOF, self._doubt + (math.log(share / hardly) - taken if refused else taken))

    def weigh_anew(self) -> None:
        """Drop what spoke against a limit."""
        self._doubt, self._safe = 0.0, [0.0, 0.0]

    def accept(self) -> None:
        """Take the share that is refused for what is usual; the next time that needs more proof."""
        self.usual = min(MOST_BY_CHANCE, max(TINY, self._all[1] / self._all[0]))
        self._proof *= 1.5

    def forget(self) -> None:
        """Begin anew: what was refused had another cause."""
        self._alarm = 0.0
        self.weigh_anew()
        self._times.clear()

    def judge(self, number: int, known: float) -> Verdict:
        """Hold the requests up to a refused one against every limit that there could be.

        Args:
            number: of the refused one.
            known: requests per second that the limit is thought to let through.
        """
        if number != self._judged:
            self._judged, self._verdict = number, self._judge(number, known)
        return self._verdict

    def _judge(self, number: int, known: float) -> Verdict:
        first = self._sent - len(self._times) + 1
        times = list(self._times)[: max(0, number - first + 1)]
        refusals = {each for each in self._refusals if first <= each <= number}
        if len(times) < FEWEST_JUDGED or len(refusals) < REFUSALS_JUDGED:
            return Verdict()
        seconds = times[-1] - times[0]
        if len(times) >= SLOW * seconds:
            return Verdict()
        through = (len(times) - len(refusals) + 1) / seconds
        requests = [(at, first + n in refusals) for n, at in enumerate(times)]
        return judge(requests, lowest=min(known, through), highest=max(known, through), usual=self.usual)

    def _no_rate_matters(self) -> bool:
        """Say whether as many as before are refused although requests have become far slower lately.

        Of a limit, more is refused the further the rate is above it, and next to nothing once it is a quarter of that.
        """
        times = list(self._times)[-LOOKED_AT:]
        third = len(times) // 3
        if third < THIRD:
            return False
        first = self._sent - 3 * third
        counts = [0, 0, 0]
        for number in self._refusals:
            if number > first:
                counts[min(2, (number - first - 1) // third)] += 1
        if min(counts) < 2 or max(counts) > MOST_BY_CHANCE * third or max(counts) > ALIKE * min(counts):
            return False
        times = times[-3 * third :]
        return SLOWER * (times[third - 1] - times[0]) < times[-1] - times[2 * third]
