"""One response while it is read: a reply, or a failure that says what may have happened."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from enrich.records import Failure, Fate
from enrich.wire.response import MAX_BODY
from tests.helpers.byte_server import (
    ANSWER,
    CHUNKED,
    DONE,
    END,
    EVENTS,
    KEY,
    STOP,
    WORD,
    Request,
    Server,
    dripping,
    exchange,
    failure_of,
    part,
    reply_to,
    response,
    sending,
)

if TYPE_CHECKING:
    import asyncio

pytestmark = pytest.mark.usefixtures("_either_way")


@pytest.mark.parametrize("kind", ["application/json", "text/html", "nonsense", "text/event-stream"])
async def test_reply(kind: str) -> None:
    """A 200 gives its raw bytes, whatever they are and whatever content type they claim."""
    body = b"\xff not json"
    reply = await reply_to(sending(response(body, 200, f"Content-Type: {kind}", "X-Request-Id: r-9")))
    assert (reply.body, reply.request_id, reply.streamed, reply.first_token_ms) == (body, "r-9", False, None)
    assert reply.latency_ms > 0


@pytest.mark.parametrize("status", [201, 204, 299])
async def test_other_success(status: int) -> None:
    """Any 2xx is a reply; what it holds is looked at later."""
    assert (await reply_to(sending(response(b"", status)))).body == b""


async def test_chunked_and_unframed_bodies() -> None:
    """Bodies in chunks, or up to the end of the connection, are read to their end."""
    chunked = b'HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n'
    assert (await reply_to(sending(chunked, b'3\r\na"}\r\n0\r\n\r\n'))).body == b'{"a"}'
    unframed = b"HTTP/1.1 200 X\r\n\r\n"
    assert (await reply_to(sending(unframed, b"half", then="close"))).body == b"half"


async def test_several_request_ids(caplog: pytest.LogCaptureFixture) -> None:
    """Where several request ids differ the first is kept, and the log says so."""
    same = await reply_to(sending(response(ANSWER, 200, "X-Request-Id: a", "X-Request-Id: a")))
    assert (same.request_id, caplog.records) == ("a", [])
    with caplog.at_level(logging.WARNING):
        assert (
            await reply_to(sending(response(ANSWER, 200, "X-Request-Id: a", "x-request-id: b")))
        ).request_id == "a"
    assert "a, b" in caplog.text


async def test_error_envelope() -> None:
    """An error gives its envelope, the header's request id, and the wait that it asks for."""
    body = json.dumps(
        {"error": {"code": "rate_limited", "message": "Slow", "retryable": True, "request_id": "b"}}
    ).encode()
    failure = await failure_of(sending(response(body, 429, "Retry-After: 7", "X-Request-Id: h")))
    assert failure == Failure("rate_limited", "Slow", Fate.REFUSED, 429, True, "h", 7.0, body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "fate"), [(401, Fate.REFUSED), (429, Fate.REFUSED), (502, Fate.UNKNOWN), (504, Fate.UNKNOWN)]
)
@pytest.mark.parametrize("then", ["keep", "reset"])
async def test_status_without_an_envelope(status: int, fate: Fate, then: str, stream: bool) -> None:
    """A status speaks for itself where a proxy's HTML comes with it, whole or cut in the middle."""
    failure = await failure_of(
        sending(response(b"<html>", status, length=6 if then == "keep" else 99), then=then), stream=stream
    )
    assert (failure.status, failure.fate, failure.retryable) == (status, fate, None)


async def test_status_whose_body_never_ends() -> None:
    """An error whose body hangs or floods is still that error."""
    hanging = await failure_of(sending(response(b"{", 503, length=99), then="hold"), timeout=0.3)
    assert (hanging.code, hanging.evidence) == ("http_503", b"{")
    flooding = dripping(
        b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    )
    assert (await failure_of(flooding)).code == "http_503"


