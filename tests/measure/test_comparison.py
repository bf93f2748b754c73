"""Comparisons: what counts as the same, and how far two agree."""

from __future__ import annotations

from typing import Any

import pytest

from enrich.measure.comparison import Cell, Range, Variant, compared, gain, kinds_of, same
from enrich.measure.scores import Figure


def cells(*values: Any) -> list[Cell]:
    """Make cells of values."""
    return [Cell(value, "∅" if value is None else str(value)) for value in values]


def variant(name: str, columns: dict[str, list[Cell]], ok: list[bool] | None = None) -> Variant:
    """Make a variant with these answers."""
    rows = len(next(iter(columns.values())))
    price = Range(100, 90, 110)
    return Variant(name, name, {}, ok or [True] * rows, columns, {}, 0, (0, 0), None, 0, 0, 0, price)


@pytest.mark.parametrize(
    ("kind", "first", "second", "tolerance", "alike"),
    [
        ("label", "pos", "pos", 0, True),
        ("label", "pos", "Pos", 0, False),
        ("number", 1.0, 1.05, 0.1, True),
        ("number", 1.0, 1.2, 0.1, False),
        ("number", 3, 3.0, 0, True),
        ("number", 3, None, 5, False),
        ("number", None, None, 0, True),
        ("text", "New  York.", "new york", 0, True),
        ("text", "York", "Leeds", 0, False),
    ],
)
def test_what_is_the_same(kind: Any, first: Any, second: Any, tolerance: float, alike: bool) -> None:
    """Labels exactly, numbers within a tolerance, texts as a reader takes them."""
    one, other = cells(first, second)
    assert same(kind, one, other, tolerance) is alike


def test_kinds_are_told_by_what_stands_there() -> None:
    """Few texts are labels, many are texts; a null says nothing."""
    columns = {
        "label": cells("a", "b", "a", "a", "b", "b"),
        "score": cells(1, 2.5, None, 1, 2, 3),
        "why": cells("q", "w", "e", "r", "t", "z"),
    }
    assert kinds_of([columns, columns]) == {"label": "label", "score": "number", "why": "text"}


def test_agreement_is_that_of_labels_and_numbers() -> None:
    """Free texts count where there is nothing else; a row that one alone answered changes, and is in no agreement."""
    first = variant("a", {"label": cells("x", "x", "y", "y"), "why": cells("1", "2", "3", "4")})
    second = variant(
        "b", {"label": cells("x", "y", "y", "y"), "why": cells("5", "6", "7", "8")}, [True, True, True, False]
    )
    pair = compared(first, second, {"label": "label", "why": "text"}, 0)
    assert (pair.n, pair.apart) == (3, 1)
    assert pair.agreement.value == pytest.approx(2 / 3)
    assert pair.changed.value == 0.5
    assert pair.fields[0].differing == {1}
    texts = compared(first, second, {"why": "text"}, 0)
    assert texts.agreement.value == 0


def test_kappa_of_a_pair_is_that_of_the_table() -> None:
    """Fifty rows, 20 both yes, 15 both no, 5 and 10 apart: 0.4."""
    pairs = [("y", "y")] * 20 + [("n", "n")] * 15 + [("y", "n")] * 5 + [("n", "y")] * 10
    first = variant("a", {"l": cells(*(a for a, _ in pairs))})
    second = variant("b", {"l": cells(*(b for _, b in pairs))})
    told = compared(first, second, {"l": "label"}, 0).to_dict()
    assert told["agreement"] == 0.7
    assert told["fields"]["l"]["kappa"] == pytest.approx(0.4)


def test_the_price_of_a_share_is_as_wide_as_both_make_it() -> None:
    """Half of the rows, give or take, of a hundred credits, give or take."""
    assert Range(100, 90, 110).times(Figure(0.5, (0.4, 0.6))) == Range(50, 36, 66)
    assert Range(100, 90, 110).times(Figure(None, None)).high == 110


def test_a_gain_counts_only_rows_in_which_they_differ() -> None:
    """Of a hundred, 12 are right with the second alone and 4 with the first alone: 0.08, and sure to be above zero."""
    first = [True] * 80 + [False] * 12 + [True] * 4 + [False] * 4
    second = [True] * 80 + [True] * 12 + [False] * 4 + [False] * 4
    found = gain(first, second)
    assert found.value == pytest.approx(0.08)
    assert found.interval == pytest.approx((0.0, 0.16), abs=0.02)
    assert gain([], []).value is None
