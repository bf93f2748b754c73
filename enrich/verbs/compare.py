"""`compare`: two to five ways of asking one sample, side by side; each answer is kept for the run of the one that wins.

It is long because drawing, asking and scoring share the cohort, whose rows must be the same for every variant.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from enrich.base.words import counted
from enrich.errors import ConfigError, EnrichError, UsageError
from enrich.files.where import Where
from enrich.measure.comparison import (
    Cell,
    Comparison,
    Pair,
    Range,
    Variant,
    alpha_of_all,
    compared,
    gain,
    kinds_of,
)
from enrich.records import STATUSES
from enrich.report.gold import GoldColumn, GoldTable, shown_to_model, text_of
from enrich.report.texts import VALUE_CHARACTERS, cut
from enrich.runs.cohort import ask_cohort, draw, rows_of
from enrich.runs.example_rows import example_rows, has_examples
from enrich.runs.job import compile_job
from enrich.runs.prepare import look_at_folder, opened
from enrich.verbs.plan import plan_job
from enrich.verbs.trial import answer_of, labels_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import pyarrow as pa

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.records import Outcome
    from enrich.runs.job import Job
    from enrich.runs.options import RunOptions
    from enrich.runs.prepare import Opened
    from enrich.schema.choice import Column

    Rows = np.ndarray[Any, np.dtype[np.int64]]

MOST = 5  # variants
MOST_GIVEN = 6  # of a row's own columns shown
GRAVITY = {status: place for place, status in enumerate(("ok", "skipped"))}

log = logging.getLogger("enrich")


@dataclass(frozen=True, slots=True)
class Sample:
    """Which rows are asked.

    Attributes:
        size: how many; None: all of them.
        seed: of the draw.
        where: only rows of which this is true.
        by: a column by whose values the sample is stratified.
        name: under which the ledger keeps which rows they are; made of the other choices unless given.
    """

    size: int | None = 200
    seed: int = 0
    where: str | None = None
    by: str | None = None
    name: str | None = None


class Contender(NamedTuple):
    """One way of asking, as it was given.

    Attributes:
        name: short, and unlike the others.
        about: what tells it from the others, in words.
    """

    name: str
    about: str
    config: Config


class _Cohort(NamedTuple):
    name: str
    rows: Rows
    batch: pa.RecordBatch
    total: int
    digest: str
    left_out: int


async def compare_job(
    contenders: Sequence[Contender],
    options: RunOptions,
    sample: Sample,
    *,
    tolerance: float = 0.0,
    content: bool = True,
) -> Comparison:
    """Ask the same rows in several ways, and hold what came of it side by side.

    Every variant's answers are kept in its own ledger, under the keys that its run would ask with.

    Args:
        contenders: two to five; the first is what the others are held against.
        options: as for a run.
        sample: which rows.
        tolerance: up to which two numbers count as the same.
        content: whether rows and answers may be shown.

    Raises:
        UsageError: something is wrong with one of them that was found before anything was sent.
        RunStopped, RunInterrupted: the rows could not be asked to the end; what was answered is kept.
    """
    if not 2 <= len(contenders) <= MOST:
        raise ConfigError(
            f"there {'is' if len(contenders) == 1 else 'are'} {counted(len(contenders), 'variant')} to compare; it takes 2 to {MOST}",
            hint="name several configurations, or one and what to --set.",
        )
    cohort, fields = await _prepared(contenders, options, sample)
    variants: list[Variant] = []
    correct: list[dict[str, dict[int, bool]]] = []
    for contender in contenders:
        variant, right = await _asked(contender, options, cohort, fields, contenders[0].config)
        variants.append(variant)
        correct.append(right)
    kinds = kinds_of([variant.cells for variant in variants])
    pairs = tuple(
        _with_gains(compared(variants[a], variants[b], kinds, tolerance), correct[a], correct[b])
        for a in range(len(variants))
        for b in range(a + 1, len(variants))
    )
    return Comparison(
        cohort.name,
        _drawn(sample, cohort),
        tuple((cohort.rows + 1).tolist()),
        _given(cohort.batch, set(fields)),
        cohort.total,
        tolerance,
        kinds,
        tuple(variants),
        pairs,
        {name: alpha_of_all(variants, name, kind) for name, kind in kinds.items() if kind != "text"},
        content,
    )


def _drawn(sample: Sample, cohort: _Cohort) -> str:
    how = "all of them" if sample.size is None else f"drawn at random with seed {sample.seed}"
    of = f" where {sample.where}" if sample.where else ""
    strata = f", stratified by {sample.by}" if sample.by else ""
    left = (
        f"; {counted(cohort.left_out, 'row')} that a prompt shows as examples left out"
        if cohort.left_out
        else ""
    )
    return f"{len(cohort.rows):,} of {counted(cohort.total, 'row')}{of}, {how}{strata}{left}"


# --- before anything is sent ------------------------------------------------------------------------------


async def _prepared(
    contenders: Sequence[Contender], options: RunOptions, sample: Sample
) -> tuple[_Cohort, tuple[str, ...]]:
    """Find what is wrong with any variant, and the rows and columns that all are compared by."""
    cohort: _Cohort | None = None
    columns: list[list[str]] = []
    files: list[list[str]] = []
    for contender in contenders:
        async with _opened(contender.config, options) as begun:
            columns.append([column.field.name for _, column in _answers(begun.session.job)])
            files.append([file.told for file in begun.source.files])
            if said := shown_to_model(contender.config, begun.session.job.columns):
                log.warning("%s: %s", contender.name, said)
            if cohort is None:
                shown = await asyncio.to_thread(_shown, contenders, begun.source)
                cohort = await _cohort(begun, sample, shown)
    assert cohort is not None  # noqa: S101  # there are at least two
    for contender, read in zip(contenders, files, strict=True):
        if read != files[0]:
            raise UsageError(
                f"{contender.name} reads another input than {contenders[0].name}",
                hint="the same rows are compared.",
            )
    shared = tuple(name for name in columns[0] if all(name in other for other in columns))
    if not shared:
        raise UsageError(
            "the variants have no column of answers in common",
            hint="steps of the same name, with schemas that share a property, can be compared.",
        )
    return cohort, shared


@contextlib.asynccontextmanager
async def _opened(config: Config, options: RunOptions) -> AsyncIterator[Opened]:
    """Open a variant with all rows of its input; of a folder of outputs also those that are done."""
    folder = await look_at_folder(config, replace(options, fresh=True))
    async with opened(config, options, folder, send=True) as begun:
        yield begun


def _shown(contenders: Sequence[Contender], source: Source) -> Rows:
    """Find the rows that some variant's prompt shows as examples: their answers are no proof of it."""
    jobs = []
    for contender in contenders:
        with contextlib.suppress(EnrichError):  # what is wrong with it is told when it is opened
            if has_examples(contender.config):
                jobs.append(compile_job(contender.config, source.schema, key_needed=False))
    return example_rows(source, jobs)


