"""`review`: rows go to a sheet for people to label, and what comes back says how far the whole table can be trusted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from enrich.base.texts import json_bytes
from enrich.base.words import counted
from enrich.config import InputConfig, OutputConfig, Place, refuse_target
from enrich.errors import ConfigError, InputError, UsageError, did_you_mean
from enrich.files import storage
from enrich.files.sink import destination, open_sink, preflight
from enrich.files.source import open_source
from enrich.ledger.opening import open_ledger, require_ledger
from enrich.measure.corrected import Corrected, Stratum, accuracy, corrected_counts, needed
from enrich.measure.scores import DIGITS, NULL, Figure, normalised
from enrich.prompt.cells import spellings
from enrich.report.gold import MOST_LABELS, owners_of, text_of
from enrich.runs.job import compile_job
from enrich.verbs.cohort import rows_of, stratified

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from enrich.config import Config, StepConfig
    from enrich.files.source import Source
    from enrich.ledger.protocol import Ledger
    from enrich.report.gold import Owner

By = Literal["label", "confidence", "status"]
ROW = "review_row"  # the sheet's column with a row's number in the output, from 1
SUFFIX = "_review"  # behind the name of the answers' column: the sheet's column for what a person says
LEAST = 5  # rows of each stratum, while there is room
METHOD = "prediction-powered inference, stratified (Angelopoulos et al., Science 382, 2023)"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet that was written.

    Attributes:
        strata: rows drawn per stratum.
        known: rows drawn that have a label from before, which stands in the sheet.
    """

    path: str
    column: str
    rows: int
    strata: dict[str, int]
    known: int

    def text(self) -> str:
        """Say it for people."""
        parts = ", ".join(f"{count:,} {name}" for name, count in self.strata.items())
        known = f"; {self.known:,} of them are labelled already" if self.known else ""
        return f"{counted(self.rows, 'row')} to review ({parts}){known}: fill in `{self.column}{SUFFIX}`, then --read {self.path}"

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "sheet": self.path,
            "column": self.column,
            "rows": self.rows,
            "strata": self.strata,
            "known": self.known,
        }


@dataclass(frozen=True, slots=True)
class Review:
    """What the labelled rows say.

    Attributes:
        n: rows that were labelled, of those drawn.
        total: rows that they stand for.
        margin: the half width of the accuracy's interval that was asked for.
        needed: rows that would give it, as far as these tell; None where there is no interval.
        counts: of each label over the whole table; empty of a column that has too many different answers.
    """

    column: str
    n: int
    drawn: int
    total: int
    accuracy: Figure
    margin: float
    needed: int | None
    counts: tuple[Corrected, ...]

    @property
    def enough(self) -> bool:
        """Say whether the accuracy is known as closely as was asked for."""
        return self.needed is not None and self.needed <= self.n

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "column": self.column,
            "n": self.n,
            "drawn": self.drawn,
            "rows": self.total,
            **self.accuracy.to_dict("accuracy"),
            "margin": self.margin,
            "enough": self.enough,
            "needed": self.needed,
            "method": METHOD,
            "counts": {
                one.label: {
                    "answered": one.answered,
                    "corrected": None if one.count is None else round(one.count, DIGITS),
                    "corrected_ci": None
                    if one.interval is None
                    else [round(end, DIGITS) for end in one.interval],
                }
                for one in self.counts
            },
        }

    def text(self) -> str:
        """Say it for people."""
        lines = [
            f"{self.n:,} of {counted(self.drawn, 'drawn row')} labelled, for {counted(self.total, 'row')}"
        ]
        if self.accuracy.value is None or self.accuracy.interval is None:
            return "\n".join(
                [
                    *lines,
                    "label a row of each stratum at least: of one that nobody looked at nothing is known",
                ]
            )
        low, high = self.accuracy.interval
        lines.append(f"{self.column}: accuracy {self.accuracy.value:.3g} ({low:.3g} to {high:.3g})")
        if not self.enough:
            lines.append(
                f"too few for an accuracy within ±{self.margin:g}: about {self.needed:,} rows would tell"
            )
        for one in self.counts:
            if one.count is not None and one.interval is not None:
                ends = f"{one.interval[0]:,.0f} to {one.interval[1]:,.0f}"
                lines.append(f"  {one.label}: {one.answered:,} answered, {one.count:,.0f} corrected ({ends})")
        return "\n".join([*lines, f"by {METHOD}"])


