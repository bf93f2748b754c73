"""A connection that takes one POST after the other: written at once, answered by aiohttp's own parser, and no more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypedDict, cast

import aiohttp
from aiohttp.http import HttpProcessingError, HttpResponseParser

if TYPE_CHECKING:
    from aiohttp.base_protocol import BaseProtocol
    from aiohttp.connector import Connection
    from multidict import CIMultiDictProxy


class _Head(TypedDict):
    max_line_size: int
    max_field_size: int
    max_headers: int


# Bytes and lines of a response's head, 64 KiB and 512: gateways add policies and cookies beyond the usual 8 KB and 128,
# and what came below them is paid for.
HEAD: _Head = {"max_line_size": 65_536, "max_field_size": 65_536, "max_headers": 512}
READ_BUFFER = 2**18  # bytes of a body that wait to be read; with twice as many the peer has to wait


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


class Line(asyncio.Protocol):
    """One connection, which aiohttp's connector has made, with one exchange on it at a time.

    Whatever comes while none is under way, or beyond its answer, is nobody's answer: the line is not used again.

    Args:
        connection: open, and not yet used.

    Raises:
        aiohttp.ClientError: it was closed already.
        aiohttp.http.HttpProcessingError: the peer spoke before it was asked.
    """

    def __init__(self, connection: Connection) -> None:
        handler = connection.protocol
        if handler is None or handler.transport is None:
            raise aiohttp.ClientConnectionResetError("the connection was closed")
        if handler.should_close:
            raise HttpProcessingError(message="the peer spoke first")
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._handler = handler  # the connector waits for its end
        self._transport = handler.transport
        self._answer: asyncio.Future[Response] | None = None
        self._content: aiohttp.StreamReader | None = None
        self._reusable = True  # unless something says that it is not
        self._paused = False
        self._due = 0.0  # when the exchange has to be over
        self._silence: float | None = None  # seconds for which nothing may come
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.connected = True
        self.free_since = 0.0
        self._transport.set_protocol(self)

    def send(self, data: bytes, due: float, silence: float | None) -> asyncio.Future[Response]:
        """Send a request; gives what will be the response, once its head has come.

        Args:
            data: head and body.
            due: the loop's time by which the response must have been read.
            silence: seconds for which nothing may come.
        """
        self._parser: Any = (
            HttpResponseParser(  # one for each answer: nothing is left in it of the one before
                cast("BaseProtocol", self),
                self._loop,
                READ_BUFFER,
                payload_exception=aiohttp.ClientPayloadError,
                read_until_eof=True,
                auto_decompress=False,  # 0.5 MB of gzip can become 1 GB
                **HEAD,
            )
        )
        self._answer = answer = self._loop.create_future()
        self._content = None
        self._due, self._silence, self._heard = due, silence, self._loop.time()
        self._watch()
        self._transport.write(data)
        return answer

    def end(self) -> bool:
        """End the exchange; says whether the line may take another one. Closes it otherwise."""
        content, self._answer, self._content = self._content, None, None
        whole = content is not None and content.is_eof() and self._parser.feed_eof() is None
        if whole and self._reusable and self.is_open and not self._unsent():
            self.free_since = self._loop.time()
            return True
        self.close()
        return False

    def close(self) -> None:
        """Let the connection go."""
        self._answer = self._content = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.is_open and self._unsent():
            self._transport.abort()  # what was not sent yet shall not be sent any more
        self._connection.close()

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed the connection, as far as is known here."""
        return not self._transport.is_closing()

    def hand_back(self) -> None:
        """Give an unused connection back to the connector, which waits until it is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._connection.release()

    def _unsent(self) -> bool:
        return self._transport.get_write_buffer_size() > 0

    # --- what the transport says

    def data_received(self, data: bytes) -> None:
        """Take what came; none, where the reader has caught up."""
        answer = self._answer
        if answer is None:
            if data.strip(
                b"\r\n"
            ):  # line ends behind a body are no answer; anything else is one that nobody asked for
                self.close()
            return
        self._heard = self._loop.time()
        try:
            messages, upgraded, _ = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._fail(HttpProcessingError(code=error.code, message=error.message), error)
            return
        if upgraded:
            self._fail(HttpProcessingError(message="the peer changes to another protocol"))
            return
        for message, content in messages:
            if 100 <= message.code < 200:  # an interim response announces the real one
                continue
            if message.should_close or self._content is not None:
                self._reusable = False
            if self._content is None:
                self._content = content
                if not answer.done():
                    answer.set_result(Response(message.code, message.headers, content))

    def eof_received(self) -> None:
        """Let the transport close: what there is to say of it `connection_lost` says."""

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits for the answer how it ended."""
        self.connected = False
        self._handler.connection_lost(error)
        content = self._content
        if content is not None and not content.is_eof():
            try:
                self._parser.feed_eof()
            except HttpProcessingError as cause:
                self._fail(cause)
        elif content is None and self._answer is not None:
            self._fail(
                aiohttp.ClientOSError(*error.args)
                if isinstance(error, OSError)
                else aiohttp.ServerDisconnectedError(),
                error,
            )
        elif self._answer is None:
            self.close()

    # --- what the body's reader says

    def pause_reading(self) -> None:
        """Let the peer wait until the body's reader has caught up."""
        self._paused = True
        self._parser.pause_reading()
        if self.is_open:
            self._transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  # as aiohttp calls it
        """Go on, first with what came already."""
        if not self._paused:
            return
        self._paused = False
        self._heard = self._loop.time()
        if resume_parser:
            self.data_received(b"")
        if self.is_open and not self._paused:
            self._transport.resume_reading()

    # --- time

    def _watch(self) -> None:
        """Be woken when the exchange is due, or the peer was silent for too long; a timer that is early enough stays."""
        due = self._due if self._silence is None else min(self._due, self._heard + self._silence)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        now = self._loop.time()
        if self._paused:
            self._heard = now  # the silence is ours
        if now >= self._due or (self._silence is not None and now >= self._heard + self._silence):
            self._fail(aiohttp.SocketTimeoutError("nothing came in time"))
        else:
            self._watch()

    def _fail(self, error: Exception, cause: Exception | None = None) -> None:
        """End the exchange with an error, for whoever waits for its head or its body."""
        self._reusable = False
        error.__cause__ = cause
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        elif self._content is not None and not self._content.is_eof():
            if isinstance(error, HttpProcessingError):
                error = aiohttp.ClientPayloadError(f"the body is not complete: {error.message}")
            self._content.set_exception(error)
        self._content = None
        self._transport.close()
