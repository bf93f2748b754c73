"""Connections that fail: what broke, and whether anything was sent."""

from __future__ import annotations

import asyncio
import socket

import pytest

from enrich.config.endpoint import Endpoint
from enrich.records import Failure, Fate
from enrich.wire.client import Client
from tests.helpers.byte_server import (
    CHUNKED,
    HEAD,
    Handler,
    Server,
    attempt_at,
    dripping,
    failure_of,
    response,
    send,
    sending,
)
from tests.helpers.loopback import free_port

pytestmark = pytest.mark.usefixtures("_either_way")


async def test_nobody_listens() -> None:
    """A refused connection proves that nothing was sent."""
    failure = await attempt_at(f"http://127.0.0.1:{free_port()}")
    assert (failure.code, failure.fate, failure.status) == ("connect_failed", Fate.UNSENT, None)


async def test_unknown_host() -> None:
    """A name that does not resolve proves that nothing was sent."""
    failure = await attempt_at("http://no-such-host.invalid")
    assert (failure.code, failure.fate) == ("dns_failed", Fate.UNSENT)
    assert "no-such-host.invalid" in failure.message


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
        (sending(HEAD, b"half", then="hold"), "timeout"),
        (dripping(CHUNKED + b"4\r\nhalf\r\n", b"1\r\n.\r\n"), "timeout"),
    ],
    ids=["closed", "reset", "closed between chunks", "stalled", "slow drip"],
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


async def test_broken_chunk() -> None:
    """An answer whose chunks are none leaves the outcome unknown: at once, or when its time is over."""
    failure = await failure_of(sending(CHUNKED, b"4\r\nhalf\r\n", b"zz\r\n", then="hold"), timeout=0.5)
    assert failure.code in ("response_cut", "timeout")
    assert (failure.fate, failure.evidence) == (Fate.UNKNOWN, b"half")


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
