"""The output as a view: input × marks × ledger → record batches with the steps' columns, in input order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import pyarrow as pa

from enrich.columns import step_columns
from enrich.conversation import judge
from enrich.engine import settled_record
from enrich.records import Completion, Outcome, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from enrich.answer import AnswerReader
    from enrich.flow import Step
    from enrich.ledger.protocol import Ledger
    from enrich.marks import Marks
    from enrich.records import Failure, Record, Reply

ROWS = 2048  # rows assembled at once; bounds what one piece holds up an event loop
_NOTHING = Usage(0, 0, 0, 0.0)
_Number = TypeVar("_Number", int, float)


class Assembler:
    """Makes output batches from what the ledger holds; sends nothing.

    Args:
        steps: in order.
        schema: of the output, see `enrich.columns.output_schema`.
        marks: how each row stands.
        run: answers of this run have the source ``api``, older ones ``ledger``.
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
    ) -> None:
        self._steps = steps
        self._schema = schema
        self._ledger = ledger
        self._marks = marks
        self._read = read
        self._run = run

    async def batches(
        self, batches: AsyncIterator[pa.RecordBatch], *, first_row: int = 0
    ) -> AsyncIterator[pa.RecordBatch]:
        """Give the input's batches with the steps' columns behind them."""
        row = first_row
        async for batch in batches:
            for start in range(0, batch.num_rows, ROWS):
                part = batch.slice(start, ROWS)
                columns = [*part.columns, *await self.columns(row, part.num_rows)]
                yield pa.RecordBatch.from_arrays(columns, schema=self._schema)
                row += part.num_rows

    async def columns(self, row: int, count: int) -> list[pa.Array[Any]]:
        """Give the steps' columns for so many rows, from ``row`` on."""
        columns: list[pa.Array[Any]] = []
        for number, step in enumerate(self._steps):
            outcomes = await self.outcomes(number, step, row, count)
            columns += step_columns(step.builder.schema, outcomes)
        return columns

    async def outcomes(self, number: int, step: Step, row: int, count: int) -> list[Outcome]:
        """Give what so many rows, from ``row`` on, have to show for a step."""
        marks = self._marks.read(row, count, number)
        records = await self._ledger.lookup(list({mark.key for mark in marks if mark.key is not None}))
        chains = await self._earlier_turns(records)
        answered = {key: _Answered(record, chains.get(key, ())) for key, record in records.items()}
        return [
            Outcome(mark.status, mark.error)
            if mark.key is None
            else self._outcome(step.reader, answered[mark.key], copy=mark.copy)
            for mark in marks
        ]

    def _outcome(self, reader: AnswerReader, answered: _Answered, *, copy: bool) -> Outcome:
        record = answered.record
        settled = settled_record(record, self._read)
        verdict = judge(reader, settled)
        result = settled.result
        reply = record.reply
        if isinstance(result, Completion):
            usage = self._usage(result.usage, answered.earlier) if answered.earlier else result.usage
            own: Literal["api", "ledger"] = "api" if record.run == self._run else "ledger"
            return Outcome(
                verdict.status,
                verdict.error,
                verdict.text,
                verdict.values,
                model=result.model,
                request_id=reply.request_id if reply is not None else None,
                finish_reason=result.finish_reason,
                usage=_NOTHING if copy else usage,
                attempts=0 if copy else answered.attempts,
                latency_ms=reply.latency_ms if reply is not None else None,
                source="copy" if copy else own,
                key=record.key,
            )
        usage = self._usage(Usage(), answered.earlier) if answered.earlier else Usage()
        return Outcome(
            verdict.status,
            verdict.error,
            request_id=result.request_id,
            usage=_NOTHING if copy else usage,
            attempts=0 if copy else answered.attempts,
            key=record.key,
        )

    async def _earlier_turns(self, records: dict[bytes, Record]) -> dict[bytes, tuple[Record, ...]]:
        """Give, per record that follows another, the requests before it: a row's cost is that of all its turns."""
        chains: dict[bytes, tuple[Record, ...]] = {}
        asking = {key: record.parent for key, record in records.items() if record.parent is not None}
        while asking:
            known = await self._ledger.lookup(list({parent for parent in asking.values() if parent}))
            following: dict[bytes, bytes | None] = {}
            for key, parent in asking.items():
                record = known.get(parent or b"")
                if record is not None:
                    chains[key] = (*chains.get(key, ()), record)
                    following[key] = record.parent
            asking = {key: parent for key, parent in following.items() if parent is not None}
        return chains

    def _usage(self, last: Usage, earlier: Sequence[Record]) -> Usage:
        total = last
        for record in earlier:
            result = self._read(record.reply) if record.reply is not None else None
            if isinstance(result, Completion):
                total = _sum(total, result.usage)
        return total


class _Answered(NamedTuple):
    """A deciding request and the turns before it."""

    record: Record
    earlier: Sequence[Record]

    @property
    def attempts(self) -> int:
        """Give the requests sent for the row, over all its turns."""
        return self.record.attempts + sum(record.attempts for record in self.earlier)


def _sum(one: Usage, other: Usage) -> Usage:
    """Add two usages; what only one of them names counts."""
    return Usage(
        _add(one.prompt_tokens, other.prompt_tokens),
        _add(one.completion_tokens, other.completion_tokens),
        _add(one.total_tokens, other.total_tokens),
        _add(one.credits, other.credits),
    )


def _add(one: _Number | None, other: _Number | None) -> _Number | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
