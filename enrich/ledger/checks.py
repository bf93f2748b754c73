"""Checksums over what was paid for, and the age of a key: the same in every ledger."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

from enrich.ledger.protocol import DOUBT_AFTER

CLOCK_TOLERANCE = 60.0  # seconds a wall clock may step back over a restart before it is not believed


def request_crc(key: bytes, body: bytes) -> int:
    """Give the CRC-32 over a request's key and body."""
    return zlib.crc32(body, zlib.crc32(key))


def answer_crc(key: bytes, request_id: bytes | None, body: bytes) -> int:
    """Give the CRC-32 over an answer's key, ``X-Request-Id`` (as stored) and body."""
    return zlib.crc32(body, zlib.crc32(request_id or b"", zlib.crc32(key)))


def boot_number(boot_id: str) -> int:
    """Shorten a boot id to 48 bits, 0 without one: eight bytes a row instead of 36."""
    return int.from_bytes(hashlib.sha256(boot_id.encode()).digest()[:6], "big") if boot_id else 0


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time on one machine: wall seconds, and seconds since the start numbered ``boot``."""

    wall: float
    boot: int
    boottime: float

    def outlives(self, first: Moment) -> bool:
        """Say whether a key first sent at ``first`` may be forgotten by the server at this moment.

        The longer of the two spans counts: a wall clock that was set back is caught by the boot time. Over a
        restart only the wall clock is left, and one that runs backwards proves nothing: the key counts as too old.
        """
        age = self.wall - first.wall
        if self.boot and self.boot == first.boot:
            age = max(age, self.boottime - first.boottime)
        elif age < -CLOCK_TOLERANCE:
            return True
        return age > DOUBT_AFTER
