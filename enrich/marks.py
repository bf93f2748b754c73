"""Which request decides each row: a few bytes a row and step, kept on disk, read back in input order."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from enrich.errors import DiskFull

if TYPE_CHECKING:
    from pathlib import Path

    from enrich.occurrences import Occurrences
    from enrich.records import RowStatus, Verdict

RECORD = np.dtype([("high", ">u8"), ("low", ">u8"), ("note", "<u4"), ("copy", "u1")])
KEYS_AT_ONCE = 262_144  # keys sorted in one pass when copies are sought: 6 MiB
ROWS_AT_ONCE = 1_048_576  # rows scanned at once in a pass
NOTES_MOST = 100_000  # distinct reasons kept apart; beyond that only their code is
UNDECIDED = 0  # the note of a row that nothing was decided for
BY_KEY = 1  # the note of a row whose request decides
LEFT = 2  # the note of a row whose request is not known and was not sent


class Mark(NamedTuple):
    """How one row stands: by its request when there is a key, else by status and reason.

    Attributes:
        copy: whether the request decides an earlier row too.
    """

    key: bytes | None
    status: RowStatus
    error: str | None
    copy: bool


class Firsts(NamedTuple):
    """Where distinct requests stand first: an array of rows × steps each.

    Attributes:
        known: requests that are settled.
        left: requests that are not known and were not sent.
        undecided: places where nothing could be said yet, not even what would be asked.
    """

    known: np.ndarray[tuple[int, int], np.dtype[np.bool]]
    left: np.ndarray[tuple[int, int], np.dtype[np.bool]]
    undecided: np.ndarray[tuple[int, int], np.dtype[np.bool]]


class Marks:
    """For each row and step: the key of the deciding request, or a note that says why there is none.

    Args:
        rows: how many rows there are.
        steps: how many steps.
        directory: where the file goes; it has no name and is gone with the process.

    Raises:
        DiskFull: there is no room for it.
    """

    def __init__(self, rows: int, steps: int, directory: Path | None = None) -> None:
        self._steps = steps
        self._rows = rows
        self._file = tempfile.TemporaryFile(dir=directory, prefix=".beatra-marks-")  # noqa: SIM115  # closed in close
        size = max(1, rows * steps) * RECORD.itemsize
        _take_room(self._file.fileno(), size)
        self._map = mmap.mmap(self._file.fileno(), size)
        self._notes: list[tuple[RowStatus, str | None]] = [("pending", None), ("ok", None), ("pending", None)]
        self._numbers: dict[tuple[RowStatus, str | None], int] = {("pending", None): UNDECIDED}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        self._file.close()

    def set(self, row: int, step: int, verdict: Verdict) -> None:
        """Note how a row stands at a step."""
        place = (row * self._steps + step) * RECORD.itemsize
        if verdict.key is not None:
            note = _LEFT if verdict.status == "pending" else _BY_KEY
            self._map[place : place + 20] = verdict.key + note
        else:
            self._map[place + 16 : place + 20] = struct.pack("<I", self._note(verdict))

    def _note(self, verdict: Verdict) -> int:
        reason = (verdict.status, verdict.error)
        if reason not in self._numbers and len(self._notes) >= NOTES_MOST:
            reason = (verdict.status, (verdict.error or "").partition(":")[0] or None)
        number = self._numbers.get(reason)
        if number is None:
            number = self._numbers[reason] = len(self._notes)
            self._notes.append(reason)
        return number

    def read(self, row: int, count: int, step: int) -> list[Mark]:
        """Give the marks of so many rows, from ``row`` on."""
        raw = self._array()[row : row + count, step].tobytes()
        size = RECORD.itemsize
        result: list[Mark] = []
        for at in range(0, count * size, size):
            note = int.from_bytes(raw[at + 16 : at + 20], "little")
            if note == BY_KEY:
                result.append(Mark(raw[at : at + 16], "ok", None, copy=raw[at + 20] == 1))
            else:
                result.append(Mark(None, *self._notes[note], copy=False))
        return result

    def find_copies(self) -> int:
        """Mark every row whose request is an earlier row's (or step's) too; gives the number of distinct requests.

        Works through the keys a slice at a time, so memory stays flat however many there are.
        """
        total = self._rows * self._steps
        flat = np.frombuffer(self._map, dtype=RECORD, count=total)
        bits = max(0, (total // KEYS_AT_ONCE)).bit_length()
        distinct = sum(self._copies_in_slice(flat, bits, number) for number in range(1 << bits))
        del flat
        return distinct

    def firsts(self, row: int, count: int) -> Firsts:
        """Say where distinct requests stand first, for so many rows from ``row`` on; after `find_copies`."""
        part = self._array()[row : row + count]
        first = part["copy"] == 0
        return Firsts(
            known=first & (part["note"] == BY_KEY),
            left=first & (part["note"] == LEFT),
            undecided=part["note"] == UNDECIDED,
        )

    def reasons(self, step: int) -> Counter[RowStatus]:
        """Count the rows that have no request at a step, by status."""
        counts = np.zeros(len(self._notes), dtype=np.int64)
        for start in range(0, self._rows, ROWS_AT_ONCE):
            notes = self._array()[start : start + ROWS_AT_ONCE, step]["note"]
            counts += np.bincount(notes, minlength=len(self._notes))
        found: Counter[RowStatus] = Counter()
        for number, (status, _) in enumerate(self._notes):
            if number not in (BY_KEY, LEFT):
                found[status] += int(counts[number])
        return found

    def find_repeats(self, row: int, count: int, seen: Occurrences) -> None:
        """Mark those of so many rows, from ``row`` on, whose request was counted before; count them all."""
        raw = self._array()[row : row + count].tobytes()
        size = RECORD.itemsize
        start = row * self._steps * size
        for at in range(0, len(raw), size):
            by_key = int.from_bytes(raw[at + 16 : at + 20], "little") == BY_KEY
            if by_key and seen.count(raw[at : at + 16]):
                self._map[start + at + 20] = 1

    def _copies_in_slice(
        self, flat: np.ndarray[tuple[int], np.dtype[np.void]], bits: int, number: int
    ) -> int:
        found = []
        for start in range(0, len(flat), ROWS_AT_ONCE):
            part = flat[start : start + ROWS_AT_ONCE]
            chosen = (part["note"] == BY_KEY) | (part["note"] == LEFT)
            if bits:
                chosen &= (part["high"] >> np.uint64(64 - bits)) == number
            found.append(np.flatnonzero(chosen) + start)
        places = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
        if not len(places):
            return 0
        high, low = flat["high"][places], flat["low"][places]
        order = np.lexsort((places, low, high))
        high, low = high[order], low[order]
        same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        flat["copy"][places[order[1:][same]]] = 1
        return len(places) - int(same.sum())

    def _array(self) -> np.ndarray[tuple[int, int], np.dtype[np.void]]:
        flat = np.frombuffer(self._map, dtype=RECORD, count=self._rows * self._steps)
        return flat.reshape(self._rows, self._steps)


def _take_room(descriptor: int, size: int) -> None:
    """Make a file of so many bytes without holes: a map over a hole kills the process when the disk is full."""
    try:
        os.ftruncate(descriptor, size)
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        raise DiskFull(
            f"there is no room for the {size:,} bytes that keep track of the rows: {error.strerror}",
            hint="free some space beside the output and run again.",
        ) from None


_BY_KEY = struct.pack("<I", BY_KEY)
_LEFT = struct.pack("<I", LEFT)
