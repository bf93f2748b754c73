"""The page of a comparison: variants side by side, row by row where they differ; one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from enrich.base.version import __version__
from enrich.files.sink import destination
from enrich.measure.comparison import same
from enrich.records import STATUSES
from enrich.report import texts
from enrich.report.html import asset, policy, put_in_place, template, trusted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from enrich.measure.comparison import Comparison
    from enrich.measure.scores import Figure

MOST_ROWS = 500  # shown; those that differ first
CELL_CHARACTERS = 600  # of one answer


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row of the sample.

    Attributes:
        number: in the input, from 1.
        given: its own columns.
        answers: per column that is told, what each variant says; None where it has no usable answer.
        tags: what it may be chosen by.
    """

    number: int
    given: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, tuple[str | None, ...]], ...]
    tags: tuple[str, ...]
    differs: bool


def write_comparison(comparison: Comparison, path: str) -> str:
    """Write the page of a comparison; gives where it lies.

    Raises:
        OutputError: the file cannot be written.
    """
    place = destination(path)
    put_in_place(place, render_comparison(comparison))
    return place


def render_comparison(comparison: Comparison) -> str:
    """Make the page. Its policy forbids any network, and any script or style that is not its own."""
    styles, script = asset("page.css"), asset("lists.js")
    rows = shown_rows(comparison) if comparison.content else []
    return template("compare.html.jinja", tags=lambda tags: orjson.dumps(tags).decode()).render(
        comparison=comparison,
        first=comparison.variants[0],
        rows=rows,
        choices=sorted({tag for row in rows for tag in row.tags}),
        statuses=[s for s in STATUSES if any(s in variant.statuses for variant in comparison.variants)],
        labels=_labels(comparison),
        sums={
            column: [sum(variant.labels.get(column, {}).values()) for variant in comparison.variants]
            for column in comparison.kinds
        },
        gold=_gold(comparison),
        percent=texts.percent,
        points=_points,
        version=__version__,
        styles=trusted(styles),
        script=trusted(script),
        policy=policy(styles, [script]),
    )


def shown_rows(comparison: Comparison) -> list[ShownRow]:
    """Give the rows that are shown, those in which variants differ first."""
    found = [_row(comparison, place) for place in range(len(comparison.rows))]
    return sorted(found, key=lambda row: not row.differs)[:MOST_ROWS]


def _row(comparison: Comparison, place: int) -> ShownRow:
    variants = comparison.variants
    answered = [variant.ok[place] for variant in variants]
    differing, told = [], []
    for column, kind in comparison.kinds.items():
        cells = [variant.cells[column][place] for variant in variants]
        usable = [cell for cell, ok in zip(cells, answered, strict=True) if ok]
        differs = any(not same(kind, usable[0], other, comparison.tolerance) for other in usable[1:])
        if differs:
            differing.append(column)
        if differs or not all(answered) or len(comparison.kinds) == 1:
            shown = (
                texts.cut(cell.text, CELL_CHARACTERS) if ok else None
                for cell, ok in zip(cells, answered, strict=True)
            )
            told.append((column, tuple(shown)))
    tags = [f"{column} differs" for column in differing]
    if any(answered) and not all(answered):
        tags.append("answered by some only")
    tags += ["not answered"] if not any(answered) else []
    return ShownRow(
        comparison.rows[place],
        comparison.given[place],
        tuple(told),
        tuple(tags or ["all agree"]),
        bool(differing) or len(set(answered)) > 1,
    )


def _labels(comparison: Comparison) -> list[tuple[str, list[tuple[str, list[int]]]]]:
    """Give, per column of labels, how often each variant says each."""
    found = []
    for column in comparison.kinds if comparison.content else ():
        counts = [variant.labels.get(column, {}) for variant in comparison.variants]
        names = dict.fromkeys(name for one in counts for name in one)
        if names:
            found.append((column, [(name, [one.get(name, 0) for one in counts]) for name in names]))
    return found


def _gold(comparison: Comparison) -> list[tuple[str, str, list[tuple[str, Mapping[str, Figure], int]]]]:
    """Give, per gold column, each variant's figures."""
    columns: dict[tuple[str, str], list[tuple[str, Mapping[str, Figure], int]]] = {}
    for variant in comparison.variants:
        for score in variant.gold:
            columns.setdefault((score.column, score.gold), []).append((variant.name, score.figures, score.n))
    return [(column, known, told) for (column, known), told in columns.items()]


def _points(counts: Sequence[int], totals: Sequence[int], place: int) -> str:
    """Say by how many percentage points a variant's share is above the first one's."""
    if not place or not totals[0] or not totals[place]:
        return ""
    shift: Any = 100 * (counts[place] / totals[place] - counts[0] / totals[0])
    return f"{shift:+.1f}" if abs(shift) >= 0.05 else "±0"
