"""Rows through steps: what the ledger knows is not asked, what it does not know goes to the engine.

Each row is a generator that tells its own story, step after step, and yields a `Query` whenever it needs to
know how a request ended. The flow drives many of them: answers from the ledger in bulk, the rest as they come.

It is long because its parts share the rows that are under way: one object knows where each of them is.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from enrich.engine.engine import settled_record
from enrich.engine.retry import may_retry
from enrich.prompt.cells import spellings
from enrich.records import Completion, Failure, Settled
from enrich.rows.account import Account
from enrich.rows.by_prefix import Portion
from enrich.rows.finished import Finished, are_plain
from enrich.rows.step import strayed_name
from enrich.rows.story import Look, NotAsked, RowOnItsWay, Stories
from enrich.rows.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import pyarrow as pa

    from enrich.engine.engine import Engine
    from enrich.ledger.protocol import Ledger
    from enrich.pace.step_limits import Gate
    from enrich.records import Ask, Record, Reply, RowStatus
    from enrich.rows.conversation import Query, QueryResult
    from enrich.rows.occurrences import Occurrences
    from enrich.rows.pins import Pins
    from enrich.rows.statuses import Marks
    from enrich.rows.step import Step
    from enrich.rows.story import StoryResult

    _Spelled = tuple[int, dict[int, dict[str, Any]]]  # a row's index, and its values by spelling

log = logging.getLogger("enrich")

SLICE = 256  # rows rendered and looked up at once: about 3 ms of the event loop's time
SLICE_BYTES = 16 << 20  # bytes of them, where one row has no more
MOST_HELD = 64 << 20  # bytes of pictures that rows have with them, before others are begun
LOOKERS = 16  # pictures looked at at once
NEARLY_ALL = 0.9  # of a slice's rows: where so many are finished, the next ones are looked for together


class _Later(enum.Enum):
    """Stands for a reply that is still to come, or that is not to be had."""

    LATER = enum.auto()
    LEFT = enum.auto()


_LATER: Final = _Later.LATER
_LEFT: Final = _Later.LEFT


class Flow:
    """Takes rows through the steps and marks how each stands.

    Args:
        steps: in order.
        ledger: what is known.
        marks: where verdicts go.
        read: turns a raw reply into a completion or a failure.
        run: this run's number.
        engine: sends what is not known; None sends nothing and leaves such rows ``pending``.
        gates: where the requests of steps with limits of their own wait, by the step's name.
        occurrences: counts equal requests when each is to have an answer of its own (``dedupe: false``).
        retry: only rows of these statuses are asked (again).
        anew: only these rows are asked, of those that this flow has from its first row on; None: all of them.
        observe: without an engine: told of every request of a row by row, step and request, and whether a run
            would send it now.
        closed: told of every row that has its verdicts: its index and its status.
        troubles: counts failed rows by their cause, of several flows together.
        account: what became of the answers that were paid for, likewise.
        pins: hold answers to the models that steps are pinned to; None where none is.
        before: rows that other flows had before this one's, for the rows' numbers in ``troubles``.
        tolerant: whether to go on where every answer is unfit; else the run stops after the first `UNFIT_ROWS`.
    """

    def __init__(
        self,
        steps: list[Step],
        *,
        ledger: Ledger,
        marks: Marks,
        read: Callable[[Reply], Completion | Failure],
        run: int,
        engine: Engine | None,
        gates: Mapping[str, Gate] | None = None,
        occurrences: Occurrences | None = None,
        retry: frozenset[RowStatus] = frozenset(),
        anew: np.ndarray[Any, np.dtype[np.bool]] | None = None,
        observe: Callable[[int, int, Ask, bool], None] | None = None,
        closed: Callable[[int, RowStatus], None] | None = None,
        troubles: Troubles | None = None,
        account: Account | None = None,
        pins: Pins | None = None,
        before: int = 0,
        tolerant: bool = False,
    ) -> None:
        self._steps = steps
        self._spellings = {step.builder.step.prompt_text for step in steps}
        self._ledger = ledger
        self._read = read
        self._run = run
        self._engine = engine
        self._retry = retry
        self._anew = anew
        self._observe = observe
        self._pins = pins or None
        self._closed = closed
        self._revived: deque[tuple[RowOnItsWay, Query | Look]] = deque()
        self._held = 0
        self._lookers: ThreadPoolExecutor | None = None
        self._open = 0
        self._counted: Settled | None = None
        self._noted: set[str] = set()
        plain = are_plain(steps) and occurrences is None and anew is None
        self._finished = Finished(steps, ledger=ledger, read=read, run=run) if plain else None
        self._resumes = False
        self._were_finished = 0
        self._gates = gates or {}
        self.tally: Counter[RowStatus] = Counter()
        self.rows_done = 0
        self.rows_asked = 0
        self._troubles = troubles if troubles is not None else Troubles()
        self._account = account if account is not None else Account()
        self._stories = Stories(
            steps,
            marks=marks,
            occurrences=occurrences,
            troubles=self._troubles,
            account=self._account,
            before=before,
            stop=engine.stop if engine is not None and not tolerant else None,
            anew=anew,
        )

    async def run(self, batches: AsyncIterator[pa.RecordBatch], *, first_row: int = 0) -> None:
        """Take every row of these batches to its verdicts; no more are read than the engine looks ahead.

        Args:
            batches: the columns that the templates need.
            first_row: the index of the first row.

        Raises:
            RunStopped, RunInterrupted: the engine stopped; what is under way is left to `Engine.drain`.
        """
        await self.run_portions(_numbered(batches, first_row))

    async def run_portions(self, portions: AsyncIterator[Portion]) -> None:
        """Take rows in any order to their verdicts, likewise; those that go first are answered before the next are begun.

        Raises:
            RunStopped, RunInterrupted: as for `run`.
        """
        try:
            with self._feeding():
                async for batch, rows, first in portions:
                    size = _rows_at_once(batch)
                    for start in range(0, batch.num_rows, size):
                        await self._room()
                        await self._take(batch.slice(start, size), rows[start : start + size])
                    if first:
                        await self._answered()
            await self._answered()
            await self._hold_to_pins()
        finally:
            lookers, self._lookers = self._lookers, None  # another part of the rows may follow
            if lookers is not None:
                lookers.shutdown(wait=False, cancel_futures=True)

    async def _answered(self) -> None:
        """Wait until every row that was begun has its verdicts."""
        while self._open:
            await self._room(all_rows=True)

    def failure_codes(self) -> tuple[tuple[str, int], ...]:
        """Give why rows failed, and how many, the most frequent first; of all flows that count together."""
        return self._troubles.codes()

    def rows_by_step(self) -> Mapping[tuple[str, RowStatus], int]:
        """Give how many rows stand how at each step, likewise."""
        return self._account.rows

    @contextlib.contextmanager
    def _feeding(self) -> Iterator[None]:
        """Have the engine know that there are rows to come."""
        if self._engine is None:
            yield
            return
        self._engine.feeding(on=True)
        try:
            yield
        finally:
            self._engine.feeding(on=False)

    async def _room(self, *, all_rows: bool = False) -> None:
        """Take rows further that got an answer, until there is room for new ones."""
        engine = self._engine
        while engine is not None:
            await self._hold_to_pins()
            if engine.stopped is not None:
                raise engine.stopped
            if self._revived:
                revived, self._revived = list(self._revived), deque()
                await self._advance(revived)
            elif self._open if all_rows else self._is_full(engine):
                await engine.change()
            else:
                return

    async def _hold_to_pins(self) -> None:
        """Stop where another model answers than the one that a step is pinned to; pin the first one.

        Raises:
            ModelChanged: one does; what is under way is left to `Engine.drain`.
        """
        if self._pins is None or (changed := await self._pins.settle()) is None or self._engine is None:
            return
        self._engine.stop(changed)
        raise changed

    def _is_full(self, engine: Engine) -> bool:
        """Say whether rows enough are under way, by their number or by the bytes that they have with them."""
        return engine.under_way + self._at_gates > engine.look_ahead or self._held > MOST_HELD

    @property
    def _at_gates(self) -> int:
        return sum(gate.waiting for gate in self._gates.values())

    async def _take(self, part: pa.RecordBatch, indexes: Sequence[int]) -> None:
        """Take a slice of rows as far as the ledger knows them; those behind finished rows are looked for all together."""
        before = self._were_finished
        rows: Iterable[_Spelled] = zip(indexes, spellings(part, self._spellings), strict=True)
        if self._finished is not None and self._resumes:
            rows = await self._unfinished(self._finished, list(rows))
        await self._advance(list(self._opened(rows)))
        self._resumes = self._were_finished - before >= NEARLY_ALL * part.num_rows

    async def _unfinished(self, finished: Finished, rows: list[_Spelled]) -> list[_Spelled]:
        """Mark the rows that are finished; gives the others."""
        found = await finished.find([spelled for _, spelled in rows])
        left = []
        for (index, spelled), outcomes in zip(rows, found, strict=True):
            if outcomes is None:
                left.append((index, spelled))
                continue
            if self._observe is not None:
                for step, ask in enumerate(finished.asks(spelled)):
                    self._observe(index, step, ask, False)  # noqa: FBT003  # the signature of `observe`
            row = RowOnItsWay(index)
            self._open += 1
            self._stories.mark(row, outcomes)
            self._close(row)
        return left

    def _opened(self, rows: Iterable[_Spelled]) -> Iterator[tuple[RowOnItsWay, Query | Look]]:
        for index, spelled in rows:
            row = RowOnItsWay(index)
            row.story = self._stories.tell(row, spelled)
            self._open += 1
            query = self._tell(row, None)
            if query is not None:
                yield row, query

    def _tell(self, row: RowOnItsWay, reply: StoryResult) -> Query | Look | None:
        """Take a row's story on to its next question; None when it has ended."""
        try:
            return row.story.send(reply)
        except StopIteration:
            self._close(row)
            return None

    def _close(self, row: RowOnItsWay) -> None:
        self._open -= 1
        self._held -= row.held
        self.rows_done += 1
        self.rows_asked += row.asked
        self.tally[row.worst] += 1
        self._were_finished += row.worst == "ok" and not row.asked
        if self._closed is not None:
            self._closed(row.index, row.worst)

    def _leave(self, row: RowOnItsWay, query: Query) -> Query | Look | None:
        """Leave a step where it is: what it needs is not known and is not to be asked. Gives the row's next question."""
        try:
            return row.story.throw(NotAsked(None if self._is_let_be(row) else query.ask.key))
        except StopIteration:
            self._close(row)
            return None

    # --- many rows ------------------------------------------------------------------------------------

    async def _advance(self, rows: list[tuple[RowOnItsWay, Query | Look]]) -> None:
        """Answer questions from the ledger, round after round; what it does not know goes to the engine."""
        while rows:
            known, asking, waiting = await self._looked_up(await self._looked_at(rows))
            await self._meet(asking, known)
            questions = [
                q.ask.question for _, q in asking if q.want == "earlier" and q.ask.question is not None
            ]
            earlier = await self._ledger.lookup_question(questions) if questions else {}
            further: list[tuple[RowOnItsWay, Query | Look]] = []
            for row, query in asking:
                if query.want == "earlier":
                    records = earlier.get(query.ask.question or b"", [])
                    row.known = row.known or bool(records)
                    reply: QueryResult | Literal[_Later.LEFT] = [
                        settled_record(record, self._read, run=self._run) for record in records
                    ]
                else:
                    settled = await self._known(row, query, known.get(query.ask.key))
                    if settled is _LATER:
                        continue
                    reply = settled
                next_query = self._leave(row, query) if reply is _LEFT else self._tell(row, reply)
                if next_query is not None:
                    further.append((row, next_query))
            rows = [*waiting, *further]

    async def _looked_at(
        self, rows: list[tuple[RowOnItsWay, Query | Look]]
    ) -> list[tuple[RowOnItsWay, Query]]:
        """Look at the pictures that rows name, many at once; gives the questions of all rows, in their order."""
        while looks := [wants for _, wants in rows if isinstance(wants, Look)]:
            self._lookers = self._lookers or ThreadPoolExecutor(LOOKERS, "pictures")
            loop = asyncio.get_running_loop()
            seen = iter(await asyncio.gather(*(loop.run_in_executor(self._lookers, look) for look in looks)))
            further: list[tuple[RowOnItsWay, Query | Look]] = []
            for row, wants in rows:
                if isinstance(wants, Look):
                    row.held += wants.held
                    self._held += wants.held
                    told = self._tell(row, next(seen))
                    if told is not None:
                        further.append((row, told))
                else:
                    further.append((row, wants))
            rows = further
        return [(row, wants) for row, wants in rows if not isinstance(wants, Look)]

    async def _looked_up(
        self, asking: list[tuple[RowOnItsWay, Query]]
    ) -> tuple[dict[bytes, Record], list[tuple[RowOnItsWay, Query]], list[tuple[RowOnItsWay, Query]]]:
        """Look up what rows ask for, as much at once as memory allows; gives those it was done for, and the others."""
        keys = list(
            dict.fromkeys(query.ask.key for _, query in asking if query.want != "earlier")
        )  # in the rows' order
        if not keys:
            return {}, asking, []
        known, left = await self._ledger.lookup_some(keys)
        if not left:
            return known, asking, []
        later = set(left)
        now: list[tuple[RowOnItsWay, Query]] = []
        waiting: list[tuple[RowOnItsWay, Query]] = []
        for row, query in asking:
            (waiting if query.want != "earlier" and query.ask.key in later else now).append((row, query))
        return known, now, waiting

    async def _meet(self, asking: list[tuple[RowOnItsWay, Query]], known: dict[bytes, Record]) -> None:
        """Hold what the ledger knows to the pins before anything more is asked."""
        if self._pins is None:
            return
        for row, query in asking:
            record = known.get(query.ask.key)
            if record is not None and record.reply is not None:
                self._pins.meet(self._steps[row.step].name, settled_record(record, self._read))
        await self._hold_to_pins()

    async def _known(self, row: RowOnItsWay, query: Query, record: Record | None) -> Settled | _Later | None:
        """Say how a request ended; None when that is not known and was only wondered about."""
        if record is None:
            return None if query.want == "known" else await self._ask(row, query)
        row.known = True
        self._note(row, query, left=False)
        settled = settled_record(record, self._read, run=self._run)
        unreadable = settled.result if record.state == "answered" and settled.in_doubt else None
        is_open = record.state == "sent" and not (record.skipped or record.in_doubt)
        if query.want == "known":
            return replace(settled, open=is_open or unreadable is not None)
        if isinstance(unreadable, Failure) and record.reply is not None and self._engine is not None:
            await self._ledger.reject(record.key, unreadable, final=False, answer=record.reply.body)
        if is_open or (unreadable is not None and (self._engine is not None or self._observe is not None)):
            return await self._ask(row, query)
        failed = record.state == "failed" and record.run != self._run
        if failed and self._may_resend(row, settled, again=query.again):
            return await self._ask(row, query, resend=True)
        return settled

    def _may_resend(self, row: RowOnItsWay, settled: Settled, *, again: bool) -> bool:
        """Say whether a request that failed in an earlier run is asked again in this one."""
        if (self._engine is None and self._observe is None) or settled.skipped or self._is_let_be(row):
            return False
        if self._retry and again:
            return "error" in self._retry
        return isinstance(settled.result, Failure) and may_retry(settled.result)

    async def _ask(self, row: RowOnItsWay, query: Query, *, resend: bool = False) -> _Later:
        """Have a request sent; the row goes on when it is answered. Where nothing may be sent, leave the row."""
        if self._is_let_be(row) and not row.known:
            return _LEFT
        if self._engine is None or (self._retry and not (row.known or row.asked)):
            self._note(row, query, left=True)
            return _LEFT
        row.asked = True
        step = self._steps[row.step]
        self._account.sending(step.builder, query.ask)
        if step.conversation.strayed and step.name not in self._noted:
            self._noted.add(step.name)
            await self._ledger.remember(strayed_name(step.builder.fingerprint), {"strayed": True})
        if query.corrects and f"{step.name}:corrects" not in self._noted:
            self._noted.add(f"{step.name}:corrects")
            log.warning(
                "step `%s`: answers of earlier runs that do not hold, as they are read now, are asked for again "
                "(`reask: 0` leaves them)",
                step.name,
            )
        submit = partial(
            self._engine.submit,
            query.ask,
            stream=step.builder.step.stream,
            fallback=_keeps if query.fallback is not None and row.known else query.fallback,
            resend=resend,
            max_tokens=query.max_tokens,
            own_model=query.own_model,
            began=row.began,
        )
        done = partial(self._settled, row)
        if step.name in self._gates:
            self._gates[step.name].enter(submit, done, first=row.began is not None)
        else:
            submit(done=done)
        return _LATER

    def _is_let_be(self, row: RowOnItsWay) -> bool:
        """Say whether a row is not one of those that are asked."""
        return self._anew is not None and not self._anew[row.index]

    def _note(self, row: RowOnItsWay, query: Query, *, left: bool) -> None:
        if self._observe is not None:
            self._observe(row.index, row.step, query.ask, left)

    def _settled(self, row: RowOnItsWay, settled: Settled) -> bool:
        """Take a row on that got its answer; says whether it asks something else for the same step."""
        row.known = True
        row.began = row.began or settled.began
        self._count(row, settled)
        if self._pins is not None:
            self._pins.meet(self._steps[row.step].name, settled)
        step = row.step
        query = self._tell(row, settled)
        if query is None:
            return False
        self._revived.append((row, query))
        return row.step == step

    def _count(self, row: RowOnItsWay, settled: Settled) -> None:
        """Put an answer that the engine paid for down to the first of the rows that asked for it."""
        is_first = settled is not self._counted
        if isinstance(settled.result, Completion) and settled.began is not None and is_first:
            self._counted = settled
            row.paid.append(settled)


def _rows_at_once(batch: pa.RecordBatch) -> int:
    """Say how many rows are rendered at once: fewer where they are large, as with pictures in them."""
    return max(1, min(SLICE, SLICE_BYTES * batch.num_rows // max(1, batch.nbytes)))


def _keeps() -> bool:
    """Say that a request is not passed over: it may be paid for already."""
    return False


async def _numbered(batches: AsyncIterator[pa.RecordBatch], first: int) -> AsyncIterator[Portion]:
    """Give rows in the order they come in."""
    async for batch in batches:
        yield Portion(batch, range(first, first + batch.num_rows))
        first += batch.num_rows