async def test_redirects_are_not_followed() -> None:
    """A redirect is a refusal that says where to; nobody else ever sees the key."""
    async with Server(sending(response())) as elsewhere:
        location = f"Location: {elsewhere.url}/?{KEY}"
        for status in (301, 302, 303, 307, 308):
            failure = await failure_of(sending(response(b"", status, location)))
            assert (failure.code, failure.fate) == ("redirected", Fate.REFUSED)
            assert elsewhere.url in failure.message
    assert elsewhere.requests == []


@pytest.mark.parametrize("status", [200, 401, 500])
async def test_echoed_key(status: int) -> None:
    """A key that the server echoes is taken out of whatever is kept."""
    body = json.dumps({"error": {"code": "x", "message": f"Bad key {KEY}", "request_id": KEY}}).encode()
    outcome = await exchange(
        sending(response(body, status, f"X-Request-Id: {KEY if status == 500 else 'r'}"))
    )
    assert "SECRET" not in repr(outcome)
    assert "[key]" in repr(outcome)


@pytest.mark.parametrize("place", range(470, 510, 4))
async def test_echoed_key_that_is_cut(place: int) -> None:
    """A key of which a cut message or evidence shows a part is taken out too, but for what is public."""
    body = json.dumps({"error": {"code": "x", "message": "x" * place + KEY}}).encode()
    failure = await failure_of(sending(response(body, 400)))
    assert KEY[:13] not in failure.message
    evidence = await failure_of(sending(response(b"x" * (place + 1550) + KEY.encode(), 400)))
    assert KEY[:13].encode() not in evidence.evidence


async def test_placeholder_key() -> None:
    """A placeholder for a key may be a word of the answer, which is not touched."""
    assert (await reply_to(sending(response(b'"a test"')), api_key=SecretStr("test"))).body == b'"a test"'


@pytest.mark.parametrize("stream", [False, True])
async def test_endless_body(stream: bool) -> None:
    """A body that does not end is given up at the bound, as an answer that is paid for and no use."""
    sent = 0

    async def flood(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        while True:
            writer.write(b"10000\r\n" + b": pad\n" * 10_922 + b"pad\n\r\n")
            await writer.drain()
            sent += 65_536

    failure = await failure_of(flood, stream=stream)
    assert (failure.code, failure.fate) == ("body_too_large", Fate.UNKNOWN)
    assert len(failure.evidence) == 2048
    assert sent < MAX_BODY + 16 * 2**20


async def test_long_heads() -> None:
    """Header lines up to 64 KB, and some hundred of them, cost no answer."""
    long = [f"X-Policy: {'a' * 60_000}"]
    many = [f"X-{number}: a" for number in range(400)]
    for headers in (long, many):
        assert (await reply_to(sending(response(ANSWER, 200, *headers)))).body == ANSWER


async def test_too_long_heads() -> None:
    """A head beyond all bounds says so: the answer is there, and nobody can read it."""
    failure = await failure_of(sending(response(ANSWER, 200, f"X-Policy: {'a' * 70_000}")))
    assert (failure.code, failure.fate) == ("bad_response", Fate.UNKNOWN)
    assert "64 KiB a line or 512 lines" in failure.message


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        (["X-LiteLLM-Call-Id: d", "llm_provider-x-request-id: c", "Request-Id: b", "X-Request-Id: a"], "a"),
        (["X-LiteLLM-Call-Id: d", "llm_provider-x-request-id: c", "request-id: b"], "b"),
        (["X-LiteLLM-Call-Id: d", "llm_provider-x-request-id: c"], "c"),
        (["CF-Ray: f", "X-LiteLLM-Call-Id: d", "llm_provider-request-id: e"], "e"),
        (["CF-Ray: f", "X-LiteLLM-Call-Id: d"], "d"),
        (["CF-Ray: f", "apim-request-id: e"], "e"),
        (["x-amzn-RequestId: e"], "e"),
    ],
)
async def test_where_a_request_id_stands(headers: list[str], request_id: str) -> None:
    """The endpoint's own id goes before those that a gateway passes on or makes up."""
    assert (await reply_to(sending(response(ANSWER, 200, *headers)))).request_id == request_id
    assert (await failure_of(sending(response(b"", 500, *headers)))).request_id == request_id


