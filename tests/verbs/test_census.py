"""The census: what a run would send is counted as a reader of all rows would count it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, NamedTuple, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.records import Ask, Outcome
from enrich.rows.statuses import Marks
from enrich.verbs import census
from enrich.verbs.census import Census, RequestCount, Standing

if TYPE_CHECKING:
    import pytest

HERE = Path(gettempdir())


class Place(NamedTuple):
    """What a row asks at a step: a number for its text, whether that is known, and how long it is."""

    text: int
    known: bool
    size: int


def ask_of(place: Place) -> Ask:
    """Give the request of a place; equal texts make equal requests."""
    key = hashlib.blake2b(bytes([place.text]), digest_size=16).digest()
    return Ask(key, b"x" * place.size, "auto")


texts = st.integers(0, 9).map(lambda text: Place(text, known=text % 3 == 0, size=10 + text))
tables = st.integers(1, 3).flatmap(
    lambda steps: st.tuples(
        st.just(steps), st.lists(st.lists(texts | st.none(), min_size=steps, max_size=steps), max_size=12)
    )
)


def taken(table: list[list[Place | None]], steps: int, seed: int) -> tuple[Census, Marks]:
    """Have a census and marks take note of a table, as a flow does; None is skipped."""
    marks = Marks(len(table), steps, HERE, keep=False)
    found = Census(len(table), steps, seed=seed, directory=HERE)
    for row, places in enumerate(table):
        for step, place in enumerate(places):
            if place is None:
                marks.set(row, step, Outcome("skipped"))
                continue
            ask = ask_of(place)
            found(row, step, ask, not place.known)
            marks.set(row, step, Outcome("ok" if place.known else "pending", key=ask.key))
    marks.find_copies()
    return found, marks


def test_any_seed() -> None:
    """A seed of any size draws rows."""
    for seed in (-1, 2**63, 10**40):
        with Census(0, 1, seed=seed, directory=HERE):
            pass


@settings(max_examples=60)
@given(tables)
def test_requests_are_counted_where_they_stand_first(table: tuple[int, list[list[Place | None]]]) -> None:
    """Each distinct request counts once, at the step and with the bytes of its first place."""
    steps, rows = table
    expected = [[0, 0, 0] for _ in range(steps)]
    seen: set[int] = set()
    for row in rows:
        for step, place in enumerate(row):
            if place is None or place.text in seen:
                continue
            seen.add(place.text)
            expected[step][0 if place.known else 1] += 1
            expected[step][2] += 0 if place.known else place.size
    found, marks = taken(rows, steps, 0)
    with found, marks:
        assert found.counts(marks) == [RequestCount(known, left, size, 0) for known, left, size in expected]


@settings(max_examples=60)
@given(tables, st.integers(-5, 5), st.integers(0, 6), st.sampled_from(get_args(Standing)))
def test_a_sample_is_the_same_at_every_call(
    table: tuple[int, list[list[Place | None]]],
    seed: int,
    size: int,
    of: Standing,
) -> None:
    """So many rows at most, in input order, each first for a request, and the same ones again."""
    steps, rows = table
    found, marks = taken(rows, steps, seed)
    again, others = taken(rows, steps, seed)
    with found, marks, again, others:
        sample = found.sample(marks, size, of=of)
        everything = found.sample(marks, 1_000, of=of)
        assert again.sample(others, size, of=of) == sample
    assert len(sample) == min(size, len(everything))
    assert [unit.row for unit in sample] == sorted(unit.row for unit in sample)
    lowest = sorted(unit.rank for unit in everything)[:size]
    assert sorted(unit.rank for unit in sample) == lowest
    assert all(len(unit.sizes) == steps for unit in sample)


def test_many_rows_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted and chosen does not depend on how many are looked at in one pass."""
    rows: list[list[Place | None]] = [[Place(n % 200, known=n % 2 == 0, size=n)] for n in range(300)]
    found, marks = taken(rows, 1, 1)
    with found, marks:
        whole = (found.counts(marks), found.sample(marks, 20, of="all"))
        monkeypatch.setattr(census, "ROWS_AT_ONCE", 7)
        assert (found.counts(marks), found.sample(marks, 20, of="all")) == whole
    assert whole[0] == [RequestCount(100, 100, sum(n for n in range(200) if n % 2), 0)]


def test_another_seed_draws_other_rows() -> None:
    """Of enough rows two seeds draw different samples, and neither draws the first rows."""
    rows: list[list[Place | None]] = [[Place(n, known=False, size=1)] for n in range(200)]
    drawn = []
    for seed in (0, 1):
        found, marks = taken(rows, 1, seed)
        with found, marks:
            drawn.append([unit.row for unit in found.sample(marks, 10, of="all")])
    assert drawn[0] != drawn[1]
    assert list(range(10)) not in drawn