@dataclass(slots=True)
class _Kept:
    """What the ledger keeps of the review of one column.

    Attributes:
        rows: the indices that were drawn, of the output.
        of: the stratum of each.
        answers: of each, as text.
        strata: rows and answers of each stratum, over the whole output.
        labels: by row, what people said; also of rows that an earlier sheet had.
        counted: whether the answers are labels, that can be counted.
    """

    rows: list[int] = field(default_factory=list)
    of: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    strata: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    counted: bool = True

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _Kept.__slots__}


# --- out to the sheet -------------------------------------------------------------------------------------


async def draw_sheet(
    config: Config,
    path: str,
    *,
    size: int = 100,
    seed: int = 0,
    by: By = "label",
    column: str | None = None,
    show: bool = False,
) -> Sheet:
    """Draw rows of the output in strata, and write them to a sheet with an empty column for what people say.

    Args:
        config: the job, whose output is there.
        path: of the sheet: .csv, .xlsx, or another format of outputs.
        size: how many rows.
        seed: of the draw.
        by: what the strata are made of: the answers, their confidence in quarters, or the rows' status.
        column: of the answers that are reviewed; the first one by default.
        show: whether the sheet has the answers. Who sees them agrees with them too readily.

    Raises:
        UsageError: there is no output or no ledger, or it has no such column.
        OutputError: the sheet cannot be written.
    """
    location = config.ledger_location()
    require_ledger(location)
    place = destination(path)
    refuse_target(Place("the sheet", place), config, location)
    name, owner = _reviewed(config, column)
    source = await asyncio.to_thread(
        open_source, InputConfig(path=config.output.path, format=config.output.format)
    )
    kept = await asyncio.to_thread(_drawn, source, name, owner, size=size, seed=seed, by=by)
    async with _ledger(location) as ledger:
        before = await _recalled(ledger, config, name)
        kept.labels = before.labels if before is not None else {}
        table = await asyncio.to_thread(_sheet, config, source, kept, name, show=show)
        await asyncio.to_thread(_write, place, table)
        await ledger.remember(_key(config, name), kept.to_dict())
    known = sum(str(row) in kept.labels for row in kept.rows)
    return Sheet(place, name, len(kept.rows), dict(Counter(kept.of)), known)


def _reviewed(config: Config, column: str | None) -> tuple[str, Owner]:
    """Give the column that is reviewed, and whose it is.

    Raises:
        ConfigError: there is none of this name, or it has many rows of one.
    """
    owners = owners_of(config)
    texts = {step.name for step in config.steps}
    name = column or next((name for name in owners if name not in texts), next(iter(owners), None))
    if name is None or name not in owners:
        raise ConfigError(
            f"--column {name}: the output has no such column of answers",
            hint=did_you_mean(str(name), [*owners]),
        )
    if owners[name].explodes:
        raise ConfigError(
            f"`{name}` belongs to a step that makes many rows of one", hint="review a column of another step."
        )
    return name, owners[name]