async def _cohort(begun: Opened, sample: Sample, shown: Rows) -> _Cohort:
    """Draw the rows, or recall which were drawn under this name; what is shown as an example is not drawn."""
    source, ledger = begun.source, begun.session.ledger
    size = source.num_rows if sample.size is None else sample.size
    choices = [
        sorted(file.told for file in source.files),
        source.num_rows if sample.size is None else None,
    ]
    if len(shown):
        choices.append(shown.tolist())
    made = hashlib.sha256(repr([choices, size, sample.seed, sample.where, sample.by]).encode()).hexdigest()[
        :12
    ]
    name = sample.name or made
    known = await ledger.recall(f"cohort:{name}")
    if known is not None and max(known["rows"], default=-1) < source.num_rows:
        rows = np.asarray(known["rows"], dtype=np.int64)
        batch = await asyncio.to_thread(rows_of, source, rows, source.schema.names, written=False)
        if known["digest"] == _digest(batch):
            if among := int(np.isin(rows, shown).sum()):
                log.warning(
                    "%s of the cohort %s stand among a prompt's examples: the model is told their answers",
                    counted(among, "row"),
                    name,
                )
                return _Cohort(name, rows, batch, source.num_rows, known["digest"], 0)
            return _Cohort(name, rows, batch, source.num_rows, known["digest"], len(shown))
    if known is not None and sample.name is not None:
        raise UsageError(
            f"the rows of the cohort {name} are not what they were when it was drawn",
            hint="--cohort with another name draws anew.",
        )
    where = Where(sample.where, source.schema) if sample.where else None
    leave_out = shown if len(shown) else None
    rows = await asyncio.to_thread(
        draw, source, size, sample.seed, where=where, by=sample.by, leave_out=leave_out
    )
    if not len(rows):
        raise UsageError("there is no row to compare", hint="look at the input, --where and --limit.")
    batch = await asyncio.to_thread(rows_of, source, rows, source.schema.names, written=False)
    digest = _digest(batch)
    await ledger.remember(f"cohort:{name}", {"rows": rows.tolist(), "digest": digest})
    return _Cohort(name, rows, batch, source.num_rows, digest, len(shown))


def _refuse_other_rows(begun: Opened, cohort: _Cohort) -> None:
    """Keep a variant from being asked other rows than the first one, as a query without an order may give.

    Raises:
        UsageError: it would be.
    """
    names = cohort.batch.schema.names
    there = set(names) <= set(begun.source.schema.names) and cohort.rows[-1] < begun.source.num_rows
    if not there or _digest(rows_of(begun.source, cohort.rows, names, written=False)) != cohort.digest:
        raise UsageError(
            "the input's rows are not the same for every variant: it has changed meanwhile, or its query has no order",
            hint="ORDER BY a key in `input.sql`, and the same `input` in every configuration.",
        )


def _digest(batch: pa.RecordBatch) -> str:
    return hashlib.sha256(repr(batch.to_pylist()).encode(errors="surrogatepass")).hexdigest()


