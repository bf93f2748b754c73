"""A job's slices of time: what is drawn is what was, and idle time is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.report.timeline import KEPT, MOST, Slices

NONE = np.array([], np.float64)
NIGHT = 40_000.0  # seconds


@given(
    st.lists(st.tuples(st.floats(0, 100, width=32), st.floats(0, 40, width=32)), min_size=1, max_size=30),
    st.integers(1, 5),
)
def test_in_flight_is_the_mean_of_what_was_under_way(
    attempts: list[tuple[float, float]], pieces: int
) -> None:
    """Two sums per slice give the same as looking at every attempt in every slice, however often slices were merged."""
    begin = 1_000.0
    slices = Slices()
    ends = np.array([begin + at for at, _ in attempts])
    took = np.array([seconds for _, seconds in attempts])
    for part in np.array_split(np.arange(len(attempts)), pieces):
        slices.add(ends[part], took[part], np.ones(len(part)), NONE)
    timeline = slices.timeline()
    assert len(timeline.starts) <= MOST
    for low, mean in zip(timeline.starts, timeline.in_flight, strict=True):
        overlap = np.clip(np.minimum(ends, low + timeline.width) - np.maximum(ends - took, low), 0, None)
        assert mean == pytest.approx(overlap.sum() / timeline.width, abs=0.01)
    assert sum(timeline.answers) * timeline.width == pytest.approx(len(attempts), rel=0.01)
    assert timeline.credits[-1] == len(attempts)


def test_the_night_between_two_runs_is_left_out() -> None:
    """Two short runs lie side by side; where time is missing is said, and the clock of each slice is right."""
    slices = Slices()
    for run in (0.0, NIGHT):
        ends = 1e9 + run + np.linspace(0.5, 10, 200)
        slices.add(ends, np.full(200, 0.2), np.full(200, 0.01), ends[:3])
    timeline = slices.timeline()
    (place,) = timeline.breaks
    assert timeline.starts[place - 1] < 1e9 + 11
    assert timeline.starts[place] == pytest.approx(1e9 + NIGHT + 0.3, abs=timeline.width)
    assert timeline.credits[place - 1] == pytest.approx(2.0)
    assert len(timeline.starts) * timeline.width < 30


def test_a_wait_for_one_slow_answer_is_no_idle_time() -> None:
    """While a request is under way nothing is left out."""
    slices = Slices()
    slices.add(np.array([1.0, 500.0]), np.array([0.5, 499.5]), np.zeros(2), NONE)
    timeline = slices.timeline()
    assert timeline.breaks == ()
    assert timeline.in_flight[len(timeline.in_flight) // 2] == pytest.approx(1.0)


def test_a_week_fits_on_a_screen() -> None:
    """Memory and drawing are bounded, whatever the span."""
    slices = Slices()
    for day in range(7):
        ends = 1e9 + 86_400 * day + np.linspace(0, 86_000, 5_000)
        slices.add(ends, np.full(5_000, 3.0), np.zeros(5_000), NONE)
        assert len(slices._index) <= KEPT
    assert 20 < len(slices.timeline().answers) <= MOST


def test_nothing_has_no_slices() -> None:
    """A job that never got an answer has a timeline of nothing."""
    assert Slices().timeline().starts == ()
