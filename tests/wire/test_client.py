from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import logging
import socket
import uuid
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest
import uvloop
from pydantic import SecretStr

from enrich.config.endpoint import Endpoint
from enrich.errors import ConfigError, EndpointFailing, KeyRefused
from enrich.records import Failure, Fate, Reply
from enrich.wire import client as client_module
from enrich.wire.client import Client
from enrich.wire.response import MAX_BODY
from tests.helpers.loopback import free_port, reset_on_close, tls_of

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

KEY = "sk-0123456789abcdefSECRET"
ASK = b'{"model":"auto","messages":[]}'
ANSWER = b'{"choices":[{"message":{"content":"ok"}}]}'
NOW = 1_750_000_000.0  # seconds since the epoch, for dates in headers


@dataclass
class Request:
    """A request as a server saw it; ``connection`` counts the connections."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A server on loopback that answers each request by its handler, byte by byte as that says."""

    handler: Handler
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer, self.connections))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                while not writer.is_closing():
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                    headers = [(n.lower(), v) for n, _, v in (row.partition(": ") for row in head[1:] if row)]
                    body = await reader.readexactly(int(dict(headers).get("content-length", 0)))
                    self.requests.append(Request(head[0], headers, body, number))
                    await self.handler(self.requests[-1], writer)
                    await writer.drain()
            finally:
                writer.transport.abort()


def response(body: bytes = ANSWER, status: int = 200, *headers: str, length: int | None = None) -> bytes:
    """Write a response; ``length`` may lie about the body's."""
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def sending(*parts: bytes, then: str = "keep") -> Handler:
    """Give a handler that sends these parts, and then keeps, closes, resets or holds the connection."""

    async def handler(_: Request, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.005)
        if then == "reset":
            reset_on_close(writer)
        if then in ("reset", "close"):
            writer.transport.abort() if then == "reset" else writer.close()
        if then == "hold":
            await asyncio.sleep(60)

    return handler


def dripping(head: bytes, drop: bytes) -> Handler:
    """Give a handler that sends a drop every few milliseconds, for ever."""

    async def handler(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.01)

    return handler


async def send(
    client: Client,
    body: bytes = ASK,
    *,
    stream: bool = False,
    timeout: float | None = None,  # noqa: ASYNC109  # as the client names it
) -> Reply | Failure:
    """Make one attempt with fresh ids."""
    ids = {"key": str(uuid.uuid4()), "request_id": str(uuid.uuid4())}
    return await client.attempt(body, stream=stream, timeout=timeout, **ids)


async def exchange(handler: Handler, *, stream: bool = False, **endpoint: Any) -> Reply | Failure:
    """Make one attempt against a server of this handler."""
    options = {"api_key": SecretStr(KEY), "timeout": 20.0, **endpoint}
    async with Server(handler) as server, Client(Endpoint(server.url, **options), concurrency=4) as client:
        return await send(client, stream=stream)


async def reply_to(handler: Handler, **options: Any) -> Reply:
    """Make one attempt that is answered."""
    outcome = await exchange(handler, **options)
    assert isinstance(outcome, Reply), outcome
    return outcome


async def failure_of(handler: Handler, **options: Any) -> Failure:
    """Make one attempt that fails; the key is nowhere in the failure."""
    outcome = await exchange(handler, **options)
    assert isinstance(outcome, Failure), outcome
    assert "SECRET" not in repr(outcome)
    assert "\n" not in outcome.message
    return outcome


# --- requests and answers ------------------------------------------------------------------------------


async def test_request_on_the_wire() -> None:
    """A request carries the body as it is, the key, its two ids, and asks for no compression."""
    async with Server(sending(response(ANSWER, 200, "Set-Cookie: a=b"))) as server:
        endpoint = Endpoint(server.url, SecretStr(KEY), headers={"X-Gateway": "g"})
        async with Client(endpoint, concurrency=1) as client:
            for _ in range(2):
                await client.attempt(ASK, key="k-1", request_id="r-1", stream=False)
    request = server.requests[1]
    headers = dict(request.headers)
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.body == ASK
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (headers["idempotency-key"], headers["x-request-id"]) == ("k-1", "r-1")
    assert (headers["content-type"], headers["accept-encoding"]) == ("application/json", "identity")
    assert headers["x-gateway"] == "g"
    assert "cookie" not in headers
    assert len(headers) == len(request.headers)
    assert server.connections == 1


