"""Faults as they go over the wire."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import jsonschema_rs
import orjson
import pytest

from enrich.sandbox import FAULTS, Fault, Sandbox, SandboxOptions
from enrich.sandbox.breakage import PADDING
from tests.helpers.sandbox import (
    LABELS,
    Answer,
    Caller,
    ask,
    chunks,
    new_key,
    with_schema,
)

ENVELOPES = {
    "rate_limited": (429, "rate_limited", True),
    "rate_limited_retry_after": (429, "rate_limited", True),
    "retry_after_date": (429, "rate_limited", True),
    "retry_after_garbage": (429, "rate_limited", True),
    "unauthorized": (401, "unauthorized", False),
    "forbidden": (403, "forbidden", False),
    "tenant_disabled": (403, "tenant_disabled", False),
    "region_mismatch": (400, "api_key_region_mismatch", False),
    "insufficient_balance": (402, "insufficient_balance", False),
    "invalid_request": (422, "invalid_request", False),
    "unsupported_model": (400, "unsupported_model", False),
    "unsupported_capability": (400, "unsupported_capability", False),
    "unsupported_option": (422, "unsupported_option", False),
    "in_flight_409": (409, "idempotency_in_progress", True),
    "billing_failed": (500, "billing_failed", True),
    "model_unavailable": (503, "model_unavailable", True),
    "internal_error": (500, "internal_error", True),
    "internal_error_final": (500, "internal_error", False),
    "retryable_400": (400, "invalid_request", True),
    "error_in_200": (200, "model_unavailable", True),
}
SLOW = {"stall", "slow_loris", "stream_stall"}  # no answer until the client gives up


async def suffer(
    session: aiohttp.ClientSession, kind: str, body: Any = None
) -> tuple[Answer, Answer, Sandbox]:
    """Send a request that suffers a fault, and the same again without it."""
    key = new_key()
    async with Sandbox(SandboxOptions(), script=[kind]) as sandbox:
        caller = Caller(session, sandbox.base_url)
        return await caller.chat(body, key=key), await caller.chat(body, key=key), sandbox


@pytest.mark.parametrize("kind", ENVELOPES)
async def test_a_refusal_carries_the_envelope(session: aiohttp.ClientSession, kind: str) -> None:
    """Status, code and flag are those of the contract; nothing is charged until the retry."""
    struck, again, sandbox = await suffer(session, kind)
    error = struck.error
    assert (struck.status, error["code"], error["retryable"]) == ENVELOPES[kind]
    assert error.keys() <= {"code", "message", "retryable", "request_id", "param", "details"}
    assert error["request_id"] == struck.headers["X-Request-Id"]
    assert again.status == 200
    assert "Idempotency-Replayed" not in again.headers
    assert sandbox.books.faults == {kind: 1}


async def test_retry_after_takes_every_form(session: aiohttp.ClientSession) -> None:
    """Seconds, a date ahead of the server's own, and something that is neither."""
    seconds, _, _ = await suffer(session, "rate_limited_retry_after")
    date, _, _ = await suffer(session, "retry_after_date")
    garbage, _, _ = await suffer(session, "retry_after_garbage")
    assert seconds.headers["Retry-After"] == "1"
    assert garbage.headers["Retry-After"] == "nan"
    ahead = parsedate_to_datetime(date.headers["Retry-After"]) - parsedate_to_datetime(date.headers["Date"])
    assert 0 <= ahead.total_seconds() <= 3


@pytest.mark.parametrize(
    ("kind", "status", "part", "charged"),
    [
        ("bad_gateway_html", 502, b"<html>", False),
        ("gateway_timeout", 504, b"<html>", False),
        ("gateway_timeout_after_charge", 504, b"<html>", True),
        ("empty_500", 500, b"", False),
        ("plain_500", 500, b"Internal", False),
        ("redirect", 302, b"Found", False),
    ],
)
async def test_a_proxy_answers_without_an_envelope(
    session: aiohttp.ClientSession, kind: str, status: int, part: bytes, *, charged: bool
) -> None:
    """A page from the way has no request id; the retry is free only if the request was executed."""
    struck, again, sandbox = await suffer(session, kind)
    assert struck.status == status
    assert part in struck.body
    assert "X-Request-Id" not in struck.headers
    assert ("Idempotency-Replayed" in again.headers) is charged
    assert sandbox.books.total.charges == 1


