"""Reads on where a run that resumes will look next: it asks for requests in the order in which they were sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.ledger.transaction import Transaction

LINES = 2_048  # read at once at the most: some 10 ms
ANSWER_BYTES = 4 << 20  # of answers that are read at once, or nearly
MANY = 128  # keys of one call, all of them known, that show a run which resumes
FEW_LINES = 512  # lines left when the next are read: a slice of rows and what it skipped
MOST_LINES = 16_384  # lines kept; more were read in vain
_ID, _KEY, _BODY = 0, 1, 17  # columns of the query `known_keys`


class ReadAhead:
    """Finds the lines of requests by key, most of them among those read ahead.

    Reading a stretch of the file takes less than half the time of finding each key in the index. Only answered requests
    are kept: their lines change no more, but for an answer that is taken back, of which `forget` must be told.
    """

    def __init__(self) -> None:
        self._lines: dict[bytes, tuple[Any, ...]] = {}
        self._last = 0
        self._kept = 0  # bytes of answers
        self._count = MANY  # lines of the next stretch

    def find(self, tx: Transaction, keys: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """Give the lines of the keys that are known, in any order."""
        found = [line for key in keys if (line := self._lines.pop(key, None)) is not None]
        self._kept -= _size(found)
        ahead = bool(found)
        if len(found) < len(keys):
            have = {line[_KEY] for line in found}
            missed = tx.select("known_keys", [key for key in keys if key not in have])
            found += missed
            if not ahead and len(missed) == len(keys) >= MANY:
                self._last = max(line[_ID] for line in missed)
                self._count = max(1, min(MANY, len(missed) * ANSWER_BYTES // _size(missed)))
                ahead = True
        if ahead and len(self._lines) < FEW_LINES and self._kept < ANSWER_BYTES:
            self._read_on(tx)
        return found

    def forget(self) -> None:
        """Let go of what was read: an answer may have been taken back."""
        self._lines.clear()
        self._kept = 0

    def _read_on(self, tx: Transaction) -> None:
        lines = tx.run("next_keys", (self._last, self._last + self._count)).fetchall()
        self._last += self._count
        if len(self._lines) + len(lines) > MOST_LINES:
            self.forget()
        answered = [line for line in lines if isinstance(line[_BODY], bytes)]
        self._lines.update((line[_KEY], line) for line in answered)
        size = _size(answered)
        self._kept += size
        self._count = max(1, min(LINES, self._count * 2, self._count * ANSWER_BYTES // (size + 1)))


def _size(lines: Sequence[tuple[Any, ...]]) -> int:
    """Give the bytes of these lines' answers, and one more for each line."""
    return sum(len(line[_BODY] or b"") for line in lines) + len(lines)
