"""Agreement of two or more who judged the same rows: share, Cohen's kappa, Krippendorff's alpha. Pure functions.

Two judges are given as a table of counts, one row for each value of the first, one column for each of the second;
a stack of such tables, as resampling makes them, gives a number for each.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Table = np.ndarray[Any, np.dtype[Any]]
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def share(table: Table) -> Any:
    """Give the share of rows on which two agree; NaN where there is no row."""
    return _ratio(np.trace(table, axis1=-2, axis2=-1), table.sum(axis=(-2, -1)))


def kappa(table: Table) -> Any:
    """Give Cohen's kappa: the agreement beyond what the two would have by chance.

    Source: J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20
    (1960), 37-46. NaN where both name one value alone, for then chance explains everything.
    """
    counts = np.asarray(table, dtype=float)
    total = counts.sum(axis=(-2, -1))
    observed = np.trace(counts, axis1=-2, axis2=-1)
    expected = _ratio((counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1), total)
    return _ratio(observed - expected, total - expected)


def alpha_of_table(table: Table) -> Any:
    """Give Krippendorff's alpha of two judges for names (the nominal metric); see `alpha`."""
    counts = np.asarray(table, dtype=float)
    coincidences = counts + np.swapaxes(counts, -2, -1)
    each = coincidences.sum(axis=-1)
    total = each.sum(axis=-1)
    disagreed = total - np.trace(coincidences, axis1=-2, axis2=-1)
    expected = total**2 - (each**2).sum(axis=-1)
    return 1 - _ratio((total - 1) * disagreed, expected)


def alpha_of_pairs(first: Numbers, second: Numbers) -> Any:
    """Give Krippendorff's alpha of two judges for numbers (the interval metric); rows are the last axis."""
    values = np.concatenate([first, second], axis=-1)
    observed = ((first - second) ** 2).mean(axis=-1)
    return 1 - _ratio(observed, 2 * values.var(axis=-1, ddof=1))


def alpha(judged: Numbers, metric: Literal["nominal", "interval"] = "nominal") -> float:
    """Give Krippendorff's alpha of any number of judges, of whom each may have left rows out.

    Source: K. Krippendorff, Computing Krippendorff's alpha-reliability (2011), and Content Analysis, ch. 12.

    Args:
        judged: one line for each judge, one column for each row; NaN where nothing was said. Names as numbers.
        metric: ``nominal`` counts every difference alike, ``interval`` by its square.

    Returns:
        1 for full agreement, 0 for that of chance; NaN where all said the same, or no row was judged twice.
    """
    rows = judged[:, (~np.isnan(judged)).sum(axis=0) >= 2]
    values, places = np.unique(rows[~np.isnan(rows)], return_inverse=True)
    counts = np.zeros((rows.shape[1], len(values)))
    np.add.at(counts, (np.nonzero(~np.isnan(rows))[1], places), 1)
    judges = counts.sum(axis=1)
    coincidences = np.einsum("uc,uk,u->ck", counts, counts, 1 / (judges - 1))
    coincidences -= np.diag((counts / (judges - 1)[:, None]).sum(axis=0))
    away = np.subtract.outer(values, values)
    distance = away**2 if metric == "interval" else (away != 0).astype(float)
    each = coincidences.sum(axis=1)
    observed = (coincidences * distance).sum()
    return float(1 - _ratio((each.sum() - 1) * observed, (np.outer(each, each) * distance).sum()))


def _ratio(part: Any, whole: Any) -> Any:
    """Divide; NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(whole) > 0, np.true_divide(part, whole), np.nan)
