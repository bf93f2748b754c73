"""Whether a 401 or 403 that names no cause is about the key, or about one row that a firewall does not let through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from enrich.wire.envelope import read_error
from enrich.wire.meanings import meaning

if TYPE_CHECKING:
    from enrich.records import Failure

KeyWord = Literal["key", "row", "open"]

AT_START = 3  # requests refused before any was answered: the key is not taken
AFTER_ANSWERS = 20  # the same once the key has served: it was taken back
LOOKS = 3  # times that one request is refused, with nothing else to tell by, before there is a word on it


class KeyDoubt:
    """Judges by what else the key did: a success that was sent after a refused request clears the key."""

    def __init__(self) -> None:
        self._refused: dict[bytes, tuple[float, int]] = {}  # when first sent, how often refused
        self._served_at = -math.inf  # when the newest attempt was sent that was answered

    def served(self, sent_at: float) -> None:
        """Note an answer to an attempt that was sent at ``sent_at``, in monotonic seconds."""
        self._served_at = max(self._served_at, sent_at)

    def refused(self, key: bytes, sent_at: float) -> KeyWord:
        """Note a refusal; say whether it is about the key, about the row, or still open: look again."""
        first, times = self._refused.pop(key, (sent_at, 0))
        if first <= self._served_at:
            return "row"
        self._refused[key] = (first, times + 1)
        has_served = self._served_at > -math.inf
        together = sum(began > self._served_at for began, _ in self._refused.values())
        if together >= (AFTER_ANSWERS if has_served else AT_START):
            return "key"
        if times + 1 < LOOKS:
            return "open"
        return "row" if has_served else "key"


def may_be_about_the_row(failure: Failure) -> bool:
    """Tell a refusal of access that does not say why: no envelope at all, or a 403 in words that are not known."""
    if failure.status not in (401, 403) or failure.retryable is not None or meaning(failure) is not None:
        return False
    return failure.status == 403 or read_error(failure.evidence) is None