@pytest.mark.parametrize(
    ("kind", "error", "charged"),
    [
        ("reset", aiohttp.ClientOSError, False),
        ("disconnect_keepalive", aiohttp.ServerDisconnectedError, False),
        ("reset_after_charge", aiohttp.ClientOSError, True),
        ("cut_chunked", aiohttp.ClientPayloadError, True),
        ("stream_cut", aiohttp.ClientPayloadError, True),
    ],
)
async def test_a_broken_connection_looks_broken(
    session: aiohttp.ClientSession, kind: str, error: type[Exception], *, charged: bool
) -> None:
    """The client sees the break; the same key then gets an answer that is charged once in all."""
    key, body = new_key(), ask(stream=kind.startswith("stream_"))
    async with Sandbox(SandboxOptions(), script=[kind]) as sandbox:
        caller = Caller(session, sandbox.base_url)
        with pytest.raises(error):
            await caller.chat(body, key=key)
        assert sandbox.books.total.charges == charged
        again = await caller.chat(body, key=key)
    assert ("Idempotency-Replayed" in again.headers) is charged
    assert sandbox.books.keys[key].charges == 1


@pytest.mark.parametrize("kind", sorted(SLOW))
async def test_a_silent_server_waits_for_the_client_to_give_up(
    session: aiohttp.ClientSession, kind: str
) -> None:
    """The client runs into its own time-out; the sandbox lets go of the request then."""
    async with Sandbox(SandboxOptions(), script=[kind]) as sandbox:
        caller = Caller(session, sandbox.base_url)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.chat(ask(stream=kind == "stream_stall")), 0.5)
        assert (await caller.chat()).status == 200
    assert sandbox.books.in_flight == 0
    assert sandbox.books.total.charges == (1 if kind == "stall" else 2)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", ["cut_body", "cut_json", "empty_body", "invalid_utf8", "no_choices"])
async def test_a_spoilt_body_is_whole_on_the_retry(
    session: aiohttp.ClientSession, kind: str, *, streamed: bool
) -> None:
    """A 200 whose body is unusable was charged; the same key gets the whole answer for nothing."""
    struck, again, sandbox = await suffer(session, kind, ask(stream=streamed))
    assert struck.status == again.status == 200
    assert struck.body != again.body
    if kind in ("cut_body", "cut_json", "empty_body"):
        assert again.body.startswith(struck.body)
    if kind == "invalid_utf8":
        with pytest.raises(UnicodeDecodeError):
            struck.body.decode()
    if kind == "no_choices":
        assert b'"choices"' not in struck.body
    assert again.headers["Idempotency-Replayed"] == "true"
    assert sandbox.books.total.charges == 1


@pytest.mark.parametrize(
    ("kind", "ids"), [("missing_request_id", 0), ("duplicate_request_id", 2), ("same_request_id", 1)]
)
async def test_the_request_id_can_be_wrong(session: aiohttp.ClientSession, kind: str, ids: int) -> None:
    """It is missing, stands there twice, or is the same on every answer."""
    struck, _, _ = await suffer(session, kind)
    found = struck.headers.getall("X-Request-Id", [])
    assert len(set(found)) == len(found) == ids
    if kind == "same_request_id":
        other, _, _ = await suffer(session, kind)
        assert other.headers["X-Request-Id"] == found[0]