async def test_without_a_key() -> None:
    """Without a key no Authorization header is sent."""
    async with Server(sending(response())) as server, Client(Endpoint(server.url), concurrency=1) as client:
        await send(client)
    assert "authorization" not in dict(server.requests[0].headers)


async def test_large_request() -> None:
    """A body of several megabytes arrives whole."""
    body = b"x" * 3_000_000
    async with Server(sending(response())) as server, Client(Endpoint(server.url), concurrency=1) as client:
        assert isinstance(await send(client, body), Reply)
    assert server.requests[0].body == body


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


async def test_answer_before_the_body_was_read() -> None:
    """A server that answers and closes before it has read the body leaves no warning behind."""

    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b"", 413))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(eager, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with Client(Endpoint(f"http://127.0.0.1:{port}"), concurrency=1) as client:
        outcome = await send(client, b"x" * 20_000_000)
    server.close()
    assert isinstance(outcome, Failure)
    assert outcome.code in ("http_413", "connection_lost")


# --- refusals ------------------------------------------------------------------------------------------


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


# --- connections that fail -----------------------------------------------------------------------------


async def attempt_at(url: str, **endpoint: Any) -> Failure:
    """Make one attempt at a URL where nobody answers."""
    async with Client(Endpoint(url, SecretStr(KEY), **endpoint), concurrency=1) as client:
        outcome = await send(client)
    assert isinstance(outcome, Failure)
    return outcome


async def test_nobody_listens() -> None:
    """A refused connection proves that nothing was sent."""
    failure = await attempt_at(f"http://127.0.0.1:{free_port()}")
    assert (failure.code, failure.fate, failure.status) == ("connect_failed", Fate.UNSENT, None)


async def test_unknown_host() -> None:
    """A name that does not resolve proves that nothing was sent."""
    failure = await attempt_at("http://no-such-host.invalid")
    assert (failure.code, failure.fate) == ("dns_failed", Fate.UNSENT)
    assert "no-such-host.invalid" in failure.message


async def test_trusted_certificate(certificate: Path) -> None:
    """A certificate that `ca_file` vouches for is trusted; without it the run has to stop, before anything is sent."""
    async with Server(sending(response()), tls=tls_of(certificate)) as server:
        failure = await attempt_at(server.url)
        assert (failure.code, failure.fate) == ("certificate_invalid", Fate.UNSENT)
        assert "self-signed" in failure.message
        assert server.requests == []
        async with Client(Endpoint(server.url, ca_file=certificate), concurrency=1) as client:
            assert isinstance(await send(client), Reply)


async def test_certificate_of_another_name(certificate: Path) -> None:
    """A certificate for another name is refused."""
    async with Server(sending(response()), tls=tls_of(certificate)) as server:
        failure = await attempt_at(server.url.replace("127.0.0.1", "localhost"), ca_file=certificate)
    assert failure.code == "certificate_invalid"


async def test_no_tls() -> None:
    """A server that does not speak TLS never gets the request."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(response(b"", 400))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1")
    failure = await attempt_at(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()
    assert (failure.code, failure.fate) == ("tls_failed", Fate.UNSENT)
    assert "WRONG_VERSION_NUMBER" in failure.message


async def test_handshake_that_hangs() -> None:
    """A connection that is not ready in time proves that nothing was sent, though the attempt timed out."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        failure = await attempt_at(f"https://127.0.0.1:{silent.getsockname()[1]}", timeout=0.4)
    assert (failure.code, failure.fate) == ("connect_failed", Fate.UNSENT)


@pytest.mark.parametrize("content", ["", "no certificate"])
async def test_broken_ca_file(tmp_path: Path, content: str) -> None:
    """A `ca_file` without certificates is a mistake of the configuration; what was written there may be a key: it is not quoted."""
    file = tmp_path / "ca.pem"
    file.write_text(content)
    for path in (file, tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match="ca_file") as told:
            await attempt_at("https://127.0.0.1", ca_file=path)
        assert path.name not in str(told.value)


async def test_proxy_that_refuses() -> None:
    """A proxy that opens no tunnel proves that nothing was sent to the endpoint."""
    async with Server(sending(response(b"", 407))) as proxy:
        failure = await attempt_at("https://api.invalid/v1", proxy=proxy.url.removesuffix("/v1"))
    assert (failure.code, failure.fate) == ("connect_failed", Fate.UNSENT)
    assert "407" in failure.message
    assert "authorization" not in dict(proxy.requests[0].headers)


HEAD = b"HTTP/1.1 200 X\r\nContent-Length: 99\r\nX-Request-Id: r-5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nX-Request-Id: r-5\r\n\r\n"


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_lost_before_the_answer(then: str) -> None:
    """A connection that is lost after the request was sent leaves its outcome unknown."""
    failure = await failure_of(sending(then=then))
    assert (failure.code, failure.fate, failure.request_id) == ("connection_lost", Fate.UNKNOWN, None)


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (sending(HEAD, b"half", then="close"), "response_cut"),
        (sending(HEAD, b"half", then="reset"), "response_cut"),
        (sending(CHUNKED, b"4\r\nhalf\r\n", then="close"), "response_cut"),
        (sending(CHUNKED, b"4\r\nhalf\r\n", b"zz\r\n", then="hold"), "timeout"),
        (sending(HEAD, b"half", then="hold"), "timeout"),
        (dripping(CHUNKED + b"4\r\nhalf\r\n", b"1\r\n.\r\n"), "timeout"),
    ],
    ids=["closed", "reset", "closed between chunks", "broken chunk", "stalled", "slow drip"],
)
async def test_cut_answers(handler: Handler, code: str) -> None:
    """An answer that does not come whole, in time, leaves the outcome unknown, with what came as evidence."""
    failure = await failure_of(handler, timeout=0.5 if code == "timeout" else 20.0)
    assert (failure.code, failure.fate, failure.status, failure.request_id) == (
        code,
        Fate.UNKNOWN,
        200,
        "r-5",
    )
    assert failure.evidence.startswith(b"half")


