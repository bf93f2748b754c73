from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.records import Outcome
from enrich.rows import troubles
from enrich.rows.troubles import MESSAGE_CHARACTERS, OTHER, Troubles

failures = st.lists(
    st.tuples(
        st.sampled_from(["s", "t"]),
        st.sampled_from(["error", "truncated"]),
        st.sampled_from(["a", "b", "c: why", "c: other", "d: "]) | st.none(),
        st.booleans(),
    ),
    max_size=40,
)


@given(failures, st.integers(1, 5))
def test_every_failed_row_is_counted_once(rows: list[tuple[str, str, str | None, bool]], most: int) -> None:
    """However many causes are kept apart, all rows together are those that failed, the most frequent cause first."""
    found = Troubles()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(troubles, "MOST_CAUSES", most)
        for row, (step, status, error, asked) in enumerate(rows):
            outcome = Outcome(status, error, key=b"k" if asked else None)  # type: ignore[arg-type]  # as drawn
            found.add(step, row, outcome, again=False)
    ranked = found.ranked()
    assert found.rows == sum(trouble.rows for trouble in ranked) == len(rows)
    assert sum(count for _, count in found.codes()) == len(rows)
    assert [trouble.rows for trouble in ranked] == sorted((t.rows for t in ranked), reverse=True)
    apart = {trouble for trouble in ranked if trouble.code != OTHER}
    assert len(apart) <= most
    for trouble in apart:
        step, status, error, asked = rows[trouble.row - 1]  # the example is of its own kind
        assert (trouble.step, trouble.status, trouble.asked) == (step, status, asked)
        assert trouble.code == (error or status).partition(": ")[0]
        assert trouble.message == (error or status).partition(": ")[2]


def test_the_first_row_is_the_example() -> None:
    """Its number counts from 1, its message is cut; that one of them was asked again is kept."""
    found = Troubles()
    found.add("s", 4, Outcome("error", "x: " + "é" * 1_000, key=b"k"), again=False)
    found.add("s", 9, Outcome("error", "x: later", key=b"l"), again=True)
    (trouble,) = found.ranked()
    assert (trouble.rows, trouble.row, trouble.again) == (2, 5, True)
    assert trouble.message == "é" * MESSAGE_CHARACTERS


def test_the_example_is_the_first_row_in_whatever_order_answers_come() -> None:
    """A later row that fails sooner gives way to it, message and all."""
    found = Troubles()
    for row in (7, 2, 5):
        found.add("s", row, Outcome("error", f"x: of row {row}", key=b"k"), again=False)
    (trouble,) = found.ranked()
    assert (trouble.rows, trouble.row, trouble.message) == (3, 3, "of row 2")


def test_codes_are_counted_over_steps() -> None:
    """What a progress bar shows: codes with their rows, wherever they came."""
    found = Troubles()
    for step, code in (("s", "a"), ("t", "a"), ("t", "b")):
        found.add(step, 0, Outcome("error", code), again=False)
    assert found.codes() == (("a", 2), ("b", 1))
    assert Counter(dict(found.codes())).total() == found.rows


def test_endings_that_nobody_knows_are_counted() -> None:
    """A reason that is in no table is counted by itself, known ones are not; of very many only a sum is kept."""
    found = Troubles()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(troubles, "MOST_CAUSES", 2)
        for reason in (None, "stop", "because", "because", "", "moon", "stars"):
            found.note_ending(reason)
    assert found.unknown_finish == Counter({"because": 2, "": 1, OTHER: 2})
