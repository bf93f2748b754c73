"""A server that answers byte for byte as told, and clients that ask it once."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pydantic import SecretStr

from enrich.config.endpoint import Endpoint
from enrich.records import Failure, Reply
from enrich.wire.client import Client
from tests.helpers.loopback import reset_on_close

if TYPE_CHECKING:
    import ssl


KEY = "sk-0123456789abcdefSECRET"
ASK = b'{"model":"auto","messages":[]}'
ANSWER = b'{"choices":[{"message":{"content":"ok"}}]}'


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


async def attempt_at(url: str, **endpoint: Any) -> Failure:
    """Make one attempt at a URL where nobody answers."""
    async with Client(Endpoint(url, SecretStr(KEY), **endpoint), concurrency=1) as client:
        outcome = await send(client)
    assert isinstance(outcome, Failure)
    return outcome


HEAD = b"HTTP/1.1 200 X\r\nContent-Length: 99\r\nX-Request-Id: r-5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nX-Request-Id: r-5\r\n\r\n"
EVENTS = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n")


def part(*rows: str) -> bytes:
    """Write rows as one chunk of a body."""
    data = "".join(f"{row}\n\n" for row in rows).encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


WORD = 'data: {"choices":[{"delta":{"content":"hé"}}]}'
STOP = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}'
DONE = "data: [DONE]"
END = b"0\r\n\r\n"
