"""How rows stand: what was noted is read back, whatever the order, the passes and the room for it."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.errors import DiskFull
from enrich.records import Outcome
from enrich.rows import statuses
from enrich.rows.occurrences import Occurrences
from enrich.rows.statuses import Marks

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(tempfile.gettempdir())
keys = st.integers(0, 7).map(lambda number: bytes([number * 36]) + bytes(14) + bytes([number]))
settled = keys.map(lambda key: Outcome("ok", key=key, text="t", source="api"))
from_ledger = keys.map(lambda key: Outcome("ok", key=key))
left = keys.map(lambda key: Outcome("pending", key=key))
unasked = st.sampled_from(
    [Outcome("skipped"), Outcome("error", "null_value: `t`"), Outcome("error", "x"), Outcome("pending")]
)
outcomes = settled | from_ledger | left | unasked
tables = st.integers(1, 3).flatmap(
    lambda steps: st.tuples(
        st.just(steps),
        st.lists(st.lists(outcomes | st.none(), min_size=steps, max_size=steps), min_size=1, max_size=10),
    )
)
Table = tuple[int, list[list[Outcome | None]]]


@pytest.fixture(autouse=True, params=[65_536, 2])
def _passes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything holds in one pass as in many small ones."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(statuses, "KEYS_AT_ONCE", request.param)
        monkeypatch.setattr(statuses, "ROWS_AT_ONCE", request.param)
        monkeypatch.setattr(statuses, "FORGET_EVERY", request.param)
        yield


def noted(table: Table, *, keep: bool = True) -> Marks:
    """Make the marks of a table, from its last row to its first; None is not decided."""
    steps, rows = table
    marks = Marks(len(rows), steps, HERE, keep=keep)
    for row in reversed(range(len(rows))):
        for step, outcome in enumerate(rows[row]):
            if outcome is not None:
                marks.set(row, step, outcome)
    return marks


@settings(max_examples=40)
@given(tables)
def test_what_was_noted_is_read_back(table: Table) -> None:
    """Requests by their keys, reasons as they were given, answers where they were kept; the rest is pending."""
    steps, rows = table
    with noted(table) as marks:
        for step in range(steps):
            standing = marks.read(0, len(rows), step)
            for row, key, kept in zip(rows, standing.keys, standing.outcomes, strict=True):
                given_ = row[step]
                if given_ is None or given_.key is None:
                    assert (key, kept) == (None, given_ or Outcome("pending"))
                elif given_.status == "pending":
                    assert (key, kept) == (None, Outcome("pending"))
                else:
                    assert key == given_.key
                    assert kept == (given_ if given_.source is not None else None)
            assert standing.copies == [False] * len(rows)
            keys = {outcome.key for row in rows if (outcome := row[step]) is not None}
            assert marks.asked(0, len(rows), step) == keys - {None}


@settings(max_examples=40)
@given(tables)
def test_copies_come_after_their_first(table: Table) -> None:
    """A request is a copy where an earlier row, or an earlier step of its row, has it; the others are distinct."""
    steps, rows = table
    seen: set[bytes] = set()
    expected = []
    for row in rows:
        for outcome in row:
            key = None if outcome is None else outcome.key
            expected.append(key in seen)
            seen |= {key} - {None}  # type: ignore[arg-type]
    with noted(table) as marks:
        assert marks.find_copies() == len(seen)
        found = [marks.read(0, len(rows), step).copies for step in range(steps)]
        assert [copies[row] for row in range(len(rows)) for copies in found] == expected
        firsts = marks.firsts(0, len(rows))
        known = [bool(o and o.key and o.status == "ok") for row in rows for o in row]
        waiting = [bool(o and o.key and o.status == "pending") for row in rows for o in row]
        assert firsts.known.ravel().tolist() == [k and not c for k, c in zip(known, expected, strict=True)]
        assert firsts.left.ravel().tolist() == [w and not c for w, c in zip(waiting, expected, strict=True)]


@settings(max_examples=40)
@given(tables)
def test_reasons_are_counted(table: Table) -> None:
    """Rows without a request are counted by status, at each step; what is not decided counts as pending."""
    steps, rows = table
    with noted(table) as marks:
        for step in range(steps):
            expected: dict[str, int] = {}
            for row in rows:
                outcome = row[step] or Outcome("pending")
                if outcome.key is None:
                    expected[outcome.status] = expected.get(outcome.status, 0) + 1
            assert {name: count for name, count in marks.reasons(step).items() if count} == expected


@settings(max_examples=40)
@given(tables, st.integers(1, 4))
def test_repeats_are_found_part_by_part(table: Table, part: int) -> None:
    """Parts that are finished one after the other find what came in earlier ones, as one look at all does."""
    steps, rows = table
    seen: set[bytes] = set()
    expected = []
    for row in rows:
        for outcome in row:
            key = outcome.key if outcome is not None and outcome.status != "pending" else None
            expected.append(key in seen)
            seen |= {key} - {None}  # type: ignore[arg-type]
    with noted(table) as marks, Occurrences() as counted:
        for first in range(0, len(rows), part):
            marks.find_repeats(first, min(part, len(rows) - first), counted)
        found = [marks.read(0, len(rows), step).copies for step in range(steps)]
    assert [copies[row] for row in range(len(rows)) for copies in found] == expected


def test_reasons_beyond_number_keep_their_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """When every row fails in words of its own, memory stays flat: the later ones keep the code alone."""
    monkeypatch.setattr(statuses, "NOTES_MOST", 4)
    with Marks(4, 1, HERE) as marks:
        for row in range(4):
            marks.set(row, 0, Outcome("error", f"template_error: row {row}"))
        found = [outcome.error for outcome in marks.read(0, 4, 0).outcomes if outcome is not None]
        assert found == ["template_error: row 0", "template_error", "template_error", "template_error"]
        assert marks.reasons(0)["error"] == 4


def test_a_disk_without_room_is_told_before_the_first_row(tmp_path: Path) -> None:
    """The file is made without holes: no map over a hole kills the process later."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(
            DiskFull, match=r"there is no room for the [\d,]+ bytes that keep track of the rows"
        ):
            Marks(1_000, 1, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_no_rows() -> None:
    """An empty input has nothing to keep and nothing to count."""
    with Marks(0, 2, HERE) as marks:
        assert marks.find_copies() == 0
        assert marks.read(0, 0, 1).keys == []
        assert not marks.reasons(0).total()
