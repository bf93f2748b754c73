"""A connection that takes one POST after the other: whose answer is whose, when it is used again, and how it ends."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.config.endpoint import Endpoint
from enrich.records import Failure, Fate, Reply
from enrich.wire import line as line_module
from enrich.wire import post as post_module
from enrich.wire.client import Client
from tests.helpers.byte_server import (
    ANSWER,
    CHUNKED,
    DONE,
    END,
    EVENTS,
    STOP,
    WORD,
    Handler,
    Request,
    Server,
    failure_of,
    part,
    reply_to,
    response,
    send,
    sending,
)
from tests.helpers.loopback import tls_of

if TYPE_CHECKING:
    from pathlib import Path

OTHER = b'{"choices":[{"message":{"content":"of another"}}]}'


def in_turn(*handlers: Handler) -> Handler:
    """Give a handler that answers the first request by the first of these, and so on; the last stays."""
    turn = iter(handlers[:-1])

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        await next(turn, handlers[-1])(request, writer)

    return handler


def unannounced(data: bytes) -> Handler:
    """Give a handler that sends this and ends the connection with nothing said, in TLS either."""

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        await sending(data)(request, writer)
        writer.transport.abort()

    return handler


async def answers_to(
    handler: Handler, count: int = 2, *, certificate: Path | None = None
) -> tuple[list[Reply | Failure], list[int]]:
    """Send requests one after the other; gives what came, and on which connection each request came."""
    tls = None if certificate is None else tls_of(certificate)
    answered = asyncio.Semaphore(0)

    async def telling(request: Request, writer: asyncio.StreamWriter) -> None:
        await handler(request, writer)
        answered.release()

    async with (
        Server(telling, tls=tls) as server,
        Client(Endpoint(server.url, timeout=20, ca_file=certificate), concurrency=1) as client,
    ):
        outcomes = []
        for _ in range(count):
            outcomes.append(await send(client))
            await answered.acquire()
            await asyncio.sleep(0.02)  # what was sent is there now, and is read before this is over
    return outcomes, [request.connection for request in server.requests]


def bodies_of(outcomes: list[Reply | Failure]) -> list[bytes | str]:
    """Give the bodies of replies, and the codes of failures."""
    return [outcome.body if isinstance(outcome, Reply) else outcome.code for outcome in outcomes]


async def test_one_after_the_other() -> None:
    """Requests go on one connection as long as each waits for the one before."""
    outcomes, connections = await answers_to(sending(response()), 5)
    assert bodies_of(outcomes) == [ANSWER] * 5
    assert connections == [1] * 5


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 X\r\nContent-Length: %d\r\n\r\n",
        b"HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n",
    ],
)
async def test_connection_for_one_request(head: bytes) -> None:
    """A connection that the peer means to close is not used again."""
    outcomes, connections = await answers_to(sending(head % len(ANSWER) + ANSWER))
    assert bodies_of(outcomes) == [ANSWER, ANSWER]
    assert connections == [1, 2]


@pytest.mark.parametrize(
    "nobodys",
    [
        (response() + response(OTHER),),
        (response(), response(OTHER)),
        (response(), response(b"", 408)),
        (response() + b"HTTP/1.1 2",),
        (response(), b"HTTP/1.1 2"),
        (response(), b"noise"),
    ],
    ids=["with the answer", "behind it", "408 for idling", "a part of one with it", "a part of one", "noise"],
)
async def test_answer_that_nobody_asked_for(nobodys: tuple[bytes, ...]) -> None:
    """What comes beyond an answer is never taken for the answer to the next request."""
    outcomes, connections = await answers_to(in_turn(sending(*nobodys), sending(response())))
    assert bodies_of(outcomes) == [ANSWER, ANSWER]
    assert connections == [1, 2]


async def test_line_ends_behind_an_answer() -> None:
    """Line ends behind a body, as some servers write them, cost no connection."""
    for handler in (sending(response(), b"\r\n"), sending(response() + b"\r\n")):
        outcomes, connections = await answers_to(handler)
        assert bodies_of(outcomes) == [ANSWER, ANSWER]
        assert connections == [1, 1]


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)
async def test_interim_responses(interim: bytes) -> None:
    """Interim responses announce the real one, whether they come with it or before it."""
    assert (await reply_to(sending(interim + response()))).body == ANSWER
    assert (await reply_to(sending(interim, interim, response()))).body == ANSWER


async def test_other_protocol() -> None:
    """A peer that changes to another protocol gave no answer; the request may have been taken."""
    switch = b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
    failure = await failure_of(sending(switch, then="hold"))
    assert (failure.code, failure.fate) == ("bad_response", Fate.UNKNOWN)


async def test_broken_chunk_is_told_at_once() -> None:
    """An answer whose chunks are none is over when that is seen, not when its time is."""
    failure = await failure_of(sending(CHUNKED, b"4\r\nhalf\r\n", b"zz\r\n", then="hold"))
    assert (failure.code, failure.fate, failure.evidence) == ("response_cut", Fate.UNKNOWN, b"half")


async def test_trailers() -> None:
    """Lines behind the last chunk belong to the answer, and the connection stays."""
    body = b"%x\r\n%s\r\n0\r\nX-Checksum: 1\r\n\r\n" % (len(ANSWER), ANSWER)
    outcomes, connections = await answers_to(sending(CHUNKED + body))
    assert bodies_of(outcomes) == [ANSWER, ANSWER]
    assert connections == [1, 1]


async def test_peer_that_speaks_first() -> None:
    """A peer that speaks before it is asked is none of HTTP: it gets no request."""
    got: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        got.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Client(Endpoint(url), concurrency=1) as client:
        outcome = await send(client)
    server.close()
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.fate) in [
        ("bad_response", Fate.UNKNOWN),  # also where the greeting came after the request was written
        ("connection_lost", Fate.UNKNOWN),
    ]


async def test_closed_while_idle() -> None:
    """A connection that the peer closed while it was idle is noticed: the next request goes on another one."""
    handler = in_turn(sending(response(), then="close"), sending(response()))
    outcomes, connections = await answers_to(handler, 3)
    assert bodies_of(outcomes) == [ANSWER] * 3
    assert connections == [1, 2, 2]


async def test_idle_connections_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that nobody uses is closed after a while; those in use stay."""
    monkeypatch.setattr(post_module, "KEPT", 0.05)
    ended = asyncio.Semaphore(0)
    async with Server(sending(response())) as server, Client(Endpoint(server.url), concurrency=2) as client:
        serve = server._serve

        async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
            await serve(reader, writer, number)
            ended.release()

        server._serve = serving  # type: ignore[method-assign]
        await asyncio.gather(send(client), send(client))
        async with asyncio.timeout(10):
            for _ in range(2):
                await ended.acquire()
        assert isinstance(await send(client), Reply)
        assert server.requests[-1].connection == 3


