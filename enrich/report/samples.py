"""Which rows a report shows: spread evenly over those that were asked, and some of every answer that is counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from enrich.report.facts import Sample
    from enrich.report.values import Values

    Places = npt.NDArray[np.int64]

SPARE = 4  # times as many as wanted are kept on the way, so that those in the end lie evenly
OF_EACH = 2  # rows of every answer that is counted


class Samples:
    """Keeps some of the rows that stream by."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._stride = 1  # each so-manieth row is kept
        self._seen = 0
        self._even: list[tuple[int, Sample]] = []
        self._of_labels: dict[int | None, Sample] = {}
        self._shown: Counter[tuple[str, str]] = Counter()

    def evenly(self, places: Places) -> Iterator[tuple[int, int]]:
        """Give those of a batch's rows that are to be kept, each with its ordinal for `keep`.

        Args:
            places: of the rows in the batch that may be shown, rising.
        """
        ordinals = self._seen + np.arange(len(places))
        self._seen += len(places)
        while len(self._even) + np.count_nonzero(ordinals % self._stride == 0) > SPARE * self._most:
            self._stride *= 2
            self._even = [(ordinal, sample) for ordinal, sample in self._even if ordinal % self._stride == 0]
        chosen = ordinals % self._stride == 0
        yield from zip(ordinals[chosen].tolist(), places[chosen].tolist(), strict=True)

    def keep(self, ordinal: int, sample: Sample) -> None:
        """Keep one that `evenly` gave."""
        self._even.append((ordinal, sample))

    def of_each(self, values: Values, column: Any, good: Any) -> Iterator[int]:
        """Give places in a batch of answers of which too few are kept; each is to go to `keep_label`."""
        if not (lacking := [v for v in values.labels() if self._shown[values.column, v] < OF_EACH]):
            return
        texts: Any = pc.if_else(good, column.cast(pa.string()), None)
        for value in lacking:
            there: Any = pc.equal(texts, pa.scalar(value))
            places = pc.indices_nonzero(there).to_pylist()
            places = places[: OF_EACH - self._shown[values.column, value]]
            self._shown[values.column, value] += len(places)
            yield from places

    def keep_label(self, sample: Sample) -> None:
        """Keep one that `of_each` gave."""
        self._of_labels[sample.row] = sample

    def chosen(self, values: list[Values]) -> list[Sample]:
        """Give what is shown, in the order of the rows.

        Args:
            values: the columns; of one whose values proved too many no row is shown for their sake.
        """
        count = min(self._most, len(self._even))
        even = (self._even[place * len(self._even) // count][1] for place in range(count))
        counted = {(v.column, label) for v in values for label in v.labels()}
        of_labels = {
            row: sample
            for row, sample in self._of_labels.items()
            if any(label in counted for label in sample.labels)
        }
        by_row = {**of_labels, **{sample.row: sample for sample in even}}
        return sorted(by_row.values(), key=lambda sample: sample.row or 0)
