"""What a column of answers holds, read batch by batch: its commonest values, or a histogram, and how many are null."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrich.report.facts import Histogram, Spread
from enrich.report.texts import VALUE_CHARACTERS, cut

if TYPE_CHECKING:
    import numpy.typing as npt

LONGEST_LABEL = 10_000  # bytes of a value; a column with longer ones is no label
MAX_DISTINCT = 50  # values of a column; one with more is no label
FEW_NUMBERS = 12  # distinct numbers that are told one by one
SHORT_LABEL = 40  # characters of a value that is a label even where hardly any value comes twice
MOST_BARS = 32  # of a histogram
KEPT_BARS = 4 * MOST_BARS
PRECISION = 50  # bits that the number of a bar may have
NARROWEST = -1000  # power of two of a bar's width; far narrower ones are no numbers any more


class Values:
    """Reads one column."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._total = self._asked = self._nulls = 0
        self._unit = ""
        self._labels: Counter[str] | None = Counter()
        self._bars = _Bars()
        self._numbers = False

    def add(self, array: pa.Array[Any], asked: int) -> None:
        """Add the values of good rows, of which so many were asked on their own."""
        self._total += len(array)
        self._asked += asked
        self._nulls += array.null_count
        kind: Any = array.type
        if pa.types.is_dictionary(kind):
            array, kind = array.cast(kind.value_type), kind.value_type
        if pa.types.is_null(kind):
            return
        self._count(array, kind)
        if pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
            return
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            self._numbers = True
            self._bars.add(_floats(array), whole=pa.types.is_integer(kind))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            self._unit = "characters"
            self._bars.add(_floats(pc.utf8_length(cast("Any", array))), whole=True)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._unit = "items"
            self._bars.add(_floats(pc.list_value_length(array)), whole=True)

    def _count(self, array: pa.Array[Any], kind: Any) -> None:
        """Count each value as long as they are few and short."""
        if self._labels is None:
            return
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            self._labels = None
            return
        texts: Any = array.cast(pa.string())
        longest: Any = pc.max(pc.binary_length(texts))
        if (longest.as_py() or 0) > LONGEST_LABEL:
            self._labels = None
            return
        count_values(self._labels, texts)
        if len(self._labels) > MAX_DISTINCT:
            self._labels = None

    def label(self, value: Any) -> str | None:
        """Give the text of an Arrow scalar that is one of those that are counted one by one, as far as is known."""
        if self._labels is None or not value.is_valid:
            return None
        text: str = value.cast(pa.string()).as_py()
        return text if text in self._labels else None

    def labels(self) -> tuple[str, ...]:
        """Give the values that are counted one by one, as far as is known."""
        return tuple(self._labels) if self._labels is not None and self._told_one_by_one() else ()

    def spread(self) -> Spread:
        """Give what was found: values where they are few, else how numbers or lengths are spread."""
        labels = self._labels if self._told_one_by_one() else None
        return Spread(
            self.column,
            self._total,
            self._asked,
            tuple(
                (cut(value, VALUE_CHARACTERS), count) for value, count in (labels or Counter()).most_common()
            ),
            self._nulls,
            self._bars.histogram() if labels is None else None,
            self._unit,
        )

    def _told_one_by_one(self) -> bool:
        labels = self._labels
        if labels is None:
            return False
        if self._numbers:
            return len(labels) <= FEW_NUMBERS
        short = all(len(value) <= SHORT_LABEL for value in labels)
        return short or 2 * len(labels) <= labels.total() or len(labels) == 1


def count_values(counter: Counter[str], array: Any) -> None:
    """Count an array's values that are not null."""
    counts: Any = pc.value_counts(array)
    for item in counts.to_pylist():
        if item["values"] is not None:
            counter[item["values"]] += item["counts"]


def _floats(array: Any) -> npt.NDArray[np.float64]:
    """Give the finite numbers of an array."""
    numbers: npt.NDArray[np.float64] = np.asarray(
        array.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64
    )
    return numbers[np.isfinite(numbers)]


class _Bars:
    """A histogram of numbers of any size: bars of a power of two, which double where they grow too many."""

    def __init__(self) -> None:
        self._exponent: int | None = None  # bar i holds what is in [i, i + 1) × 2**exponent
        self._counts: dict[int, int] = {}
        self._least, self._most, self._sum = math.inf, -math.inf, 0.0

    def add(self, numbers: npt.NDArray[np.float64], *, whole: bool) -> None:
        """Count numbers; a bar of whole ones is one or more wide."""
        if not numbers.size:
            return
        low, high = float(numbers.min()), float(numbers.max())
        self._least, self._most = min(low, self._least), max(high, self._most)
        self._sum += float(numbers.sum())
        size = max(abs(self._least), abs(self._most))
        # so wide that the number of a bar is exact; at first no wider than what is there needs
        needed = max(math.frexp(size)[1] - PRECISION, NARROWEST) if size else -PRECISION
        if self._exponent is None:
            extent = high / KEPT_BARS - low / KEPT_BARS
            narrow = max(needed, math.frexp(extent)[1] if extent else needed)
            self._exponent = max(narrow, 0) if whole else narrow
        while self._exponent < needed:
            self._fold()
        index = np.floor(np.ldexp(numbers, -self._exponent)).astype(np.int64)
        index[(numbers < 0) & (index == 0)] = -1  # so near to zero that nothing is left of it
        for bar, count in zip(*(part.tolist() for part in np.unique(index, return_counts=True)), strict=True):
            self._counts[bar] = self._counts.get(bar, 0) + count
        while self._span() > KEPT_BARS:
            self._fold()

    def _span(self) -> int:
        return max(self._counts) - min(self._counts) + 1

    def _fold(self) -> None:
        counts, self._counts = self._counts, {}
        for bar, count in counts.items():
            self._counts[bar // 2] = self._counts.get(bar // 2, 0) + count
        self._exponent = (self._exponent or 0) + 1

    def histogram(self) -> Histogram | None:
        """Give the bars; None without numbers."""
        if not self._counts:
            return None
        while self._span() > MOST_BARS:
            self._fold()
        first, width = min(self._counts), math.ldexp(1.0, self._exponent or 0)
        total = sum(self._counts.values())
        return Histogram(
            begin=first * width,
            width=width,
            counts=tuple(self._counts.get(first + bar, 0) for bar in range(self._span())),
            least=self._least,
            mean=self._sum / total,
            most=self._most,
        )
