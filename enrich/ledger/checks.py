"""Checksums over what was paid for, and the age of a key: the same in every ledger."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass

from enrich.ledger.protocol import DOUBT_AFTER

CLOCK_TOLERANCE = 60.0  # seconds a wall clock may step back over a restart before it is not believed


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


def request_crc(key: bytes, body: bytes, first: Moment) -> int:
    """Give the CRC-32 over a request's key, its body and when it was first sent."""
    return zlib.crc32(_MOMENT.pack(first.wall, first.boot, first.boottime), _timeless_crc(key, body))


def request_holds(crc: int | None, key: bytes, body: bytes, first: Moment) -> bool:
    """Say whether a request is what was written down; parts of the wrong type are not.

    The checksums of earlier ledgers are over key and body alone.
    """
    try:
        return crc in (request_crc(key, body, first), _timeless_crc(key, body))
    except (TypeError, struct.error):  # damage turned a part into a number, a text or nothing
        return False


def answer_holds(crc: int | None, key: bytes, request_id: bytes | None, body: bytes) -> bool:
    """Say whether an answer is what was written down; parts of the wrong type are not."""
    try:
        return crc == answer_crc(key, request_id, body)
    except TypeError:  # damage turned a part into a number or nothing
        return False


def seal_of(
    key: bytes,
    standing: tuple[int, int, int, int | None],
    belongs: tuple[bytes, bytes | None, bytes | None],
) -> int:
    """Give the CRC-32 over whatever else decides about a request.

    Args:
        key: its key.
        standing: its state, run, attempts and last failure.
        belongs: its model, parent and question.
    """
    state, run, attempts, failure = standing
    model, parent, question = belongs
    counts = (state, run, attempts, -1 if failure is None else failure)
    said = b"%b\0%d\0%d\0%d\0%d\0%b\0%b\0%b" % (key, *counts, model, parent or b"", question or b"")
    return zlib.crc32(said)


def note_crc(name: bytes, value: bytes) -> int:
    """Give the CRC-32 over something small that is remembered under a name."""
    return zlib.crc32(value, zlib.crc32(name + b"\0"))


def generation_crc(step: bytes, count: int) -> int:
    """Give the CRC-32 over how often a step was asked anew."""
    return note_crc(step, b"%d" % count)


def _timeless_crc(key: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(key))


_MOMENT = struct.Struct("<dqd")
LONG_AGO = Moment(0.0, 0, 0.0)  # stands for a time that is not known any more: too old