async def test_no_answer_in_time() -> None:
    """A silent server leaves the outcome unknown; a shorter time may be given for one attempt."""
    assert (await failure_of(sending(then="hold"), timeout=0.3)).code == "timeout"
    async with Server(sending(then="hold")) as server, Client(Endpoint(server.url), concurrency=1) as client:
        outcome = await send(client, timeout=0.2)
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.fate) == ("timeout", Fate.UNKNOWN)


@pytest.mark.parametrize(
    "garbage",
    [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 X\r\nX: " + b"y" * 100_000, b"HTTP/1.1 abc X\r\n\r\n"],
)
async def test_no_http(garbage: bytes) -> None:
    """A peer that speaks something else leaves the outcome unknown."""
    failure = await failure_of(sending(garbage, then="hold"))
    assert (failure.code, failure.fate) == ("bad_response", Fate.UNKNOWN)


async def test_kept_connection_that_was_closed() -> None:
    """A request on a kept connection that the server just closed is not repeated behind the caller's back."""

    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        await sending(
            response() if len(server.requests) == 1 else b"",
            then="keep" if len(server.requests) == 1 else "close",
        )(request, writer)

    async with Server(once) as server, Client(Endpoint(server.url), concurrency=1) as client:
        assert isinstance(await send(client), Reply)
        outcome = await send(client)
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.fate) == ("connection_lost", Fate.UNKNOWN)
    assert [request.connection for request in server.requests] == [1, 1]


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


async def test_declared_bomb() -> None:
    """A body that says it is too large is not read at all."""
    failure = await failure_of(sending(response(b"x", length=10**12), then="hold"))
    assert failure.code == "body_too_large"


async def test_compressed_bomb() -> None:
    """A body that unpacks to more than an answer can have is not unpacked further."""
    bomb = gzip.compress(b"0" * 50_000_000)
    failure = await failure_of(sending(response(bomb, 200, "Content-Encoding: gzip")))
    assert (failure.code, failure.fate, failure.evidence) == ("compressed_answer", Fate.UNKNOWN, b"")
    twice = gzip.compress(gzip.compress(b"0" * 50_000_000))
    failure = await failure_of(sending(response(twice, 200, "Content-Encoding: gzip, gzip")))
    assert failure.code == "compressed_answer"
    refused = await failure_of(sending(response(bomb, 500, "Content-Encoding: gzip")))
    assert refused.code == "http_500"


