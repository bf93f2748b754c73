"""One attempt of one request over HTTP: a `Reply`, or a `Failure` that says what may have happened."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import io
import logging
import os
import re
import ssl
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from enrich import __version__
from enrich.completion import DONE, has_content, is_finished, stream_error
from enrich.envelope import MAX_EVIDENCE, http_failure, loads, one_line
from enrich.errors import ConfigError, EndpointFailing, KeyRefused
from enrich.post import Poster, Response
from enrich.records import Failure, Fate, Reply
from enrich.sse import MAX_EVENT, EventParser, EventTooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import TracebackType

    from aiohttp import ClientRequest, ClientResponse, ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

    from enrich.endpoint import Endpoint
    from enrich.sse import Event

MAX_BODY = 16 * 2**20  # bytes of a response; a completion of 128,000 tokens has under 1 MB
MAX_ERROR_BODY = 65_536  # bytes of an error response that are read
MAX_PARTIAL = 65_536  # bytes of a broken stream that are kept as evidence
MAX_UNWARNED = 2**20  # bytes; aiohttp warns of larger bodies unless they come as a file
MAX_CONNECTS = 32  # connections opened at the same time: more is a storm of TLS handshakes
CONNECT_TIMEOUT = 30.0  # seconds to get a connection, names and waiting for a slot included
ADDRESS_TIMEOUT = 10.0  # seconds for one address of the host
PROBE_TIMEOUT = 15.0  # seconds for the model list or the health check
DRAIN_TIMEOUT = 0.25  # seconds that a finished stream may take to close, to keep its connection
MAX_REQUEST_ID = 200  # characters
DNS_TTL = 60  # seconds for which a resolved name is good
MAX_RETRY_AFTER = 31 * 86_400.0  # seconds; more is no wait but a broken header, such as an epoch time
MIN_SCRUBBED_KEY = 4  # characters; a shorter key is a placeholder
PUBLIC_KEY = 12  # characters of a key that are no secret
MIN_SECRET_KEY = 20  # characters; only such a key is looked for in answers too

_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_DATE = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[ -~]*")
_BLANK = b" \t\r\n\xef\xbb\xbf"  # what may stand before JSON: white space, a byte order mark
_NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)  # TimeoutError is an OSError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """What ``GET /health`` says.

    Attributes:
        ok: whether the endpoint answered 200 ``{"status": "ok"}``; anything else is degraded service.
        absent: whether it answered that it has no such path, as endpoints other than Beatra's may.
        detail: one line: the status it gave, or what failed.
        latency_ms: milliseconds until it answered, connecting included.
    """

    ok: bool
    detail: str
    latency_ms: float
    absent: bool = False


class Client:
    """The only one who speaks HTTP. An async context manager.

    Args:
        endpoint: where to.
        concurrency: the most requests in flight; more would wait for a connection.
    """

    def __init__(self, endpoint: Endpoint, *, concurrency: int) -> None:
        self._endpoint = endpoint
        self._concurrency = concurrency
        self._key = endpoint.api_key.get_secret_value() if endpoint.api_key else ""
        self._base = URL(endpoint.base_url)
        self._chat = self._base / "chat/completions"  # built once: parsing a URL is dear
        self._limits = _limits(endpoint.timeout, stream=False)
        self._stream_limits = _limits(endpoint.timeout, stream=True)
        self._headers = {
            **endpoint.headers,
            "User-Agent": f"beatra-enrich/{__version__}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # what is counted on the wire is what is held in memory
            **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
        }
        self._session: aiohttp.ClientSession | None = None
        self._poster: Poster | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=self._concurrency,  # never fewer than may be in flight, so that none queues unseen
                ssl=_trust(self._endpoint.ca_file),
                ttl_dns_cache=DNS_TTL,  # a burst of connections asks for the name once
            ),
            # No headers here: aiohttp would tell those of a session to the proxy as well, the key among them.
            cookie_jar=aiohttp.DummyCookieJar(),  # requests are independent; a cookie would tie them together
            proxy=self._endpoint.proxy,
            trust_env=False,  # no proxy or .netrc password that the configuration does not name
            raise_for_status=False,  # raising would throw the error envelope away
            auto_decompress=False,  # 0.5 MB of gzip can become 1 GB
        )
        if self._endpoint.proxy is None:
            self._poster = Poster(self._session, self._chat, self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def attempt(
        self,
        body: bytes,
        *,
        key: str,
        request_id: str,
        stream: bool,
        timeout: float | None = None,  # noqa: ASYNC109  # how it ran out decides the fate
    ) -> Reply | Failure:
        """Send one request once.

        Args:
            body: the request's JSON.
            key: the ``Idempotency-Key``.
            request_id: the ``X-Request-Id`` of this attempt.
            stream: whether the body asks for an event stream.
            timeout: seconds for the whole attempt, if fewer than the endpoint's own.

        Returns:
            A `Reply` for any 2xx that came whole (its JSON is not looked at), else a `Failure`.
        """
        limit = min(self._endpoint.timeout, timeout or self._endpoint.timeout)
        stock = self._stream_limits if stream else self._limits
        limits = stock if limit == self._endpoint.timeout else _limits(limit, stream=stream)
        request = self._posting(body, key, request_id, limits)
        return await self._exchange(request, limit, stream=stream)

    def _posting(
        self, body: bytes, key: str, request_id: str, limits: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[ClientResponse | Response]:
        if self._poster is not None:
            return self._poster.post(
                body, f"Idempotency-Key: {key}\r\nX-Request-Id: {request_id}\r\n", limits
            )
        return self._open.post(
            self._chat,
            data=body if len(body) <= MAX_UNWARNED else io.BytesIO(body),
            headers={**self._headers, "Idempotency-Key": key, "X-Request-Id": request_id},
            allow_redirects=False,  # 301 to 303 turn a POST into a GET, and the key is for this host alone
            timeout=limits,
        )

    async def models(self) -> list[str]:
        """Give the ids of the account's models, in the endpoint's order.

        Raises:
            KeyRefused: the endpoint refused the key.
            EndpointFailing: it gave no list of models.
        """
        outcome = await self._get("models")
        if isinstance(outcome, Failure):
            kind = KeyRefused if outcome.status in (401, 403) else EndpointFailing
            raise kind(f"{self._base}/models: {outcome}", hint="check endpoint.base_url and the API key.")
        try:
            payload = loads(outcome.body)
        except ValueError:
            payload = None
        models = payload.get("data") if isinstance(payload, dict) else None
        if not isinstance(models, list):
            raise EndpointFailing(f"{self._base}/models answered without a list of models")
        ids = [model.get("id") for model in models if isinstance(model, dict)]
        return [name for name in ids if isinstance(name, str) and name]

    async def health(self) -> Health:
        """Ask how the service is; never raises for what it answers."""
        started = time.perf_counter()
        outcome = await self._get("health")
        latency_ms = _milliseconds_since(started)
        if isinstance(outcome, Failure):
            absent = outcome.status == 404
            return Health(ok=False, detail=str(outcome), latency_ms=latency_ms, absent=absent)
        try:
            payload = loads(outcome.body)
        except ValueError:
            payload = None
        status = payload.get("status") if isinstance(payload, dict) else None
        detail = one_line(str(status), 100) if status is not None else "the answer names no status"
        return Health(ok=status == "ok", detail=detail, latency_ms=latency_ms)

    async def _get(self, name: str) -> Reply | Failure:
        limits = _limits(PROBE_TIMEOUT, stream=False)
        request = self._open.get(
            self._base / name, headers=self._headers, allow_redirects=False, timeout=limits
        )
        return await self._exchange(request, PROBE_TIMEOUT, stream=False)

    async def _exchange(
        self, request: AbstractAsyncContextManager[ClientResponse | Response], limit: float, *, stream: bool
    ) -> Reply | Failure:
        exchange = _Exchange(self._endpoint.stream_end)
        try:
            # The deadline is our own: `total` of aiohttp would also count the wait for a connection.
            async with asyncio.timeout(limit), request as exchange.response:
                exchange.outcome = await exchange.read(stream=stream)
        except _NETWORK_ERRORS as error:
            return _scrub(exchange.outcome or exchange.broken(error), self._key)
        return _scrub(exchange.outcome, self._key)

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("a Client is used inside `async with`")
        return self._session


class _Connector(aiohttp.TCPConnector):
    """Opens at most `MAX_CONNECTS` connections at a time; requests on open ones never come by here."""

    def __init__(self, *, limit: int, ssl: ssl.SSLContext | bool, ttl_dns_cache: int) -> None:
        super().__init__(limit=limit, ssl=ssl, ttl_dns_cache=ttl_dns_cache)
        self._slots = asyncio.Semaphore(MAX_CONNECTS)

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109  # aiohttp's own signature
    ) -> ResponseHandler:
        async with self._slots:
            return await super()._create_connection(req, traces, timeout)


class _Exchange:
    """One response while it is read: what came so far is there when it breaks."""

    __slots__ = ("_parts", "_size", "_started", "_stream_end", "outcome", "response")

    response: ClientResponse | Response
    outcome: Reply | Failure | None

    def __init__(self, stream_end: str) -> None:
        self._started = time.perf_counter()
        self._stream_end = stream_end
        self._parts: list[bytes] = []
        self._size = 0
        self.outcome = None  # set once it is known, for whatever may yet fail while the connection is let go

    async def read(self, *, stream: bool) -> Reply | Failure:
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
        """Say what an exchange proves that broke off."""
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
        with contextlib.suppress(*_NETWORK_ERRORS):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while await self.response.content.readany():
                    pass
        return self.outcome

    def _reply(self, watch: _StreamWatch | None = None) -> Reply:
        return Reply(
            body=self._body,
            request_id=self._request_id,
            latency_ms=_milliseconds_since(self._started),
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
            self.first_token_ms = _milliseconds_since(self._started)
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


def _limits(seconds: float, *, stream: bool) -> aiohttp.ClientTimeout:
    """Give the limits within an attempt of so many seconds.

    Connecting may take half of it at most, so that a deadline which passes is known to have passed after
    that. A stream that is silent for half of it is dead; an answer in one piece is silent until it comes.
    """
    return aiohttp.ClientTimeout(
        total=None,
        connect=min(CONNECT_TIMEOUT, seconds / 2),
        sock_connect=min(ADDRESS_TIMEOUT, seconds / 2),
        sock_read=seconds / 2 if stream else None,
    )


def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError among them
        raise ConfigError(
            f"endpoint.ca_file {ca_file} cannot be used: {error.strerror or error.args[-1]}",
            hint="give a PEM file with the certificate of the authority.",
        ) from None


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000.0


def _scrub(outcome: Reply | Failure | None, key: str) -> Reply | Failure:
    """Take the key out of what a server echoes; a short key is a placeholder, and may be a word."""
    if outcome is None:
        raise RuntimeError("an exchange ended without an outcome")
    if isinstance(outcome, Reply):
        secret = key.encode()
        if len(key) < MIN_SECRET_KEY or secret not in outcome.body:
            return outcome
        return replace(outcome, body=outcome.body.replace(secret, b"[key]"))
    if len(key) < MIN_SCRUBBED_KEY:
        return outcome
    return replace(
        outcome,
        code=_without(outcome.code, key),
        message=_without(outcome.message, key),
        request_id=_without(outcome.request_id, key) if outcome.request_id else None,
        evidence=_without(outcome.evidence.decode("latin-1"), key).encode("latin-1"),
    )


def _without(text: str, key: str) -> str:
    """Give a text without the key, also where the text was cut within it."""
    text = text.replace(key, "[key]")
    cut = text.removesuffix("…")
    for length in range(len(key) - 1, PUBLIC_KEY, -1):
        if cut.endswith(key[:length]):
            return cut[:-length] + "[key]"
    return text
