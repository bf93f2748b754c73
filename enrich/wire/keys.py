"""The API key while a run goes on: looked at again when its source changes, when its time is over, and when it is refused."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

from enrich.config.key_source import FileKey, GivenKey
from enrich.errors import ConfigError
from enrich.wire.meanings import meaning
from enrich.wire.redact import Redactor

if TYPE_CHECKING:
    from enrich.config.endpoint import Endpoint
    from enrich.records import Failure, Reply

LOOK = 1.0  # seconds between two looks at a file
EARLY = 0.1  # of a key's life, before the end of which it is asked for again
LATEST = 60.0  # seconds before that, at most
AGAIN = 30.0  # seconds before a program that told a refused key, or none, is run once more
# Seconds after a refusal of a key that had served, at which its source is looked at: who changes it may write it a moment later.
MOMENTS = (0.0, 0.5, 1.5, 3.0)

log = logging.getLogger("enrich")


class Keys:
    """Holds the key to be sent, and knows every one that was.

    Attributes:
        key: to be sent; "" without one.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.key = ""
        self._served = ""  # the newest key that an answer came to
        self._tries = 0  # of a new key that was refused before it ever served
        self._again_at = (
            -math.inf
        )  # monotonic seconds: when a refused key was last found worth another attempt
        self._source = endpoint.key_source
        self._redactors: list[Redactor] = []
        self._lock = asyncio.Lock()
        self._looked: dict[str, float] = {}  # when its source was asked because a key was refused
        self._state = self._source.state() if self._source is not None else None
        self._due_at = math.inf  # monotonic seconds
        if endpoint.api_key is not None:
            self._take(endpoint.api_key.get_secret_value(), endpoint.key_lives)

    @property
    def due(self) -> bool:
        """Whether the source should be looked at before the next request."""
        return self._due_at < math.inf and time.monotonic() >= self._due_at

    async def look(self) -> None:
        """Take the key from its source where that has changed, or the key's time is nearly over."""
        async with self._lock:
            if not self.due:
                return  # another request has seen to it
            if isinstance(self._source, FileKey):
                self._due_at = time.monotonic() + LOOK
                if self._source.state() == self._state:
                    return
            await self._read()

    def took(self, key: str) -> None:
        """Note that an answer came to a key."""
        if key != self._served:
            self._served = key

    async def renewed(self, refused: str, sent_at: float) -> bool:
        """Say whether a request that was refused may go again: with another key, or with one that is only just made.

        The source is asked once for each key that is refused.

        Args:
            refused: the key.
            sent_at: monotonic seconds when the request went.
        """
        if self._source is None or isinstance(self._source, GivenKey):
            return False
        async with self._lock:
            if self.key != refused or sent_at < self._again_at:
                return True
            if time.monotonic() - self._looked.get(refused, -math.inf) < AGAIN:
                return False
            for moment in MOMENTS if self._served else MOMENTS[:1]:
                await asyncio.sleep(moment)
                await self._read()
                if self.key != refused or (moment and self._is_new):
                    self._tries += self.key == refused
                    self._again_at = time.monotonic()
                    log.info("the API key was refused, and read again from %s", self._source.name)
                    return True
            self._looked[refused] = time.monotonic()
            return False

    @property
    def _is_new(self) -> bool:
        """Whether it follows one that served, and may not be known everywhere at the endpoint yet."""
        return self._served not in ("", self.key) and self._tries < len(MOMENTS)

    def outcome(self, outcome: Reply | Failure) -> Reply | Failure:
        """Give what came of an attempt without any key that the run has had."""
        for redactor in self._redactors:
            outcome = redactor.outcome(outcome)
        return outcome

    async def _read(self) -> None:
        """Ask the source; where it has no key now, the one that there is stays."""
        source = self._source
        if source is None:
            return
        state = source.state()
        try:
            told = await asyncio.to_thread(source.read)
        except ConfigError as error:
            self._due_at = time.monotonic() + (LOOK if isinstance(source, FileKey) else AGAIN)
            log.warning("the API key stays as it is: %s", error)
            return
        self._state = state
        if told is not None:
            self._take(told.key.get_secret_value(), told.lives)

    def _take(self, key: str, lives: float | None) -> None:
        if key != self.key:
            self.key, self._tries = key, 0
            self._redactors.append(Redactor(key))
        if isinstance(self._source, FileKey):
            self._due_at = time.monotonic() + LOOK
        elif lives is not None:
            self._due_at = time.monotonic() + lives - min(EARLY * lives, LATEST)


def refuses_key(failure: Failure) -> bool:
    """Tell a refusal that another key may lift."""
    return failure.status == 401 or meaning(failure) == "key"
