"""One response while it is read: it becomes a `Reply`, or a `Failure` that says what may have happened."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import os
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.http import HttpProcessingError

from enrich.records import Failure, Fate, Reply
from enrich.wire.completion import DONE, has_content, is_finished, stream_error
from enrich.wire.envelope import MAX_EVIDENCE, http_failure, loads, one_line
from enrich.wire.sse import MAX_EVENT, EventParser, EventTooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import ClientResponse

    from enrich.wire.post import Response
    from enrich.wire.sse import Event

MAX_BODY = 16 * 2**20  # bytes of a response; a completion of 128,000 tokens has under 1 MB
MAX_ERROR_BODY = 65_536  # bytes of an error response that are read
MAX_PARTIAL = 65_536  # bytes of a broken stream that are kept as evidence
DRAIN_TIMEOUT = 0.25  # seconds that a finished stream may take to close, to keep its connection
MAX_REQUEST_ID = 200  # characters
MAX_RETRY_AFTER = 31 * 86_400.0  # seconds; more is no wait but a broken header, such as an epoch time

_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_DATE = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[ -~]*")
_BLANK = b" \t\r\n\xef\xbb\xbf"  # what may stand before JSON: white space, a byte order mark
NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)  # TimeoutError is an OSError

log = logging.getLogger(__name__)


class Exchange:
    """One response while it is read: what came so far is there when it breaks.

    Args:
        stream_end: what ends a stream, see `enrich.config.endpoint.Endpoint`.

    Attributes:
        response: set once its head has come.
        outcome: set once it is known, for whatever may yet fail while the connection is let go.
    """

    __slots__ = ("_parts", "_size", "_started", "_stream_end", "outcome", "response")

    response: ClientResponse | Response
    outcome: Reply | Failure | None

    def __init__(self, stream_end: str) -> None:
        self._started = time.perf_counter()
        self._stream_end = stream_end
        self._parts: list[bytes] = []
        self._size = 0
        self.outcome = None

    async def read(self, *, stream: bool) -> Reply | Failure:
        """Read the response to its end; raises one of `NETWORK_ERRORS` where it breaks."""
        if not 200 <= self.response.status < 300:
            await self._read_body(MAX_ERROR_BODY)
            return self._refused()
        coding = self.response.headers.get("Content-Encoding", "identity")
        if coding.strip().lower() not in ("", "identity"):
            return self._failure(
                "compressed_answer", f"the answer is in {one_line(coding, 40)}; none was asked for"
            )
        if stream:
            return await self._read_stream()
        return self._reply() if await self._read_body(MAX_BODY) else self._too_large()

    def broken(self, error: Exception) -> Failure:
        """Say what an exchange proves that broke off, at any point from connecting on."""
        if not hasattr(self, "response"):
            return _no_response(error)
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
        ids = self.response.headers.getall("X-Request-Id", ())
        if not ids:
            return None
        if len(ids) > 1 and len(set(ids)) > 1:
            log.warning(
                "a response carries several X-Request-Id; the first is kept: %s", one_line(", ".join(ids))
            )
        return one_line(ids[0], MAX_REQUEST_ID) or None

    async def _read_chunk(self) -> bytes:
        chunk = await self.response.content.readany()
        self._parts.append(chunk)
        self._size += len(chunk)
        return chunk

    async def _read_body(self, limit: int) -> bool:
        """Read to the end; False, with the rest left unread, where the body is larger than ``limit``."""
        if (self.response.content_length or 0) > limit:
            return False
        content = self.response.content
        while chunk := await content.readany():
            self._parts.append(chunk)
            self._size += len(chunk)
            if self._size > limit:
                return False
        return True

    async def _read_stream(self) -> Reply | Failure:
        """Read events until ``[DONE]``. Chunks, not lines: reading by lines fails for those above 512 KiB."""
        chunk = await self._read_chunk()
        while chunk and not chunk.strip(_BLANK) and self._size <= MAX_BODY:
            chunk = await self._read_chunk()
        if chunk.lstrip(_BLANK).startswith(b"{"):  # it does not stream, whatever content type it gives
            return self._reply() if await self._read_body(MAX_BODY) else self._too_large()
        watch = _StreamWatch(self._started, self._request_id, finish_ends=self._stream_end == "finish_reason")
        chunk = self._body
        while chunk:
            try:
                failure = watch.feed(chunk)
            except EventTooLarge:
                return self._too_large()
            if failure is not None:
                return replace(failure, evidence=self._body[:MAX_PARTIAL])
            if watch.done:
                return await self._finish(watch)
            if self._size > MAX_BODY:
                return self._too_large()
            chunk = await self._read_chunk()
        return self._reply(watch) if watch.ends_well() else self._cut()

    async def _finish(self, watch: _StreamWatch) -> Reply:
        """Keep the connection where the body ends with the stream, as it should; do not wait long for that."""
        self.outcome = self._reply(watch)
        with contextlib.suppress(*NETWORK_ERRORS):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while await self.response.content.readany():
                    pass
        return self.outcome

    def _reply(self, watch: _StreamWatch | None = None) -> Reply:
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
        return self._failure(
            "body_too_large", f"the answer is larger than {MAX_BODY:,} bytes, or an event than {MAX_EVENT:,}"
        )

    def _cut(self) -> Failure:
        return replace(
            self._failure("response_cut", "the stream ended before [DONE]"), evidence=self._body[:MAX_PARTIAL]
        )

    def _failure(self, code: str, message: str) -> Failure:
        return Failure(
            code=code,
            message=message,
            fate=Fate.UNKNOWN,
            status=self.response.status,
            request_id=self._request_id,
            evidence=self._body[:MAX_EVIDENCE],
        )


class _StreamWatch:
    """What has to be known of a stream while it passes: its end, its errors, the time of its first token."""

    __slots__ = ("_finish_ends", "_finished", "_parser", "_request_id", "_started", "done", "first_token_ms")

    def __init__(self, started: float, request_id: str | None, *, finish_ends: bool) -> None:
        self._started = started
        self._request_id = request_id
        self._finish_ends = finish_ends
        self._parser = EventParser()
        self._finished = False
        self.first_token_ms: float | None = None
        self.done = False

    def feed(self, chunk: bytes) -> Failure | None:
        """Take the next bytes; gives the failure that an event among them reports.

        Raises:
            EventTooLarge: an event is larger than any chunk of a completion.
        """
        for event in self._parser.feed(chunk):
            if event.data == DONE:
                self.done = True
                return None
            failure = self._see(event) if self._is_of_interest(event) else None
            if failure is not None:
                return failure
        return None

    def ends_well(self) -> bool:
        """Say whether the body may end here, without ``[DONE]``."""
        return self._finish_ends and self._finished and self._parser.close()

    def _is_of_interest(self, event: Event) -> bool:
        """Spare most events the parsing: the reply is read as a whole later."""
        return (
            self.first_token_ms is None
            or self._finish_ends
            or event.event == "error"
            or b'"error"' in event.data
        )

    def _see(self, event: Event) -> Failure | None:
        try:
            payload = loads(event.data)
        except ValueError:
            payload = None  # a broken chunk is found when the reply is read
        if self.first_token_ms is None and has_content(payload):
            self.first_token_ms = milliseconds_since(self._started)
        self._finished = self._finished or is_finished(payload)
        return stream_error(event, payload, self._request_id)


def read_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Read what a response says of the wait before the next attempt.

    Args:
        headers: of the response; ``Retry-After-Ms`` goes before ``Retry-After``, a date counts from the
            response's own ``Date``.
        now: seconds since the epoch, for a response without a date.

    Returns:
        Seconds, 0 or more; None where nothing usable is said: no plain decimal number, no HTTP date, or more
        than a month.
    """
    milliseconds = _read_number(headers.get("Retry-After-Ms", ""))
    if milliseconds is not None:
        return _sensible(milliseconds / 1000)
    value = headers.get("Retry-After", "").strip()
    seconds = _read_number(value)
    if seconds is not None:
        return _sensible(seconds)
    until = _read_date(value)
    if until is None:
        return None
    sent = _read_date(headers.get("Date", ""))
    return _sensible(max(0.0, until - (now if sent is None else sent)))


