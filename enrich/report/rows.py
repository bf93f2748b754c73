"""Read a report's rows from the output: one pass over its columns, in memory that does not grow with it."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from enrich.config import InputConfig
from enrich.files.source import open_source
from enrich.report.facts import FailedRow, Rows, Sample, Spread, StepRows
from enrich.report.texts import ANSWER_CHARACTERS, VALUE_CHARACTERS, cut, split_error
from enrich.schema.choice import INDEX, written_names
from enrich.schema.schema import step_schema
from enrich.wire.finish import ending

if TYPE_CHECKING:
    from enrich.config import Config, StepConfig

SAMPLES = 100  # questions and answers shown, spread evenly over the rows
COSTLIEST = 10  # rows shown
MAX_FAILURES = 300  # rows shown
MAX_FAILURES_PER_CODE = 50  # so that a common failure does not hide a rare one
LONGEST_LABEL = 10_000  # bytes of a value; a column with longer ones is no label
MAX_DISTINCT = 50  # values of a column; one with more is no label
GOOD = ("ok", "skipped", "pending")
RECORDED = (
    "status",
    "error",
    "model",
    "request_id",
    "finish_reason",
    "total_tokens",
    "credits",
    "attempts",
    "latency_ms",
    "source",
    "idempotency_key",
)


def read_rows(config: Config) -> Rows:
    """Read what an output's rows tell of each step.

    Args:
        config: the job that wrote it.

    Raises:
        InputError: the output cannot be read, or is not this job's.
    """
    source = open_source(InputConfig(path=config.output.path, format=config.output.format))
    chosen = _spread_evenly(source.num_rows, max(1, SAMPLES // len(config.steps)))
    steps = [_StepReader(step, chosen) for step in config.steps]
    failures = _Failures()
    row = 0
    index = [
        written_names(step, step_schema(step)).get(f"{step.name}_{INDEX}")
        for step in config.steps
        if step.explode
    ]
    needed = [*(name for step in steps for name in step.columns), *(name for name in index if name)]
    for read in source.batches(columns=needed):
        batch = _firsts(read, index[0]) if index and index[0] else read
        for step in steps:
            step.add(batch, row, failures)
        row += batch.num_rows
    costliest = heapq.nlargest(
        COSTLIEST, (s for step in steps for s in step.costliest), key=lambda sample: sample.credits or 0.0
    )
    return Rows(
        count=row,
        steps=tuple(step.facts() for step in steps),
        failure_codes=tuple(failures.codes.most_common(20)),
        failures=tuple(failures.rows),
        samples=tuple(
            sorted((s for step in steps for s in step.samples), key=lambda sample: sample.row or 0)
        ),
        costliest=tuple(costliest),
    )


def _firsts(batch: pa.RecordBatch, index: str) -> pa.RecordBatch:
    """Give one row for each of the input's: the first of those that were made of it."""
    first = pc.is_in(batch.column(index).cast(pa.string()), pa.array(["0", "", None], pa.string()))
    return batch.filter(first)


