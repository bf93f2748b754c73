"""Where a run stands, in words: one line says it, and another process reads it back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.base.words import duration
from enrich.show.snapshot import Snapshot

SNAPSHOTS = st.builds(
    Snapshot,
    phase=st.sampled_from(["asking", "reading the input", "writing the output"]),
    done=st.integers(0, 10**9),
    total=st.none() | st.integers(0, 10**9),
    seconds=st.floats(0, 1e6),
    rate=st.floats(0, 1e6),
    eta=st.none() | st.floats(0, 1e7),
    in_flight=st.integers(0, 20_000),
    ceiling=st.integers(0, 20_000),
    tokens=st.integers(0, 10**12),
    credits=st.floats(0, 1e9),
    failures=st.lists(
        st.tuples(st.sampled_from(["timeout", "invalid_request"]), st.integers(1, 10**6)),
        max_size=2,
        unique_by=lambda cause: cause[0],
    ).map(tuple),
    rows=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.just("ok"), st.integers(0, 9)), max_size=2).map(
        tuple
    ),
    budget_left=st.just((("credits", 1.5),)),
    commits=st.integers(0, 10**6),
    waiting_for=st.sampled_from(["", "paused for 12 s: the endpoint asked to wait (429)"]),
)


@given(SNAPSHOTS)
def test_a_snapshot_survives_the_ledger(now: Snapshot) -> None:
    """What a run notes of itself reads back as it was."""
    assert Snapshot.from_dict(json.loads(json.dumps(now.to_dict()))) == now


def test_notes_of_other_versions_are_read() -> None:
    """A run of an earlier version, or of a later one, can be watched."""
    told = Snapshot("asking", 1, 3, 2.0, retries=(("timeout", 2),)).to_dict()
    assert Snapshot.from_dict({**told, "new": 1}) == Snapshot.from_dict(told)
    del told["rows"], told["budget_left"]
    assert Snapshot.from_dict(told).retries == (("timeout", 2),)


def test_the_line_says_it_all() -> None:
    """One line tells phase, rows, rate, time left, requests in flight, costs, failures by cause, and why it waits."""
    line = Snapshot(
        "asking", 1200, 5000, 60.0, 20.0, 190.0, 12, 64, 56_000, 1.5,
        (("timeout", 3),), (("rate_limited", 7),), "paused for 4 s: rate limited (429)", 62.0,
    ).line()  # fmt: skip
    assert line == (
        "asking: 1,200 of 5,000 rows · 20/s · 3 min 10 s left · 1 min 02 s so far · 12 in flight of 64 · 56,000 tokens · 1.5 credits · "
        "retried: 7 rate_limited · failed: 3 timeout · paused for 4 s: rate limited (429)"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    """Seconds are written as people say them."""
    assert duration(seconds) == text


def test_more_in_flight_than_may_be_is_told_as_such() -> None:
    """After a cut of the ceiling the line never says that ten of one are in flight."""
    line = Snapshot("asking", 1, 10, 1.0, in_flight=10, ceiling=1).line()
    assert "10 in flight, going down to 1" in line