def _drawn(source: Source, name: str, owner: Owner, *, size: int, seed: int, by: By) -> _Kept:
    wanted = {"label": None, "confidence": owner.confidence, "status": owner.status}[by]
    if name not in source.schema.names or (by != "label" and wanted not in source.schema.names):
        what = name if name not in source.schema.names else f"{by} of `{name}`"
        raise UsageError(
            f"the output has no column with the {what}",
            hint="run the job; a step's `columns` says what is written, `logprobs` in `params` brings the confidence.",
        )
    columns = [
        c for c in dict.fromkeys([name, owner.status, wanted]) if c is not None and c in source.schema.names
    ]
    table = pa.Table.from_batches([*source.batches(columns=columns)])
    answers = [text_of(value) for value in table[name].to_pylist()]
    status = table[owner.status].to_pylist() if owner.status in columns else None
    ok = [s == "ok" for s in status] if status is not None else [answer != NULL for answer in answers]
    few = len({answer for answer, good in zip(answers, ok, strict=True) if good}) <= MOST_LABELS
    if by == "label":
        strata = answers if few else ["all"] * len(answers)
    elif by == "status":
        strata, ok = [str(value) for value in status or ()], [True] * len(answers)
    else:
        strata = _quarters(table[str(wanted)].to_pylist(), ok)
    eligible = np.flatnonzero(ok)
    if not len(eligible):
        raise UsageError("the output has no row with a usable answer to review", hint="run the job first.")
    among = [strata[place] for place in eligible]
    rows = eligible[stratified(among, size, np.random.default_rng(seed), least=LEAST)]
    sums: dict[str, dict[str, Any]] = {}
    for place, stratum in zip(eligible, among, strict=True):
        one = sums.setdefault(stratum, {"rows": 0, "answers": Counter()})
        one["rows"] += 1
        one["answers"][answers[place] if few else "all"] += 1
    of, said = [strata[row] for row in rows], [answers[row] for row in rows]
    return _Kept([int(row) for row in rows], of, said, sums, {}, few)


def _quarters(confidences: Sequence[float | None], ok: Sequence[bool]) -> list[str]:
    known = [c for c, good in zip(confidences, ok, strict=True) if good and c is not None]
    edges = np.quantile(known, [0.25, 0.5, 0.75]) if known else np.zeros(3)
    return [
        "confidence unknown" if c is None else f"confidence quarter {int(np.searchsorted(edges, c)) + 1}"
        for c in confidences
    ]


def _sheet(config: Config, source: Source, kept: _Kept, name: str, *, show: bool) -> pa.Table:
    """Make the sheet: the rows' own columns, their answer where it is shown, and what people said before."""
    written = {column for column in source.schema.names if _is_written(config, column)}
    simple = [
        f.name
        for f in source.schema
        if f.name not in written and not (pa.types.is_nested(f.type) or pa.types.is_binary(f.type))
    ]
    batch = rows_of(source, kept.rows, [*simple, *([name] if show else [])], written=False)
    labels = pa.array([kept.labels.get(str(row)) for row in kept.rows], pa.string())
    columns = {
        ROW: pa.array([row + 1 for row in kept.rows], pa.int64()),
        **dict(zip(batch.schema.names, batch.columns, strict=True)),
    }
    return pa.table({**columns, f"{name}{SUFFIX}": labels})


def _is_written(config: Config, column: str) -> bool:
    return any(
        column == step.name or column.startswith(f"{step.name}_") for step in config.steps
    ) or column in {new for step in config.steps for new in step.rename.values()}


def _write(path: str, table: pa.Table) -> None:
    output = OutputConfig(path=path)
    preflight(output, table.schema)
    with open_sink(output, table.schema) as sink:
        for batch in table.combine_chunks().to_batches():
            sink.write(batch)
        sink.commit({})


# --- and back ---------------------------------------------------------------------------------------------