def bare_deflate(data: bytes) -> bytes:
    """Compress without zlib's own head, as some servers understand `deflate`."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
        ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
        ("GZIP, identity", gzip.compress),
        ("gzip", bytes),
        ("UTF-8", bytes),
    ],
    ids=["gzip", "x-gzip", "deflate", "bare", "twice", "case", "header-only", "no-coding"],
)
async def test_compressed_though_identity_was_asked(coding: str, pack: Callable[[bytes], bytes]) -> None:
    """A gateway that compresses whatever is asked is understood: answers, streams and errors."""
    told = f"Content-Encoding: {coding}"
    assert (await reply_to(sending(response(pack(ANSWER), 200, told)))).body == ANSWER
    error = pack(b'{"error": {"code": "context_length_exceeded", "message": "too long"}}')
    assert (await failure_of(sending(response(error, 400, told)))).code == "context_length_exceeded"
    whole = f"{WORD}\n\n{STOP}\n\n{DONE}\n\n".encode()
    packed = pack(whole)
    reply = await reply_to(
        sending(response(packed[:9], 200, told, length=len(packed)), packed[9:]), stream=True
    )
    assert (reply.streamed, reply.body) == (True, whole)


@pytest.mark.parametrize(
    ("coding", "body"), [("wavelet", b"?"), ("gzip", b"\x1f\x8bnonsense"), ("gzip, gzip, gzip", b"?")]
)
async def test_coding_that_cannot_be_read(coding: str, body: bytes) -> None:
    """An answer in a coding that is not known, or broken, came but is no use."""
    failure = await failure_of(sending(response(body, 200, f"Content-Encoding: {coding}")))
    assert (failure.code, failure.fate) == ("compressed_answer", Fate.UNKNOWN)
    assert (await failure_of(sending(response(body, 503, f"Content-Encoding: {coding}")))).code == "http_503"


async def test_long_heads() -> None:
    """Header lines up to 64 KB, and some hundred of them, cost no answer."""
    long = [f"X-Policy: {'a' * 60_000}"]
    many = [f"X-{number}: a" for number in range(400)]
    for headers in (long, many):
        assert (await reply_to(sending(response(ANSWER, 200, *headers)))).body == ANSWER


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        (["X-LiteLLM-Call-Id: d", "llm_provider-x-request-id: c", "Request-Id: b", "X-Request-Id: a"], "a"),
        (["X-LiteLLM-Call-Id: d", "llm_provider-x-request-id: c", "request-id: b"], "b"),
        (["X-LiteLLM-Call-Id: d", "llm_provider-x-request-id: c"], "c"),
        (["X-LiteLLM-Call-Id: d"], "d"),
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


async def test_connects_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than so many connections are opened at the same time."""
    monkeypatch.setattr(client_module, "MAX_CONNECTS", 5)
    waiting: list[asyncio.StreamWriter] = []
    full = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # the first byte of a TLS handshake that is never answered
        waiting.append(writer)
        if len(waiting) == 5:
            full.set()

    server = await asyncio.start_server(accept, "127.0.0.1")
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Client(Endpoint(url), concurrency=20) as client:
        attempts = [asyncio.ensure_future(send(client)) for _ in range(20)]
        await full.wait()
        await asyncio.sleep(0.05)
        assert len(waiting) == 5
        while not all(attempt.done() for attempt in attempts):
            for writer in waiting:
                writer.transport.abort()
            await asyncio.wait(attempts, timeout=0.01)
    server.close()
    assert {outcome.fate for attempt in attempts if isinstance(outcome := attempt.result(), Failure)} == {
        Fate.UNSENT
    }


async def test_cancelled_attempt() -> None:
    """A cancelled attempt lets go of its connection and leaves no warning behind."""
    arrived: asyncio.Queue[Request] = asyncio.Queue()

    async def hold(request: Request, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait(request)
        await sending(HEAD, b"half", then="hold")(request, writer)

    async with (
        Server(hold) as server,
        Client(Endpoint(server.url), concurrency=1) as client,
    ):
        for stream in (False, True):
            attempt = asyncio.ensure_future(send(client, stream=stream))
            await asyncio.wait_for(arrived.get(), 10)
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
    gc.collect()


def test_under_uvloop(certificate: Path) -> None:
    """Under uvloop failures are told apart just the same."""

    async def main() -> list[tuple[str, Fate]]:
        failures = [
            await attempt_at(f"http://127.0.0.1:{free_port()}"),
            await failure_of(sending(then="reset")),
            await failure_of(sending(HEAD, b"half", then="reset")),
            await failure_of(sending(then="hold"), timeout=0.2),
        ]
        async with Server(sending(response()), tls=tls_of(certificate)) as server:
            failures.append(await attempt_at(server.url))
            async with Client(Endpoint(server.url, ca_file=certificate), concurrency=1) as client:
                assert isinstance(await send(client), Reply)
        return [(failure.code, failure.fate) for failure in failures]

    assert uvloop.run(main()) == [
        ("connect_failed", Fate.UNSENT),
        ("connection_lost", Fate.UNKNOWN),
        ("response_cut", Fate.UNKNOWN),
        ("timeout", Fate.UNKNOWN),
        ("certificate_invalid", Fate.UNSENT),
    ]


# --- streams -------------------------------------------------------------------------------------------

EVENTS = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n")


def part(*rows: str) -> bytes:
    """Write rows as one chunk of a body."""
    data = "".join(f"{row}\n\n" for row in rows).encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


ROLE = 'data: {"choices":[{"delta":{"role":"assistant"}}]}'
WORD = 'data: {"choices":[{"delta":{"content":"hé"}}]}'
STOP = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}'
DONE = "data: [DONE]"
END = b"0\r\n\r\n"


