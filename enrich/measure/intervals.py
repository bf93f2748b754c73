"""What chance leaves open: intervals by resampling rows, the same each time. Pure functions."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.measure.agreement import Numbers, Table

SEED = 0  # of all resampling: the same rows give the same interval
RESAMPLES = 2_000  # of a table
MOST_DRAWN = 20_000_000  # rows drawn in all, for what needs the rows themselves
FEWEST_RESAMPLES = 200
CONFIDENCE = 0.95
Z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

Interval = tuple[float, float]


def of_table(table: Table, statistic: Callable[[Table], Numbers]) -> Interval | None:
    """Give the percentile interval of a number that counts decide, by drawing the rows anew from these.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), ch. 13. To draw rows with replacement
    is to draw the counts of the table's cells from a multinomial distribution.

    Args:
        table: counts of any shape.
        statistic: takes a stack of such tables and gives a number for each; NaN where it is not defined.

    Returns:
        The lower and upper end of the 95 % interval; None where most draws do not define the number.
    """
    total = int(table.sum())
    if not total:
        return None
    draws = np.random.default_rng(SEED).multinomial(total, (table / total).ravel(), RESAMPLES)
    return _percentiles(statistic(draws.reshape(RESAMPLES, *table.shape)))


def of_rows(statistic: Callable[..., Numbers], *columns: Numbers) -> Interval | None:
    """Give the percentile interval of a number that rows decide.

    Args:
        statistic: takes the columns with drawn rows, one draw in each line, and gives a number for each draw.
        columns: a number for each row; drawn together.
    """
    rows = len(columns[0])
    if not rows:
        return None
    chance = np.random.default_rng(SEED)
    draws = min(RESAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWN // rows))
    at_once = max(1, 1_000_000 // rows)
    found = []
    for start in range(0, draws, at_once):
        drawn = chance.integers(0, rows, (min(at_once, draws - start), rows))
        found.append(statistic(*(column[drawn] for column in columns)))
    return _percentiles(np.concatenate(found))


def of_share(part: int, whole: int) -> Interval | None:
    """Give Wilson's interval of a share, which says something of a share of 0 and 1 too.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if not whole:
        return None
    share, spread = part / whole, Z * Z / whole
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / whole + spread / whole / 4)
    return (
        0.0 if not part else max(0.0, middle - half),
        1.0 if part == whole else min(1.0, middle + half),
    )


def of_proportion(part: int, whole: int) -> Interval | None:
    """Give the interval of a share by resampling; where all rows are alike, which resampling takes for certainty, Wilson's."""
    if 0 < part < whole:
        return of_table(np.array([part, whole - part]), lambda counts: counts[:, 0] / whole)
    return of_share(part, whole)


def _percentiles(values: Any) -> Interval | None:
    defined = values[~np.isnan(values)]
    if len(defined) * 2 < len(values):
        return None
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