def _answers(job: Job) -> Iterator[tuple[int, Column]]:
    """Give the columns of answers that are compared, with the number of their step: a schema's fields, else the text."""
    for number, step in enumerate(job.steps):
        typed = any(column.is_value for column in step.columns)
        for column in step.columns:
            if column.is_value or (column.of == "text" and not typed):
                yield number, column


# --- one variant ------------------------------------------------------------------------------------------


async def _asked(
    contender: Contender, options: RunOptions, cohort: _Cohort, fields: Sequence[str], first: Config
) -> tuple[Variant, dict[str, dict[int, bool]]]:
    """Ask one variant, and say what came of it; with, per gold column, which places of the sample are right."""
    async with _opened(contender.config, options) as begun:
        job = begun.session.job
        await asyncio.to_thread(_refuse_other_rows, begun, cohort)
        found = await ask_cohort(
            begun, cohort.rows, f"{counted(len(cohort.rows), 'row')} asked for a comparison"
        )
    plan = await plan_job(contender.config, options, drawn=True)
    outcomes = found.outcomes
    answers = {column.field.name: (number, column) for number, column in _answers(job)}
    cells = {}
    for name in fields:
        number, column = answers[name]
        values = [answer_of(column, o) if o.status == "ok" else None for o in outcomes[number]]
        cells[name] = [Cell(value, text_of(value)) for value in values]
    worst = [max((o.status for o in row), key=_grave) for row in zip(*outcomes, strict=True)]
    asked = [o for step in outcomes for o in step if o.source not in (None, "copy")]
    latencies = [o.latency_ms for o in asked if o.latency_ms is not None]
    labels: dict[str, dict[str, int]] = {}
    for step, of in zip(job.steps, outcomes, strict=True):
        labels |= {name: counts for name, counts in labels_of(step.columns, of).items() if name in fields}
    columns, right = _scored(contender.config if contender.config.gold else first, cohort, answers, outcomes)
    price = plan.credits
    variant = Variant(
        contender.name,
        contender.about,
        {status: worst.count(status) for status in STATUSES if status in worst},
        [status == "ok" for status in worst],
        cells,
        labels,
        sum(o.credits or 0.0 for step in outcomes for o in step),
        (
            sum(o.prompt_tokens or 0 for step in outcomes for o in step),
            sum(o.completion_tokens or 0 for step in outcomes for o in step),
        ),
        _latency(latencies),
        found.summary.requests,
        found.summary.credits,
        plan.to_ask,
        None if price is None else Range(price.likely, price.low, price.high),
        tuple(column.score() for column in columns),
        found.summary.sandbox,
    )
    return variant, right


def _grave(status: str) -> int:
    return GRAVITY.get(status, len(GRAVITY))


def _latency(latencies: Sequence[float]) -> tuple[float, float] | None:
    if not latencies:
        return None
    p50, p95 = np.quantile(latencies, [0.5, 0.95])
    return round(float(p50), 3), round(float(p95), 3)


def _scored(
    config: Config,
    cohort: _Cohort,
    answers: dict[str, tuple[int, Column]],
    outcomes: Sequence[Sequence[Outcome]],
) -> tuple[list[GoldColumn], dict[str, dict[int, bool]]]:
    """Hold the sample's answers to the values given by hand, as far as the input or the further table has them."""
    gold = config.gold
    scored: list[GoldColumn] = []
    right: dict[str, dict[int, bool]] = {}
    if gold is None:
        return scored, right
    table = GoldTable(gold) if gold.file is not None else None
    rows = (cohort.rows + 1).tolist()
    for answer, name in gold.columns.items():
        if answer not in answers or (name if table is None else gold.key) not in cohort.batch.schema.names:
            continue
        number, column = answers[answer]
        if table is None:
            known = cohort.batch.column(name).to_pylist()
        else:
            known = table.of(cohort.batch.column(gold.key or ""), name)
        made = GoldColumn(answer, name, None, column.field.type, right={})
        usable = [outcome.status == "ok" for outcome in outcomes[number]]
        made.take(known, [answer_of(column, outcome) for outcome in outcomes[number]], usable, rows)
        scored.append(made)
        right[answer] = made.right or {}
    return scored, right


def _with_gains(pair: Pair, first: dict[str, dict[int, bool]], second: dict[str, dict[int, bool]]) -> Pair:
    """Add by how much the second is right more often than the first, of the rows in which both can be."""
    gains = {}
    for column, right in first.items():
        rows = sorted(set(right) & set(second.get(column, {})))
        gains[column] = gain([right[row] for row in rows], [second[column][row] for row in rows])
    return replace(pair, gains=gains)


def _given(batch: pa.RecordBatch, written: set[str]) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Give the rows' own columns that are shown, as text."""
    names = [name for name in batch.schema.names if name not in written][:MOST_GIVEN]
    lines = batch.select(names).to_pylist()
    return tuple(
        tuple(
            (name, cut(text_of(value), VALUE_CHARACTERS)) for name, value in line.items() if value is not None
        )
        for line in lines
    )
