"""How long a response asks to wait, in whatever form it says so."""

from __future__ import annotations

import email.utils
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RETRY_AFTER = 31 * 86_400.0  # seconds; more is no wait but a broken header, such as an epoch time
PASSED_ON = "llm_provider-"  # what LiteLLM puts before the headers of the endpoint behind it

MILLISECONDS = ("Retry-After-Ms", "X-MS-Retry-After-Ms")  # OpenAI's, and Azure's

_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_DATE = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[ -~]*")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")  # as Google's RetryInfo writes one


def read_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Read what a response says of the wait before the next attempt.

    Args:
        headers: of the response; ``Retry-After-Ms``, or Azure's name for it, goes before ``Retry-After``, these before the same ones as
            LiteLLM passes them on (``llm_provider-retry-after``); a date counts from the response's own ``Date``.
        now: seconds since the epoch, for a response without a date.

    Returns:
        Seconds, 0 or more; None where nothing usable is said: no plain decimal number, no HTTP date, or more
        than a month.
    """
    for prefix in ("", PASSED_ON):
        for name in MILLISECONDS:
            milliseconds = _read_number(headers.get(f"{prefix}{name}", ""))
            if milliseconds is not None:
                return _sensible(milliseconds / 1000)
        value = headers.get(f"{prefix}Retry-After", "").strip()
        seconds = _read_number(value)
        if seconds is not None:
            return _sensible(seconds)
        until = _read_date(value)
        if until is not None:
            sent = _read_date(headers.get("Date", ""))
            return _sensible(max(0.0, until - (now if sent is None else sent)))
    return None


def said_wait(error: Mapping[str, Any]) -> float | None:
    """Read the wait from an error's own fields: ``retry_after`` in seconds, or Google's ``details[].retryDelay``."""
    details = error.get("details")
    for item in (error, *(details if isinstance(details, list) else [details])):
        if not isinstance(item, dict):
            continue
        seconds = item.get("retry_after")
        if (
            isinstance(seconds, int | float)
            and not isinstance(seconds, bool)
            and 0 <= seconds <= MAX_RETRY_AFTER
        ):
            return float(seconds)
        delay = _DURATION.fullmatch(str(item.get("retryDelay", "")))
        if delay is not None:
            return _sensible(float(delay[1]))
    return None


def _read_number(text: str) -> float | None:
    # float() would also take nan, inf, 1_0 and digits of other scripts.
    return float(text) if _DECIMAL.fullmatch(text.strip()) else None


def _read_date(text: str) -> float | None:
    if not _DATE.match(text):
        return None
    try:
        parts = email.utils.parsedate_tz(text)
        return float(email.utils.mktime_tz(parts)) if parts else None
    except (ValueError, OverflowError, TypeError, IndexError):  # the parser's own answers to broken dates
        return None


def _sensible(seconds: float) -> float | None:
    return seconds if seconds <= MAX_RETRY_AFTER else None
