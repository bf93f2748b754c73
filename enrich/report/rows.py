"""Read a report's rows from the output: one pass over its columns, in memory that does not grow with it."""

from __future__ import annotations

import heapq
from collections import Counter
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrich.config import InputConfig
from enrich.files.source import open_source
from enrich.report.changes import Changes
from enrich.report.facts import FailedRow, Rows, Sample, StepCost, StepRows
from enrich.report.samples import Samples
from enrich.report.texts import ANSWER_CHARACTERS, FAILED_CHARACTERS, VALUE_CHARACTERS, cut, split_error
from enrich.report.values import MAX_DISTINCT, Values, count_values
from enrich.schema.choice import INDEX, written_names
from enrich.schema.places import MODEL_CHANGED
from enrich.schema.schema import step_schema
from enrich.wire.finish import ending

if TYPE_CHECKING:
    from collections.abc import Iterable

    from enrich.config import Config, StepConfig

SAMPLES = 100  # questions and answers shown, spread evenly over the rows that were asked
COSTLIEST = 10  # rows shown
MAX_FAILURES = 300  # rows shown
MAX_FAILURES_PER_CODE = 50  # so that a common failure does not hide a rare one
MAX_GIVEN = 6  # of a row's own columns shown
MAX_MODELS = 50  # told of one step
GOOD = ("ok", "skipped", "pending")
NOT_ASKED = ("skipped", "pending")
RECORDED = (
    "status",
    "error",
    "model",
    "request_id",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "credits",
    "attempts",
    "latency_ms",
    "source",
    "idempotency_key",
    MODEL_CHANGED,
)


