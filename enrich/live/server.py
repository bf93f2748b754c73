"""Serves the live page: on loopback, under a random token, to pages of its own alone."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

import orjson
from aiohttp import web

from enrich.base.loops import meanwhile
from enrich.errors import ConfigError
from enrich.live.sight import Sight
from enrich.report.html import asset

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config import Config
    from enrich.show.watch import Watch

HOST = "127.0.0.1"
NAMES = frozenset(
    {"127.0.0.1", "localhost", "[::1]"}
)  # by which a browser may call it; any other may be a rebound name
TOKEN_BYTES = 24  # of randomness
LOOK_EVERY = 1.0  # seconds between looks
WATCHED = (
    10.0  # seconds after its last question for which a browser counts as there: for nobody no rows are read
)
LAST_LOOK = 2.0  # seconds at most for which the end waits for a browser to see it
SHUTDOWN_SECONDS = 0.2  # that requests in hand may take when the server stops
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "beatra-enrich",
}


log = logging.getLogger("enrich")


class LivePage:
    """The page on a run, as an async context manager.

    Args:
        config: the run's job.
        watch: what the run tells of itself; None of one that goes on elsewhere.
        stop: asks the run to stop in good order; None of one that goes on elsewhere.
        port: to listen on; 0 takes a free one.

    Attributes:
        url: where it is, its token included; set on entering.

    Raises:
        ConfigError: on entering: the port is taken.
    """

    def __init__(
        self,
        config: Config,
        *,
        watch: Watch | None = None,
        stop: Callable[[], None] | None = None,
        port: int = 0,
    ) -> None:
        self.url = ""
        self._sight = Sight(config, watch)
        self._stop = stop
        self._port = port
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._stopping = False
        self._asked_at = float("-inf")
        self._seen_end = asyncio.Event()
        self._over = False
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._guard], client_max_size=1_024)
        app.add_routes(
            [
                web.get("/{token}/", self._page),
                web.get("/{token}/page.js", self._script),
                web.get("/{token}/page.css", self._styles),
                web.get("/{token}/state", self._state),
                web.post("/{token}/stop", self._stopped),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        self._open.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, HOST, self._port).start()
        except OSError as error:
            await self._open.aclose()
            raise ConfigError(
                f"the live page cannot listen on {HOST}:{self._port}: {error.strerror}",
                hint="leave the port out to take a free one.",
            ) from None
        await self._open.enter_async_context(self._sight)
        await self._open.enter_async_context(meanwhile(self._look(), "beatra-live"))
        self.url = f"http://{HOST}:{runner.addresses[0][1]}/{self._token}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def ended(self, said: str) -> None:
        """Show how the run ended; waits a moment for a browser that looks on."""
        self._sight.end(said)
        self._over = True
        if self._is_watched(3 * LOOK_EVERY):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._seen_end.wait(), LAST_LOOK)

    async def _look(self) -> None:
        while True:
            try:
                await self._sight.look(rows=self._is_watched(WATCHED))
            except Exception as error:  # noqa: BLE001  # who only looks on must not end a run
                log.warning("the live page cannot look: %r", error)
            await asyncio.sleep(LOOK_EVERY)

    def _is_watched(self, seconds: float) -> bool:
        return time.monotonic() - self._asked_at < seconds

    # --- who may ask -------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Answer pages of our own alone: another host's name, another origin or a wrong token gets nothing."""
        response: web.StreamResponse
        if (refused := self._refusal(request)) is not None:
            response = refused
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=error.reason)
        response.headers.update(HEADERS)
        return response

    def _refusal(self, request: web.Request) -> web.Response | None:
        host = request.headers.get("Host", "")
        if _name_of(host) not in NAMES or len(request.headers.getall("Host", ())) != 1:
            return web.Response(status=403, text="this page answers on loopback alone")
        if request.headers.get("Origin", f"http://{host}") != f"http://{host}":
            return web.Response(status=403, text="asked by another page")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return web.Response(status=403, text="asked by another page")
        token = request.path.split("/")[1]
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return web.Response(status=404, text="no such page")
        return None

    # --- what it gives -----------------------------------------------------------------------------------

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=_file("page.html"), content_type="text/html")

    async def _script(self, _: web.Request) -> web.Response:
        return web.Response(text=_file("page.js"), content_type="text/javascript")

    async def _styles(self, _: web.Request) -> web.Response:
        return web.Response(text=f"{asset('page.css')}\n{_file('live.css')}", content_type="text/css")

    async def _state(self, request: web.Request) -> web.Response:
        after = request.query.get("after", "0")
        number = int(after) if after.isdecimal() and len(after) < 16 else 0
        if not self._is_watched(WATCHED):  # the first rows at once
            await self._sight.look(rows=True)
        self._asked_at = time.monotonic()
        told = {**self._sight.told(number), "mine": self._stop is not None, "stopping": self._stopping}
        if self._over:
            self._seen_end.set()
        return web.Response(body=orjson.dumps(told, default=str), content_type="application/json")

    async def _stopped(self, _: web.Request) -> web.Response:
        if self._stop is None:
            text = "this run was started elsewhere: press Ctrl-C there, or send its process SIGINT"
            return web.Response(status=409, text=text)
        if not (self._stopping or self._over):
            self._stopping = True
            self._stop()
        return web.Response(status=202, text="stopping")


def _name_of(host: str) -> str:
    """Give the name of a Host header without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _file(name: str) -> str:
    return (resources.files("enrich.live") / name).read_text(encoding="utf-8")
