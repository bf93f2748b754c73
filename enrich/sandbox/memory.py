"""Idempotency: what the emulator remembers of each key, for 24 hours."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

from enrich.sandbox.error_bodies import Refusal, RefusedError

KEY_LIFETIME = 24 * 3600.0  # seconds that a key is remembered, from its first request
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

IN_PROGRESS = Refusal(
    409,
    "idempotency_in_progress",
    "The first request with this Idempotency-Key is still running.",
    retryable=True,
)
REUSED = Refusal(409, "idempotency_key_reused", "This Idempotency-Key was used with a different body.")
NO_UUID = Refusal(400, "invalid_request", "The Idempotency-Key header must be a uuid.")


@dataclass(slots=True)
class RememberedKey:
    """One key.

    Attributes:
        body: SHA-256 of the body it is bound to.
        first_at: when it was first seen, in seconds.
        answer: the paid answer's JSON, or None as long as there is none.
        busy: whether a request is executing.
    """

    body: bytes
    first_at: float
    answer: bytes | None = None
    busy: bool = False


class Memory:
    """The keys of the last 24 hours. The emulator is one account: its API keys share them."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, RememberedKey] = OrderedDict()  # in the order of first_at

    def entry(self, key: str | None, body: bytes, now: float) -> RememberedKey:
        """Give what is known of a key, and bind a new one to this body.

        Args:
            key: the header as sent; None makes an entry that nobody remembers.
            body: SHA-256 of the request's body.
            now: seconds.

        Raises:
            RefusedError: the key is no uuid, or it is bound to another body.
        """
        if key is None:
            return RememberedKey(body, now)
        if not _UUID.fullmatch(key):
            raise RefusedError(NO_UUID)
        self._forget(now)
        entry = self._entries.setdefault(key.lower(), RememberedKey(body, now))
        if entry.body != body:
            raise RefusedError(REUSED)
        return entry

    def _forget(self, now: float) -> None:
        while self._entries:
            key, oldest = next(iter(self._entries.items()))
            if now - oldest.first_at < KEY_LIFETIME:
                return
            del self._entries[key]
