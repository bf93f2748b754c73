"""Scores: textbook counts give textbook figures; what cannot be known is not made up."""

from __future__ import annotations

import pytest

from enrich.measure.scores import label_figures, normalised, number_figures, proportion, text_figures


def test_precision_and_recall_are_those_of_the_table() -> None:
    """Of 100: 40 right positives, 10 false ones, 20 missed."""
    figures, labels = label_figures(
        {("pos", "pos"): 40, ("neg", "pos"): 10, ("pos", "neg"): 20, ("neg", "neg"): 30}
    )
    by_name = {score.label: score for score in labels}
    assert figures["accuracy"].value == pytest.approx(0.7)
    assert (by_name["pos"].gold, by_name["pos"].answered) == (60, 50)
    assert by_name["pos"].precision.value == pytest.approx(0.8)
    assert by_name["pos"].recall.value == pytest.approx(2 / 3)
    low, high = by_name["pos"].recall.interval or (0, 0)
    assert low < 2 / 3 < high


def test_a_label_that_was_never_given_has_no_precision() -> None:
    """Nothing divided by nothing is not zero."""
    _, labels = label_figures({("a", "b"): 3, ("b", "b"): 3})
    by_name = {score.label: score for score in labels}
    assert by_name["a"].precision.value is None
    assert by_name["a"].recall.value == 0


def test_answers_that_differ_by_case_alone_are_told_as_such() -> None:
    """Then the accuracy is low for a reason that a person can mend."""
    figures, _ = label_figures({("pos", "Pos."): 5, ("neg", "neg"): 5})
    assert figures["accuracy"].value == 0.5
    assert figures["normalised"].value == 1


def test_errors_of_numbers_have_a_size_and_a_side() -> None:
    """Answers are 1 too high, on average; one of four is equal."""
    figures = number_figures([1, 2, 3, 4], [1, 4, 2, 7])
    assert figures["accuracy"].value == 0.25
    assert figures["mae"].value == pytest.approx(1.5)
    assert figures["bias"].value == pytest.approx(1)
    assert figures["mae"].interval is not None


def test_a_null_answer_is_not_equal_and_has_no_error() -> None:
    """It counts in the share alone."""
    figures = number_figures([1.0], [1.0], missed=1)
    assert (figures["accuracy"].value, figures["mae"].value) == (0.5, 0)
    assert number_figures([], [])["mae"].value is None


def test_texts_are_the_same_to_the_letter_or_to_the_eye() -> None:
    """Both shares are told."""
    figures = text_figures({("Zürich", "Zürich"): 1, ("New York", " new  york."): 1, ("Rome", "Paris"): 2})
    assert (figures["accuracy"].value, figures["normalised"].value) == (0.25, 0.5)
    assert normalised("\uff21\u00a0b") == "a b"


def test_no_rows_give_no_share() -> None:
    """And no interval."""
    assert proportion(0, 0).value is None
    assert proportion(0, 0).interval is None
