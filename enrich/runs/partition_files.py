"""Makes the files of a folder of outputs while their rows are being asked as one job."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from enrich.files.prefetch import prefetched
from enrich.files.sink import open_sink
from enrich.rows.assemble import ROWS, Assembler
from enrich.rows.occurrences import Occurrences
from enrich.runs.job import origin
from enrich.runs.partition_todo import Ends, cut, remember_types
from enrich.runs.partitions import describe

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from enrich.base.interrupt import Interrupt
    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.records import RowStatus
    from enrich.rows.statuses import Marks
    from enrich.runs.partition_todo import Folder, UnitToMake
    from enrich.runs.session import Session

UNITS_AT_ONCE = 16  # units that are written side by side
UNIT_ROWS_AT_ONCE = 16_384  # their rows, unless a single one has more


class Units:
    """Makes the units of a folder while its rows are being asked: each is put in place when its last row is decided.

    Attributes:
        ends: to be told of every row that has its verdicts.
    """

    def __init__(
        self, config: Config, folder: Folder, source: Source, *, session: Session, marks: Marks
    ) -> None:
        self._config = config
        self._folder = folder
        self._source = source
        self._parts = cut(folder.todo, source)
        self._session = session
        self._marks = marks
        self._placed: list[int] = []
        fresh = sum(step.generation for step in session.job.steps if not step.conversation.older)
        self._made = replace(folder.made, fresh=fresh)
        self.ends = Ends(self._parts)

    def counts(self) -> dict[str, int]:
        """Count the folder's units as they stand now."""
        parts = [self._parts[number] for number in self._placed]
        return self._folder.counts(parts, [self.ends.tallies[number] for number in self._placed])

    async def make(
        self,
        asking: Coroutine[object, object, None],
        interrupt: Interrupt,
        scratch: Path,
        allow: Callable[[Counter[RowStatus]], None] = lambda _: None,
    ) -> None:
        """Have all rows asked as one job; put each unit in place as soon as its rows, and those before them, are decided.

        Args:
            asking: asks the rows; tells `ends` of each.
            interrupt: stops the making.
            scratch: the folder where objects are made ready.
            allow: told of a unit's rows per status before it is made; may raise.

        Raises:
            RunStopped, RunInterrupted: before all were made; those that were stay.
        """
        asked = asyncio.create_task(asking, name="beatra-ask")
        asked.add_done_callback(lambda _: self.ends.over())
        writing: dict[asyncio.Task[None], int] = {}
        try:
            await asyncio.to_thread(remember_types, self._config, self._source)
            with Occurrences(scratch) as seen:
                for number, part in enumerate(self._parts):
                    if not await self.ends.whole(number):
                        break
                    allow(self.ends.tallies[number])
                    await self._find_copies(part, seen)
                    await _room(writing, part.source.num_rows)
                    task = asyncio.create_task(self._put(number, part, interrupt, scratch), name="beatra-put")
                    task.add_done_callback(lambda task: asked.cancel() if _failed(task) else None)
                    writing[task] = part.source.num_rows
            await asyncio.gather(*writing)
            await asked
        finally:
            for task in (asked, *writing):
                task.cancel()
            await asyncio.gather(asked, *writing, return_exceptions=True)

    async def _find_copies(self, part: UnitToMake, seen: Occurrences) -> None:
        """Mark the rows whose request came before in this run; the event loop has its turns in between."""
        if len(self._parts) == 1:
            await asyncio.to_thread(self._marks.find_copies)
            return
        for row in range(0, part.source.num_rows, ROWS):
            count = min(ROWS, part.source.num_rows - row)
            self._marks.find_repeats(part.first_row + row, count, seen)
            await asyncio.sleep(0)

    async def _put(self, number: int, part: UnitToMake, interrupt: Interrupt, scratch: Path) -> None:
        """Assemble one unit and put it in place."""
        job = self._session.job
        own = job.passed
        with open_sink(part.unit.output, job.output_schema, scratch=scratch, given=own) as sink:
            batches = prefetched(part.source.batches(columns=own))
            async with contextlib.aclosing(batches):
                assembler = self._session.assembler(self._marks)
                async for batch in assembler.batches(batches, first_row=part.first_row):
                    interrupt.check()
                    await asyncio.to_thread(sink.write, batch)
            unit = await asyncio.to_thread(describe, part.unit, self._made, whole=part.whole)
            manifest = self._manifest(number, part, assembler) | {"unit": unit}
            await asyncio.to_thread(sink.commit, manifest)
        self._placed.append(number)

    def _manifest(self, number: int, part: UnitToMake, assembled: Assembler) -> dict[str, Any]:
        statuses = {status: count for status, count in self.ends.tallies[number].items() if count}
        return {
            **origin(self._session.job, part.source),
            "rows": part.source.num_rows,
            "statuses": statuses,
            "attempts": assembled.attempts,
            **assembled.spent.amounts(),
        }


async def _room(writing: dict[asyncio.Task[None], int], rows: int) -> None:
    """Wait until one more unit may be written: small ones side by side, for each waits for its disk or store."""
    while writing and (len(writing) >= UNITS_AT_ONCE or sum(writing.values()) + rows > UNIT_ROWS_AT_ONCE):
        done, _ = await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del writing[task]
            task.result()


def _failed(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is not None
