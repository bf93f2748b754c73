from __future__ import annotations

import email.utils

import pytest
from multidict import CIMultiDict

from enrich.wire.envelope import http_failure
from enrich.wire.retry_after import read_retry_after

NOW = 1_750_000_000.0  # seconds since the epoch, for dates in headers


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("1.5", 1.5), ("301", 301.0), ("604800", 604_800.0),
        ("-1", None), ("+1", None), ("nan", None), ("inf", None), ("1_0", None), ("\uff11\uff12", None), ("1e3", None), ("0x10", None),
        ("", None), ("soon", None), ("1,5", None), ("1750000000", None), ("9" * 400, None), (".5", None), ("5s", None),
        ("Thu, 99 Foo 2025 99:99:99 GMT", None), ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        (email.utils.formatdate(NOW + 30, usegmt=True), 30.0),
        (email.utils.formatdate(NOW - 30, usegmt=True), 0.0),
        (email.utils.formatdate(NOW + 10**8, usegmt=True), None),
        ("Sunday, 15-Jun-25 15:07:10 GMT", 30.0),
        ("Sun Jun 15 15:07:10 2025", 30.0),
    ],
)  # fmt: skip
def test_retry_after(value: str, seconds: float | None) -> None:
    """Retry-After is decimal seconds or an HTTP date; anything else, or over a month, is as if it were not there."""
    assert read_retry_after({"Retry-After": value}, now=NOW) == seconds


def test_retry_after_of_a_server_whose_clock_is_wrong() -> None:
    """A date counts from the server's own, since clocks differ."""
    headers = {"Retry-After": email.utils.formatdate(NOW + 30), "Date": email.utils.formatdate(NOW + 20)}
    assert read_retry_after(headers, now=NOW + 5000) == 10.0
    assert read_retry_after({**headers, "Date": "nonsense"}, now=NOW) == 30.0


def test_retry_after_milliseconds() -> None:
    """Milliseconds go before seconds, and are left out where they are no number."""
    assert read_retry_after({"Retry-After-Ms": "1500", "Retry-After": "9"}, now=NOW) == 1.5
    assert read_retry_after({"Retry-After-Ms": "nan", "Retry-After": "9"}, now=NOW) == 9.0
    assert read_retry_after(CIMultiDict({"x-ms-retry-after-ms": "1500"}), now=NOW) == 1.5
    assert read_retry_after({}, now=NOW) is None


def test_retry_after_behind_litellm() -> None:
    """What LiteLLM passes on of the endpoint's own header counts where the gateway itself says nothing."""
    passed_on = {"llm_provider-Retry-After": "7"}
    assert read_retry_after(passed_on, now=NOW) == 7.0
    assert read_retry_after({**passed_on, "Retry-After": "2"}, now=NOW) == 2.0
    assert read_retry_after({**passed_on, "Retry-After": "soon"}, now=NOW) == 7.0
    assert read_retry_after(CIMultiDict({"llm_provider-retry-after-ms": "250"}), now=NOW) == 0.25


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (
            b'{"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"a": 1}, {"retryDelay": "37s"}]}',
            37.0,
        ),
        (b'{"message": "slow", "retry_after": 2.5}', 2.5),
        (b'{"message": "slow", "retry_after": true}', None),
        (b'{"message": "slow", "retry_after": -1}', None),
        (b'{"message": "slow", "details": {"retryDelay": "1e9s"}}', None),
    ],
)
def test_wait_within_the_error(error: bytes, seconds: float | None) -> None:
    """The wait may stand in the error itself; the header goes before it."""
    body = b'{"error": %b}' % error
    assert http_failure(429, body).retry_after == seconds
    assert http_failure(429, body, retry_after=1.0).retry_after == 1.0
