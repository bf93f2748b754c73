"""Answers held to values that are known: accuracy, precision, recall, agreement and error. Pure functions."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from enrich.measure import agreement, intervals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from enrich.measure.intervals import Interval

Kind = Literal["label", "number", "text"]
NULL = "∅"  # stands for an answer that is null, in tables of labels
DIGITS = 6  # of a figure that is told


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its 95 % interval; None where it is not defined."""

    value: float | None
    interval: Interval | None

    def to_dict(self, name: str) -> dict[str, Any]:
        """Give it and its interval under names."""
        interval = None if self.interval is None else [round(end, DIGITS) for end in self.interval]
        return {name: None if self.value is None else round(self.value, DIGITS), f"{name}_ci": interval}


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How one label was met.

    Attributes:
        gold: rows that have it.
        answered: rows that were given it.
        precision: of those that were given it, the share that has it.
        recall: of those that have it, the share that was given it.
    """

    label: str
    gold: int
    answered: int
    precision: Figure
    recall: Figure

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "gold": self.gold,
            "answered": self.answered,
            **self.precision.to_dict("precision"),
            **self.recall.to_dict("recall"),
        }


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row whose answer is not the known value.

    Attributes:
        row: of the output, from 1.
    """

    row: int
    gold: str
    answer: str


@dataclass(frozen=True, slots=True)
class Score:
    """A column of answers against known values.

    Attributes:
        gold: the column with the known values.
        n: rows with a known value and an answer; all figures are of these.
        unanswered: rows with a known value and no usable answer: they are in no figure.
        without_gold: rows whose value is not known; they are not wrong.
        figures: by name: ``accuracy``, ``kappa``, ``alpha``, ``mae``, ``bias``, ``normalised``, as far as the kind has them.
        labels: the commonest first.
        confusion: rows per known value and answer.
        disagree: rows whose answer is another, the first ones.
        disagreements: how many there are.
    """

    column: str
    gold: str
    kind: Kind
    n: int
    unanswered: int
    without_gold: int
    figures: Mapping[str, Figure]
    labels: tuple[LabelScore, ...] = ()
    confusion: Mapping[tuple[str, str], int] = field(default_factory=dict)
    disagree: tuple[Disagreement, ...] = ()
    disagreements: int = 0

    def to_dict(self, *, content: bool = True) -> dict[str, Any]:
        """Give it as plain JSON; without content no label and no row."""
        told: dict[str, Any] = {
            "gold": self.gold,
            "kind": self.kind,
            "n": self.n,
            "unanswered": self.unanswered,
            "without_gold": self.without_gold,
            "disagreements": self.disagreements,
        }
        for name, figure in self.figures.items():
            told |= figure.to_dict(name)
        if not content:
            return told
        confusion: dict[str, dict[str, int]] = {}
        for (known, answer), count in self.confusion.items():
            confusion.setdefault(known, {})[answer] = count
        told["labels"] = {score.label: score.to_dict() for score in self.labels}
        told["confusion"] = confusion
        told["disagree"] = [{"row": d.row, "gold": d.gold, "answer": d.answer} for d in self.disagree]
        return told


def normalised(text: str) -> str:
    """Give a text without what people do not see as a difference: Unicode's compatibility forms, case, white space, ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .!?,;:\"'")


def label_figures(pairs: Mapping[tuple[str, str], int]) -> tuple[dict[str, Figure], tuple[LabelScore, ...]]:
    """Score labels by how often each known value met each answer."""
    names, table = table_of(pairs)
    hits = int(np.trace(table))
    matched = sum(
        count for (known, answer), count in pairs.items() if normalised(known) == normalised(answer)
    )
    figures = {"accuracy": proportion(hits, int(table.sum()))}
    figures["kappa"] = _of(table, agreement.kappa)
    figures["alpha"] = _of(table, agreement.alpha_of_table)
    if matched != hits:
        figures["normalised"] = proportion(matched, int(table.sum()))
    scores = []
    for place, name in enumerate(names):
        hit, known, answered = (
            int(x) for x in (table[place, place], table[place].sum(), table[:, place].sum())
        )
        scores.append(LabelScore(name, known, answered, proportion(hit, answered), proportion(hit, known)))
    return figures, tuple(sorted(scores, key=lambda score: -score.gold))


def number_figures(gold: Sequence[float], answers: Sequence[float], missed: int = 0) -> dict[str, Figure]:
    """Score numbers: how many are equal, how far they are off, and to which side.

    Args:
        gold: the known values.
        answers: of the same rows.
        missed: further rows with a known value whose answer is null; not equal, and without an error that could be told.
    """
    known, given = np.asarray(gold, dtype=float), np.asarray(answers, dtype=float)
    figures = {"accuracy": proportion(int((known == given).sum()), len(known) + missed)}
    if not len(known):
        return {**figures, "mae": Figure(None, None), "bias": Figure(None, None), "alpha": Figure(None, None)}
    off = given - known

    def mean(values: Any) -> Any:
        return values.mean(axis=-1)

    figures["mae"] = Figure(float(np.abs(off).mean()), intervals.of_rows(mean, np.abs(off)))
    figures["bias"] = Figure(float(off.mean()), intervals.of_rows(mean, off))
    value = _defined(agreement.alpha_of_pairs(known, given)) if len(known) > 1 else None
    interval = intervals.of_rows(agreement.alpha_of_pairs, known, given) if value is not None else None
    return {**figures, "alpha": Figure(value, interval)}


def text_figures(pairs: Mapping[tuple[str, str], int]) -> dict[str, Figure]:
    """Score texts: the share that is the same, and the share that is the same to a reader's eye."""
    total = sum(pairs.values())
    same = sum(count for (known, answer), count in pairs.items() if known == answer)
    alike = sum(count for (known, answer), count in pairs.items() if normalised(known) == normalised(answer))
    return {"accuracy": proportion(same, total), "normalised": proportion(alike, total)}


def table_of(pairs: Mapping[tuple[str, str], int]) -> tuple[list[str], agreement.Table]:
    """Give the values that either has, and the table of how often they met."""
    names = sorted({name for pair in pairs for name in pair})
    places = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    for (first, second), count in Counter(pairs).items():
        table[places[first], places[second]] += count
    return names, table


def proportion(part: int, whole: int) -> Figure:
    """Give a share with its interval."""
    return Figure(part / whole if whole else None, intervals.of_proportion(part, whole))


def _of(table: agreement.Table, statistic: Any) -> Figure:
    value = _defined(statistic(table))
    return Figure(value, intervals.of_table(table, statistic) if value is not None else None)


def _defined(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
