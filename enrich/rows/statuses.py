"""How each row stands: a few bytes a row and step, kept on disk, read back in input order."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from enrich.base.system import give_back
from enrich.errors import DiskFull
from enrich.records import Outcome
from enrich.rows.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from enrich.records import RowStatus
    from enrich.rows.occurrences import Occurrences

# A request's key, a note, where the outcome is kept (0: nowhere) and in how many bytes, whether an earlier row has the same
# request.
RECORD = np.dtype(
    [("high", ">u8"), ("low", ">u8"), ("note", "<u4"), ("place", "<u8"), ("size", "<u4"), ("copy", "u1")]
)
COPY_AT = 32  # bytes from a record's begin to its last field
KEYS_AT_ONCE = 65_536  # keys sorted in one pass when copies are sought: 1.5 MiB
ROWS_AT_ONCE = 131_072  # rows scanned at once in a pass
FORGET_EVERY = 65_536  # records written or read, between giving their pages of memory back
NOTES_MOST = 100_000  # distinct reasons kept apart; beyond that only their code is
MOST_BYTES = (1 << 32) - 1  # of one outcome, as far as they are counted
UNDECIDED = 0  # the note of a row that nothing was decided for
BY_KEY = 1  # the note of a row whose request decides
LEFT = 2  # the note of a row whose request is not known and was not sent


class Standing(NamedTuple):
    """How some rows stand at a step; three lists of one item a row.

    Attributes:
        keys: of the deciding requests; None where nothing was asked.
        outcomes: as far as they are kept: always where nothing was asked; else None sends the reader to the ledger.
        copies: whether the request decides an earlier row too.
    """

    keys: list[bytes | None]
    outcomes: list[Outcome | None]
    copies: list[bool]


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
        directory: where the files go; they have no names and are gone with the process.
        keep: whether outcomes are kept beside the keys, for who reads them all.

    Attributes:
        rows: how many there are.

    Raises:
        DiskFull: there is no room for it.
    """

    def __init__(self, rows: int, steps: int, directory: Path | None = None, *, keep: bool = True) -> None:
        self._steps = steps
        self.rows = rows
        self._spool = Spool(directory)
        self._keep = keep
        self._touched = 0
        self._file = tempfile.TemporaryFile(dir=directory, prefix=".beatra-marks-")  # noqa: SIM115  # closed in close
        size = max(1, rows * steps) * RECORD.itemsize
        try:
            take_room(self._file.fileno(), size)
        except DiskFull:
            self._file.close()
            self._spool.close()
            raise
        self._map = mmap.mmap(self._file.fileno(), size)
        self._notes: list[tuple[RowStatus, str | None]] = [("pending", None), ("ok", None), ("pending", None)]
        self._numbers: dict[tuple[RowStatus, str | None], int] = {("pending", None): UNDECIDED}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._map.close()
        self._file.close()
        self._spool.close()

    def set(self, row: int, step: int, outcome: Outcome) -> None:
        """Note how a row stands at a step."""
        at = (row * self._steps + step) * RECORD.itemsize
        if outcome.key is not None:
            note = LEFT if outcome.status == "pending" else BY_KEY
            shown = outcome.source is not None or outcome.besides is not None
            place = self._spool.put(outcome) if self._keep and shown else 0
            size = min(self._spool.end - place + 1, MOST_BYTES) if place else 0
            self._map[at : at + COPY_AT] = outcome.key + _NOTE_AND_PLACE.pack(note, place, size)
        else:
            self._map[at + 16 : at + 20] = struct.pack("<I", self._note(outcome))
        self._forget(1)

    def _note(self, outcome: Outcome) -> int:
        reason = (outcome.status, outcome.error)
        if reason not in self._numbers and len(self._notes) >= NOTES_MOST:
            reason = (outcome.status, (outcome.error or "").partition(":")[0] or None)
        number = self._numbers.get(reason)
        if number is None:
            number = self._numbers[reason] = len(self._notes)
            self._notes.append(reason)
        return number

    def read(self, row: int, count: int, step: int) -> Standing:
        """Give how so many rows stand, from ``row`` on."""
        part = self._array()[row : row + count, step]
        raw = part.tobytes()
        starts = range(0, len(raw), RECORD.itemsize)
        keys: list[bytes | None] = [raw[start : start + 16] for start in starts]
        outcomes = self._spool.get(part["place"].tolist())
        for place in np.flatnonzero(part["note"] != BY_KEY).tolist():
            keys[place] = None
            outcomes[place] = Outcome(*self._notes[part["note"][place]])
        self._forget(count)
        return Standing(keys, outcomes, part["copy"].astype(bool).tolist())

    def asked(self, row: int, count: int, step: int) -> frozenset[bytes]:
        """Give the keys of the requests of so many rows, those included that were left without an answer."""
        part = self._array()[row : row + count, step]
        raw = part.tobytes()
        places = np.flatnonzero((part["note"] == BY_KEY) | (part["note"] == LEFT)).tolist()
        starts = [place * RECORD.itemsize for place in places]
        self._forget(count)
        return frozenset(raw[start : start + 16] for start in starts)

    def piece(self, row: int, count: int, *, most: int, usual: int) -> int:
        """Say how many of so many rows, from ``row`` on, have outcomes of so many bytes; at least one.

        Args:
            row: the first.
            count: of the rows.
            most: bytes.
            usual: bytes of an outcome that is not kept.
        """
        part = self._array()[row : row + count]
        sizes = np.where(
            (part["note"] == BY_KEY) & (part["place"] == 0), usual, part["size"].astype(np.int64)
        )
        return max(1, int(np.searchsorted(np.cumsum(sizes.sum(axis=1)), most, side="right")))

    def find_copies(self) -> int:
        """Mark every row whose request is an earlier row's (or step's) too; gives the number of distinct requests.

        Works through the keys a slice at a time, so memory stays flat however many there are.
        """
        total = self.rows * self._steps
        flat = np.frombuffer(self._map, dtype=RECORD, count=total)
        bits = max(0, (total // KEYS_AT_ONCE)).bit_length()
        distinct = sum(self._copies_in_slice(flat, bits, number) for number in range(1 << bits))
        del flat
        return distinct

    def spread(self, chosen: np.ndarray[Any, np.dtype[np.bool]], steps: Sequence[int]) -> None:
        """Choose also the rows that have the same request as a chosen one at one of these steps, and so its answer.

        Args:
            chosen: whether each row is; changed in place.
            steps: their numbers.
        """
        bits = max(0, (self.rows // KEYS_AT_ONCE)).bit_length()
        before = -1
        while before != (before := int(chosen.sum())):
            for step in steps:
                for number in range(1 << bits):
                    self._spread_in_slice(chosen, step, bits, number)

    def _spread_in_slice(
        self, chosen: np.ndarray[Any, np.dtype[np.bool]], step: int, bits: int, number: int
    ) -> None:
        part = self._array()[:, step]
        places = self._slice(part, bits, number)
        if not chosen[places].any():
            return
        keys = np.stack([part["high"][places], part["low"][places]], axis=1)
        _, group = np.unique(keys, axis=0, return_inverse=True)
        of_group = np.bincount(group, weights=chosen[places]) > 0
        chosen[places] |= of_group[group]

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
        for start in range(0, self.rows, ROWS_AT_ONCE):
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
                self._map[start + at + COPY_AT] = 1

    def _copies_in_slice(
        self, flat: np.ndarray[tuple[int], np.dtype[np.void]], bits: int, number: int
    ) -> int:
        places = self._slice(flat, bits, number)
        if not len(places):
            return 0
        high, low = flat["high"][places], flat["low"][places]
        order = np.lexsort((places, low, high))
        high, low = high[order], low[order]
        same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        flat["copy"][places[order[1:][same]]] = 1
        return len(places) - int(same.sum())

    def _slice(
        self, flat: np.ndarray[tuple[int], np.dtype[np.void]], bits: int, number: int
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Give the places of those requests whose keys begin with these bits."""
        found = []
        for start in range(0, len(flat), ROWS_AT_ONCE):
            part = flat[start : start + ROWS_AT_ONCE]
            chosen = (part["note"] == BY_KEY) | (part["note"] == LEFT)
            if bits:
                chosen &= (part["high"] >> np.uint64(64 - bits)) == number
            found.append(np.flatnonzero(chosen) + start)
            self._forget(len(part))
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def _forget(self, count: int) -> None:
        """Give pages back to the system: they count as this process's memory as long as it maps them."""
        self._touched += count
        if self._touched >= FORGET_EVERY:
            self._touched = 0
            give_back(self._map)

    def _array(self) -> np.ndarray[tuple[int, int], np.dtype[np.void]]:
        flat = np.frombuffer(self._map, dtype=RECORD, count=self.rows * self._steps)
        return flat.reshape(self.rows, self._steps)


def take_room(descriptor: int, size: int) -> None:
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


_NOTE_AND_PLACE = struct.Struct("<IQI")
