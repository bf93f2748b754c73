"""Two to five ways of asking the same rows, side by side: what they say, cost and take, and how far they agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from enrich.measure import agreement, intervals
from enrich.measure.scores import DIGITS, Figure, Kind, normalised, proportion, table_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from enrich.measure.scores import Score

MOST_LABELS = 30  # different answers up to which texts count as labels


@dataclass(frozen=True, slots=True)
class Cell:
    """What one variant says of one row in one column.

    Attributes:
        value: None where it is null, or the row has no usable answer.
        text: of the value, as it is compared and shown.
    """

    value: Any
    text: str


@dataclass(frozen=True, slots=True)
class Range:
    """An amount that is not known yet; the ends hold in 99 of 100 cases where it was measured."""

    likely: float
    low: float
    high: float

    def times(self, share: Figure) -> Range:
        """Give it for a share of the rows, as wide as both make it."""
        low, high = share.interval or (0.0, 1.0)
        return Range(self.likely * (share.value or 0.0), self.low * low, self.high * high)

    def to_dict(self) -> dict[str, float]:
        """Give it as plain JSON."""
        return {"likely": self.likely, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of asking, and what came of it.

    Attributes:
        about: what tells it from the others, in words.
        statuses: rows per status, the worst of a row's steps.
        ok: per row, whether it has a usable answer.
        cells: per column, one for each row.
        labels: per column of labels, how often each came.
        credits: that the rows' answers cost, whenever they were paid for.
        tokens: prompt and completion, likewise.
        latency: milliseconds, p50 and p95; None where nothing was asked.
        requests: sent just now; ``spent`` is their cost.
        to_ask: requests that a run over all rows would send now.
        price: of these, in credits; None where no answer named a charge.
        gold: against values given by hand.
        sandbox: whether the answers are the sandbox's: made up, and charged to nobody.
    """

    name: str
    about: str
    statuses: Mapping[str, int]
    ok: Sequence[bool]
    cells: Mapping[str, Sequence[Cell]]
    labels: Mapping[str, Mapping[str, int]]
    credits: float
    tokens: tuple[int, int]
    latency: tuple[float, float] | None
    requests: int
    spent: float
    to_ask: int
    price: Range | None
    gold: tuple[Score, ...] = ()
    sandbox: bool = False

    @property
    def rows(self) -> int:
        """Give how many rows were asked."""
        return len(self.ok)

    @property
    def per_thousand(self) -> float:
        """Give the credits that a thousand rows cost."""
        return 1000 * self.credits / self.rows if self.rows else 0.0

    def to_dict(self, *, content: bool = True) -> dict[str, Any]:
        """Give it as plain JSON."""
        told: dict[str, Any] = {
            "name": self.name,
            "about": self.about,
            "sandbox": self.sandbox,
            "statuses": dict(self.statuses),
            "shares": {status: round(count / self.rows, DIGITS) for status, count in self.statuses.items()},
            "credits": round(self.credits, 9),
            "credits_per_1000_rows": round(self.per_thousand, 9),
            "prompt_tokens": self.tokens[0],
            "completion_tokens": self.tokens[1],
            "latency_ms": None if self.latency is None else {"p50": self.latency[0], "p95": self.latency[1]},
            "requests": self.requests,
            "spent": round(self.spent, 9),
            "to_ask": self.to_ask,
            "price": None if self.price is None else self.price.to_dict(),
        }
        if self.gold:
            told["gold"] = {score.column: score.to_dict(content=content) for score in self.gold}
        if content:
            told["labels"] = {column: dict(counts) for column, counts in self.labels.items()}
        return told


@dataclass(frozen=True, slots=True)
class FieldAgreement:
    """How far two agree in one column.

    Attributes:
        differing: places of the rows in which they do not.
        kappa: Cohen's, of labels.
    """

    column: str
    kind: Kind
    agreement: Figure
    kappa: Figure | None
    differing: frozenset[int]


@dataclass(frozen=True, slots=True)
class Pair:
    """How far two variants agree.

    Attributes:
        n: rows that have a usable answer from both; figures are of these.
        agreement: the share of rows that agree in every column of labels and numbers; of all columns where there is none.
        apart: rows that only one of them has a usable answer for.
        changed: the share of all rows that differ so, or are answered by one alone.
        price_of_changed: what it costs to ask the second variant for such rows alone, among all rows that are left.
        gains: per gold column, the second's accuracy less the first's, of the same rows.
    """

    first: str
    second: str
    n: int
    agreement: Figure
    fields: tuple[FieldAgreement, ...]
    apart: int
    changed: Figure
    price_of_changed: Range | None = None
    gains: Mapping[str, Figure] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        fields = {}
        for one in self.fields:
            told = {"kind": one.kind, "differing": len(one.differing), **one.agreement.to_dict("agreement")}
            fields[one.column] = told | (one.kappa.to_dict("kappa") if one.kappa is not None else {})
        return {
            "a": self.first,
            "b": self.second,
            "n": self.n,
            **self.agreement.to_dict("agreement"),
            "fields": fields,
            "answered_by_one": self.apart,
            **self.changed.to_dict("changed"),
            "price_of_changed": None if self.price_of_changed is None else self.price_of_changed.to_dict(),
            "gold_difference": {
                column: gain.to_dict("accuracy_difference") for column, gain in self.gains.items()
            },
        }


