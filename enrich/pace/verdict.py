"""What was refused is held against every limit that there could be: whether one of them explains it, or chance does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

STEP: Final = 1.08  # from one limit that is weighed to the next
AROUND: Final = 2.0  # times what went, and its part, between which limits are weighed
MOST_STEPS: Final = (
    40  # between the lowest and the highest of them; steps are longer where that is not enough
)
CREDITS: Final = (1.0, 4.0, 30.0)  # requests that a limit lets through at once
SHARES: Final = (0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.95)  # that may be refused by chance
CHANGES: Final = 1 / 200  # how likely the limit, or that share, changes between two requests
STRAY: Final = 0.005  # share that is refused, beyond the usual one, of what the limit had enough left for
SURELY: Final = 0.9  # share that is refused where it has nothing left
LEFT: Final = 0.5  # of a request that it may have left and still refuse as if that were nothing
UNLIKELY: Final = 0.1  # how likely the limit is to be beyond each end of what a verdict gives


@dataclass(frozen=True, slots=True)
class Verdict:
    """What speaks for chance, and which limit is likely if it is none.

    Attributes:
        chance: log-likelihood of all that came by chance, less that by a limit.
        stray: how likely the last refusal came by chance all the same, if there is a limit.
        lowest, highest: requests per second between which the limit is, if there is one.
    """

    chance: float = 0.0
    stray: float = 0.0
    lowest: float = 0.0
    highest: float = math.inf


def judge(requests: Iterable[tuple[float, bool]], *, lowest: float, highest: float, usual: float) -> Verdict:
    """Weigh the latest requests.

    Nobody knows the limit, and it may change now and then: each is weighed by how well it told what came, request by
    request (the forward pass of a hidden Markov model). So is each share that may be refused by chance.

    Args:
        requests: in their order: when each went, in monotonic seconds, and whether it was refused.
        lowest: requests per second, from half of which limits are weighed.
        highest: likewise, up to twice which.
        usual: share that is refused whatever the rate.
    """
    limits, shares = (
        _Limits(lowest / AROUND, highest * AROUND, usual + STRAY),
        [1 / len(SHARES)] * len(SHARES),
    )
    by_limit = by_chance = stray = 0.0
    before = math.inf
    for at, refused in requests:
        likelihood, strays = limits.weigh(max(0.0, at - before), refused=refused)
        by_limit += math.log(likelihood)
        stray = strays / likelihood if refused else stray
        shares = [
            weight * (share if refused else 1 - share) for weight, share in zip(shares, SHARES, strict=True)
        ]
        by_chance += math.log(sum(shares))
        shares = _move_on(shares)
        before = at
    return Verdict(by_chance - by_limit, stray, *limits.likely())


def _move_on(weights: list[float]) -> list[float]:
    """Let what is hidden change before the next request; the weights sum to 1 again."""
    stays, changes = (1 - CHANGES) / sum(weights), CHANGES / len(weights)
    return [weight * stays + changes for weight in weights]


class _Limits:
    """Every limit that there could be, how likely each is, and what each would have left.

    Args:
        lowest: requests per second.
        highest: likewise.
        strays: share that is refused of what a limit has enough left for.
    """

    def __init__(self, lowest: float, highest: float, strays: float) -> None:
        step = max(STEP, (highest / lowest) ** (1 / MOST_STEPS))
        count = 1 + math.ceil(math.log(highest / lowest) / math.log(step))
        self._rates = [lowest * step**n for n in range(count) for _ in CREDITS]
        self._credits = list(CREDITS) * count
        self._left = self._credits.copy()
        self._weights = [1 / len(self._rates)] * len(self._rates)
        self._strays = strays

    def weigh(self, passed: float, *, refused: bool) -> tuple[float, float]:
        """Take in a request that came so many seconds after the one before it.

        Returns:
            How likely that was, and how likely it was to be refused though the limit had enough left.
        """
        strays = 0.0
        steepness = (SURELY - self._strays) / LEFT
        for n, rate in enumerate(self._rates):
            left = min(self._credits[n], self._left[n] + rate * passed)
            refusal = self._strays if left >= 1 else min(SURELY, self._strays + steepness * (1 - left))
            self._weights[n] *= refusal if refused else 1 - refusal
            if not refused:
                self._left[n] = max(0.0, left - 1)
            else:
                self._left[n] = min(LEFT, left)
                strays += self._weights[n] if left >= 1 else 0.0
        likelihood = sum(self._weights)
        self._weights = _move_on(self._weights)
        return likelihood, strays

    def likely(self) -> tuple[float, float]:
        """Give the limits, in requests per second, between which it likely is."""
        below, lowest, highest = 0.0, self._rates[0], self._rates[-1]
        for rate, weight in zip(self._rates, self._weights, strict=True):
            if below < UNLIKELY <= below + weight:
                lowest = rate
            if below < 1 - UNLIKELY <= below + weight:
                highest = rate
            below += weight
        return lowest, highest
