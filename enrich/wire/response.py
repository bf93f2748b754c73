"""One response while it is read: it becomes a `Reply`, or a `Failure` that says what may have happened."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.http import HttpProcessingError

from enrich.records import Failure, Fate, Reply
from enrich.wire.completion import BLANK, EVENT_BEGINS
from enrich.wire.decoding import GZIP, Decoder, UndecodableError
from enrich.wire.envelope import MAX_EVIDENCE, http_failure, one_line
from enrich.wire.retry_after import PASSED_ON, read_retry_after
from enrich.wire.sse import MAX_EVENT, EventTooLarge
from enrich.wire.stream_end import ENDED_EARLY, NO_DONE, NO_FINISH, StreamEnds, StreamWatch
from enrich.wire.unanswered import NETWORK_ERRORS, no_response

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from enrich.wire.line import Response

MAX_BODY = 16 * 2**20  # bytes of a response; a completion of 128,000 tokens has under 1 MB
MAX_ERROR_BODY = 65_536  # bytes of an error response that are read
MAX_PARTIAL = 65_536  # bytes of a broken stream that are kept as evidence
DRAIN_TIMEOUT = 0.25  # seconds that a finished stream may take to close, to keep its connection
MAX_REQUEST_ID = 200  # characters
# Where a response's id may stand: the endpoint's own, then what a gateway passes on or makes up.
REQUEST_IDS = (
    "X-Request-Id",
    "Request-Id",
    f"{PASSED_ON}X-Request-Id",
    f"{PASSED_ON}Request-Id",
    "X-LiteLLM-Call-Id",
    "APIM-Request-Id",  # Azure
    "X-MS-Request-Id",
    "X-Amzn-RequestId",  # AWS
    "X-Correlation-Id",
    "CF-Ray",  # Cloudflare
)

log = logging.getLogger(__name__)


class Exchange:
    """One response while it is read: what came so far is there when it breaks.

    Args:
        ends: how this endpoint ends its streams.

    Attributes:
        response: set once its head has come.
        outcome: set once it is known, for whatever may yet fail while the connection is let go.
    """

    __slots__ = ("_decoder", "_ends", "_parts", "_size", "_started", "outcome", "response")

    response: ClientResponse | Response
    outcome: Reply | Failure | None

    def __init__(self, ends: StreamEnds) -> None:
        self._started = time.perf_counter()
        self._ends = ends
        self._decoder: Decoder | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self.outcome = None

    async def read(self, *, stream: bool) -> Reply | Failure:
        """Read the response to its end; raises one of `NETWORK_ERRORS` where it breaks."""
        whole = 200 <= self.response.status < 300
        coding = self.response.headers.get("Content-Encoding")
        try:
            if coding is not None:
                self._decoder = Decoder(coding) or None
            if not whole:
                await self._read_body(MAX_ERROR_BODY)
                return self._refused()
            if stream or self.response.headers.get("Content-Type", "").startswith("text/event-stream"):
                return await self._read_stream(asked=stream)
            return self._read_whole() if await self._read_body(MAX_BODY) else self._too_large()
        except UndecodableError as error:
            said = f"the answer is in {one_line(coding or '', 40)}: {error}"
            return self._failure("compressed_answer", said) if whole else self._refused()

    def broken(self, error: Exception) -> Failure:
        """Say what an exchange proves that broke off, at any point from connecting on."""
        if not hasattr(self, "response"):
            return no_response(error)
        if not 200 <= self.response.status < 300:
            return self._refused()  # the status speaks, even where the body was cut
        if isinstance(error, TimeoutError):
            return self._failure("timeout", "the answer did not end in time")
        if isinstance(error, aiohttp.ClientPayloadError | HttpProcessingError):
            return self._failure("response_cut", "the connection ended within the answer")
        return self._failure("connection_lost", "the connection broke within the answer")

    @property
    def _body(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    @property
    def _request_id(self) -> str | None:
        headers = self.response.headers
        for name in REQUEST_IDS:
            ids = headers.getall(name, None)
            if ids:
                break
        else:
            return None
        if len(ids) > 1 and len(set(ids)) > 1:
            log.warning(
                "a response carries several request ids; the first is kept: %s", one_line(", ".join(ids))
            )
        return one_line(ids[0], MAX_REQUEST_ID) or None

    async def _read_chunk(self, limit: int = MAX_BODY) -> bytes:
        """Read the next bytes, unpacked; nothing at the end of the body."""
        content = self.response.content
        while chunk := content.read_nowait() if content.is_eof() else await content.readany():
            if not self._size and self._decoder is None and chunk.startswith(GZIP):
                self._decoder = Decoder("gzip")  # what passed it on lost the header
            if self._decoder is not None:
                chunk = self._decoder.feed(chunk, limit - self._size)
            if chunk:
                self._parts.append(chunk)
                self._size += len(chunk)
                return chunk
        return b""

    async def _read_body(self, limit: int) -> bool:
        """Read to the end; False, with the rest left unread, where the body is larger than ``limit``."""
        if (self.response.content_length or 0) > limit:
            return False
        content = self.response.content
        while self._size <= limit and not content.at_eof() and await self._read_chunk(limit):
            pass
        return self._size <= limit

    def _read_whole(self) -> Reply | Failure:
        """Take a body that came to its end: JSON, or a stream that nobody asked for."""
        if self._parts and self._parts[0].lstrip(BLANK).startswith(EVENT_BEGINS):
            watch = StreamWatch(self._started, self._request_id)
            return self._watched(watch, self._body) or self._ended(watch)
        return self._reply()

    async def _read_stream(self, *, asked: bool) -> Reply | Failure:
        """Read events until the stream's end. Chunks, not lines: reading by lines fails for those above 512 KiB."""
        chunk = await self._read_chunk()
        while chunk and not chunk.strip(BLANK) and self._size <= MAX_BODY:
            chunk = await self._read_chunk()
        begins = chunk.lstrip(BLANK)
        if begins.startswith(b"{") or not (
            asked or begins.startswith(EVENT_BEGINS)
        ):  # whatever type it gives
            return self._reply() if await self._read_body(MAX_BODY) else self._too_large()
        watch = StreamWatch(self._started, self._request_id)
        chunk = self._body
        while chunk:
            failure = self._watched(watch, chunk)
            if failure is not None:
                return failure
            if watch.done:
                outcome = self._ended(watch)
                return outcome if isinstance(outcome, Failure) else await self._finish(outcome)
            chunk = await self._read_chunk()
        return self._ended(watch)

    def _watched(self, watch: StreamWatch, chunk: bytes) -> Failure | None:
        """Let the watch see some more of the stream; gives what is wrong with it."""
        try:
            failure = watch.feed(chunk)
        except EventTooLarge:
            return self._too_large()
        if failure is not None:
            return replace(failure, evidence=self._body[:MAX_PARTIAL])
        return self._too_large() if self._size > MAX_BODY and not watch.done else None

    def _ended(self, watch: StreamWatch) -> Reply | Failure:
        """Judge a stream by its end."""
        failure = None if watch.done else watch.close()
        if failure is not None:
            return replace(failure, evidence=self._body[:MAX_PARTIAL])
        if not watch.done:
            if self._ends.takes_orderly_end(watch):
                return self._reply(watch)
            return self._cut(NO_DONE if watch.finished else ENDED_EARLY)
        if not (watch.finished or watch.hollow or self._ends.finish_optional):
            return self._cut(NO_FINISH)
        self._ends.done()
        return self._reply(watch)

    async def _finish(self, reply: Reply) -> Reply:
        """Keep the connection where the body ends with the stream, as it should; do not wait long for that."""
        self.outcome = reply
        with contextlib.suppress(*NETWORK_ERRORS):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while await self.response.content.readany():
                    pass
        return reply

    def _reply(self, watch: StreamWatch | None = None) -> Reply:
        return Reply(
            body=self._body,
            request_id=self._request_id,
            latency_ms=milliseconds_since(self._started),
            first_token_ms=watch.first_token_ms if watch else None,
            streamed=watch is not None,
        )

    def _refused(self) -> Failure:
        headers = self.response.headers
        failure = http_failure(
            self.response.status,
            self._body,
            request_id=self._request_id,
            retry_after=read_retry_after(headers, now=time.time()),
        )
        if failure.code != "redirected":
            return failure
        target = one_line(headers.get("Location", "nowhere"), 200)
        return replace(failure, message=f"HTTP {failure.status} to {target}; redirects are not followed")

    def _too_large(self) -> Failure:
        if self._decoder is not None:
            bomb = self._failure("compressed_answer", f"the answer unpacks to more than {MAX_BODY:,} bytes")
            return replace(bomb, evidence=b"")
        return self._failure(
            "body_too_large", f"the answer is larger than {MAX_BODY:,} bytes, or an event than {MAX_EVENT:,}"
        )

    def _cut(self, message: str) -> Failure:
        return replace(self._failure("response_cut", message), evidence=self._body[:MAX_PARTIAL])

    def _failure(self, code: str, message: str) -> Failure:
        return Failure(
            code=code,
            message=message,
            fate=Fate.UNKNOWN,
            status=self.response.status,
            request_id=self._request_id,
            evidence=self._body[:MAX_EVIDENCE],
        )


def milliseconds_since(started: float) -> float:
    """Give the milliseconds since a moment of `time.perf_counter`."""
    return (time.perf_counter() - started) * 1000.0