async def read_sheet(config: Config, path: str, *, margin: float = 0.05) -> Review:
    """Take a sheet back: keep what people said, and say what it means for the whole table.

    Raises:
        InputError: it is no sheet of this job's.
        UsageError: as for `review_of`.
    """
    source = await asyncio.to_thread(open_source, InputConfig(path=path))
    names = source.schema.names
    found = [name for name in names if name.endswith(SUFFIX) and ROW in names]
    if len(found) != 1:
        raise InputError(
            f"{path} has no column `{ROW}` with one whose name ends in `{SUFFIX}`",
            hint="`beatra-enrich review CONFIG -o FILE` makes a sheet; keep both columns.",
        )
    name = found[0].removesuffix(SUFFIX)
    location = config.ledger_location()
    require_ledger(location)
    async with _ledger(location) as ledger:
        kept = await _known(ledger, config, name)
        known = {answer for stratum in kept.strata.values() for answer in stratum["answers"]}
        plain = {normalised(answer): answer for answer in sorted(known)}
        for batch in source.batches(columns=[ROW, found[0]]):
            for row, said in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if said is None or not (text := text_of(said).strip()):
                    continue
                kept.labels[str(_index(row, kept, path))] = (
                    text if text in known else plain.get(normalised(text), text)
                )
        await ledger.remember(_key(config, name), kept.to_dict())
        return await _result(config, kept, name, margin)


def _index(row: Any, kept: _Kept, path: str) -> int:
    number = int(row) if isinstance(row, int | float) and float(row).is_integer() else 0
    if number - 1 not in kept.rows and str(number - 1) not in kept.labels:
        raise InputError(
            f"{path}: row {row!r} was not drawn for review",
            hint=f"leave the column `{ROW}` as it was written.",
        )
    return number - 1


async def review_of(config: Config, column: str | None = None, *, margin: float = 0.05) -> Review:
    """Say what the labels that are kept mean for the whole table.

    Raises:
        UsageError: no sheet was drawn, or the answers have changed since.
    """
    name, _ = _reviewed(config, column)
    location = config.ledger_location()
    require_ledger(location)
    async with _ledger(location) as ledger:
        return await _result(config, await _known(ledger, config, name), name, margin)


async def _result(config: Config, kept: _Kept, name: str, margin: float) -> Review:
    await asyncio.to_thread(_refuse_changed, config, kept, name)
    labelled: dict[str, Counter[tuple[str, str]]] = {stratum: Counter() for stratum in kept.strata}
    n = 0
    for row, stratum, answer in zip(kept.rows, kept.of, kept.answers, strict=True):
        label = kept.labels.get(str(row))
        if label is None:
            continue
        n += 1
        right = "right" if normalised(label) == normalised(answer) else "wrong"
        labelled[stratum][(label, answer) if kept.counted else (right, "right")] += 1
    strata = [
        Stratum(stratum, told["rows"], told["answers"], labelled[stratum])
        for stratum, told in kept.strata.items()
    ]
    share = accuracy(strata)
    half = (share.interval[1] - share.interval[0]) / 2 if share.interval is not None else None
    return Review(
        name,
        n,
        len(kept.rows),
        sum(stratum.rows for stratum in strata),
        share,
        margin,
        None if half is None else max(needed(half, margin, n), 1),
        corrected_counts(strata) if kept.counted else (),
    )


def _refuse_changed(config: Config, kept: _Kept, name: str) -> None:
    """Keep labels from being held to answers that are not those the rows were drawn by."""
    source = open_source(InputConfig(path=config.output.path, format=config.output.format))
    now: list[str] = []
    if kept.rows[-1] < source.num_rows and name in source.schema.names:
        batch = rows_of(source, kept.rows, [name], written=False)
        now = [text_of(value) for value in batch.column(0).to_pylist()]
    if now != kept.answers:
        raise UsageError(
            f"the answers in `{name}` have changed since the sheet was drawn",
            hint="draw another one with `-o`: what was labelled stands in it.",
        )


# --- examples ---------------------------------------------------------------------------------------------


