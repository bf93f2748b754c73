"""`review`: rows go to a sheet for people to label, and what comes back says how far the whole table can be trusted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.config import InputConfig, OutputConfig, Place, refuse_target
from enrich.errors import ConfigError, InputError, UsageError, did_you_mean
from enrich.files.sink import destination, open_sink, preflight
from enrich.files.source import open_source
from enrich.ledger.opening import open_ledger, require_ledger
from enrich.measure.corrected import Stratum, accuracy, corrected_counts, needed
from enrich.measure.scores import normalised
from enrich.report.gold import allowed_labels, owners_of, text_of
from enrich.runs.cohort import rows_of
from enrich.runs.example_rows import has_examples
from enrich.runs.guarantee import review_note
from enrich.verbs.review_result import SUFFIX, Review, Sheet
from enrich.verbs.sheet_rows import (
    BY_HAND,
    By,
    Kept,
    drawn,
    known_by_hand,
    pair_of,
    read_answers,
    shown_as_examples,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.ledger.protocol import Ledger
    from enrich.report.gold import Owner

ROW = "review_row"  # the sheet's column with a row's number in the output, from 1


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
    unseen: bool = False,
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
        unseen: draw of the rows without a value by hand; what is known of the others counts as it is.

    Raises:
        UsageError: there is no output or no ledger, or it has no such column.
        OutputError: the sheet cannot be written.
    """
    location = config.ledger_location()
    require_ledger(location)
    place = destination(path)
    refuse_target(Place("the sheet", place), config, location)
    name, owner = reviewed_column(config, column)
    source = await asyncio.to_thread(
        open_source, InputConfig(path=config.output.path, format=config.output.format)
    )
    answers = await asyncio.to_thread(read_answers, source, name, owner, by=by)
    seen = await asyncio.to_thread(known_by_hand, config, source, name) if unseen else None
    shown = await asyncio.to_thread(shown_as_examples, config, source) if has_examples(config) else None
    kept = await asyncio.to_thread(drawn, answers, size=size, seed=seed, seen=seen, shown=shown)
    async with review_ledger(location) as ledger:
        before = await recalled_review(ledger, config, name)
        kept.labels = before.labels if before is not None else {}
        await asyncio.to_thread(_refuse_unread, place, name, kept)
        table = await asyncio.to_thread(_sheet, config, source, kept, name, show=show)
        await asyncio.to_thread(_write, place, table)
        await ledger.remember(_key(config, name), kept.to_dict())
    known = sum(str(row) in kept.labels for row in kept.rows)
    return Sheet(place, name, len(kept.rows), dict(Counter(kept.of)), known, kept.left_out)


def reviewed_column(config: Config, column: str | None) -> tuple[str, Owner]:
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


def _sheet(config: Config, source: Source, kept: Kept, name: str, *, show: bool) -> pa.Table:
    """Make the sheet: the rows' own columns, their answer where it is shown, and what people said before."""
    written = {column for column in source.schema.names if _is_written(config, column)}
    if config.gold is not None and not show:  # who sees what others said agrees with them too readily
        written.update(config.gold.columns.values())
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


def _refuse_unread(path: str, name: str, kept: Kept) -> None:
    """Keep a sheet from being drawn over one whose labels nobody has read yet: they stand nowhere else.

    Raises:
        UsageError: there is one.
    """
    try:
        sheet = open_source(InputConfig(path=path))
        rows, filled = sheet.schema.names.index(ROW), sheet.schema.names.index(f"{name}{SUFFIX}")
    except (InputError, ConfigError, ValueError):  # there is none, or it is another file
        return
    for batch in sheet.batches():
        for row, said in zip(batch.column(rows).to_pylist(), batch.column(filled).to_pylist(), strict=True):
            label = text_of(said).strip() if said is not None else ""
            index = str(int(row) - 1) if isinstance(row, int | float) else ""
            if label and normalised(kept.labels.get(index, "")) != normalised(label):
                raise UsageError(
                    f"{path} holds labels that were not read yet",
                    hint=f"`beatra-enrich review CONFIG --read {path}` keeps them; or name another file.",
                )


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
    async with review_ledger(location) as ledger:
        kept = await known_review(ledger, config, name)
        known = {answer for stratum in kept.strata.values() for answer in stratum["answers"]}
        owner = owners_of(config).get(name)
        allowed = allowed_labels(owner.step, name) if owner is not None else []
        plain = {normalised(answer): answer for answer in [*sorted(known), *allowed]}
        for batch in source.batches(columns=[ROW, found[0]]):
            for row, said in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if said is None or not (text := text_of(said).strip()):
                    continue
                label = text if text in known else plain.get(normalised(text), text)
                if allowed and label not in allowed:
                    raise InputError(
                        f"{path}: row {row} says {label!r}, which the step's schema does not have",
                        hint=did_you_mean(label, allowed) or f"it is one of {', '.join(allowed)}.",
                    )
                kept.labels[str(_index(row, kept, path))] = label
        await ledger.remember(_key(config, name), kept.to_dict())
        return await _result(config, kept, name, margin)


def _index(row: Any, kept: Kept, path: str) -> int:
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
    name, _ = reviewed_column(config, column)
    location = config.ledger_location()
    require_ledger(location)
    async with review_ledger(location) as ledger:
        return await _result(config, await known_review(ledger, config, name), name, margin)


async def _result(config: Config, kept: Kept, name: str, margin: float) -> Review:
    await asyncio.to_thread(refuse_changed, config, kept, name)
    labelled: dict[str, Counter[tuple[str, str]]] = {stratum: Counter() for stratum in kept.strata}
    n = 0
    for row, stratum, answer in zip(kept.rows, kept.of, kept.answers, strict=True):
        label = kept.labels.get(str(row))
        if label is None:
            continue
        n += 1
        labelled[stratum][pair_of(label, answer, counted=kept.counted)] += 1
    for stratum, told in kept.strata.items():
        labelled[stratum].update({(label, answer): count for label, answer, count in told.get("known", ())})
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
        kept.strata.get(BY_HAND, {}).get("rows", 0),
        kept.left_out,
    )


def refuse_changed(config: Config, kept: Kept, name: str) -> None:
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


# --- the ledger -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def review_ledger(location: str) -> AsyncIterator[Ledger]:
    """Open the ledger that keeps reviews, while the block runs; none is made."""
    ledger = await open_ledger(location, make=False)
    try:
        yield ledger
    finally:
        await ledger.close()


def _key(config: Config, name: str) -> str:
    return review_note(config.output.path, name)


async def recalled_review(ledger: Ledger, config: Config, name: str) -> Kept | None:
    """Give what is kept of a column's review; None before its first sheet."""
    told = await ledger.recall(_key(config, name))
    return None if told is None else Kept(**told)


async def known_review(ledger: Ledger, config: Config, name: str) -> Kept:
    """Give what is kept of a column's review.

    Raises:
        UsageError: no sheet was drawn for it.
    """
    kept = await recalled_review(ledger, config, name)
    if kept is None:
        raise UsageError(
            f"no sheet was drawn for `{name}` yet",
            hint="`beatra-enrich review CONFIG -n 100 -o sheet.csv` draws one.",
        )
    return kept
