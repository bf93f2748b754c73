"""Counts why rows have no usable answer, by step, status and code, and answers whose ending nobody knows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from enrich.records import Trouble
from enrich.wire.finish import ending

if TYPE_CHECKING:
    from enrich.records import Outcome

MOST_CAUSES = (
    200  # distinct causes kept apart; codes are the endpoint's words, of which there may be any number
)
OTHER = "other"  # the code of all further ones
MESSAGE_CHARACTERS = 300  # of an example's message


class Troubles:
    """Counts failed rows by their cause.

    Attributes:
        unknown_finish: rows that are ok although their finish reason is in no table, by that reason.
    """

    def __init__(self) -> None:
        self.unknown_finish: Counter[str] = Counter()
        self._found: dict[tuple[str, str, str, bool], Trouble] = {}

    def add(self, step: str, row: int, outcome: Outcome, *, again: bool) -> None:
        """Count one row that has no usable answer at a step.

        Args:
            step: its name.
            row: the row's index.
            outcome: of the row at the step.
            again: whether it was asked in this run.
        """
        code, _, message = (outcome.error or outcome.status).partition(": ")
        asked = outcome.key is not None
        name = (step, outcome.status, code, asked)
        if name not in self._found and len(self._found) >= MOST_CAUSES:
            code = OTHER
            name = (step, outcome.status, code, asked)
        known = self._found.get(name)
        if known is None:
            self._found[name] = Trouble(
                step,
                outcome.status,
                code,
                rows=1,
                row=row + 1,
                message=message[:MESSAGE_CHARACTERS],
                asked=asked,
                again=again,
            )
        else:
            known = replace(known, rows=known.rows + 1, again=known.again or again)
            if row + 1 < known.row:  # the example is the first of them, in whatever order answers come
                known = replace(known, row=row + 1, message=message[:MESSAGE_CHARACTERS])
            self._found[name] = known

    def note_ending(self, finish_reason: str | None) -> None:
        """Note how the answer of a row ended that is ok."""
        if ending(finish_reason) == "unknown":
            kept = finish_reason in self.unknown_finish or len(self.unknown_finish) < MOST_CAUSES
            self.unknown_finish[finish_reason or "" if kept else OTHER] += 1

    def codes(self) -> tuple[tuple[str, int], ...]:
        """Give the codes with their rows, the most frequent first."""
        counts: Counter[str] = Counter()
        for trouble in self._found.values():
            counts[trouble.code] += trouble.rows
        return tuple(counts.most_common())

    @property
    def rows(self) -> int:
        """Give how many were counted; a row counts at each step at which it failed."""
        return sum(trouble.rows for trouble in self._found.values())

    def ranked(self) -> tuple[Trouble, ...]:
        """Give the causes, the most frequent first."""
        return tuple(sorted(self._found.values(), key=lambda trouble: (-trouble.rows, trouble.row)))
