"""Rows of an output are drawn for people to label: in strata, without those that nothing can be concluded from."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from enrich.errors import UsageError
from enrich.files.source import open_source
from enrich.measure.scores import NULL, normalised
from enrich.report.gold import MOST_LABELS, GoldTable, is_missing, text_of
from enrich.runs.cohort import stratified
from enrich.runs.example_rows import example_rows
from enrich.runs.job import compile_job
from enrich.runs.since import own_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.report.gold import Owner

    Rows = np.ndarray[Any, np.dtype[np.int64]]

log = logging.getLogger("enrich")

By = Literal["label", "confidence", "status"]
BY_HAND = "known by hand"  # the stratum of rows that have a value by hand
LEAST = 5  # rows of each stratum, while there is room


@dataclass(slots=True)
class Kept:
    """What the ledger keeps of the review of one column.

    Attributes:
        rows: the indices that were drawn, of the output.
        of: the stratum of each.
        answers: of each, as text.
        strata: rows and answers of each stratum, over the whole output; of one whose labels are all known by hand, how often
            each label met each answer.
        labels: by row, what people said; also of rows that an earlier sheet had.
        counted: whether the answers are labels, that can be counted.
        left_out: rows that the prompt shows as examples, and that nothing is concluded from.
    """

    rows: list[int] = field(default_factory=list)
    of: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    strata: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    counted: bool = True
    left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {name: getattr(self, name) for name in Kept.__slots__}


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a column, row by row of the output.

    Attributes:
        texts: as they are compared.
        ok: whether each can be reviewed.
        strata: of each.
        few: whether they are labels, that can be counted.
    """

    texts: list[str]
    ok: list[bool]
    strata: list[str]
    few: bool


def read_answers(source: Source, name: str, owner: Owner, *, by: By) -> Answers:
    """Read the answers that rows are drawn by.

    Raises:
        UsageError: the output has no such column.
    """
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
    return Answers(answers, ok, strata, few)


def drawn(
    table: Answers,
    *,
    size: int,
    seed: int,
    seen: Sequence[str | None] | None,
    shown: Rows | None,
) -> Kept:
    """Draw rows in strata.

    Args:
        table: the answers.
        size: rows to draw.
        seed: of the draw.
        seen: per row, what is known of it by hand; None: every row may be drawn.
        shown: the rows that the prompt shows as examples.
    """
    ok = np.asarray(table.ok, dtype=bool)
    if shown is not None:
        ok[shown] = False
    known = np.asarray([label is not None for label in seen or [None] * len(ok)], dtype=bool)
    eligible = np.flatnonzero(ok & ~known)
    if not len(eligible):
        hint = (
            "run the job first."
            if seen is None and shown is None
            else "every row is known by hand, or an example."
        )
        raise UsageError("the output has no row with a usable answer to review", hint=hint)
    among = [table.strata[place] for place in eligible]
    rows = eligible[stratified(among, size, np.random.default_rng(seed), least=LEAST)]
    sums: dict[str, dict[str, Any]] = {}
    for place, stratum in zip(eligible, among, strict=True):
        one = sums.setdefault(stratum, {"rows": 0, "answers": Counter()})
        one["rows"] += 1
        one["answers"][table.texts[place] if table.few else "all"] += 1
    if seen is not None and (census := _census(table, seen, np.flatnonzero(ok & known))) is not None:
        sums[BY_HAND] = census
    of, said = [table.strata[row] for row in rows], [table.texts[row] for row in rows]
    left_out = 0 if shown is None else len(shown)
    return Kept([int(row) for row in rows], of, said, sums, {}, table.few, left_out)


def _census(table: Answers, seen: Sequence[str | None], rows: Rows) -> dict[str, Any] | None:
    """Make the stratum of the rows that are all known by hand: nothing of it is left to chance."""
    plain = {normalised(answer): answer for answer in table.texts}
    met: Counter[tuple[str, str]] = Counter()
    answers: Counter[str] = Counter()
    for row in rows:
        answer, label = table.texts[row], seen[row] or ""
        met[pair_of(plain.get(normalised(label), label), answer, counted=table.few)] += 1
        answers[answer if table.few else "all"] += 1
    if not met:
        return None
    return {"rows": len(rows), "answers": answers, "known": [[*pair, count] for pair, count in met.items()]}


def pair_of(label: str, answer: str, *, counted: bool) -> tuple[str, str]:
    """Give label and answer as they are counted; of answers that are no labels only whether they are right."""
    if counted:
        return label, answer
    return "right" if normalised(label) == normalised(answer) else "wrong", "right"


def known_by_hand(config: Config, source: Source, name: str) -> list[str | None]:
    """Give what is known of each row by hand.

    Raises:
        UsageError: `gold` names nothing for this column.
    """
    gold = config.gold
    if gold is None or name not in gold.columns:
        raise UsageError(
            f"--unseen leaves out the rows that have a value by hand, and `gold` names none for `{name}`",
            hint=f"gold: {{{name}: COLUMN}} says which column has them.",
        )
    known, column = GoldTable(gold) if gold.file is not None else None, gold.columns[name]
    read = column if known is None else gold.key or ""
    found: list[str | None] = []
    for batch in source.batches(columns=[read]):
        cells = batch.column(0)
        values = cells.to_pylist() if known is None else known.of(cells, column)
        found += [None if is_missing(value) else text_of(value).strip() for value in values]
    return found


def shown_as_examples(config: Config, output: Source) -> Rows:
    """Find the rows that the prompt shows as examples."""
    source = open_source(config.input, own=own_columns(config))
    if source.num_rows != output.num_rows:
        log.warning("the input is not what it was: rows that the prompt shows as examples may be drawn")
        return np.zeros(0, np.int64)
    return example_rows(source, [compile_job(config, source.schema, key_needed=False)])


def _quarters(confidences: Sequence[float | None], ok: Sequence[bool]) -> list[str]:
    known = [c for c, good in zip(confidences, ok, strict=True) if good and c is not None]
    edges = np.quantile(known, [0.25, 0.5, 0.75]) if known else np.zeros(3)
    return [
        "confidence unknown" if c is None else f"confidence quarter {int(np.searchsorted(edges, c)) + 1}"
        for c in confidences
    ]
