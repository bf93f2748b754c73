"""Notices when an endpoint gives two requests one `X-Request-Id`: support could not tell them apart."""

from __future__ import annotations

import logging

from enrich.records import key_text

REMEMBERED = 16_384  # newest ids that are compared, at least: some megabytes

log = logging.getLogger("enrich")


class ResponseIds:
    """Remembers which request each of the newest response ids belongs to; raises one alarm per run."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self._older: dict[str, bytes] = {}
        self._alarmed = False

    def note(self, request_id: str | None, key: bytes) -> None:
        """Note the id of a response to the request of this key."""
        if request_id is None or self._alarmed:
            return
        first = self._older.get(request_id) or self._keys.setdefault(request_id, key)
        if first != key:
            self._alarm(request_id, first, key)
        elif len(self._keys) >= REMEMBERED:
            self._older, self._keys = self._keys, {}

    def _alarm(self, request_id: str, first: bytes, second: bytes) -> None:
        self._alarmed = True
        self._keys.clear()
        self._older.clear()
        log.warning(
            "the endpoint gave one request id, %s, to two requests (idempotency keys %s and %s): its support cannot "
            "tell them apart by it; further cases are not reported",
            request_id,
            key_text(first),
            key_text(second),
            extra={"request_id": request_id, "key": second.hex()},
        )
