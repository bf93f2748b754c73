"""A TCP proxy that breaks connections at random bytes, in either direction."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from typing import Self

READ = 4_096  # bytes passed on at once


class ChaosProxy:
    """Passes connections on to a server on loopback; some are cut or reset after a random count of bytes.

    A context manager with a thread of its own.

    Args:
        port: of the server.
        share: of the connections that are broken.
        within: the bytes, in both directions together, after which a broken one breaks at the latest.
        seed: of the draws.

    Attributes:
        broken: how many connections were broken so far.
    """

    def __init__(self, port: int, *, share: float, within: int, seed: int = 0) -> None:
        self._target = port
        self._share = share
        self._within = within
        self._random = random.Random(seed)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.broken = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", backlog=1_024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            breaks = self._random.random() < self._share
            fuse = _Fuse(self._random.randrange(self._within) if breaks else None)
            ways = [
                asyncio.ensure_future(_pass_on(reader, far_writer, fuse)),
                asyncio.ensure_future(_pass_on(far_reader, writer, fuse)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            if fuse.blown:
                self.broken += 1
                if self._random.random() < 0.5:
                    _reset_on_close(writer)
                    _reset_on_close(far_writer)
            for end in (writer, far_writer):
                end.transport.abort() if fuse.blown else end.close()


class _Fuse:
    """Counts bytes down; None never blows."""

    def __init__(self, left: int | None) -> None:
        self._left = left

    @property
    def blown(self) -> bool:
        return self._left == 0

    def let(self, data: bytes) -> bytes:
        """Give what may still pass of these bytes."""
        if self._left is None:
            return data
        passed = data[: self._left]
        self._left -= len(passed)
        return passed


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fuse: _Fuse) -> None:
    while not fuse.blown and (data := await reader.read(READ)):
        writer.write(fuse.let(data))
        await writer.drain()


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
