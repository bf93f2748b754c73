from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.base.words import counted, duration, is_blank

UNIT = {"s": 1, "min": 60, "h": 3_600}


def seconds_of(text: str) -> int:
    """Read a duration back."""
    parts = re.findall(r"(\d+) (s|min|h)", text)
    assert " ".join(f"{number} {unit}" for number, unit in parts) == text
    return sum(int(number) * UNIT[unit] for number, unit in parts)


@given(st.floats(0, 1e6))
def test_a_duration_tells_its_seconds(seconds: float) -> None:
    """Read back it is the same time: to half a second below an hour, within the minute above."""
    told = seconds_of(duration(seconds))
    if seconds < 3_599.5:
        assert abs(told - seconds) <= 0.5
    else:
        assert told - 0.5 <= seconds < told + 60


@given(st.floats(0, 1e6))
def test_no_part_of_a_duration_is_a_whole_one_of_the_next(seconds: float) -> None:
    """No `60 s` and no `60 min`, wherever rounding falls."""
    numbers = {unit: int(number) for number, unit in re.findall(r"(\d+) (s|min)", duration(seconds))}
    assert all(number < 60 for number in numbers.values())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3_599.7, "1 h 00 min"),
        (7_500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """The two largest units that there are."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2_000_000, "2,000,000 rows")]
)
def test_counts(count: int, text: str) -> None:
    """One alone is singular; thousands are parted."""
    assert counted(count, "row") == text


@pytest.mark.parametrize(
    ("text", "blank"),
    [("", True), (" \n\u00a0\u3000", True), ("\u200b", True), (" \ufeff\u2060 ", True), ("\u200bx", False), ("x", False), ("\u0301", False)],
)  # fmt: skip
def test_what_nobody_sees_is_blank(text: str, blank: bool) -> None:
    """Blanks of any kind, and marks without width; but no text that holds one of them."""
    assert is_blank(text) is blank
