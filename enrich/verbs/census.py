"""Counts what a run would send before it does: distinct requests, their bytes, and a random sample of rows."""

from __future__ import annotations

import hashlib
import mmap
import struct
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np

from enrich.errors import DiskFull
from enrich.rows.statuses import take_room

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from enrich.records import Ask
    from enrich.rows.statuses import Marks

ROWS_AT_ONCE = 262_144  # rows looked at in one pass
Standing = Literal["known", "left", "all"]  # of requests: settled, to be sent, or any
_RANK = struct.Struct("<Q")
_SIZE = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class RequestCount:
    """The distinct requests of one step.

    Attributes:
        known: settled in the ledger.
        left: to be sent.
        size: bytes of those to be sent, all together.
        waiting: rows whose request cannot be known before an earlier step is answered.
    """

    known: int
    left: int
    size: int
    waiting: int


class ChosenRow(NamedTuple):
    """A row that was chosen.

    Attributes:
        row: its index in the input.
        rank: what it was chosen by.
        sizes: bytes of its request at each step; 0 where it has none, or none that is known yet.
    """

    row: int
    rank: int
    sizes: tuple[int, ...]


class Census:
    """Takes note of every row's requests as `Flow` tells of them; some bytes a row and step, on disk.

    A row's rank is a hash of its first request's key: the rows of lowest rank are a random sample of those that
    stand first for a request, the same one at every call, wherever they stand and whatever is answered meanwhile.

    Args:
        rows: how many rows there are.
        steps: how many steps.
        seed: another one gives another sample.
        directory: where the file goes; it has no name and is gone with the process.

    Raises:
        DiskFull: there is no room for it.
    """

    def __init__(self, rows: int, steps: int, *, seed: int, directory: Path) -> None:
        self._rows = rows
        self._steps = steps
        self._salt = struct.pack("<Q", seed % 2**64)
        self._record = np.dtype([("rank", "<u8"), ("sizes", "<u4", (steps,))])
        self._file = tempfile.TemporaryFile(dir=directory, prefix=".beatra-census-")  # noqa: SIM115  # closed in __exit__
        length = max(1, rows) * self._record.itemsize
        try:
            take_room(self._file.fileno(), length)
        except DiskFull:
            self._file.close()
            raise
        self._map = mmap.mmap(self._file.fileno(), length)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
        self._file.close()

    def __call__(self, row: int, step: int, ask: Ask, left: bool) -> None:  # noqa: FBT001  # the signature that Flow calls
        """Take note of a row's request: at each step of the first one that is known, or of the one to be sent."""
        place = row * self._record.itemsize
        if not _RANK.unpack_from(self._map, place)[0]:
            digest = hashlib.blake2b(ask.key, digest_size=8, key=self._salt).digest()
            self._map[place : place + 8] = digest
        place += _RANK.size + step * _SIZE.size
        if left or not _SIZE.unpack_from(self._map, place)[0]:
            _SIZE.pack_into(self._map, place, ask.weight)

    def counts(self, marks: Marks) -> list[RequestCount]:
        """Count the requests of each step; after `Marks.find_copies`."""
        found = np.zeros((self._steps, 4), dtype=np.int64)
        for start, rows in self._parts():
            firsts = marks.firsts(start, len(rows))
            sizes = rows["sizes"].astype(np.int64)
            follows = np.cumsum(firsts.left, axis=1) > 0  # a copy's later steps are copies as well
            for values, column in (
                (firsts.known, 0),
                (firsts.left, 1),
                (sizes * firsts.left, 2),
                (firsts.undecided & follows, 3),
            ):
                found[:, column] += values.sum(axis=0)
        return [RequestCount(*map(int, line)) for line in found]

    def sample(self, marks: Marks, size: int, *, of: Standing) -> list[ChosenRow]:
        """Give the rows of lowest rank among those that stand first for a request, in input order.

        Args:
            marks: after `Marks.find_copies`.
            size: how many, at most.
            of: only for a request that is settled, or one to be sent, or for any.
        """
        chosen: list[ChosenRow] = []
        for start, rows in self._parts():
            firsts = marks.firsts(start, len(rows))
            wanted = {"known": firsts.known, "left": firsts.left, "all": firsts.known | firsts.left}[of]
            places = np.flatnonzero(wanted.any(axis=1))
            places = places[np.argsort(rows["rank"][places], kind="stable")[:size]]
            chosen += [
                ChosenRow(start + int(p), int(rows["rank"][p]), tuple(map(int, rows["sizes"][p])))
                for p in places
            ]
            chosen = sorted(chosen, key=lambda unit: unit.rank)[:size]
        return sorted(chosen)

    def _parts(self) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.void]]]]:
        for start in range(0, self._rows, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, self._rows - start)
            offset = start * self._record.itemsize
            yield start, np.frombuffer(self._map, dtype=self._record, count=count, offset=offset).copy()
