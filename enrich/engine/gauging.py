"""Looks at the endpoint's own gauges while requests are out, and tells the pace what they say."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from enrich.engine.desk import Desk
    from enrich.wire.gauges import Load

SOON: Final = 0.25  # seconds between two looks while it is being found out how many requests may be in flight
LATER: Final = 1.0  # seconds between two looks from then on
IN_VAIN: Final = 5  # looks in a row that told nothing, after which it is not looked again

log = logging.getLogger("enrich")


class Gauging:
    """One task beside the dispatcher.

    Args:
        desk: of the engine.
        look: gives what the gauges say; None where they say nothing.
    """

    def __init__(self, desk: Desk, look: Callable[[], Awaitable[Load | None]]) -> None:
        self._desk = desk
        self._look = look

    async def work(self) -> None:
        """Look, until nothing is told."""
        in_vain = 0
        while in_vain < IN_VAIN:
            await asyncio.sleep(SOON if self._desk.pace.growing else LATER)
            if not self._desk.in_flight:
                continue
            load = await self._look()
            if load is None:
                in_vain += 1
                continue
            in_vain = 0
            if self._desk.pace.gauged(load.working, load.waiting):
                self._desk.dispatchable.set()
        log.warning("endpoint.metrics_url gives no gauges that are known: the run goes on without them")
