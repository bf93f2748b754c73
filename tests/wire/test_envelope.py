from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.records import Fate
from enrich.wire.envelope import http_failure, mend, one_line


def body(**error: Any) -> bytes:
    """Write an error envelope."""
    return json.dumps({"error": error}).encode()


def test_envelope() -> None:
    """An envelope gives its code, its message, its flag and its request id."""
    failure = http_failure(
        503, body(code="model_unavailable", message="Busy", retryable=True, request_id="r-1")
    )
    assert (failure.code, failure.message, failure.retryable) == ("model_unavailable", "Busy", True)
    assert (failure.request_id, failure.status, failure.fate) == ("r-1", 503, Fate.REFUSED)
    assert http_failure(503, body(request_id="r-1"), request_id="header").request_id == "header"


@pytest.mark.parametrize(
    ("status", "error", "fate"),
    [
        (400, {"code": "invalid_request", "retryable": False}, Fate.REFUSED),
        (500, {"code": "internal", "retryable": True}, Fate.REFUSED),
        (504, {"code": "upstream_timeout", "retryable": True}, Fate.REFUSED),
        (500, {"code": "billing_failed", "retryable": True}, Fate.UNKNOWN),
        (503, {"code": "model_unavailable"}, Fate.REFUSED),
        (500, {"message": "it broke", "type": "server_error"}, Fate.UNKNOWN),
        (408, {"message": "slow"}, Fate.UNKNOWN),
        (499, {"message": "cancelled"}, Fate.UNKNOWN),
        (408, {"code": "slow", "retryable": True}, Fate.REFUSED),
        (404, {"message": "no such model"}, Fate.REFUSED),
    ],
)
def test_fate(status: int, error: dict[str, Any], fate: Fate) -> None:
    """Beatra's word proves that nothing was charged; a gateway's 5xx or 408 does not."""
    assert http_failure(status, body(**error)).fate is fate


@pytest.mark.parametrize(
    ("status", "code", "fate"),
    [
        (400, "http_400", Fate.REFUSED),
        (401, "http_401", Fate.REFUSED),
        (408, "http_408", Fate.UNKNOWN),
        (429, "rate_limited", Fate.REFUSED),
        (307, "redirected", Fate.REFUSED),
        (500, "http_500", Fate.UNKNOWN),
        (502, "http_502", Fate.UNKNOWN),
        (504, "http_504", Fate.UNKNOWN),
    ],
)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>\r\n<h1>Bad Gateway</h1>",
        b'{"error": {"code": "inv',
        b"[]",
        b"null",
        b'{"error": null}',
        b"\xff",
    ],
)
def test_without_an_envelope(status: int, code: str, fate: Fate, raw: bytes) -> None:
    """Where a proxy answers, the status speaks alone."""
    failure = http_failure(status, raw)
    assert (failure.code, failure.fate, failure.retryable, failure.evidence) == (code, fate, None, raw)
    assert failure.message.startswith(f"HTTP {status}")
    assert failure.message.isprintable()


@pytest.mark.parametrize(
    ("payload", "code", "message"),
    [
        (
            {"error": {"message": "bad", "type": "invalid_request_error", "code": None}},
            "invalid_request_error",
            "bad",
        ),
        ({"error": {"message": "bad", "code": 400}}, "http_400", "bad"),
        ({"error": {"code": "two words", "message": "bad"}}, "http_400", "bad"),
        ({"error": "bad"}, "http_400", "bad"),
        ({"detail": "bad"}, "http_400", "bad"),
        ({"detail": [{"loc": ["body", "n"], "msg": "not a number"}]}, "http_400", "body.n: not a number"),
        ({"message": "bad", "code": "gateway_says"}, "gateway_says", "bad"),
        (
            {"object": "error", "message": {"detail": [{"loc": ["body", "x"], "msg": "bad"}]}, "type": "t"},
            "t",
            "body.x: bad",
        ),
        ({"message": "bad", "__type": "com.amazon.coral#ThrottlingException"}, "ThrottlingException", "bad"),
    ],
)
def test_other_shapes(payload: Any, code: str, message: str) -> None:
    """Errors in other vendors' and gateways' shapes are read as far as they go; they carry no flag."""
    failure = http_failure(400, json.dumps(payload).encode())
    assert (failure.code, failure.message, failure.retryable) == (code, message, None)


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (429, {"code": "429", "type": "invalid_request_error"}, "rate_limited"),
        (408, {"code": "408", "type": "invalid_request_error"}, "http_408"),
        (500, {"code": None, "type": "invalid_request_error"}, "http_500"),
        (400, {"code": "400", "type": "invalid_request_error"}, "invalid_request_error"),
        (429, {"code": None, "type": "insufficient_quota"}, "insufficient_quota"),
        (400, {"code": "bad_thing", "type": "budget_exceeded"}, "budget_exceeded"),
        (404, {"code": 404, "type": "NotFoundError"}, "NotFoundError"),
        (429, {"code": 429, "status": "RESOURCE_EXHAUSTED"}, "RESOURCE_EXHAUSTED"),
        (503, {"code": "overloaded", "type": "invalid_request_error"}, "overloaded"),
    ],
)
def test_code_or_type(status: int, error: dict[str, Any], code: str) -> None:
    """A code of digits is none; a type that blames the client gives way to a status that does not."""
    failure = http_failure(status, body(message="m", **error))
    assert (failure.code, failure.status) == (code, status)