def read_rows(config: Config) -> Rows:
    """Read what an output's rows tell of each step.

    Args:
        config: the job that wrote it.

    Raises:
        InputError: the output cannot be read, or is not this job's.
    """
    source = open_source(InputConfig(path=config.output.path, format=config.output.format))
    steps = [_StepReader(step, max(1, SAMPLES // len(config.steps))) for step in config.steps]
    written = [name for step in steps for name in step.columns]
    given = _given(source.schema, frozenset(written))
    failures = _Failures()
    row = failed = skipped = 0
    index = [
        written_names(step, step_schema(step)).get(f"{step.name}_{INDEX}")
        for step in config.steps
        if step.explode
    ]
    exploded = [name for name in index if name]
    given = [name for name in given if name not in exploded]
    for read in source.batches(columns=[*written, *exploded, *given]):
        batch = firsts(read, exploded[0]) if exploded else read
        own = batch.select(given)
        standings = [step.add(batch, own, row, failures) for step in steps]
        row += batch.num_rows
        failed += _count_true(reduce(pc.or_, (bad for bad, _ in standings)))
        skipped += _count_true(reduce(pc.and_, (left_out for _, left_out in standings)))
    costliest = heapq.nlargest(
        COSTLIEST, (s for step in steps for s in step.costliest), key=lambda sample: sample.credits or 0.0
    )
    return Rows(
        count=row,
        steps=tuple(step.facts() for step in steps),
        failure_codes=tuple(failures.codes.most_common(20)),
        failures=tuple(failures.rows),
        samples=tuple(sorted((s for step in steps for s in step.samples()), key=lambda s: s.row or 0)),
        costliest=tuple(costliest),
        failed=failed,
        skipped=skipped,
    )


def firsts(batch: pa.RecordBatch, index: str) -> pa.RecordBatch:
    """Give one row for each of the input's: the first of those that were made of it."""
    first = pc.is_in(batch.column(index).cast(pa.string()), pa.array(["0", "", None], pa.string()))
    return batch.filter(first)


def _given(schema: pa.Schema, written: frozenset[str]) -> list[str]:
    """Name the row's own columns that are shown beside a question: the first ones that a reader can take in."""
    readable = [f.name for f in schema if not (pa.types.is_nested(f.type) or pa.types.is_binary(f.type))]
    return [name for name in readable if name not in written and readable.count(name) == 1][:MAX_GIVEN]


def _count_true(mask: Any) -> int:
    count: Any = pc.sum(mask)
    return count.as_py() or 0


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

    def __init__(self, step: StepConfig, samples: int) -> None:
        schema = step_schema(step)
        self._name = step.name
        values = [f"{step.name}_{field.name}" for field in schema.fields] if schema is not None else []
        written = written_names(step, schema)
        known = [step.name, *values, *(f"{step.name}_{suffix}" for suffix in RECORDED)]
        self._written = {name: written[name] for name in known if name in written}
        self._answers = [name for name in values if name in written]
        self.columns = [*self._written.values()]
        self._statuses: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._finish: Counter[str] = Counter()
        self._credits = 0.0
        self._costs: dict[str, list[float]] = {}
        self._values = [
            Values(column) for column in self._answers or [n for n in [step.name] if n in written]
        ]
        self._changes = Changes([values.column for values in self._values])
        self._samples = Samples(samples)
        self.costliest: list[Sample] = []

    def add(
        self, batch: pa.RecordBatch, own: pa.RecordBatch, first: int, failures: _Failures
    ) -> tuple[Any, Any]:
        """Add the rows of one batch, whose first row has this number; gives which failed, and which were skipped."""
        batch = self._as_usual(batch)
        part = _StepColumns(batch, self._name, own, first)
        status = part.text("status")
        count_values(self._statuses, status)
        count_values(self._sources, part.text("source"))
        credits_ = part.numbers("credits")
        self._credits += pc.sum(credits_).as_py() or 0.0
        good = self._good(status)
        alone = pc.fill_null(pc.not_equal(part.text("source"), pa.scalar("copy")), True)  # noqa: FBT003  # a value
        self._add_costs(part, alone)
        self._count_unknown_finish(part.text("finish_reason").filter(good))
        for values in self._values:
            values.add(batch.column(values.column).filter(good), _count_true(pc.and_(good, alone)))
        self._changes.add(batch, part.text(MODEL_CHANGED), part.text("model"), good)
        bad = pc.and_(status.is_valid(), pc.invert(pc.is_in(status, pa.array(GOOD))))
        self._add_failures(part, bad, failures)
        self._add_samples(part, good)
        dearest = pc.select_k_unstable(credits_, COSTLIEST, [("", "descending")]).to_pylist()
        self.costliest += [self._sample(part, index) for index in dearest if credits_[index].as_py()]
        self.costliest = heapq.nlargest(COSTLIEST, self.costliest, key=lambda sample: sample.credits or 0.0)
        return bad, pc.fill_null(pc.equal(status, pa.scalar("skipped")), False)  # noqa: FBT003  # a value

    def _good(self, status: Any) -> Any:
        """Say which rows have a usable answer; where no status was written, those that have any answer."""
        if f"{self._name}_status" in self._written:
            return pc.fill_null(pc.equal(status, pa.scalar("ok")), False)  # noqa: FBT003  # a value
        return pa.array(np.ones(len(status), np.bool_))

    def _count_unknown_finish(self, reasons: Any) -> None:
        here: Counter[str] = Counter()
        count_values(here, reasons)
        for reason, rows in here.items():
            if ending(reason) == "unknown" and (reason in self._finish or len(self._finish) < MAX_DISTINCT):
                self._finish[reason] += rows

    def _as_usual(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Give the columns that the step wrote under their usual names, and nulls for those that it did not."""
        usual = {name: batch.column(written) for name, written in self._written.items()}
        for name in (self._name, *(f"{self._name}_{suffix}" for suffix in RECORDED)):
            usual.setdefault(name, pa.nulls(batch.num_rows))
        return pa.RecordBatch.from_arrays([*usual.values()], names=[*usual])

    def _add_costs(self, part: _StepColumns, alone: Any) -> None:
        """Add up what each model's answers cost."""
        amounts = ("prompt_tokens", "completion_tokens", "credits")
        served: Any = pc.and_(alone, part.text("model").is_valid())
        columns = {"model": part.text("model"), **{name: part.numbers(name) for name in amounts}}
        table = pa.table(columns).filter(served).group_by("model")
        for line in table.aggregate([("model", "count"), *((name, "sum") for name in amounts)]).to_pylist():
            name = (
                line["model"] if line["model"] in self._costs or len(self._costs) < MAX_MODELS else "others"
            )
            sums = self._costs.setdefault(name, [0.0] * 4)
            for place, amount in enumerate(("model_count", *(f"{name}_sum" for name in amounts))):
                sums[place] += line[amount] or 0

    def _add_failures(self, part: _StepColumns, bad: Any, failures: _Failures) -> None:
        for index in pc.indices_nonzero(bad).to_pylist():
            status, error = part.cell("status", index), part.cell("error", index) or ""
            code, message = split_error(error)
            if failures.wants(code or status):
                failures.rows.append(
                    FailedRow(
                        part.row(index),
                        self._name,
                        status,
                        code or status,
                        cut(message, 300),
                        part.cell("request_id", index) or "",
                        int(part.cell("attempts", index) or 0),
                        part.key(index),
                        self._text(part, index, FAILED_CHARACTERS),
                    )
                )

    def _add_samples(self, part: _StepColumns, good: Any) -> None:
        told = [self._name, f"{self._name}_idempotency_key", *self._answers]
        seen = reduce(pc.or_, (part.batch.column(name).is_valid() for name in told))
        asked = pc.and_(seen, pc.invert(pc.is_in(part.text("status"), pa.array(NOT_ASKED))))
        for ordinal, index in self._samples.evenly(np.flatnonzero(asked.to_numpy(zero_copy_only=False))):
            self._samples.keep(ordinal, self._sample(part, index))
        for values in self._values:
            for index in self._samples.of_each(values, part.batch.column(values.column), good):
                self._samples.keep_label(self._sample(part, index))

    def _text(self, part: _StepColumns, index: int, most: int) -> str:
        return cut(str(part.batch.column(self._name)[index].as_py() or ""), most)

    def _sample(self, part: _StepColumns, index: int) -> Sample:
        tokens, credits_, took = (
            part.cell(name, index) for name in ("total_tokens", "credits", "latency_ms")
        )
        labels = [(v.column, v.label(part.batch.column(v.column)[index])) for v in self._values]
        return Sample(
            row=part.row(index),
            step=self._name,
            status=part.cell("status", index) or "",
            model=part.cell("model", index) or "",
            key=part.key(index),
            request_id=part.cell("request_id", index) or "",
            tokens=None if tokens is None else int(tokens),
            credits=None if credits_ is None else float(credits_),
            latency_ms=None if took is None else float(took),
            answer=self._text(part, index, ANSWER_CHARACTERS),
            parsed=_shown((name, part.batch.column(name)[index].as_py()) for name in self._answers),
            given=_shown((name, part.own.column(name)[index].as_py()) for name in part.own.schema.names),
            labels=tuple((column, label) for column, label in labels if label is not None),
        )

    def samples(self) -> list[Sample]:
        """Give the rows that are shown."""
        return self._samples.chosen(self._values)

    def facts(self) -> StepRows:
        """Give what was added up."""
        costs = sorted(self._costs.items(), key=lambda item: (-item[1][3], item[0]))
        return StepRows(
            self._name,
            tuple(self._statuses.most_common()),
            tuple(self._sources.most_common()),
            round(self._credits, 9),
            tuple(spread for values in self._values if (spread := values.spread()).total),
            tuple(self._finish.most_common()),
            tuple(
                StepCost(model, int(rows), int(prompt), int(completion), round(credits_, 9))
                for model, (rows, prompt, completion, credits_) in costs
            ),
            self._changes.facts(),
        )


def _shown(values: Iterable[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, cut(str(value), VALUE_CHARACTERS)) for name, value in values if value is not None)


class _StepColumns:
    """One step's recorded columns in one batch. A text format gives them other types than Parquet."""

    def __init__(self, batch: pa.RecordBatch, step: str, own: pa.RecordBatch, first: int) -> None:
        self.batch = batch
        self.own = own
        self._first = first
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

    def row(self, index: int) -> int:
        """Give a row's number in the output, from 1."""
        return self._first + index + 1

    def key(self, index: int) -> bytes | None:
        """Give the key of a row's request."""
        key = self.cell("idempotency_key", index)
        return bytes.fromhex(key.replace("-", "")) if key else None
