"""Rows of a frame that were answered before and would be paid for again: found before anything is sent."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enrich.errors import TooManyReasked
from enrich.frames.arguments import UNNAMED
from enrich.runs.options import RunOptions
from enrich.runs.reasked import changed_way, find_reasked_rows, note_rows, refuse_reasked_rows
from enrich.runs.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from enrich.runs.job import Job
    from enrich.runs.reasked import Reasked
    from enrich.runs.session import Session


WHOLE = 100  # per cent


@dataclass(frozen=True, slots=True)
class FrameRows:
    """A frame's rows, which can be gone through more than once."""

    schema: pa.Schema
    num_rows: int
    held: Sequence[pa.RecordBatch]
    was_read: bool = False

    def batches(self, *, columns: Sequence[str], written: bool) -> Iterator[pa.RecordBatch]:  # noqa: ARG002  # nothing is written but what is there
        """Give them in order, once more."""
        return (batch.select(list(columns)) for batch in self.held)


async def refuse(rows: FrameRows, job: Job, *, among: str = "") -> Reasked | None:
    """Say how many rows would be paid for again, and remember how they are asked.

    Args:
        rows: to be asked.
        job: what is asked of them.
        among: which rows these are, where they are not all.

    Raises:
        TooManyReasked: there are more of them than `max_reasked` allows.
    """
    async with open_session(job) as session:
        return await refuse_reasked_rows(rows, session, name_of(job), RunOptions(), among=among)


async def refuse_unseen(job: Job, schema: pa.Schema) -> str:
    """Compare how rows that nobody has seen yet are asked with how they were; remembers it.

    Returns:
        What is to be said; nothing where nothing has changed.

    Raises:
        TooManyReasked: something has, and `max_reasked` bounds what cannot be counted.
    """
    rows = FrameRows(schema, 0, ())
    async with open_session(job) as session:
        changed, most = await changed_way(rows, session, name_of(job)), job.config.max_reasked
        said = changed and (
            f"rows that were answered before will be asked again; changed since: {', '.join(changed)}. How many these are "
            "cannot be counted before they come"
        )
        if said and most is not None and not (isinstance(most, str) and float(most.rstrip("% ")) >= WHOLE):
            raise TooManyReasked(
                f"{said}; `max_reasked` is {most}, and nothing was sent",
                hint='undo the change, or confirm it with max_reasked: "100%".',
            )
        await note_rows(rows, session, name_of(job))
    return said or ""


async def find(rows: FrameRows, session: Session) -> Reasked | None:
    """Say how many rows would be paid for again."""
    return await find_reasked_rows(rows, session, name_of(session.job), RunOptions())


def name_of(job: Job) -> str:
    """Name the question, as the ledger does: by its own name; without one it is what is asked, for who asks something else knows it."""
    names = [step.name for step in job.steps]
    told = [[step.prompt, step.system, step.messages] for step in job.config.steps]
    whole = [names, json.dumps(told, default=str)] if names == [UNNAMED] else [names]
    return f"asked:frame:{hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16]}"
