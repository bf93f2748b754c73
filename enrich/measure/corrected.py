"""What a labelled sample says of the whole table: accuracy, and how often each label really stands there.

The method is prediction-powered inference (A. N. Angelopoulos, S. Bates, C. Fannjiang, M. I. Jordan and T. Zrnic,
Science 382 (2023), 669-674): the count of the answers over all rows is known, and corrected by what the labelled rows
say of the answers' errors. The rows are drawn in strata without putting them back, so that the correction is the
stratified mean of survey sampling with its finite population correction (W. G. Cochran, Sampling Techniques, ch. 5).
Pure functions.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enrich.measure.intervals import Z
from enrich.measure.scores import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Stratum:
    """Rows of one kind, of which some were labelled by hand.

    Attributes:
        rows: in the whole table.
        answers: of these, how many have each answer.
        labelled: of the rows that were labelled, how many have each label and answer, in this order.
    """

    name: str
    rows: int
    answers: Mapping[str, int]
    labelled: Mapping[tuple[str, str], int]

    @property
    def n(self) -> int:
        """Give how many rows were labelled."""
        return sum(self.labelled.values())


@dataclass(frozen=True, slots=True)
class Corrected:
    """How often a label really stands in the whole table.

    Attributes:
        answered: how often it was given.
        count: how often it is right to expect it; None where a stratum has no labelled row.
        interval: 95 %.
    """

    label: str
    answered: int
    count: float | None
    interval: tuple[float, float] | None


def accuracy(strata: Sequence[Stratum]) -> Figure:
    """Give the share of all rows whose answer is right, with its 95 % interval."""
    total = sum(stratum.rows for stratum in strata)
    found = _mean(strata, lambda label, answer: float(label == answer))
    if found is None or not total:
        return Figure(None, None)
    value, error = found
    return Figure(value, (max(0.0, value - Z * error), min(1.0, value + Z * error)))


def corrected_counts(strata: Sequence[Stratum]) -> tuple[Corrected, ...]:
    """Give the corrected count of each label over the whole table, with its 95 % interval; the commonest first."""
    total = sum(stratum.rows for stratum in strata)
    answered: Counter[str] = Counter()
    for stratum in strata:
        answered.update(stratum.answers)
    labels = {label for stratum in strata for label, _ in stratum.labelled} | set(answered)
    found = []
    for name in labels:
        mean = _mean(strata, lambda label, answer, name=name: float(label == name) - float(answer == name))  # type: ignore[misc]
        if mean is None:
            found.append(Corrected(name, answered[name], None, None))
            continue
        rectified, error = mean
        count = answered[name] + total * rectified
        ends = (count - Z * total * error, count + Z * total * error)
        low, high = (min(max(end, 0.0), float(total)) for end in ends)
        found.append(Corrected(name, answered[name], min(max(count, 0.0), float(total)), (low, high)))
    return tuple(sorted(found, key=lambda one: (-(one.count or 0.0), one.label)))


def needed(half: float, wanted: float, n: int) -> int:
    """Say how many labelled rows would give an interval of this half width, where so many gave that one."""
    return math.ceil(n * (half / wanted) ** 2)


def _mean(strata: Sequence[Stratum], of: Callable[[str, str], float]) -> tuple[float, float] | None:
    """Give the stratified mean of what is told by label and answer, and its standard error; None where a stratum was not looked at."""
    total = sum(stratum.rows for stratum in strata)
    mean = variance = 0.0
    for stratum in strata:
        if not stratum.rows:
            continue
        n = stratum.n
        if not n:
            return None
        weight = stratum.rows / total
        values = [(of(label, answer), count) for (label, answer), count in stratum.labelled.items()]
        here = sum(value * count for value, count in values) / n
        mean += weight * here
        variance += weight**2 * _spread(values, n) / n * (1 - n / stratum.rows)
    return mean, math.sqrt(variance)


def _spread(values: Sequence[tuple[float, int]], n: int) -> float:
    """Give the variance of values of -1, 0 and 1 within a stratum; what was seen of few rows is too sure of itself.

    Half a row more that differs, of one row more, is what Jeffreys' prior adds to a share (L. D. Brown, T. T. Cai and
    A. DasGupta, Statistical Science 16 (2001), 101-133): without it five right of five would leave no doubt.
    """
    size = sum(abs(value) * count for value, count in values)
    share = (size + 0.5) / (n + 1)
    side = sum(value * count for value, count in values) / size if size else 1.0
    variance = max(share - (share * side) ** 2, 0.0)
    return variance * n / (n - 1) if n > 1 else max(variance, 0.25)
