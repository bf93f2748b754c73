"""What changed with the model, where a step is pinned: labels and models before and after, read batch by batch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from enrich.report.facts import ModelChange, Shift
from enrich.report.values import Values, count_values

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_MODELS = 20  # told by name


class Changes:
    """Reads one step's answers apart: those of the model that answered first, and those of others."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._values = [(Values(column), Values(column)) for column in columns]
        self._models: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._rows = [0, 0]

    def add(self, batch: pa.RecordBatch, changed: Any, models: Any, good: Any) -> None:
        """Add the rows of one batch.

        Args:
            batch: with the answers' columns.
            changed: per row, as a text, whether another model had a part in its answer; null where nobody says.
            models: that answered.
            good: which rows have a usable answer.
        """
        if changed.null_count == len(changed):
            return
        after = pc.equal(pc.utf8_lower(changed), pa.scalar("true"))
        for side, wanted in enumerate((pc.invert(after), after)):
            mask = pc.and_(good, pc.fill_null(wanted, False))  # noqa: FBT003  # a value
            count_values(self._models[side], models.filter(mask))
            for pair in self._values:
                array = batch.column(pair[side].column).filter(mask)
                pair[side].add(array, len(array))
            self._rows[side] += int(pc.sum(mask).as_py() or 0)

    def facts(self) -> ModelChange | None:
        """Give what was found; None where only one model answered."""
        if not self._rows[1]:
            return None
        before, after = ([name for name, _ in models.most_common(MOST_MODELS)] for models in self._models)
        return ModelChange(
            self._rows[0],
            self._rows[1],
            tuple(before),
            tuple(after),
            tuple(shift for pair in self._values if (shift := _shift(*pair)) is not None),
        )


def _shift(before: Values, after: Values) -> Shift | None:
    """Give how often each label came; None of a column that has too many."""
    counts = [dict(values.spread().values) for values in (before, after)]
    names = list(dict.fromkeys([*counts[0], *counts[1]]))
    if not names:
        return None
    return Shift(
        before.column, tuple((name, counts[0].get(name, 0), counts[1].get(name, 0)) for name in names)
    )
