"""Running the emulator: in the running event loop, in a thread of its own, or as the whole process."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import TYPE_CHECKING, Self

from aiohttp import web

from enrich.base.loops import loop_factory
from enrich.errors import ConfigError
from enrich.sandbox.app import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from enrich.base.clock import Clock
    from enrich.sandbox.books import Books
    from enrich.sandbox.options import SandboxOptions

BACKLOG = 4096  # connections that may wait to be accepted: a client may open thousands at once
SHUTDOWN_SECONDS = 0.1  # that requests in hand may take before the server stops without them


class Sandbox:
    """The emulator in the running event loop, as an async context manager.

    Entered again, it goes on at the same port with the same books and memory: an outage.

    Args:
        options: how it behaves.
        script: faults that befall the first requests, one each (`ok`: none).
        clock: tells the age of idempotency keys and refills rate limits.

    Attributes:
        base_url: for `endpoint.base_url`; set on entering.
        books: what was asked, answered and charged.

    Raises:
        ConfigError: a fault in the script is unknown; on entering: the port is taken.
    """

    def __init__(
        self, options: SandboxOptions, *, script: Iterable[str] = (), clock: Clock | None = None
    ) -> None:
        self._emulator = Emulator(options, script=script, clock=clock)
        self._host, self._port = options.host, options.port
        self._runner: web.AppRunner | None = None
        self.books: Books = self._emulator.books
        self.base_url = ""

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(
            self._emulator.app(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port, backlog=BACKLOG).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"the sandbox cannot listen on {self._host}:{self._port}: {error.strerror}",
                hint="port 0 takes a free one.",
            ) from None
        self._port = self._runner.addresses[0][1]
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.base_url = f"http://{shown}:{self._port}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


class ThreadedSandbox:
    """The emulator in a daemon thread with an event loop of its own, as a context manager.

    Args and attributes are those of `Sandbox`.
    """

    def __init__(
        self, options: SandboxOptions, *, script: Iterable[str] = (), clock: Clock | None = None
    ) -> None:
        self._sandbox = Sandbox(options, script=script, clock=clock)
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self._ready = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._error: ConfigError | None = None

    @property
    def base_url(self) -> str:
        """For `endpoint.base_url`."""
        return self._sandbox.base_url

    @property
    def books(self) -> Books:
        """What was asked, answered and charged."""
        return self._sandbox.books

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        try:
            async with self._sandbox:
                self._ready.set()
                await stop.wait()
        except ConfigError as error:
            self._error = error
        finally:
            self._ready.set()


def serve(options: SandboxOptions) -> None:
    """Run the emulator until SIGINT or SIGTERM; its base URL goes to stdout as one line once it is ready.

    Raises:
        ConfigError: the port is taken.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(options))


async def _serve(options: SandboxOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Sandbox(options) as sandbox:
        sys.stdout.write(f"{sandbox.base_url}\n")
        sys.stdout.flush()
        await stop.wait()
