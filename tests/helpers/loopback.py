"""What tests that speak raw TCP share: a server in a thread of its own, a free port, resets, TLS."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path


def free_port() -> int:
    """Give a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    """See to it that the other side gets a reset when this connection is closed."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def tls_of(certificate: Path) -> ssl.SSLContext:
    """Give a server's TLS with this certificate, whose key is the `key.pem` beside it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


class LoopbackServer(abc.ABC):
    """A TCP server on loopback in a thread of its own, as a context manager; who inherits says how it talks.

    Args:
        tls: what encrypts its connections; None for plain ones.

    Attributes:
        port: where it listens.
        loop: the event loop of its thread.
    """

    port: int
    loop: asyncio.AbstractEventLoop

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @abc.abstractmethod
    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; that the other side leaves is no error."""

    @property
    def base_url(self) -> str:
        """The URL of its API."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        server = await asyncio.start_server(
            self._accept, "127.0.0.1", limit=2**24, backlog=1_024, ssl=self._tls
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        await asyncio.sleep(0)  # a connection that was taken just now has its task
        ending = dict(self._talks)
        for task, writer in ending.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*ending, return_exceptions=True)
        await asyncio.sleep(0)  # its transport is closed in the next turn

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._talk(reader, writer))
        self._talks[task] = writer
        task.add_done_callback(self._talks.pop)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            try:
                await self.talk(reader, writer)
            finally:
                writer.close()
