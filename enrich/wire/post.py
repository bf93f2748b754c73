"""POSTs on aiohttp's pooled connections, without the request and response objects that cost most of its time.

Connecting, TLS, the pool, timeouts of the socket and parsing are aiohttp's. What is left out is what a POST of ready
bytes with fixed headers has no use for: merging headers, cookies, redirects, middlewares, payload writers, tracing.
That halves the client's CPU time per request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypedDict

import aiohttp
from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.connector import Connection
    from multidict import CIMultiDictProxy
    from yarl import URL


class _Head(TypedDict):
    max_line_size: int
    max_field_size: int
    max_headers: int


# Bytes and lines of a response's head, 64 KiB and 512: gateways add policies and cookies beyond the usual 8 KB and 128,
# and what came below them is paid for.
HEAD: _Head = {"max_line_size": 65_536, "max_field_size": 65_536, "max_headers": 512}
_PER_REQUEST = frozenset({"content-length", "content-type"})  # written with each body, or first


class Poster:
    """Posts JSON to one URL.

    Args:
        session: whose connections are used.
        url: where to; not through a proxy.
        headers: of every request.
    """

    def __init__(self, session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str]) -> None:
        if session.connector is None:
            raise RuntimeError("the session is closed")
        self.connector = session.connector
        # A request that is never sent: it says where to connect, and what aiohttp would put into the head.
        self.target = aiohttp.ClientRequest(
            "POST", url, headers=CIMultiDict(headers), loop=asyncio.get_running_loop()
        )
        fixed = "".join(
            f"{name}: {value}\r\n"
            for name, value in self.target.headers.items()
            if name.lower() not in _PER_REQUEST
        )
        self._head = f"POST {self.target.url.raw_path_qs} HTTP/1.1\r\n{fixed}Content-Type: application/json\r\n".encode()

    def post(self, body: bytes, headers: str, limits: aiohttp.ClientTimeout) -> Posting:
        """Make one request, to be entered with ``async with``.

        Args:
            body: the JSON.
            headers: further lines, each ended by CR LF; ASCII.
            limits: for connecting and for silence of the socket; ``total`` is not looked at.
        """
        head = b"%b%bContent-Length: %d\r\n\r\n" % (self._head, headers.encode(), len(body))
        return Posting(self, head + body, limits)


class Response:
    """A response whose head has come.

    Attributes:
        content: the body, to be read.
    """

    __slots__ = ("content", "headers", "status")

    def __init__(self, status: int, headers: CIMultiDictProxy[str], content: aiohttp.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self.content = content

    @property
    def content_length(self) -> int | None:
        """Give the body's length in bytes, where the head names it."""
        length = self.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None


class Posting:
    """One request on its way; lets its connection go to the pool when the body was read to its end."""

    __slots__ = ("_connection", "_data", "_limits", "_poster", "_response")

    def __init__(self, poster: Poster, data: bytes, limits: aiohttp.ClientTimeout) -> None:
        self._poster = poster
        self._data = data
        self._limits = limits
        self._connection: Connection | None = None

    async def __aenter__(self) -> Response:
        """Connect, send, and wait for the response's head.

        Raises:
            aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError: as aiohttp's own requests do.
        """
        poster = self._poster
        try:
            connection = await poster.connector.connect(poster.target, [], self._limits)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {poster.target.url}") from error
        self._connection = connection
        try:
            self._response = await self._exchange(connection)
        except BaseException:
            connection.close()
            raise
        return self._response

    async def _exchange(self, connection: Connection) -> Response:
        protocol = connection.protocol
        if protocol is None or protocol.transport is None:
            raise aiohttp.ClientConnectionResetError("the connection was closed")
        protocol.set_response_params(
            read_until_eof=True, auto_decompress=False, read_timeout=self._limits.sock_read, **HEAD
        )
        protocol.transport.write(self._data)
        protocol.start_timeout()
        while True:
            message, content = await protocol.read()
            if not 100 <= message.code < 200:  # an interim response announces the real one
                return Response(message.code, message.headers, content)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        connection = self._connection
        if connection is None:
            return
        if kind is None and self._response.content.is_eof():
            connection.release()
        else:
            connection.close()
