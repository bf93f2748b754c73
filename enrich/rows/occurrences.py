"""Counts equal requests on disk, for runs in which each of them is to have an answer of its own."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Self

from enrich.base.descriptors import RAISE_IT, no_descriptor_left
from enrich.errors import DiskFull, RunStopped

CACHE_KIB = 16_384  # KiB of memory; the rest is in a file
# The file is gone with the process: nothing in it is ever rolled back or read again, so all of it is one transaction.
SETTINGS = (
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;"
    f"PRAGMA cache_size = -{CACHE_KIB};"
)


class Occurrences:
    """How often each key came so far, in memory that does not grow with their number, at the same cost for each.

    Args:
        directory: where its file goes, which has no name; the system's folder for such by default.
    """

    def __init__(self, directory: Path | None = None) -> None:
        number, path = tempfile.mkstemp(prefix=".beatra-seen-", dir=directory)
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.executescript(SETTINGS)
            self._database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, count INTEGER) WITHOUT ROWID")
            self._database.execute("BEGIN")
        finally:
            os.close(number)
            Path(path).unlink()  # the open database keeps it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def count(self, key: bytes) -> int:
        """Count a key; gives how often it came before.

        Raises:
            DiskFull: there is no room for it.
            RunStopped: no more files may be open.
        """
        try:
            (count,) = self._database.execute(
                "INSERT INTO seen VALUES (?, 0) ON CONFLICT (key) DO UPDATE SET count = count + 1 RETURNING count",
                (key,),
            ).fetchone()
        except sqlite3.OperationalError as error:
            if no_descriptor_left():
                raise RunStopped(f"equal requests cannot be counted: {error}", hint=RAISE_IT) from None
            raise DiskFull(
                f"equal requests cannot be counted: {error}", hint="free some space and run again."
            ) from None
        return int(count)
