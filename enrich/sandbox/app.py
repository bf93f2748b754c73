"""The emulator as an aiohttp application: its routes, and the life of one chat request."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import random
import secrets
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from multidict import CIMultiDict

from enrich.base.clock import SystemClock
from enrich.sandbox import content, validate
from enrich.sandbox.answers import complete, spoil
from enrich.sandbox.books import Attempt, Books
from enrich.sandbox.breakage import (
    BALANCE_SPENT,
    EVENT_STREAM,
    JSON,
    RATE_LIMITED,
    REQUEST_ID,
    UNAUTHORIZED,
    UNCHARGED,
    Delivery,
    deliver,
    play_uncharged,
    rate_limited,
    refuse,
)
from enrich.sandbox.error_bodies import Refusal, RefusedError
from enrich.sandbox.faults import FaultPlan
from enrich.sandbox.limits import Limits
from enrich.sandbox.memory import IN_PROGRESS, Memory, RememberedKey
from enrich.sandbox.prefix_cache import PrefixCache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from enrich.base.clock import Clock
    from enrich.sandbox.options import SandboxOptions

MAX_REQUEST = 64 * 1024 * 1024  # bytes of one request
INVALID_KEY = Refusal(401, "invalid_api_key", "The API key is not valid.")
NO_JSON = Refusal(400, "invalid_request", "Content-Type must be application/json.")
TOO_LARGE = Refusal(400, "invalid_request", f"The body has more than {MAX_REQUEST:,} bytes.", param="")
PATHS = ("/v1/chat/completions", "/v1/models", "/v1/health", "/sandbox/ledger")


def create_app(
    options: SandboxOptions, *, script: Iterable[str] = (), clock: Clock | None = None
) -> web.Application:
    """Make the emulator as an application.

    Run it with ``handler_cancellation=True``: a fault that waits for the client to give up then ends when it does.

    Args:
        options: how it behaves.
        script: faults that befall the first requests, one each; see `FaultPlan`.
        clock: tells the age of idempotency keys and refills rate limits.

    Raises:
        ConfigError: a fault in the script is unknown.
    """
    return Emulator(options, script=script, clock=clock).app()


class Emulator:
    """The state of one emulator: books, remembered keys, limits and faults. It survives its server."""

    def __init__(
        self, options: SandboxOptions, *, script: Iterable[str] = (), clock: Clock | None = None
    ) -> None:
        self.options = options
        self.books = Books(balance=options.balance)
        self._clock: Clock = clock or SystemClock()
        self._memory = Memory()
        self._limits = Limits(options)
        self._plan = FaultPlan(options.faults, script=script, seed=options.seed)
        self._random = random.Random(options.seed)  # noqa: S311  # latencies, no secrets
        self._ids = (f"{secrets.token_hex(4)}{number:08x}" for number in itertools.count(1))
        self._cache = PrefixCache(options.cache) if options.cache is not None else None
        self._charging: set[asyncio.Task[bytes]] = set()

    def app(self) -> web.Application:
        """Make an application around this state."""
        app = web.Application(client_max_size=MAX_REQUEST)
        app.router.add_post(PATHS[0], self._chat)
        app.router.add_get(PATHS[1], self._models)
        app.router.add_get(PATHS[2], self._health)
        app.router.add_get(PATHS[3], self._ledger)
        app.router.add_route("*", "/{path:.*}", self._nowhere)
        app.on_shutdown.append(self._stop_charging)
        return app

    # --- small routes ---------------------------------------------------------------------------------

    async def _models(self, request: web.Request) -> web.Response:
        try:
            self._authorise(request)
        except RefusedError as refused:
            return refuse(refused.refusal, self._request_id())
        models = [{"id": name, "object": "model", "owned_by": "sandbox"} for name in self.options.models]
        return self._json({"object": "list", "data": models})

    async def _health(self, _request: web.Request) -> web.Response:
        return self._json({"status": "ok"})

    async def _ledger(self, request: web.Request) -> web.Response:
        wanted = request.query.get("attempts", "0") not in ("", "0")
        return self._json(self.books.to_dict(attempts=wanted))

    async def _nowhere(self, request: web.Request) -> web.Response:
        refusal = Refusal(404, "not_found", f"There is no {request.path} here.")
        if request.path in PATHS:
            refusal = Refusal(405, "method_not_allowed", f"{request.path} does not take {request.method}.")
        return refuse(refusal, self._request_id())

    def _json(self, value: dict[str, Any]) -> web.Response:
        headers = {REQUEST_ID: self._request_id(), "Content-Type": JSON}
        return web.Response(body=orjson.dumps(value), headers=headers)

    def _request_id(self) -> str:
        return f"req_{next(self._ids)}"

    # --- chat -----------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return refuse(TOO_LARGE, self._request_id())
        request_id, digest = self._request_id(), hashlib.sha256(raw).digest()
        key, came = request.headers.get("Idempotency-Key"), self._clock.wall()
        self.books.arrive(key, digest, self._clock.boottime())
        response: web.StreamResponse | None = None
        try:
            response = await self._answer(request, raw, digest, request_id)
        except RefusedError as refused:
            response = refuse(refused.refusal, request_id)
        except ConnectionError:  # the client hung up while a stream was written
            pass
        finally:
            status = None if response is None else response.status
            client_id = request.headers.get(REQUEST_ID)
            self.books.leave(Attempt(key, digest, came, status, request_id, client_id))
        return web.Response() if response is None else response  # an empty one goes nowhere: nobody is there

    async def _answer(
        self, request: web.Request, raw: bytes, digest: bytes, request_id: str
    ) -> web.StreamResponse | None:
        """Take one request from the door to its answer; None when the connection was closed instead."""
        self._authorise(request)
        if request.content_type != JSON:
            raise RefusedError(NO_JSON)
        self._admit()
        body = validate.parse(raw)
        validate.check(body, self.options.models, parts=self.options.parts)
        content.flatten(body)
        key = request.headers.get("Idempotency-Key")
        entry = self._recall(key, digest)
        streamed = body.get("stream", False)
        fault = self._plan.draw(key.encode() if key else digest, raw, stream=streamed)
        if fault is not None:
            self.books.faults[fault] += 1
        if fault in UNCHARGED:
            return await play_uncharged(fault, request, request_id)
        headers = CIMultiDict({REQUEST_ID: request_id, "Content-Type": EVENT_STREAM if streamed else JSON})
        seconds = 0.0
        if entry.answer is not None:
            self.books.replays += 1
            headers["Idempotency-Replayed"] = "true"
            answer = entry.answer
        else:
            seconds = self._latency()
            answer = await self._execute(entry, body, key, fault, seconds / (1 + streamed))
        usage = body.get("stream_options", {}).get("include_usage", False)
        return await deliver(Delivery(request, answer, headers, streamed, usage, seconds / 2), fault)

    def _authorise(self, request: web.Request) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise RefusedError(UNAUTHORIZED)
        if self.options.api_keys and key.strip() not in self.options.api_keys:
            raise RefusedError(INVALID_KEY)

    def _admit(self) -> None:
        if not self._limits.admit(self._clock.boottime()):
            retry_after = self.options.retry_after
            raise RefusedError(RATE_LIMITED if retry_after is None else rate_limited(retry_after))

    def _recall(self, key: str | None, digest: bytes) -> RememberedKey:
        """Give what is known of the key, if it can be answered now: from memory, or with money."""
        entry = self._memory.entry(key, digest, self._clock.boottime())
        if entry.busy:
            raise RefusedError(IN_PROGRESS)
        if entry.answer is None and self.books.spent:
            raise RefusedError(BALANCE_SPENT)
        return entry

    def _latency(self) -> float:
        median, spread = self.options.latency, self.options.latency_spread
        return median * math.exp(self._random.gauss(0, spread)) if median and spread else median

    async def _execute(
        self, entry: RememberedKey, body: dict[str, Any], key: str | None, fault: str | None, seconds: float
    ) -> bytes:
        """Complete and charge; once begun it ends so, also when the client hangs up meanwhile."""
        model = self.options.models[0] if body["model"] == "auto" else body["model"]
        name = f"chat_{next(self._ids)}"
        cached = self._cache.read(body, model) if self._cache is not None else None
        completion, bill = complete(body, entry.body, completion_id=name, model=model, cached=cached)
        if fault is not None:
            spoil(fault, completion, body)
        answer = orjson.dumps(completion)
        self._limits.spend(bill.tokens)

        def charge() -> bytes:
            self.books.charge(key, entry.body, bill.credits, bill.tokens)
            self.books.cached_tokens += cached or 0
            entry.answer = answer
            return answer

        if not seconds:
            return charge()

        async def work() -> bytes:
            try:
                await asyncio.sleep(seconds)
                return charge()
            finally:
                entry.busy = False

        entry.busy = True
        task = asyncio.create_task(work(), name=f"charge {name}")
        self._charging.add(task)
        task.add_done_callback(self._charging.discard)
        return await asyncio.shield(task)

    async def _stop_charging(self, _app: web.Application) -> None:
        """Let go of completions that are still under way: they are not charged."""
        for task in self._charging:
            task.cancel()
        await asyncio.gather(*self._charging, return_exceptions=True)