async def write_examples(config: Config, path: str, column: str | None = None) -> tuple[str, int]:
    """Write the rows whose answer was corrected as an `examples_file`: each prompt with the answer as it should be.

    Returns:
        Where it lies, and how many there are.

    Raises:
        UsageError: no sheet was read, or the prompt needs an earlier step's answer.
    """
    name, owner = _reviewed(config, column)
    location = config.ledger_location()
    require_ledger(location)
    place = destination(path)
    refuse_target(Place("the examples", place), config, location)
    async with _ledger(location) as ledger:
        kept = await _known(ledger, config, name)
    await asyncio.to_thread(_refuse_changed, config, kept, name)
    wrong = {
        row: label
        for row, answer in zip(kept.rows, kept.answers, strict=True)
        if (label := kept.labels.get(str(row))) is not None and normalised(label) != normalised(answer)
    }
    lines = await asyncio.to_thread(_examples, config, owner.step, name, wrong) if wrong else []
    await asyncio.to_thread(storage.write, place, b"".join(json_bytes(line) + b"\n" for line in lines))
    return place, len(lines)


def _examples(config: Config, step: StepConfig, name: str, wrong: dict[int, str]) -> list[dict[str, Any]]:
    source = open_source(config.input)
    job = compile_job(config, source.schema, key_needed=False)
    (compiled,) = (one for one in job.steps if one.name == step.name)
    if compiled.needs:
        raise UsageError(
            f"the prompt of step {step.name} needs the answer of {', '.join(compiled.needs)}",
            hint="examples are made of steps that ask of the input alone.",
        )
    rows = sorted(wrong)
    output = open_source(InputConfig(path=config.output.path, format=config.output.format))
    fields = {
        c.field.name: c.of for c in compiled.columns if c.is_value and c.field.name in output.schema.names
    }
    answers = (
        rows_of(output, rows, [*fields], written=False).to_pylist() if name in fields else [{} for _ in rows]
    )
    _refuse_other_input(source, output, rows)
    batch = rows_of(source, rows, job.columns, written=True)
    prompts = [spelled[step.prompt_text] for spelled in spellings(batch, {step.prompt_text})]
    found = []
    for row, values, cells in zip(rows, answers, prompts, strict=True):
        messages = compiled.builder.prepare(cells).messages
        asked = next(m["content"] for m in reversed(messages) if m["role"] == "user")
        corrected = {fields[column]: value for column, value in values.items()}
        if name in fields:
            corrected[fields[name]] = _typed(wrong[row], values[name])
        found.append({"user": asked, "assistant": corrected if name in fields else wrong[row]})
    return found


def _refuse_other_input(source: Source, output: Source, rows: Sequence[int]) -> None:
    """Keep prompts from being made of other rows than those that were answered.

    Raises:
        UsageError: the input is not what it was.
    """
    shared = [name for name in source.schema.names if name in output.schema.names]
    told = [
        [
            [text_of(value) for value in column.to_pylist()]
            for column in rows_of(one, rows, shared, written=False).columns
        ]
        if one.num_rows > rows[-1]
        else []
        for one in (source, output)
    ]
    if told[0] != told[1]:
        raise UsageError(
            "the input is not what it was when the output was written",
            hint="run the job again, then draw another sheet.",
        )


def _typed(label: str, like: Any) -> Any:
    """Give a label as a value of the answer's own type."""
    if isinstance(like, str):
        return label
    with contextlib.suppress(ValueError):
        return json.loads(label)
    return label


# --- the ledger -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _ledger(location: str) -> AsyncIterator[Ledger]:
    ledger = await open_ledger(location, make=False)
    try:
        yield ledger
    finally:
        await ledger.close()


def _key(config: Config, name: str) -> str:
    return f"review:{config.output.path}:{name}"


async def _recalled(ledger: Ledger, config: Config, name: str) -> _Kept | None:
    told = await ledger.recall(_key(config, name))
    return None if told is None else _Kept(**told)


async def _known(ledger: Ledger, config: Config, name: str) -> _Kept:
    kept = await _recalled(ledger, config, name)
    if kept is None:
        raise UsageError(
            f"no sheet was drawn for `{name}` yet",
            hint="`beatra-enrich review CONFIG -n 100 -o sheet.csv` draws one.",
        )
    return kept
