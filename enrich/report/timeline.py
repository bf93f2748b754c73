"""A job over time, in slices: of all its runs, without the time in which nothing was under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from enrich.report.facts import Timeline

if TYPE_CHECKING:
    import numpy.typing as npt

    Times = npt.NDArray[np.float64]
    Matrix = npt.NDArray[np.float64]

MOST = 240  # slices that are drawn; more than a screen shows
KEPT = 4 * MOST  # slices with something in them that are kept while events come
NARROWEST = 0.05  # seconds of a slice; each further width is twice the one before
PAUSE = 6  # slices in a row without anything that are still drawn
ANSWERS, FAILURES, CREDITS, NET, WEIGHT = range(5)  # what is summed per slice
NOTHING = 1e-6  # requests in flight that are none


class Slices:
    """Adds events up per slice, of any span of time, in memory that does not grow with it.

    Of attempts only begins and ends are known. What is under way on average in a slice is what was under way before
    it, and of each begin (end) in it the share of the slice that is left after it, added (taken away): NET counts
    begins less ends, WEIGHT sums up the seconds that were left. Two neighbours are thus merged without the events.
    """

    def __init__(self) -> None:
        self._width = NARROWEST
        self._index = np.empty(
            0, np.int64
        )  # of slices with anything in them, rising; a slice begins at index × width
        self._sums: Matrix = np.empty((0, 5))

    def add(self, ends: Times, seconds: Times, credits_: Times, failed: Times) -> None:
        """Add answered attempts by their end (seconds since the epoch), length and charge, and failed ones by their time."""
        ended = self._rows(ends)
        ended[:, ANSWERS] = 1
        ended[:, CREDITS] = credits_
        ended[:, NET] = -1
        ended[:, WEIGHT] = -self._left(ends)
        begins = ends - seconds
        begun = self._rows(begins)
        begun[:, NET] = 1
        begun[:, WEIGHT] = self._left(begins)
        failures = self._rows(failed)
        failures[:, FAILURES] = 1
        times = np.concatenate([ends, begins, failed])
        self._merge((times // self._width).astype(np.int64), np.concatenate([ended, begun, failures]))
        while len(self._index) > KEPT:
            self._fold()

    def _rows(self, times: Times) -> Matrix:
        return np.zeros((len(times), 5))

    def _left(self, times: Times) -> Times:
        """Give the seconds from each time to the end of its slice."""
        return (times // self._width + 1) * self._width - times

    def _merge(self, index: npt.NDArray[np.int64], rows: Matrix) -> None:
        self._index, place = np.unique(np.concatenate([self._index, index]), return_inverse=True)
        sums = np.zeros((len(self._index), 5))
        np.add.at(sums, place, np.concatenate([self._sums, rows]))
        self._sums = sums

    def _fold(self) -> None:
        """Make slices of twice the width: in the first of two, all that was under way stays so for the second as well."""
        first = self._index % 2 == 0
        self._sums[first, WEIGHT] += self._sums[first, NET] * self._width
        index, rows = self._index // 2, self._sums
        self._width *= 2
        self._index, self._sums = np.empty(0, np.int64), np.empty((0, 5))
        self._merge(index, rows)

    def timeline(self) -> Timeline:
        """Give what is drawn: answers and failures per second, what was under way on average, credits up to there."""
        while len(drawn := self._drawn()) > MOST:
            self._fold()
        sums = np.zeros((len(drawn), 5))
        sums[np.searchsorted(drawn, self._index)] = self._sums
        before = np.cumsum(sums[:, NET]) - sums[:, NET]
        under_way = np.maximum(before + sums[:, WEIGHT] / self._width, 0)
        return Timeline(
            starts=_rounded(drawn * self._width),
            width=self._width,
            answers=_rounded(sums[:, ANSWERS] / self._width),
            failures=_rounded(sums[:, FAILURES] / self._width),
            in_flight=_rounded(under_way),
            credits=_rounded(np.cumsum(sums[:, CREDITS]), 6),
            breaks=tuple(int(place) + 1 for place in np.flatnonzero(np.diff(drawn) > 1)),
        )

    def _drawn(self) -> npt.NDArray[np.int64]:
        """Give the slices with something in them, and those between that are short or have something under way."""
        if not len(self._index):
            return self._index
        under_way = np.cumsum(self._sums[:, NET])[:-1] > NOTHING
        missing = np.diff(self._index) - 1
        fill = missing * (under_way | (missing <= PAUSE))
        if fill.sum() + len(self._index) > KEPT:
            return np.arange(KEPT)  # too many to tell them one by one; wider ones are needed anyway
        parts = [
            np.arange(start, start + 1 + more) for start, more in zip(self._index, (*fill, 0), strict=True)
        ]
        return np.concatenate(parts)


def _rounded(values: Any, digits: int = 3) -> tuple[float, ...]:
    return tuple(round(float(value), digits) for value in values)
