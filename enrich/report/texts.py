"""Texts as a page shows them: cut to a readable length, numbers as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

PROMPT_CHARACTERS = 1_500  # of one prompt on the page
ANSWER_CHARACTERS = 1_500  # of one answer
FAILED_CHARACTERS = 800  # of the prompt and of the answer of a failed row
VALUE_CHARACTERS = 120  # of one parsed value


def cut(text: str, most: int) -> str:
    """Give a text of at most so many characters, and say how long it was when it was longer."""
    if len(text) <= most:
        return text
    return f"{text[:most].rstrip()} … ({len(text):,} characters)"


def split_error(error: str) -> tuple[str, str]:
    """Split ``code: message``; the message may be empty."""
    code, _, message = error.partition(": ")
    return code, message


def number(value: float | None, digits: int = 6) -> str:
    """Write a number: ``1,234``, ``0.0012``, ``1,234.5``; a dash for None."""
    if value is None:
        return "–"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def percent(part: float, whole: float) -> str:
    """Write a share; never 0 % or 100 % for what is not quite that."""
    if not whole or not part:
        return "0 %"
    share = 100 * part / whole
    if share >= 100:
        return "100 %"
    if share < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if share > 99.9 else f"{share:.1f} %"


def milliseconds(value: float | None) -> str:
    """Write a time: ``84 ms``, ``1.25 s``, ``2 min 05 s``."""
    if value is None:
        return "–"
    if value < 999.5:
        return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
    if value < 59_995:
        return f"{value / 1_000:.2f} s"
    minutes, seconds = divmod(round(value / 1_000), 60)
    return f"{minutes:,} min {seconds:02} s"


def moment(seconds: float) -> str:
    """Write a time of day in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
