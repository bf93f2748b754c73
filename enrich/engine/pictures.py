"""Requests with pictures on their way out: the bytes are read when it is their turn, and only so many at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from enrich.files.pictures import PictureError
from enrich.prompt.images import whole_body
from enrich.records import Failure, Fate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from enrich.engine.ticket import Ticket
    from enrich.records import Reply

MOST_OUT = 96 << 20  # bytes of pictures in flight; each takes up to three times as much memory meanwhile


class Pictures:
    """Sends requests that carry pictures. One waits while the others in flight have bytes enough."""

    def __init__(self) -> None:
        self._out = 0
        self._less = asyncio.Condition()

    async def sent(
        self, ticket: Ticket, send: Callable[[bytes], Awaitable[Reply | Failure]]
    ) -> Reply | Failure:
        """Read a request's pictures and send it; a picture that is not what it was is the row's failure, and nothing is sent."""
        size = sum(picture.size for picture in ticket.ask.pictures)
        async with self._less:
            await self._less.wait_for(lambda: not self._out or self._out + size <= MOST_OUT)
            self._out += size
        try:
            body = await asyncio.to_thread(whole_body, ticket.body, ticket.ask.pictures)
            return await send(body)
        except PictureError as error:
            return Failure(error.code, error.message, Fate.UNSENT)
        finally:
            self._out -= size
            async with self._less:
                self._less.notify_all()
