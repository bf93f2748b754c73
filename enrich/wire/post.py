"""POSTs of ready bytes with fixed headers, on connections that are kept: what most of a run's requests are.

aiohttp's connector connects: names, addresses, TLS. What is left out is what such a POST has no use for: request and
response objects, merging headers, cookies, redirects, middlewares, payload writers, tracing, a timer for each request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
from multidict import CIMultiDict

from enrich.wire.line import Line, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from yarl import URL

KEPT = 15.0  # seconds for which a connection is kept that nobody uses; aiohttp's own pool does the same
_PER_REQUEST = frozenset({"content-length", "content-type"})  # written with each body, or first


class Poster:
    """Posts JSON to one URL.

    Args:
        session: whose connector connects.
        url: where to; not through a proxy.
        headers: of every request.
    """

    def __init__(self, session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str]) -> None:
        if session.connector is None:
            raise RuntimeError("the session is closed")
        self.loop = asyncio.get_running_loop()
        self._connector = session.connector
        self._url = url
        self.send(headers)
        self._free: list[Line] = []  # the one used last comes first: few are kept busy, the others can go
        self._sweeping: asyncio.TimerHandle | None = None

    def send(self, headers: Mapping[str, str]) -> None:
        """Send these headers with every request from now on."""
        # A request that is never sent: it says where to connect, and what aiohttp would put into the head.
        self._target = aiohttp.ClientRequest("POST", self._url, headers=CIMultiDict(headers), loop=self.loop)
        fixed = "".join(
            f"{name}: {value}\r\n"
            for name, value in self._target.headers.items()
            if name.lower() not in _PER_REQUEST
        )
        path = self._target.url.raw_path_qs
        self._head = f"POST {path} HTTP/1.1\r\n{fixed}Content-Type: application/json\r\n".encode()

    def post(self, body: bytes, headers: str, limits: aiohttp.ClientTimeout, seconds: float) -> Posting:
        """Make one request, to be entered with ``async with``.

        Args:
            body: the JSON.
            headers: further lines, each ended by CR LF; ASCII.
            limits: for connecting and for silence of the socket; ``total`` is not looked at.
            seconds: for all of it.
        """
        head = b"%b%bContent-Length: %d\r\n\r\n" % (self._head, headers.encode(), len(body))
        return Posting(self, head + body, limits, seconds)

    def free_line(self) -> Line | None:
        """Give a line that is open and free, if there is one."""
        oldest = self.loop.time() - KEPT
        while self._free:
            line = self._free.pop()
            if line.is_open and line.free_since >= oldest:
                return line
            line.close()
        return None

    async def connect(self, limits: aiohttp.ClientTimeout) -> Line:
        """Open a line.

        Raises:
            aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError: as aiohttp's own requests do.
        """
        try:
            connection = await self._connector.connect(self._target, [], limits)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {self._target.url}") from error
        try:
            return Line(connection)
        except BaseException:
            connection.close()
            raise

    def keep(self, line: Line) -> None:
        """Take a free line back."""
        self._free.append(line)
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(KEPT, self._sweep)

    def _sweep(self) -> None:
        """Close the lines that nobody has used for long."""
        oldest = self.loop.time() - KEPT
        lines, self._free = self._free, []
        for line in lines:
            if line.is_open and line.free_since >= oldest:
                self._free.append(line)
            else:
                line.close()
        self._sweeping = self.loop.call_later(KEPT, self._sweep) if self._free else None

    def close(self) -> None:
        """Leave the free lines to the connector, which closes them."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        while self._free:
            self._free.pop().hand_back()


class Posting:
    """One request on its way; keeps its line when the body was read to its end."""

    __slots__ = ("_data", "_limits", "_line", "_poster", "_seconds")

    def __init__(self, poster: Poster, data: bytes, limits: aiohttp.ClientTimeout, seconds: float) -> None:
        self._poster = poster
        self._data = data
        self._limits = limits
        self._seconds = seconds

    async def __aenter__(self) -> Response:
        """Connect, send, and wait for the response's head.

        Raises:
            aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError: as aiohttp's own requests do.
        """
        poster = self._poster
        due = poster.loop.time() + self._seconds
        self._line = line = poster.free_line() or await poster.connect(self._limits)
        try:
            return await line.send(self._data, due, self._limits.sock_read)
        except BaseException:
            line.close()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._line.close()
        elif self._line.end():
            self._poster.keep(self._line)