@pytest.mark.parametrize(
    "payload",
    [
        [{"error": {"message": "bad", "code": 400, "status": "INVALID_ARGUMENT"}}],
        {"object": "error", "message": "bad", "type": "BadRequestError", "code": 400},
        {"success": False, "errors": [{"code": 7003, "message": "bad"}]},
        {"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}},
    ],
)
def test_shapes_of_other_vendors(payload: Any) -> None:
    """Google's list, vLLM's former object, Cloudflare's `errors` and Anthropic's envelope are read."""
    assert http_failure(400, json.dumps(payload).encode()).message == "bad"


@pytest.mark.parametrize("flag", ["true", 1, None, [], {}])
def test_flag_that_is_no_boolean(flag: Any) -> None:
    """Only true and false are a flag."""
    assert http_failure(500, body(code="x", retryable=flag)).retryable is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"message": "Invalid", "param": "/max_tokens"}, "Invalid (at /max_tokens)"),
        ({"message": "Invalid /max_tokens", "param": "/max_tokens"}, "Invalid /max_tokens"),
        (
            {"message": "Unsupported", "details": {"unsupported_fields": ["seed", "n"]}},
            "Unsupported; remove seed; n",
        ),
        ({"message": "Bad", "details": {"errors": [{"path": "/a", "message": "x"}, "y"]}}, "Bad: /a: x; y"),
        ({"message": "Bad", "details": [{"field": "a", "reason": "x"}]}, "Bad: a: x"),
        ({"message": "Bad", "details": {"limit": 8}}, 'Bad: {"limit": 8}'),
        ({"message": "Bad", "details": {}}, "Bad"),
        ({"message": "Bad", "details": {"errors": []}}, "Bad"),
        ({"details": "why"}, "why"),
        ({"message": "Bad", "details": {"errors": list("abcdefg")}}, "Bad: a; b; c; d; e; 2 more"),
    ],
)
def test_details(error: dict[str, Any], message: str) -> None:
    """The fields that an error names are shown in its message."""
    assert http_failure(422, body(code="invalid_request", **error)).message == message


def test_hostile_text() -> None:
    """A message is one printable line of bounded length, and little of the body is kept."""
    failure = http_failure(500, body(message="a\r\n\x1b[31mred\u202e " + "x" * 5000))
    assert failure.message.startswith("a [31mred xxx")
    assert failure.message.isprintable()
    assert len(failure.message) == 500
    assert len(failure.evidence) == 2048


@given(st.text(st.characters()), st.integers(1, 50))
def test_one_line(text: str, limit: int) -> None:
    """Any text becomes one printable line within the limit, and stays as it is the second time."""
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    assert one_line(line, limit) == line
    line.encode()  # no half of a surrogate pair is left


@given(st.text(st.characters()))
def test_mend(text: str) -> None:
    """Any text can be encoded after mending, and whole text is left alone."""
    mended = mend(text)
    assert mended.encode().decode() == mended
    assert mended == text or any("\ud800" <= c <= "\udfff" for c in text)