@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", "application/json"])
async def test_stream_that_nobody_asked_for(kind: str) -> None:
    """An event stream is read as one whatever was asked and whatever type it gives; a cut one is no answer."""
    body = f"{WORD}\n\n{STOP}\n\n{DONE}\n\n".encode()
    reply = await reply_to(sending(response(body, 200, f"Content-Type: {kind}")))
    assert (reply.streamed, reply.body) == (True, body)
    cut = response(f"{WORD}\n\n".encode(), 200, f"Content-Type: {kind}")
    assert (await failure_of(sending(cut))).code == "response_cut"


@pytest.mark.parametrize(
    ("rows", "code", "status", "fate"),
    [
        (['data: {"error":{"message":"slow down","code":429}}'], "rate_limited", 429, Fate.REFUSED),
        (['data: {"error":{"type":"BadRequestError","code":400}}'], "BadRequestError", 400, Fate.REFUSED),
        (['data: {"object":"error","message":"no","code":"400"}'], "http_400", 400, Fate.REFUSED),
        (
            [WORD, 'data: {"error":{"type":"BadRequestError","code":400}}'],
            "BadRequestError",
            400,
            Fate.UNKNOWN,
        ),
        (['data: {"error":{"message":"it broke","code":500}}'], "http_500", 500, Fate.UNKNOWN),
    ],
)
async def test_stream_with_a_status_in_its_error(rows: list[str], code: str, status: int, fate: Fate) -> None:
    """A status that an event tells is the failure's; before any text it refuses as the status would."""
    failure = await failure_of(sending(EVENTS, part(*rows), END), stream=True)
    assert (failure.code, failure.status, failure.fate) == (code, status, fate)


@pytest.mark.parametrize("name", ["", "event: error\n"])
async def test_stream_with_an_error(name: str) -> None:
    """An error within a stream gives its envelope; the work may be charged all the same."""
    error = f'{name}data: {{"error":{{"code":"overloaded","message":"Busy {KEY}","retryable":true,"request_id":"e"}}}}'
    failure = await failure_of(sending(EVENTS, part(WORD, error), then="hold"), stream=True)
    assert (failure.code, failure.message, failure.retryable) == ("overloaded", "Busy [key]", True)
    assert (failure.fate, failure.status, failure.request_id) == (Fate.UNKNOWN, 200, "r-5")
    assert failure.evidence.startswith(WORD.encode())


async def test_stream_with_a_wordless_error() -> None:
    """An error event without an envelope is an error too."""
    failure = await failure_of(
        sending(EVENTS, part("event: error\ndata: it broke"), then="hold"), stream=True
    )
    assert (failure.code, failure.message, failure.retryable) == ("stream_error", "it broke", None)


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_no_stream_though_asked_for(kind: str) -> None:
    """An endpoint that does not stream gives an answer in one piece."""
    reply = await reply_to(sending(response(b"\n " + ANSWER, 200, f"Content-Type: {kind}")), stream=True)
    assert (reply.streamed, reply.body) == (False, b"\n " + ANSWER)
    late = sending(EVENTS, b"1\r\n\n\r\n", b"%x\r\n%s\r\n" % (len(ANSWER), ANSWER), END)
    assert not (await reply_to(late, stream=True)).streamed


async def test_stream_of_html() -> None:
    """A page instead of a stream is a cut stream."""
    assert (await failure_of(sending(response(b"<html>")), stream=True)).code == "response_cut"
    assert (await failure_of(sending(response(b"")), stream=True)).code == "response_cut"