async def test_probe_beside_idle_connections() -> None:
    """Connections that are kept for requests are in no probe's way."""
    handler = sending(response(b'{"status":"ok"}'))
    async with Server(handler) as server, Client(Endpoint(server.url), concurrency=1) as client:
        assert isinstance(await send(client), Reply)
        assert (await client.health()).ok
        assert isinstance(await send(client), Reply)


async def test_early_answer() -> None:
    """A connection on which a request was answered before it was sent whole is not used again."""
    stay = asyncio.Event()

    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        accepted.append(writer)
        writer.write(response(b"", 413))
        await writer.drain()
        if len(accepted) == 1:
            await stay.wait()
        writer.close()

    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(eager, "127.0.0.1", limit=1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Client(Endpoint(url), concurrency=1) as client:
        first = await send(client, b"x" * 30_000_000)
        second = await send(client)
    stay.set()
    server.close()
    assert [outcome.code for outcome in (first, second) if isinstance(outcome, Failure)] == ["http_413"] * 2
    assert len(accepted) == 2


@pytest.mark.parametrize("size", [1, 7, 65_536])
async def test_reader_that_falls_behind(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A body of many pieces comes whole where the peer has to wait for its reader again and again."""
    monkeypatch.setattr(line_module, "READ_BUFFER", 64)
    body = bytes(range(256)) * (1_000 if size > 1 else 40)
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + END
    outcomes, connections = await answers_to(in_turn(sending(CHUNKED + framed), sending(response(body))), 3)
    assert bodies_of(outcomes) == [body] * 3
    assert connections == [1] * 3


async def test_silent_stream() -> None:
    """A stream that falls silent is given up before its whole time is over."""
    failure = await failure_of(sending(EVENTS, part(WORD), then="hold"), stream=True, timeout=1.0)
    assert (failure.code, failure.fate) == ("timeout", Fate.UNKNOWN)
    assert failure.evidence.startswith(WORD.encode())


def test_tls(certificate: Path) -> None:
    """Over TLS requests share a connection, and one that ends without notice ends the answer, on either loop."""

    async def main() -> None:
        unframed = sending(b"HTTP/1.1 200 X\r\n\r\n" + ANSWER, then="reset")
        handler = in_turn(
            sending(response()), sending(response()), unframed, sending(response(), then="reset")
        )
        outcomes, connections = await answers_to(handler, 5, certificate=certificate)
        assert bodies_of(outcomes) == [ANSWER] * 5
        assert connections == [1, 1, 1, 2, 3]

    asyncio.run(main())
    uvloop.run(main())


async def test_client_that_ends_while_requests_are_under_way() -> None:
    """Requests that are under way when the client ends are over, and their outcome is unknown."""
    arrived = asyncio.Semaphore(0)

    async def hold(_: Request, __: asyncio.StreamWriter) -> None:
        arrived.release()
        await asyncio.sleep(60)

    async with Server(hold) as server:
        async with Client(Endpoint(server.url), concurrency=2) as client:
            attempts = [asyncio.ensure_future(send(client)) for _ in range(2)]
            for _ in attempts:
                await arrived.acquire()
        outcomes = await asyncio.gather(*attempts)
    assert [outcome.fate for outcome in outcomes if isinstance(outcome, Failure)] == [Fate.UNKNOWN] * 2


STREAM = EVENTS + part(WORD) + part(WORD, STOP) + part(DONE) + END
WORDS = f"{WORD}\n\n{WORD}\n\n{STOP}\n\n{DONE}".encode()
WAYS = {
    response(): ANSWER,
    b"HTTP/1.1 100 Continue\r\n\r\n" + response(ANSWER, 200, "X-A: b"): ANSWER,
    CHUNKED + b"%x\r\n%s\r\n0\r\nX-T: 1\r\n\r\n" % (len(ANSWER), ANSWER): ANSWER,
    STREAM: WORDS,
}


@settings(max_examples=30)
@given(
    st.sampled_from(sorted(WAYS)),
    st.lists(st.integers(1, 300), max_size=8),
)
def test_cut_into_any_pieces(whole: bytes, cuts: list[int]) -> None:
    """However an answer is cut into packets, it is the same answer, but for line ends behind a stream."""
    places = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    pieces = [whole[a:b] for a, b in itertools.pairwise(places)]
    outcomes, _ = asyncio.run(answers_to(sending(*pieces)))
    assert [outcome.body.rstrip(b"\n") for outcome in outcomes if isinstance(outcome, Reply)] == [
        WAYS[whole]
    ] * 2
