"""The output as a view: input × marks × ledger → record batches with the steps' columns, in input order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from enrich.answer.columns import step_columns
from enrich.engine.engine import settled_record
from enrich.records import AMOUNTS, Completion, Outcome, Usage, UsageSum
from enrich.rows.explode import explosion_of
from enrich.rows.judged import judge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from enrich.answer.reader import AnswerReader
    from enrich.ledger.protocol import Ledger
    from enrich.records import Failure, Record, Reply
    from enrich.rows.pins import Pins
    from enrich.rows.statuses import Marks
    from enrich.rows.step import Step

ASSEMBLED_BYTES = 16 << 20  # of what rows have to show, assembled at once, or nearly
FIRST_ROWS = 64  # assembled at once before the size of answers is known
ROWS = 2048  # rows assembled at once; bounds what one piece holds up an event loop
_Number = TypeVar("_Number", int, float)


class Assembler:
    """Makes output batches from what the ledger holds; sends nothing.

    Args:
        steps: in order.
        schema: of the output, see `enrich.answer.columns.output_schema`.
        marks: how each row stands.
        run: answers of this run have the source ``api``, older ones ``ledger``.
        pins: say which answers another model gave than the one that steps are pinned to.

    Attributes:
        attempts: requests that were sent for the rows assembled so far.
        spent: what their answers cost.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        schema: pa.Schema,
        ledger: Ledger,
        marks: Marks,
        read: Callable[[Reply], Completion | Failure],
        run: int,
        pins: Pins | None = None,
    ) -> None:
        self._pins = pins
        self._steps = steps
        self._explosion = explosion_of(steps)
        self._schema = schema
        self._ledger = ledger
        self._marks = marks
        self._read = read
        self._run = run
        self.attempts = 0
        self.spent = UsageSum()
        self._usual = ASSEMBLED_BYTES // FIRST_ROWS  # bytes of an outcome that is only in the ledger; learned

    async def batches(
        self, batches: AsyncIterator[pa.RecordBatch], *, first_row: int = 0
    ) -> AsyncIterator[pa.RecordBatch]:
        """Give the input's batches with the steps' columns behind them; of one that explodes, a row for each element."""
        async for _, batch in self.numbered(batches, first_row=first_row):
            yield batch

    async def numbered(
        self, batches: AsyncIterator[pa.RecordBatch], *, first_row: int = 0
    ) -> AsyncIterator[tuple[np.ndarray[Any, np.dtype[np.int64]], pa.RecordBatch]]:
        """Do what `batches` does, and give with each row of the output that of the input which it is made of."""
        row = first_row
        async for batch in batches:
            start = 0
            while start < batch.num_rows:
                part = batch.slice(start, self.piece(row, batch.num_rows - start))
                columns = [*part.columns, *await self.columns(row, part.num_rows)]
                if self._explosion is None:
                    yield (
                        np.arange(row, row + part.num_rows),
                        pa.RecordBatch.from_arrays(columns, schema=self._schema),
                    )
                else:
                    whole = pa.RecordBatch.from_arrays(columns, names=self._schema.names)
                    for places, made in self._explosion.pieces(whole, self._schema):
                        yield row + places, made
                row += part.num_rows
                start += part.num_rows

    def piece(self, row: int, count: int) -> int:
        """Say how many of so many rows, from ``row`` on, are assembled at once: as memory allows."""
        return self._marks.piece(row, min(count, ROWS), most=ASSEMBLED_BYTES, usual=self._usual)

    async def columns(self, row: int, count: int) -> list[pa.Array[Any]]:
        """Give the steps' columns for so many rows, from ``row`` on."""
        columns: list[pa.Array[Any]] = []
        for number, step in enumerate(self._steps):
            outcomes = await self.outcomes(number, step, row, count)
            for outcome in outcomes:
                self.attempts += outcome.attempts
                self.spent.add(outcome)
            columns += step_columns(step.columns, step.builder.schema, outcomes)
        return columns

    async def outcomes(self, number: int, step: Step, row: int, count: int) -> list[Outcome]:
        """Give what so many rows, from ``row`` on, have to show for a step."""
        keys, kept, copies = self._marks.read(row, count, number)
        missing = {
            key for key, outcome in zip(keys, kept, strict=True) if key is not None and outcome is None
        }
        looked_up = await self._looked_up(step.reader, list(missing)) if missing else {}
        outcomes = [
            looked_up[key or b""] if outcome is None else outcome
            for key, outcome in zip(keys, kept, strict=True)
        ]
        if any(outcome.follows is not None or outcome.besides is not None for outcome in outcomes):
            outcomes = await self._with_earlier_turns(outcomes)
        if self._pins:
            outcomes = await self._pins.marked(step.name, outcomes)
        if any(copies):
            outcomes = [
                _copy(outcome) if is_copy else outcome
                for outcome, is_copy in zip(outcomes, copies, strict=True)
            ]
        return outcomes

    async def _looked_up(self, reader: AnswerReader, keys: list[bytes]) -> dict[bytes, Outcome]:
        outcomes: dict[bytes, Outcome] = {}
        size = 0
        while keys:
            records, keys = await self._ledger.lookup_some(keys)
            for key, record in records.items():
                size += len(record.reply.body) if record.reply is not None else 0
                outcomes[key] = judge(reader, settled_record(record, self._read, run=self._run))
        self._usual = max(self._usual // 8, size // max(1, len(outcomes))) + 1
        return outcomes

    async def _with_earlier_turns(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Add what the row's other requests cost: a row's cost is that of all its turns, and of all models it was told by."""
        follows: dict[_Chain, bytes] = {chain: begin for o in outcomes for chain, begin in _chains(o)}
        earlier = await self._earlier_turns(follows)
        return [
            _sum(o, [turn for chain, _ in _chains(o) for turn in earlier.get(chain, ())]) for o in outcomes
        ]

    async def _earlier_turns(self, follows: dict[_Chain, bytes]) -> dict[_Chain, list[_EarlierCost]]:
        """Give, per chain of requests, what the one it begins with and those before it cost."""
        chains: dict[_Chain, list[_EarlierCost]] = {}
        while follows:
            known = await self._known_turns(list(set(follows.values())))
            following: dict[_Chain, bytes] = {}
            for chain, parent in follows.items():
                if parent in known:
                    turn, before = known[parent]
                    chains.setdefault(chain, []).append(turn)
                    if before is not None:
                        following[chain] = before
            follows = following
        return chains

    async def _known_turns(self, keys: list[bytes]) -> dict[bytes, tuple[_EarlierCost, bytes | None]]:
        """Give what requests cost, and which ones they follow."""
        turns: dict[bytes, tuple[_EarlierCost, bytes | None]] = {}
        while keys:
            records, keys = await self._ledger.lookup_some(keys)
            turns.update((key, (self._turn(record), record.parent)) for key, record in records.items())
        return turns

    def _turn(self, record: Record) -> _EarlierCost:
        result = self._read(record.reply) if record.reply is not None else None
        return _EarlierCost(record.attempts, result.usage if isinstance(result, Completion) else Usage())


_Chain = tuple[bytes, bytes]  # the request that decides, and the one that the chain begins with


def _chains(outcome: Outcome) -> list[tuple[_Chain, bytes]]:
    """Give the chains of requests that a row's cost is made of beside the deciding one."""
    if outcome.key is None:
        return []
    begins = [*([outcome.follows] if outcome.follows is not None else []), *(outcome.besides or ())]
    return [((outcome.key, begin), begin) for begin in begins]


class _EarlierCost(NamedTuple):
    """What one request before the deciding one cost."""

    attempts: int
    usage: Usage


def _copy(outcome: Outcome) -> Outcome:
    """Give what a row has to show whose request is an earlier row's: the cost stands there."""
    source: Literal["copy"] | None = "copy" if outcome.source is not None else None
    return outcome._replace(
        prompt_tokens=0,
        completion_tokens=0,
        total_tokens=0,
        cached_tokens=_nothing(outcome.cached_tokens),
        reasoning_tokens=_nothing(outcome.reasoning_tokens),
        credits=0.0,
        credits_usd=_nothing(outcome.credits_usd),
        attempts=0,
        source=source,
    )


def _nothing(amount: _Number | None) -> _Number | None:
    """Give no amount, where one is told of at all."""
    return None if amount is None else amount - amount


def _sum(outcome: Outcome, earlier: Sequence[_EarlierCost]) -> Outcome:
    """Add what earlier turns cost; what only some of them name counts."""
    for attempts, usage in earlier:
        costs: dict[str, Any] = {name: _add(getattr(outcome, name), getattr(usage, name)) for name in AMOUNTS}
        outcome = outcome._replace(attempts=outcome.attempts + attempts, **costs)
    return outcome


def _add(one: _Number | None, other: _Number | None) -> _Number | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
