"""How far a cheap model's answers may be trusted so that a share of all answers is right: by a sample, and with a bound. Pure functions.

Thresholds of the score are tried in an order that no answer has a say in, from the one that trusts none to the one that trusts
all. Each is held to the exact binomial bound of the share that is right (C. J. Clopper and E. S. Pearson, Biometrika 26 (1934),
404-413), and the first that fails ends it: such a fixed sequence is wrong no more often than one single test (P. Bauer,
Statistics in Medicine 10 (1991), 871-890; for thresholds of a model's score A. N. Angelopoulos et al., Learn then Test,
arXiv 2110.01052). The setting is that of S. Zeighami, S. Shankar and A. Parameswaran, BARGAIN, arXiv 2509.02896, whose bound is
tighter where few errors are left.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

NONE = math.inf  # the threshold that trusts no answer of the cheap model
MOST_NEEDED = 1_000_000  # rows up to which it is reckoned how many would do
# Scores are probabilities and crowd towards 1: in steps of a third of a decade of what is left, then of a twentieth.
THRESHOLDS = (
    NONE,
    *(1 - step * 10.0**power for power in range(-6, -1) for step in (1, 2, 5)),
    *(place / 20 for place in range(18, -1, -1)),
)


class Tried(NamedTuple):
    """One row of the sample.

    Attributes:
        score: how sure the cheap model was; below everything where it has no answer that fits.
        cheap: whether its answer is right.
        dear: whether that of the other model is.
    """

    score: float
    cheap: bool
    dear: bool


class Found(NamedTuple):
    """What a sample shows of one threshold.

    Attributes:
        threshold: the score from which on the cheap model's answer stays.
        rows: of the sample.
        right: of these, how many are right so.
        kept: of these, how many stay with the cheap model.
        least: the share of all rows that is right at least.
        met: whether that is the share which was asked for.
    """

    threshold: float
    rows: int
    right: int
    kept: int
    least: float
    met: bool


def find_threshold(rows: Sequence[Tried], guarantee: float, sure: float) -> Found:
    """Find the lowest threshold with which this share of all rows is right.

    Args:
        rows: drawn at random from all of them.
        guarantee: the share that is to be right.
        sure: in what share of such samples that is to be so, at least.

    Returns:
        The last threshold that holds; where not even the dear model alone does, that one, not met.
    """
    found = _at(NONE, rows, guarantee, sure)
    for threshold in THRESHOLDS[1:] if found.met else ():
        further = _at(threshold, rows, guarantee, sure)
        if not further.met:
            break
        found = further
    return found._replace(least=least(found.right, found.rows, sure))


def _at(threshold: float, rows: Sequence[Tried], guarantee: float, sure: float) -> Found:
    kept = [row.score >= threshold for row in rows]
    right = sum(row.cheap if stays else row.dear for row, stays in zip(rows, kept, strict=True))
    met = bool(rows) and tail(right, len(rows), guarantee) <= 1 - sure
    return Found(threshold, len(rows), right, sum(kept), 0.0, met)


def tail(right: int, rows: int, share: float) -> float:
    """Give how probable it is that so many rows or more are right, where this share of all is."""
    logs = (math.log(share), math.log1p(-share))
    terms = [
        math.lgamma(rows + 1)
        - math.lgamma(k + 1)
        - math.lgamma(rows - k + 1)
        + k * logs[0]
        + (rows - k) * logs[1]
        for k in range(right, rows + 1)
    ]
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def least(right: int, rows: int, sure: float) -> float:
    """Give the lower end of the exact one-sided interval of a share (Clopper and Pearson)."""
    if not right:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):  # halvings: as exact as a number is
        middle = (low + high) / 2
        low, high = (middle, high) if tail(right, rows, middle) <= 1 - sure else (low, middle)
    return low


def needed(right: int, rows: int, guarantee: float, sure: float) -> int | None:
    """Say about how many rows would show it, if such a share of them is right; None where no number would."""
    if not rows or right / rows <= guarantee:
        return None
    more = rows
    while more < MOST_NEEDED:
        more = math.ceil(more * 1.1)
        if tail(math.floor(more * right / rows), more, guarantee) <= 1 - sure:
            return more
    return None
