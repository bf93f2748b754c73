"""One attempt of one request over HTTP: a `Reply`, or a `Failure` that says what may have happened."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import aiohttp
from yarl import URL

from enrich.base.version import __version__
from enrich.config.endpoint import trust
from enrich.errors import EndpointFailing, KeyRefused
from enrich.records import KEY_CHANGED, Failure, Reply
from enrich.wire.envelope import loads, one_line
from enrich.wire.gateways import Gateway, find_gateway
from enrich.wire.gauges import read_load
from enrich.wire.keys import Keys, refuses_key
from enrich.wire.line import HEAD, Response
from enrich.wire.post import Poster
from enrich.wire.response import Exchange, milliseconds_since
from enrich.wire.stream_end import StreamEnds
from enrich.wire.unanswered import NETWORK_ERRORS

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from aiohttp import ClientRequest, ClientResponse, ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

    from enrich.config.endpoint import Endpoint
    from enrich.wire.gauges import Load

MAX_UNWARNED = 2**20  # bytes; aiohttp warns of larger bodies unless they come as a file
MAX_CONNECTS = 32  # connections opened at the same time: more is a storm of TLS handshakes
CONNECT_TIMEOUT = 30.0  # seconds to get a connection, names and waiting for a slot included
ADDRESS_TIMEOUT = 10.0  # seconds for one address of the host
PROBE_TIMEOUT = 15.0  # seconds for the model list or the health check
GAUGES_TIMEOUT = 2.0  # seconds for one look at the endpoint's gauges
PROBES = 3  # of these at the same time, beside requests and the connections that wait for more of them
DNS_TTL = 60  # seconds for which a resolved name is good


@dataclass(frozen=True, slots=True)
class Health:
    """What ``GET /health`` says.

    Attributes:
        ok: whether the endpoint answered 200 ``{"status": "ok"}``; anything else is degraded service.
        detail: one line: the status it gave, or what failed.
        latency_ms: milliseconds until it answered, connecting included.
        absent: whether it answered that it has no such path, as endpoints other than Beatra's may.
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
        ends: how the endpoint ends its streams, as far as that is known; what is learned is written there.
    """

    def __init__(self, endpoint: Endpoint, *, concurrency: int, ends: StreamEnds | None = None) -> None:
        self._endpoint = endpoint
        self._concurrency = concurrency
        self._keys = Keys(endpoint)
        self._key = ""
        self._base = URL(endpoint.base_url)
        # Built once: parsing a URL is dear.
        self._chat = self._base if endpoint.whole else self._at("chat/completions")
        self._ends = ends or StreamEnds.of(endpoint)
        self._limits = _limits(endpoint.timeout, stream=False)
        self._stream_limits = _limits(endpoint.timeout, stream=True)
        self._headers = {
            **endpoint.headers,
            "User-Agent": f"beatra-enrich/{__version__}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # what is counted on the wire is what is held in memory
        }
        self._headers_seen: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None
        self._poster: Poster | None = None
        self._take_key()

    def _take_key(self) -> None:
        """Send the key that there is now."""
        self._key = self._keys.key
        if self._key:
            endpoint = self._endpoint
            self._headers[endpoint.key_header] = f"{endpoint.key_scheme} {self._key}".lstrip()
        if self._poster is not None:
            self._poster.send(self._headers)

    def _at(self, name: str) -> URL:
        """Give the URL of a path below the base, with the base's query behind it."""
        query = self._base.raw_query_string
        url = self._base / name
        return URL(f"{url}?{query}", encoded=True) if query else url

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=self._concurrency + PROBES,  # never fewer than may be open, so that none queues unseen
                ssl=trust(self._endpoint.ca_file),
                ttl_dns_cache=DNS_TTL,  # a burst of connections asks for the name once
            ),
            # No headers here: aiohttp would tell those of a session to the proxy as well, the key among them.
            cookie_jar=aiohttp.DummyCookieJar(),  # requests are independent; a cookie would tie them together
            proxy=self._endpoint.proxy,
            trust_env=False,  # no proxy or .netrc password that the configuration does not name
            raise_for_status=False,  # raising would throw the error envelope away
            auto_decompress=False,  # 0.5 MB of gzip can become 1 GB
            **HEAD,
        )
        if goes_by_lines(self._endpoint):
            self._poster = Poster(self._session, self._chat, self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._poster is not None:
            self._poster.close()
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
            A `Reply` for any 2xx that came whole (its JSON is not looked at), else a `Failure`; one with the code
            `KEY_CHANGED` where the key was refused and there is another one now.
        """
        if self._keys.due:
            await self._keys.look()
        if self._keys.key != self._key:
            self._take_key()
        used, sent_at = self._key, time.monotonic()
        limit = min(self._endpoint.timeout, timeout or self._endpoint.timeout)
        stock = self._stream_limits if stream else self._limits
        limits = stock if limit == self._endpoint.timeout else _limits(limit, stream=stream)
        outcome = await self._sent(body, key, request_id, limits, limit, stream=stream)
        return await self._with_another_key(outcome, used, sent_at)

    async def _with_another_key(self, outcome: Reply | Failure, used: str, sent_at: float) -> Reply | Failure:
        """Say of a refusal of the key that a request was sent with whether there is another one now."""
        if isinstance(outcome, Reply):
            self._keys.took(used)
        elif used and refuses_key(outcome) and await self._keys.renewed(used, sent_at):
            return replace(outcome, code=KEY_CHANGED, retryable=True)
        return outcome

    async def _sent(
        self,
        body: bytes,
        key: str,
        request_id: str,
        limits: aiohttp.ClientTimeout,
        limit: float,
        *,
        stream: bool,
    ) -> Reply | Failure:
        exchange = Exchange(self._ends)
        if self._poster is not None:
            own = f"Idempotency-Key: {key}\r\nX-Request-Id: {request_id}\r\n"
            return await self._exchange(self._poster.post(body, own, limits, limit), exchange, stream=stream)
        request = self._open.post(
            self._chat,
            data=body if len(body) <= MAX_UNWARNED else io.BytesIO(body),
            headers={**self._headers, "Idempotency-Key": key, "X-Request-Id": request_id},
            allow_redirects=False,  # 301 to 303 turn a POST into a GET, and the key is for this host alone
            timeout=limits,
        )
        return await self._exchange(_within(limit, request), exchange, stream=stream)

    async def models(self) -> list[str]:
        """Give the ids of the account's models, in the endpoint's order.

        Raises:
            KeyRefused: the endpoint refused the key.
            EndpointFailing: it gave no list of models.
        """
        outcome = await self._get("models")
        if isinstance(outcome, Failure):
            kind = KeyRefused if outcome.status in (401, 403) else EndpointFailing
            source = self._endpoint.key_source
            key = f"the API key in {source.name}" if source is not None else "the API key"
            raise kind(f"{self._base}/models: {outcome}", hint=f"check endpoint.base_url and {key}.")
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
        latency_ms = milliseconds_since(started)
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

    async def load(self) -> Load | None:
        """Look at the endpoint's own gauges, without the key; None where they cannot be had."""
        url = self._endpoint.metrics_url
        if url is None:
            return None
        headers = {name: self._headers[name] for name in ("User-Agent", "Accept-Encoding")}
        limits = _limits(GAUGES_TIMEOUT, stream=False)
        request = self._open.get(URL(url), headers=headers, allow_redirects=False, timeout=limits)
        outcome = await self._exchange(_within(GAUGES_TIMEOUT, request), Exchange(self._ends))
        return None if isinstance(outcome, Failure) else read_load(outcome.body.decode(errors="replace"))

    @property
    def gateway(self) -> Gateway | None:
        """What stood in front of the endpoint when its health or models were asked for last; None without one."""
        return find_gateway(self._headers_seen)

    async def _get(self, name: str) -> Reply | Failure:
        used, sent_at = self._key, time.monotonic()
        outcome = await self._with_another_key(await self._got(name), used, sent_at)
        if isinstance(outcome, Failure) and outcome.code == KEY_CHANGED:
            self._take_key()
            return await self._got(name)
        return outcome

    async def _got(self, name: str) -> Reply | Failure:
        limits = _limits(PROBE_TIMEOUT, stream=False)
        request = self._open.get(self._at(name), headers=self._headers, allow_redirects=False, timeout=limits)
        exchange = Exchange(self._ends)
        outcome = await self._exchange(_within(PROBE_TIMEOUT, request), exchange)
        if hasattr(exchange, "response"):
            self._headers_seen = dict(exchange.response.headers)
        return outcome

    async def _exchange(
        self,
        request: AbstractAsyncContextManager[ClientResponse | Response],
        exchange: Exchange,
        *,
        stream: bool = False,
    ) -> Reply | Failure:
        try:
            async with request as exchange.response:
                exchange.outcome = await exchange.read(stream=stream)
        except NETWORK_ERRORS as error:
            return self._keys.outcome(exchange.outcome or exchange.broken(error))
        if exchange.outcome is None:
            raise RuntimeError("an exchange ended without an outcome")
        return self._keys.outcome(exchange.outcome)

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


def goes_by_lines(endpoint: Endpoint) -> bool:
    """Say whether an endpoint's requests go by lines of our own, not the way that aiohttp's requests go.

    To a proxy each request may say more than a line does: the whole URL, a password of the proxy's.
    """
    return endpoint.proxy is None


@contextlib.asynccontextmanager
async def _within(
    seconds: float, request: AbstractAsyncContextManager[ClientResponse]
) -> AsyncIterator[ClientResponse]:
    """Give the response, for so many seconds: `total` of aiohttp would also count the wait for a connection."""
    async with asyncio.timeout(seconds), request as response:
        yield response


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
