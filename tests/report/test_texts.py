from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.report.texts import cut, milliseconds, moment, number, percent, split_error


def test_numbers_are_written_as_people_do() -> None:
    """Thousands are set off, shares are never rounded to all or nothing."""
    assert [number(v) for v in (None, 0, 1234, 0.0012, 1234.5)] == ["–", "0", "1,234", "0.0012", "1,234.5"]
    assert [percent(p, 10_000) for p in (0, 1, 125, 9_999, 10_000)] == [
        "0 %",
        "< 0.1 %",
        "1.2 %",
        "> 99.9 %",
        "100 %",
    ]
    assert [milliseconds(v) for v in (3.21, 84, 1_250, 125_000)] == [
        "3.2 ms",
        "84 ms",
        "1.25 s",
        "2 min 05 s",
    ]


def test_a_cut_text_says_how_long_it_was() -> None:
    """A reader sees that there was more."""
    assert cut("abc", 3) == "abc"
    assert cut("abcdef", 3) == "abc … (6 characters)"


@given(st.text(max_size=30), st.integers(1, 20))
def test_a_cut_text_is_a_beginning(text: str, most: int) -> None:
    """What is shown is the text, or its beginning with its whole length behind."""
    shown = cut(text, most)
    if len(text) <= most:
        assert shown == text
    else:
        beginning, _, length = shown.rpartition(" … ")
        assert text.startswith(beginning)
        assert len(beginning) <= most
        assert length == f"({len(text)} characters)"


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        ("rate_limited: slow down", ("rate_limited", "slow down")),
        ("invalid_request: a: b", ("invalid_request", "a: b")),
        ("filtered", ("filtered", "")),
        ("http_500: ", ("http_500", "")),
        ("", ("", "")),
    ],
)
def test_an_error_is_a_code_and_a_message(error: str, parts: tuple[str, str]) -> None:
    """The first colon parts them."""
    assert split_error(error) == parts


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_share_is_all_or_nothing_only_when_it_is(part: int, whole: int) -> None:
    """0 % is said of nothing and 100 % of everything; else the share is within its rounding."""
    part = min(part, whole)
    text = percent(part, whole)
    assert (text == "100 %") == (part == whole)
    assert text != "0 %"
    if re.fullmatch(r"[\d.]+ %", text):
        assert float(text[:-2]) == pytest.approx(100 * part / whole, abs=0.0501)


@given(st.floats(0, 4e6))
def test_a_time_is_read_back(value: float) -> None:
    """To three figures below a minute, to the second above; 60 is no number of seconds."""
    text = milliseconds(value)
    parts = re.findall(r"([\d.,]+) (ms|s|min)", text)
    assert all(float(figure) < 60 for figure, unit in parts if unit == "s")
    told = sum(
        float(figure.replace(",", "")) * {"ms": 1, "s": 1_000, "min": 60_000}[unit] for figure, unit in parts
    )
    assert told == pytest.approx(value, abs=500 if value >= 59_995 else max(0.0501, value * 0.06))


def test_nothing_is_a_dash() -> None:
    """What is not known is not 0."""
    assert (number(None), milliseconds(None)) == ("–", "–")
    assert (number(0.0), milliseconds(0.0)) == ("0", "0.0 ms")


def test_a_moment_is_in_utc() -> None:
    """Readers in several places see one time, and which it is."""
    at = datetime(2026, 11, 22, 23, 59, 58, tzinfo=UTC)
    assert moment(at.timestamp()) == "2026-11-22 23:59:58 UTC"