def _read_number(text: str) -> float | None:
    # float() would also take nan, inf, 1_0 and digits of other scripts.
    return float(text) if _DECIMAL.fullmatch(text.strip()) else None


def _read_date(text: str) -> float | None:
    if not _DATE.match(text):
        return None
    try:
        parts = email.utils.parsedate_tz(text)
        return float(email.utils.mktime_tz(parts)) if parts else None
    except (ValueError, OverflowError, TypeError, IndexError):  # the parser's own answers to broken dates
        return None


def _sensible(seconds: float) -> float | None:
    return seconds if seconds <= MAX_RETRY_AFTER else None


def _no_response(error: Exception) -> Failure:
    """Classify an error before any response: only a failure to connect proves that nothing was sent."""
    code, message, fate = "connection_lost", "the connection broke before the answer", Fate.UNKNOWN
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "")
            code, message, fate = (
                "certificate_invalid",
                f"the certificate is not trusted: {reason}",
                Fate.UNSENT,
            )
        case aiohttp.ClientConnectorDNSError():
            code, message, fate = "dns_failed", f"no address for {error.host}", Fate.UNSENT
        case aiohttp.ClientConnectorSSLError():
            code, message, fate = (
                "tls_failed",
                f"no TLS with {error.host}: {getattr(error.os_error, 'reason', None)}",
                Fate.UNSENT,
            )
        case aiohttp.ClientConnectorError():
            code, message, fate = (
                "connect_failed",
                f"no connection to {_place(error)}: {_reason(error)}",
                Fate.UNSENT,
            )
        case aiohttp.ConnectionTimeoutError():
            code, message, fate = "connect_failed", "no connection in time", Fate.UNSENT
        case aiohttp.ClientHttpProxyError():
            code, message, fate = "connect_failed", f"the proxy answered HTTP {error.status}", Fate.UNSENT
        case TimeoutError():
            code, message = "timeout", "no answer in time"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            code, message = "bad_response", "the answer is no HTTP"
    return Failure(code=code, message=one_line(message), fate=fate)


def _place(error: aiohttp.ClientConnectorError) -> str:
    return f"[{error.host}]:{error.port}" if ":" in error.host else f"{error.host}:{error.port}"


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Say why a connection was not made, as the system does: asyncio puts the address in the reason's place."""
    number = error.os_error.errno
    return os.strerror(number).lower() if number and number > 0 else str(error.strerror)


def milliseconds_since(started: float) -> float:
    """Give the milliseconds since a moment of `time.perf_counter`."""
    return (time.perf_counter() - started) * 1000.0