def _spread_evenly(rows: int, count: int) -> frozenset[int]:
    return (
        frozenset(number * rows // count for number in range(count))
        if rows > count
        else frozenset(range(rows))
    )


class _Failures:
    """Counts failed rows per code, and keeps some of each."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.rows: list[FailedRow] = []

    def wants(self, code: str) -> bool:
        """Count one, and say whether it is to be shown."""
        self.codes[code] += 1
        return self.codes[code] <= MAX_FAILURES_PER_CODE and len(self.rows) < MAX_FAILURES


class _StepReader:
    """Adds up one step's columns."""

    def __init__(self, step: StepConfig, chosen: frozenset[int]) -> None:
        schema = step_schema(step)
        self._name = step.name
        values = [f"{step.name}_{field.name}" for field in schema.fields] if schema is not None else []
        written = written_names(step, schema)
        known = [step.name, *values, *(f"{step.name}_{suffix}" for suffix in RECORDED)]
        self._written = {name: written[name] for name in known if name in written}
        self._values = [name for name in values if name in written]
        self.columns = [*self._written.values()]
        self._chosen = chosen
        self._statuses: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._finish: Counter[str] = Counter()
        self._credits = 0.0
        labels = self._values or [name for name in [step.name] if name in written]
        self._labels = [_Labels(column) for column in labels]
        self.samples: list[Sample] = []
        self.costliest: list[Sample] = []

    def add(self, batch: pa.RecordBatch, first: int, failures: _Failures) -> None:
        """Add the rows of one batch, whose first row has this number."""
        batch = self._as_usual(batch)
        part = _StepColumns(batch, self._name)
        _count(self._statuses, part.text("status"))
        _count(self._sources, part.text("source"))
        credits_ = part.numbers("credits")
        self._credits += pc.sum(credits_).as_py() or 0.0
        good: Any = pc.equal(part.text("status"), pa.scalar("ok"))
        asked: Any = pc.and_(good, pc.not_equal(part.text("source"), pa.scalar("copy")))
        self._count_unknown_finish(part.text("finish_reason").filter(good))
        for labels in self._labels:
            labels.add(batch.column(labels.column).filter(asked))
        self._add_failures(part, first, failures)
        last = first + batch.num_rows
        self.samples += [
            self._sample(part, row - first, first) for row in sorted(self._chosen) if first <= row < last
        ]
        dearest = pc.select_k_unstable(credits_, COSTLIEST, [("", "descending")]).to_pylist()
        self.costliest += [self._sample(part, index, first) for index in dearest if credits_[index].as_py()]
        self.costliest = heapq.nlargest(COSTLIEST, self.costliest, key=lambda sample: sample.credits or 0.0)

    def _count_unknown_finish(self, reasons: Any) -> None:
        here: Counter[str] = Counter()
        _count(here, reasons)
        for reason, rows in here.items():
            if ending(reason) == "unknown" and (reason in self._finish or len(self._finish) < MAX_DISTINCT):
                self._finish[reason] += rows

    def _as_usual(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Give the columns that the step wrote under their usual names, and nulls for those that it did not."""
        usual = {name: batch.column(written) for name, written in self._written.items()}
        for name in (self._name, *(f"{self._name}_{suffix}" for suffix in RECORDED)):
            usual.setdefault(name, pa.nulls(batch.num_rows))
        return pa.RecordBatch.from_arrays([*usual.values()], names=[*usual])

    def _add_failures(self, part: _StepColumns, first: int, failures: _Failures) -> None:
        bad = pc.invert(pc.is_in(part.text("status"), pa.array(GOOD)))
        for index in pc.indices_nonzero(bad).to_pylist():
            status, error = part.cell("status", index), part.cell("error", index) or ""
            code, message = split_error(error)
            if failures.wants(code or status):
                request_id = part.cell("request_id", index) or ""
                failures.rows.append(
                    FailedRow(
                        first + index + 1,
                        self._name,
                        status,
                        code or status,
                        cut(message, 300),
                        request_id,
                        int(part.cell("attempts", index) or 0),
                    )
                )

    def _sample(self, part: _StepColumns, index: int, first: int) -> Sample:
        tokens, credits_, took = (
            part.cell(name, index) for name in ("total_tokens", "credits", "latency_ms")
        )
        key = part.cell("idempotency_key", index)
        values = ((name, part.batch.column(name)[index].as_py()) for name in self._values)
        return Sample(
            row=first + index + 1,
            step=self._name,
            status=part.cell("status", index),
            model=part.cell("model", index) or "",
            key=bytes.fromhex(key.replace("-", "")) if key else None,
            request_id=part.cell("request_id", index) or "",
            tokens=None if tokens is None else int(tokens),
            credits=None if credits_ is None else float(credits_),
            latency_ms=None if took is None else float(took),
            answer=cut(str(part.batch.column(self._name)[index].as_py() or ""), ANSWER_CHARACTERS),
            parsed=tuple(
                (name, cut(str(value), VALUE_CHARACTERS)) for name, value in values if value is not None
            ),
        )

    def facts(self) -> StepRows:
        """Give what was added up."""
        return StepRows(
            self._name,
            tuple(self._statuses.most_common()),
            tuple(self._sources.most_common()),
            round(self._credits, 9),
            tuple(labels.spread() for labels in self._labels if labels.values),
            tuple(self._finish.most_common()),
        )


class _StepColumns:
    """One step's recorded columns in one batch. A text format gives them other types than Parquet."""

    def __init__(self, batch: pa.RecordBatch, step: str) -> None:
        self.batch = batch
        self._columns = {suffix: batch.column(f"{step}_{suffix}") for suffix in RECORDED}

    def text(self, suffix: str) -> Any:
        """Give a column as an Arrow array of strings."""
        return self._columns[suffix].cast(pa.string())

    def numbers(self, suffix: str) -> Any:
        """Give a column as an Arrow array of float64."""
        return self._columns[suffix].cast(pa.float64())

    def cell(self, suffix: str, index: int) -> Any:
        """Give one value."""
        return self._columns[suffix][index].as_py()


class _Labels:
    """Counts a column's values as long as they are few."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.values: Counter[str] | None = Counter()

    def add(self, array: pa.Array[Any]) -> None:
        """Count what is not null; gives up on nested columns and on the value that is one too many."""
        if self.values is None or pa.types.is_nested(array.type):
            self.values = None
            return
        texts: Any = array.cast(pa.string())
        longest: Any = pc.max(pc.binary_length(texts))
        if (longest.as_py() or 0) > LONGEST_LABEL:
            self.values = None
            return
        _count(self.values, texts)
        if len(self.values) > MAX_DISTINCT:
            self.values = None

    def spread(self) -> Spread:
        """Give the values, the commonest first."""
        values = self.values or Counter()
        return Spread(
            self.column,
            values.total(),
            tuple((cut(value, VALUE_CHARACTERS), count) for value, count in values.most_common()),
        )


def _count(counter: Counter[str], array: Any) -> None:
    counts: Any = pc.value_counts(array)
    for item in counts.to_pylist():
        if item["values"] is not None:
            counter[item["values"]] += item["counts"]
