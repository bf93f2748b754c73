"""Reads the lines of an SQLite file page by page, without its indexes, its schema or its trees: for damaged files.

The format is that of https://www.sqlite.org/fileformat2.html; a page that is whole gives its lines whatever became of
the others.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE_SIZES: Final = frozenset(1 << power for power in range(9, 17))  # bytes
USUAL_PAGE: Final = 4096  # where the header does not tell
TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR = 0x0D, 0x0A, 0x02
WAL_HEADER, FRAME_HEADER = 32, 24  # bytes
MOST_PAYLOAD: Final = 1 << 30  # bytes of one line; more is damage

LineValues = tuple[Any, ...]


class Line(NamedTuple):
    """A line of a table.

    Attributes:
        number: its rowid; 0 for a line of an index.
        values: its columns; texts are bytes.
    """

    number: int
    values: LineValues


class Pages:
    """The pages of a database file, as the file and the log beside it have them.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        log = path.with_name(f"{path.name}-wal")
        self._log = log.read_bytes() if log.exists() else b""
        self._size = _page_size(self._data)
        self._newer = _frames(self._log, self._size)
        self._usable = self._size - (self._data[20] if len(self._data) > 20 and self._data[20] <= 32 else 0)
        self._free = self._freed()

    @property
    def count(self) -> int:
        """Give the number of pages."""
        return max(-(-len(self._data) // self._size), max(self._newer, default=0))

    def page(self, number: int) -> bytes:
        """Give a page's bytes, zeros where the file ends before it does."""
        at = self._newer.get(number)
        if at is not None:
            return self._log[at : at + self._size]
        start = (number - 1) * self._size
        return self._data[start : start + self._size].ljust(self._size, b"\0")

    def lines(self) -> Iterator[Line]:
        """Give the lines of all tables that have a rowid."""
        for number in range(1, self.count + 1):
            if number not in self._free:
                yield from self._cells(number, {TABLE_LEAF})

    def index_pages(self) -> Iterator[list[Line]]:
        """Give the lines of indexes, and of tables without a rowid, a page at a time."""
        for number in range(1, self.count + 1):
            if number not in self._free and (
                found := list(self._cells(number, {INDEX_LEAF, INDEX_INTERIOR}))
            ):
                yield found

    def _cells(self, number: int, kinds: set[int]) -> Iterator[Line]:
        page = self.page(number)
        start = 100 if number == 1 else 0
        kind = page[start]
        if kind not in kinds:
            return
        (count,) = struct.unpack_from(">H", page, start + 3)
        pointers = start + (12 if kind == INDEX_INTERIOR else 8)
        for place in range(min(count, (self._size - pointers) // 2)):
            (at,) = struct.unpack_from(">H", page, pointers + 2 * place)
            try:
                yield self._cell(page, at, kind)
            except (IndexError, struct.error, ValueError, OverflowError):
                continue  # a cell that is damaged; its neighbours need not be

    def _cell(self, page: bytes, at: int, kind: int) -> Line:
        at += 4 if kind == INDEX_INTERIOR else 0
        length, at = _varint(page, at)
        number = 0
        if kind == TABLE_LEAF:
            number, at = _varint(page, at)
        if not 0 < length <= MOST_PAYLOAD:
            raise ValueError("no such length")
        return Line(number, _record(self._payload(page, at, length, kind)))

    def _payload(self, page: bytes, at: int, length: int, kind: int) -> bytes:
        """Gather a line's bytes, those on further pages included."""
        usable = self._usable
        most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
        if length <= most:
            return page[at : at + length]
        least = (usable - 12) * 32 // 255 - 23
        here = least + (length - least) % (usable - 4)
        here = here if here <= most else least
        parts, left = [page[at : at + here]], length - here
        (following,) = struct.unpack_from(">I", page, at + here)
        while left > 0:
            if not 0 < following <= self.count:
                raise ValueError("a line's rest is lost")
            rest = self.page(following)
            part = rest[4 : 4 + min(left, usable - 4)]
            parts.append(part)
            left -= len(part)
            (following,) = struct.unpack_from(">I", rest, 0)
        return b"".join(parts)

    def _freed(self) -> set[int]:
        """Give the pages that hold nothing any more: what was deleted may still stand there."""
        free: set[int] = set()
        (trunk,) = struct.unpack_from(">I", self.page(1), 32)
        while 0 < trunk <= self.count and trunk not in free:
            free.add(trunk)
            page = self.page(trunk)
            trunk, count = struct.unpack_from(">II", page, 0)
            free.update(struct.unpack_from(f">{min(count, self._size // 4 - 2)}I", page, 8))
        return free


def _page_size(data: bytes | mmap.mmap) -> int:
    size = int.from_bytes(data[16:18], "big")
    size = 65_536 if size == 1 else size
    return size if size in PAGE_SIZES and data[:16] == b"SQLite format 3\0" else USUAL_PAGE


def _frames(log: bytes, size: int) -> dict[int, int]:
    """Give the newest committed version of each page in a write-ahead log: its number, and where its bytes begin."""
    if len(log) < WAL_HEADER or int.from_bytes(log[8:12], "big") != size:
        return {}
    committed: dict[int, int] = {}
    pending: dict[int, int] = {}
    for at in range(WAL_HEADER, len(log) - FRAME_HEADER - size + 1, FRAME_HEADER + size):
        number, commit = struct.unpack_from(">II", log, at)
        if log[at + 8 : at + 16] != log[16:24] or not number:
            break  # left over from before the log was begun anew
        pending[number] = at + FRAME_HEADER
        if commit:
            committed |= pending
            pending = {}
    return committed


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read one of SQLite's variable-length integers; gives it and where the next byte is."""
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + place + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


def _record(data: bytes) -> LineValues:
    """Take a line's bytes apart.

    Raises:
        ValueError, IndexError: they are none.
    """
    end, at = _varint(data, 0)
    if not at <= end <= len(data):
        raise ValueError("no header")
    values: list[Any] = []
    place = end
    while at < end:
        kind, at = _varint(data, at)
        size = _SIZES[kind] if 0 <= kind < 12 else (kind - 12) // 2
        part = data[place : place + size]
        if kind < 0 or len(part) < size:
            raise ValueError("a value is cut")
        values.append(_value(kind, part))
        place += size
    if place != len(data):
        raise ValueError("something is left over")
    return tuple(values)


def _value(kind: int, part: bytes) -> Any:
    if kind == 0:
        return None
    if kind == 7:
        return struct.unpack(">d", part)[0]
    if kind in (8, 9):
        return kind - 8
    return part if kind >= 12 else int.from_bytes(part, "big", signed=True)


_SIZES: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)  # bytes of a value, by its type