async def test_stream() -> None:
    """A stream is kept as it came up to [DONE], and the time of its first text is taken."""
    reply = await reply_to(
        sending(EVENTS, part(ROLE), part(": ping", WORD), part(STOP, DONE), END), stream=True
    )
    assert reply.body == "".join(f"{row}\n\n" for row in (ROLE, ": ping", WORD, STOP, DONE)).encode()
    assert reply.streamed
    assert reply.request_id == "r-5"
    assert reply.first_token_ms is not None
    assert 0 < reply.first_token_ms <= reply.latency_ms


async def test_stream_with_lines_above_512_kib() -> None:
    """A chunk of a stream may be longer than aiohttp's own lines."""
    long = f'data: {{"choices":[{{"delta":{{"content":"{"x" * 600_000}"}}}}]}}'
    reply = await reply_to(sending(EVENTS, part(long, STOP, DONE), END), stream=True)
    assert len(reply.body) > 600_000


@pytest.mark.parametrize("ending", [END, b""], ids=["ended", "left open"])
async def test_done_ends_a_stream(ending: bytes) -> None:
    """[DONE] ends a stream even where the server holds the connection; where it does not, that is used again."""
    handler = sending(EVENTS, part(WORD, STOP, DONE) + ending, then="keep" if ending else "hold")
    async with Server(handler) as server, Client(Endpoint(server.url), concurrency=1) as client:
        for _ in range(2):
            assert isinstance(await send(client, stream=True), Reply)
    assert server.connections == (1 if ending else 2)


async def test_deadline_after_done() -> None:
    """What is whole stays whole, though the time is over while its connection is let go."""
    handler = sending(EVENTS, part(WORD, STOP, DONE), then="hold")
    assert (await reply_to(handler, stream=True, timeout=0.15)).streamed


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (sending(EVENTS, part(WORD), END), "response_cut"),
        (sending(EVENTS, part(WORD, DONE), END), "response_cut"),
        (sending(EVENTS, part(WORD), b"d\r\ndata: [DONE]\n\r\n", END), "response_cut"),
        (sending(EVENTS, part(WORD), then="close"), "response_cut"),
        (sending(EVENTS, part(WORD), then="reset"), "response_cut"),
        (sending(EVENTS, part(WORD), then="hold"), "timeout"),
        (dripping(EVENTS + part(WORD), part(": ping")), "timeout"),
    ],
    ids=["clean end", "done alone", "undispatched tail", "closed", "reset", "stalled", "endless pings"],
)
async def test_cut_streams(handler: Handler, code: str) -> None:
    """A stream without a finish reason was cut, [DONE] or not; what came is kept as evidence."""
    failure = await failure_of(handler, stream=True, timeout=0.6 if code == "timeout" else 20.0)
    assert (failure.code, failure.fate, failure.request_id) == (code, Fate.UNKNOWN, "r-5")
    assert failure.evidence.startswith(WORD.encode())


@pytest.mark.parametrize("end", ["auto", "finish_reason"])
async def test_stream_that_never_says_done(end: str) -> None:
    """The finish reason and a clean end are enough; either alone is not."""
    options: dict[str, Any] = {"stream": True, "stream_end": end}
    assert (await reply_to(sending(EVENTS, part(WORD, STOP), END), **options)).streamed
    assert (await reply_to(sending(EVENTS, part(WORD, STOP, DONE), then="hold"), **options)).streamed
    assert (await failure_of(sending(EVENTS, part(WORD), END), **options)).code == "response_cut"
    assert (
        await failure_of(sending(EVENTS, part(WORD, STOP), then="close"), **options)
    ).code == "response_cut"
    assert (
        await failure_of(sending(EVENTS, part(STOP), b"5\r\ndata:\r\n", END), **options)
    ).code == "response_cut"


