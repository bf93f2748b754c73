"""Rows that are finished: what their steps ask is answered, and the answers are fit; found a slice of rows at a time.

A row's story comes to the same end, question by question: an answer to the first request that it makes, where it is fit,
is the row's, whatever else the ledger holds. What is not found here is told as a story.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrich.engine.engine import settled_record
from enrich.prompt.idempotency import GENERATION_STRIDE
from enrich.prompt.template import RowError
from enrich.rows.judged import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from enrich.ledger.protocol import Ledger
    from enrich.records import Ask, Completion, Failure, Outcome, Record, Reply
    from enrich.rows.step import Step


def are_plain(steps: Sequence[Step]) -> bool:
    """Say whether rows ask the same whatever is answered, and an answer is judged by itself alone.

    Steps with a condition, with pictures, with values that must stand in a text, with a vote, with a pinned model, with several models one
    after the other, and those that use another's answer are not.
    """
    return not any(
        step.follows
        or builder.when is not None
        or builder.images is not None
        or builder.sources
        or builder.step.ballot
        or builder.step.pinned
        or builder.step.escalation
        for step in steps
        for builder in [step.builder]
    )


class Finished:
    """Finds rows that are finished.

    Args:
        steps: in order; `are_plain`.
        ledger: what is known.
        read: turns a raw reply into a completion or a failure.
        run: this run's number.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        ledger: Ledger,
        read: Callable[[Reply], Completion | Failure],
        run: int,
    ) -> None:
        self._steps = steps
        self._ledger = ledger
        self._read = read
        self._run = run

    async def find(self, rows: Sequence[dict[int, dict[str, Any]]]) -> list[list[Outcome] | None]:
        """Give what each row has to show, step after step; None for one that is not known to be finished.

        Args:
            rows: their values, by spelling.
        """
        keys = [self._keys(spelled) for spelled in rows]
        wanted = dict.fromkeys(key for of_row in keys for key in of_row)
        if not wanted:
            return [None] * len(rows)
        known, _ = await self._ledger.lookup_some(
            list(wanted)
        )  # beyond what memory allows, rows are told as stories
        return [self._outcomes(of_row, known) for of_row in keys]

    def asks(self, spelled: dict[int, dict[str, Any]]) -> list[Ask]:
        """Give the first requests of a row that is finished."""
        return [
            builder.ask(
                builder.prepare(spelled[builder.step.prompt_text]),
                ordinal=step.generation * GENERATION_STRIDE,
            )
            for step in self._steps
            for builder in [step.builder]
        ]

    def _keys(self, spelled: dict[int, dict[str, Any]]) -> list[bytes]:
        """Give the keys of a row's first requests; none for a row of which a step cannot be asked."""
        try:
            return [
                step.builder.key(
                    spelled[step.builder.step.prompt_text], ordinal=step.generation * GENERATION_STRIDE
                )
                for step in self._steps
            ]
        except RowError:
            return []

    def _outcomes(self, keys: list[bytes], known: dict[bytes, Record]) -> list[Outcome] | None:
        outcomes = []
        for step, key in zip(self._steps, keys, strict=False):  # of a row that cannot be asked there are none
            record = known.get(key)
            if record is None or record.reply is None:
                return None
            outcome = judge(step.reader, settled_record(record, self._read, run=self._run))
            if outcome.status != "ok":
                return None
            outcomes.append(outcome)
        return outcomes or None