async def test_the_content_type_can_be_wrong(session: aiohttp.ClientSession) -> None:
    """The right JSON comes as HTML."""
    struck, again, _ = await suffer(session, "wrong_content_type")
    assert struck.headers["Content-Type"] == "text/html"
    assert struck.body == again.body


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", ["huge_body", "gzip_bomb"])
async def test_a_body_can_be_huge(session: aiohttp.ClientSession, kind: str, *, streamed: bool) -> None:
    """Padding surrounds the answer, in plain or folded up; the answer in it is right."""
    struck, again, _ = await suffer(session, kind, ask(stream=streamed))
    assert len(struck.body) > PADDING
    assert struck.body.endswith(again.body[1:])


@pytest.mark.parametrize(
    ("kind", "finish_reason"),
    [
        ("null_content", "stop"),
        ("tool_calls", "tool_calls"),
        ("truncated", "length"),
        ("content_filter", "content_filter"),
        ("refusal", "stop"),
        ("missing_usage", "stop"),
        ("fenced_json", "stop"),
    ],
)
async def test_a_bad_answer_stays_bad(session: aiohttp.ClientSession, kind: str, finish_reason: str) -> None:
    """What the model itself got wrong is what was paid for: the same key gets it again."""
    struck, again, _ = await suffer(session, kind)
    choice = struck.json["choices"][0]
    assert struck.body == again.body
    assert choice["finish_reason"] == finish_reason
    assert (choice["message"]["content"] is None) is (kind in ("null_content", "tool_calls", "refusal"))
    assert ("usage" in struck.json) is (kind != "missing_usage")
    assert bool(choice["message"].get("tool_calls")) is (kind == "tool_calls")
    assert bool(choice["message"].get("refusal")) is (kind == "refusal")


async def test_bad_answers_are_streamed_as_well(session: aiohttp.ClientSession) -> None:
    """A stream carries tool calls and refusals in its deltas, and no text."""
    for kind in ("tool_calls", "refusal"):
        struck, _, _ = await suffer(session, kind, ask(stream=True))
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks(struck.body)]
        assert any(kind in delta for delta in deltas)
        assert not any("content" in delta for delta in deltas)


@pytest.mark.parametrize(
    "schema", [LABELS, {"type": "object"}, {"type": "array"}, {"type": ["object", "null"]}]
)
async def test_an_answer_can_break_its_schema(session: aiohttp.ClientSession, schema: dict[str, Any]) -> None:
    """It is JSON still, but not of the schema."""
    struck, _, _ = await suffer(session, "broken_schema", with_schema(schema))
    assert not jsonschema_rs.is_valid(schema, orjson.loads(struck.text))


@pytest.mark.parametrize("kind", ["stream_early_end", "stream_error_event", "stream_no_done"])
async def test_a_stream_can_end_without_done(session: aiohttp.ClientSession, kind: str) -> None:
    """The body ends cleanly, but the stream is not complete; the retry is."""
    struck, again, sandbox = await suffer(session, kind, ask(stream=True))
    assert b"[DONE]" not in struck.body
    assert (b"finish_reason" in struck.body) is True
    assert (b'"finish_reason":"stop"' in struck.body) is (kind == "stream_no_done")
    assert (b'data: {"error"' in struck.body) is (kind == "stream_error_event")
    assert chunks(again.body)
    assert sandbox.books.total.charges == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", sorted(FAULTS.keys() - SLOW - {"huge_body", "gzip_bomb"}))
async def test_every_fault_can_be_played(
    session: aiohttp.ClientSession, kind: str, *, streamed: bool
) -> None:
    """Each kind that there is does something, and the sandbox answers the next request."""
    body, seen = ask(stream=streamed), b""
    fault = Fault(kind, times=1)
    async with Sandbox(SandboxOptions(faults=(fault,))) as sandbox:
        caller, key = Caller(session, sandbox.base_url), new_key()
        try:
            struck = await caller.chat(body, key=key)
            seen = struck.body
        except aiohttp.ClientError:
            pass
        again = await caller.chat(body, key=key)
    assert again.status == 200
    assert sandbox.books.total.charges == 1
    struck_at_all = streamed or not kind.startswith("stream_")
    assert sandbox.books.faults == ({kind: 1} if struck_at_all else {})
    if not struck_at_all:
        assert seen == again.body
