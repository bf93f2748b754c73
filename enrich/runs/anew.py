"""Chosen rows that are asked anew: in a generation of answers of their own, which a stopped run of them goes on with."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from enrich.base.words import counted
from enrich.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from enrich.files.source import Source
    from enrich.ledger.protocol import Ledger
    from enrich.records import RowStatus
    from enrich.runs.job import Job


@dataclass(frozen=True, slots=True)
class Anew:
    """Rows that are asked anew at some steps.

    Attributes:
        where: the expression that chose them.
        steps: names of the steps.
        rows: whether each is chosen; None where that is still to be found out, on the answers that were there before.
        met: how many rows the expression is true of.
        shared: further rows with the same request as one of them: they have its answer too.
        doubtful: of the rows that it is true of, those in doubt or under way, which are left alone.
        tally: the rows of the input by status.
        files: what the input was when they were chosen.
        units: of a folder of outputs, those with such rows; None where the output is one file.
    """

    where: str
    steps: frozenset[str]
    rows: np.ndarray[Any, np.dtype[np.bool]] | None = None
    met: int = 0
    shared: int = 0
    doubtful: int = 0
    tally: Counter[RowStatus] = field(default_factory=Counter, repr=False)
    files: str = ""
    units: frozenset[str] | None = None

    def text(self) -> str:
        """Say for people which rows are meant."""
        lines = [
            f"chosen      {counted(self.met, 'row')} at step {', '.join(sorted(self.steps))}: {self.where}"
        ]
        if self.shared:
            lines.append(
                f"            and {counted(self.shared, 'row')} with the same request as one of them"
            )
        if self.doubtful:
            lines.append(
                f"            not {counted(self.doubtful, 'row')} in doubt: `retry --in-doubt` settles those"
            )
        return "\n".join(lines)

    def check(self, source: Source) -> None:
        """Hold the input to what it was when the rows were chosen.

        Raises:
            InputError: it is another.
        """
        if self.rows is not None and (
            self.files != files_digest(source) or len(self.rows) != source.num_rows
        ):
            raise InputError(
                "the input has changed since its rows were chosen: nothing was sent", hint="start again."
            )


def files_digest(source: Source) -> str:
    """Tell an input from what it was before, by its files' sizes, times and versions."""
    files = [(file.path, file.size, file.mtime_ns, file.version, file.rows) for file in source.files]
    return hashlib.sha256(repr(files).encode()).hexdigest()


async def know_generations(job: Job, ledger: Ledger, anew: Anew, scope: str) -> None:
    """Have the steps read, or ask for, the generation of answers that the chosen rows get.

    A run of the same rows, steps and expression that was stopped is gone on with: its generation is asked for again, and
    while its rows are being chosen the answers from before it count.
    """
    for step in job.steps:
        if step.name not in anew.steps:
            continue
        step.anew = anew.rows is not None
        begun = await _begun(ledger, step.builder.fingerprint, anew, scope)
        if anew.rows is None:
            step.generation = begun - 1 if begun else step.generation
        else:
            step.generation = begun or step.generation + 1
        step.conversation.older = step.generation


async def note_anew(job: Job, ledger: Ledger, anew: Anew, scope: str) -> None:
    """Leave to later runs that these rows are asked for a generation of answers of their own."""
    for step in job.steps:
        fingerprint = step.builder.fingerprint
        if step.name in anew.steps and not await _begun(ledger, fingerprint, anew, scope):
            generation = await ledger.generation(fingerprint, bump=True)
            told = {"generation": generation, "where": _digest(anew)}
            await ledger.remember(_name(fingerprint, scope), told)


async def _begun(ledger: Ledger, step: bytes, anew: Anew, scope: str) -> int:
    """Give the generation that a stopped run of the same rows was asking for; 0 without one."""
    told = await ledger.recall(_name(step, scope), vital=True)
    return int(told["generation"]) if told and told["where"] == _digest(anew) else 0


async def settle_anew(job: Job, ledger: Ledger, scope: str) -> None:
    """Note that the chosen rows were all asked: the next time they are chosen, they are asked once more."""
    for step in job.steps:
        if step.anew:
            await ledger.remember(_name(step.builder.fingerprint, scope), {"generation": 0, "where": ""})


def _name(step: bytes, scope: str) -> str:
    return f"anew:{step.hex()}:{scope}"


def _digest(anew: Anew) -> str:
    return hashlib.sha256(json.dumps([anew.where, sorted(anew.steps)]).encode()).hexdigest()[:16]
