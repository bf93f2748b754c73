"""Reads batches ahead, in a thread: reading a file never holds up the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

T = TypeVar("T")


async def prefetched(batches: Iterator[T]) -> AsyncGenerator[T, None]:
    """Read batches in a thread, one ahead, so that reading a file never holds up the event loop."""
    following = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
    try:
        while (batch := await following) is not None:
            following = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
            yield batch
    finally:
        await asyncio.wait([following])
