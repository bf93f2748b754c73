"""One attempt over real connections: what goes out, trust, how connections are kept and let go."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest
import uvloop
from pydantic import SecretStr

from enrich.config.endpoint import Endpoint
from enrich.errors import ConfigError, EndpointFailing, KeyRefused
from enrich.records import Failure, Fate, Reply
from enrich.wire import client as client_module
from enrich.wire.client import Client
from tests.helpers.byte_server import (
    ANSWER,
    ASK,
    HEAD,
    KEY,
    Handler,
    Request,
    Server,
    attempt_at,
    failure_of,
    response,
    send,
    sending,
)
from tests.helpers.loopback import free_port, tls_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("_either_way")


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