async def test_stream_end_set_to_done() -> None:
    """Who says that a stream ends with [DONE] alone gets no other."""
    whole = sending(EVENTS, part(WORD, STOP), END)
    assert (
        await failure_of(whole, stream=True, stream_end="done")
    ).message == "the stream ended before [DONE]"


async def test_stream_without_a_finish_reason_by_setting() -> None:
    """A server that never gives a finish reason is taken at its [DONE], when so set."""
    options: dict[str, Any] = {"stream": True, "finish_reason": "optional"}
    assert (await reply_to(sending(EVENTS, part(WORD, DONE), END), **options)).streamed
    assert (await failure_of(sending(EVENTS, part(WORD), END), **options)).code == "response_cut"


async def test_stream_end_is_learned(caplog: pytest.LogCaptureFixture) -> None:
    """The first whole stream without [DONE] is kept, and said once; where [DONE] is known, only one with its usage is."""
    usage = 'data: {"choices":[],"usage":{"total_tokens":3}}'
    turns = [part(WORD, STOP), part(WORD, STOP), part(WORD, STOP, DONE), part(WORD, STOP), part(STOP, usage)]

    async def handler(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS + turns.pop(0) + END)

    async with Server(handler) as server, Client(Endpoint(server.url), concurrency=4) as client:
        outcomes = [await send(client, stream=True) for _ in range(len(turns))]
    assert [isinstance(outcome, Reply) for outcome in outcomes] == [True, True, True, False, True]
    assert caplog.text.count("without [DONE]") == 1


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


# --- the model list and the health check ---------------------------------------------------------------


async def ask_models(handler: Handler) -> list[str]:
    """Ask a server of this handler for its models."""
    async with (
        Server(handler) as server,
        Client(Endpoint(server.url, SecretStr(KEY)), concurrency=1) as client,
    ):
        models = await client.models()
        assert server.requests[0].line == "GET /v1/models HTTP/1.1"
        return models


async def test_models() -> None:
    """The model list gives the ids, as far as there are any."""
    body = b'{"object":"list","data":[{"id":"auto"},{"object":"model"},7,{"id":""},{"id":"fast-1","new":1}]}'
    assert await ask_models(sending(response(body))) == ["auto", "fast-1"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (response(b"", 401), KeyRefused),
        (response(b'{"error":{"code":"forbidden","message":"no"}}', 403), KeyRefused),
        (response(b"", 500), EndpointFailing),
        (response(b"<html>"), EndpointFailing),
        (response(b"[]"), EndpointFailing),
        (response(b'{"data":{}}'), EndpointFailing),
    ],
)
async def test_models_refused(answer: bytes, error: type[Exception]) -> None:
    """Without a list of models the error says which URL answered what."""
    with pytest.raises(error, match="/v1/models"):
        await ask_models(sending(answer))


@pytest.mark.parametrize(
    ("answer", "ok", "detail"),
    [
        (response(b'{"status":"ok"}'), True, "ok"),
        (response(b'{"status":"degraded"}'), False, "degraded"),
        (response(b"{}"), False, "the answer names no status"),
        (response(b"<html>"), False, "the answer names no status"),
        (response(b"[1]"), False, "the answer names no status"),
        (response(b"", 503), False, "http_503: HTTP 503 without a body"),
    ],
)
async def test_health(answer: bytes, ok: bool, detail: str) -> None:
    """Anything but a 200 that says ok is degraded service."""
    async with Server(sending(answer)) as server, Client(Endpoint(server.url), concurrency=1) as client:
        health = await client.health()
    assert (health.ok, health.detail) == (ok, detail)
    assert health.latency_ms > 0


async def test_health_of_nobody() -> None:
    """Nobody listening is degraded service too."""
    port = free_port()
    async with Client(Endpoint(f"http://127.0.0.1:{port}"), concurrency=1) as client:
        health = await client.health()
    assert not health.ok
    assert health.detail == f"connect_failed: no connection to 127.0.0.1:{port}: connection refused"
