"""A TCP proxy that breaks connections at random bytes, in either direction."""

from __future__ import annotations

import asyncio
import contextlib
import random

from tests.helpers.loopback import LoopbackServer, reset_on_close

READ = 4_096  # bytes passed on at once


class ChaosProxy(LoopbackServer):
    """Passes connections on to a server on loopback; some are cut or reset after a random count of bytes.

    Args:
        port: of the server.
        share: of the connections that are broken.
        within: the bytes, in both directions together, after which a broken one breaks at the latest.
        seed: of the draws.

    Attributes:
        broken: how many connections were broken so far.
    """

    def __init__(self, port: int, *, share: float, within: int, seed: int = 0) -> None:
        super().__init__()
        self._target = port
        self._share = share
        self._within = within
        self._random = random.Random(seed)
        self.broken = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a connection on, until its fuse blows."""
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
                    reset_on_close(writer)
                    reset_on_close(far_writer)
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