def kinds_of(variants: Sequence[Mapping[str, Sequence[Cell]]]) -> dict[str, Kind]:
    """Say of each column that all have whether it holds labels, numbers or other texts, by what stands there."""
    found: dict[str, Kind] = {}
    for column in variants[0]:
        cells = [cell for variant in variants for cell in variant[column] if cell.value is not None]
        numbers = [
            cell for cell in cells if isinstance(cell.value, int | float) and not isinstance(cell.value, bool)
        ]
        different = len({cell.text for cell in cells})
        each = max(1, len(variants[0][column]))
        if numbers and len(numbers) == len(cells):
            found[column] = "number"
        else:
            found[column] = "label" if different <= min(MOST_LABELS, max(2, each // 2)) else "text"
    return found


def compared(first: Variant, second: Variant, kinds: Mapping[str, Kind], tolerance: float) -> Pair:
    """Hold two variants against each other.

    Args:
        first: the one that is there.
        second: the one that may take its place.
        kinds: of the columns.
        tolerance: up to which two numbers count as the same.
    """
    both = [
        place for place, (one, other) in enumerate(zip(first.ok, second.ok, strict=True)) if one and other
    ]
    fields = tuple(
        _field(column, kind, first.cells[column], second.cells[column], rows=both, tolerance=tolerance)
        for column, kind in kinds.items()
    )
    told = [one for one in fields if one.kind != "text"] or list(fields)
    differing = frozenset[int]().union(*(one.differing for one in told))
    apart = sum(one != other for one, other in zip(first.ok, second.ok, strict=True))
    changed = proportion(len(differing) + apart, first.rows)
    return Pair(
        first.name,
        second.name,
        len(both),
        proportion(len(both) - len(differing), len(both)),
        fields,
        apart,
        changed,
        None if second.price is None else second.price.times(changed),
    )


def _field(
    column: str,
    kind: Kind,
    first: Sequence[Cell],
    second: Sequence[Cell],
    *,
    rows: Sequence[int],
    tolerance: float,
) -> FieldAgreement:
    differing = frozenset(place for place in rows if not same(kind, first[place], second[place], tolerance))
    kappa = None
    if kind == "label" and rows:
        _, table = table_of(Counter((first[place].text, second[place].text) for place in rows))
        value = agreement.kappa(table)
        interval = intervals.of_table(table, agreement.kappa)
        kappa = Figure(None if np.isnan(value) else float(value), interval)
    return FieldAgreement(column, kind, proportion(len(rows) - len(differing), len(rows)), kappa, differing)


def same(kind: Kind, first: Cell, second: Cell, tolerance: float) -> bool:
    """Say whether two answers are the same: labels exactly, numbers within a tolerance, texts once they are normalised."""
    if kind == "number" and first.value is not None and second.value is not None:
        away = abs(float(first.value) - float(second.value))
        return bool(away <= tolerance or first.value == second.value)
    if kind == "text":
        return normalised(first.text) == normalised(second.text)
    return first.text == second.text


def alpha_of_all(variants: Sequence[Variant], column: str, kind: Kind) -> float | None:
    """Give Krippendorff's alpha of all variants in one column; a row without a usable answer was not judged."""
    lines = [
        [
            cell if ok and cell.value is not None else None
            for cell, ok in zip(variant.cells[column], variant.ok, strict=True)
        ]
        for variant in variants
    ]
    codes: dict[str, float] = {}
    numbers = kind == "number"
    judged = np.array(
        [
            [
                np.nan
                if cell is None
                else float(cell.value)
                if numbers
                else codes.setdefault(cell.text, len(codes))
                for cell in line
            ]
            for line in lines
        ],
        dtype=float,
    )
    value = agreement.alpha(judged, "interval" if numbers else "nominal")
    return None if np.isnan(value) else value


def gain(first: Sequence[bool], second: Sequence[bool]) -> Figure:
    """Give by how much a larger share of the same rows is right, with the interval of drawing these rows anew."""
    if not first:
        return Figure(None, None)
    pairs = Counter(zip(first, second, strict=True))
    counts = np.array([pairs[False, True], pairs[True, False], pairs[True, True] + pairs[False, False]])
    interval = intervals.of_table(counts, lambda draws: (draws[:, 0] - draws[:, 1]) / len(first))
    return Figure((int(counts[0]) - int(counts[1])) / len(first), interval)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a comparison shows.

    Attributes:
        cohort: the name of the rows that were asked, as the ledger keeps it.
        rows: their numbers in the input, from 1.
        given: per row, its own columns as text.
        total: rows of the input.
        alphas: Krippendorff's, of all variants at once, per column of labels or numbers; None where it is not defined.
        content: whether rows and answers may be shown.
    """

    cohort: str
    drawn: str
    rows: tuple[int, ...]
    given: tuple[tuple[tuple[str, str], ...], ...]
    total: int
    tolerance: float
    kinds: Mapping[str, Kind]
    variants: tuple[Variant, ...]
    pairs: tuple[Pair, ...]
    alphas: Mapping[str, float | None]
    content: bool = True

    @property
    def made_up(self) -> tuple[str, ...]:
        """Name the variants whose answers are the sandbox's."""
        return tuple(variant.name for variant in self.variants if variant.sandbox)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "cohort": self.cohort,
            "rows": len(self.rows),
            "of": self.total,
            "fields": dict(self.kinds),
            "variants": [variant.to_dict(content=self.content) for variant in self.variants],
            "alpha": {name: None if a is None else round(a, DIGITS) for name, a in self.alphas.items()},
            "pairs": [pair.to_dict() for pair in self.pairs],
        }
