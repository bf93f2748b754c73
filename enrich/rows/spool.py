"""Outcomes on their way from where rows are decided to where the output is written: few in memory, many in a file."""

from __future__ import annotations

import mmap
import pickle
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from enrich.base.system import free_bytes, give_back
from enrich.errors import DiskFull
from enrich.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL = 5  # of pickle: an outcome's values are whatever Arrow takes, dates and decimals among them
BUFFER_BYTES = 1 << 20  # kept in memory until they are written together
PAGE = 4096  # bytes of memory that reading touches at least
SPARE_BYTES = 1 << 28  # of the disk: with less than this free nothing more is kept
FORGET_BYTES = 16 << 20  # bytes read, between giving their pages of memory back


class Spool:
    """Keeps outcomes until the output is written, which spares it another look into the ledger for each.

    Of most outcomes it is a convenience, never the only place: where the disk has no room for it, it keeps no more. What
    is proved of a row's own texts stands here alone until it is written; for that, no room is an error.

    Args:
        directory: where its file goes, once it needs one; the file has no name and is gone with the process.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._buffer = bytearray()
        self._file: IO[bytes] | None = None
        self._map: mmap.mmap | None = None
        self._written = 0
        self._full = False
        self._read = 0

    def close(self) -> None:
        """Let go of the file."""
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            self._file.close()

    @property
    def end(self) -> int:
        """Give the bytes that are kept, all in all."""
        return self._written + len(self._buffer)

    def put(self, outcome: Outcome) -> int:
        """Keep an outcome; gives its place, from 1, or 0 when it was not kept.

        Raises:
            DiskFull: there is no room for one that is the row's own, which the ledger alone does not tell.
        """
        if self._full and not outcome.is_own:
            return 0
        place = self._written + len(self._buffer) + 1
        self._buffer += pickle.dumps(tuple(outcome), PROTOCOL)
        if len(self._buffer) >= BUFFER_BYTES:
            self._write(vital=outcome.is_own)
        return place

    def get(self, places: Sequence[int]) -> list[Outcome | None]:
        """Give the outcomes at these places; None for those that were not kept."""
        if self._file is not None and (self._map is None or len(self._map) < self._written):
            if self._map is not None:
                self._map.close()
            self._map = mmap.mmap(self._file.fileno(), self._written, access=mmap.ACCESS_READ)
        with memoryview(self._buffer) as held, memoryview(self._map or b"") as mapped:
            return [self._at(place - 1, mapped, held) if place else None for place in places]

    def _at(self, start: int, mapped: memoryview, held: memoryview) -> Outcome:
        part = mapped[start:] if start < self._written else held[start - self._written :]
        outcome = Outcome._make(pickle.loads(part))  # noqa: S301  # written by this process into a file without a name
        self._forget(len(outcome.text or "") + PAGE)
        return outcome

    def _write(self, *, vital: bool) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory, prefix=".beatra-spool-", buffering=0)  # noqa: SIM115  # closed in close
            if free_bytes(self._directory or Path(tempfile.gettempdir())) < SPARE_BYTES and not vital:
                self._full = True
                return
            written = self._file.write(self._buffer)
        except OSError as error:
            self._full = True
            if vital:
                raise DiskFull(
                    f"there is no room to keep what was found for each row: {error.strerror}",
                    hint="free some space beside the output and run again.",
                ) from None
            return
        self._written += written
        del self._buffer[:written]
        self._full = bool(self._buffer)

    def _forget(self, size: int) -> None:
        """Give pages that were read back to the system: they count as this process's memory as long as it maps them."""
        self._read += size
        if self._read >= FORGET_BYTES and self._map is not None:
            self._read = 0
            give_back(self._map)
