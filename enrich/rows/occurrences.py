"""Counts equal requests on disk, for runs in which each of them is to have an answer of its own."""

from __future__ import annotations

import sqlite3
from typing import Self

CACHE_KIB = 16_384  # KiB of memory; the rest is in a temporary file


class Occurrences:
    """How often each key came so far, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # a private file, deleted when closed
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, count INTEGER) WITHOUT ROWID")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def count(self, key: bytes) -> int:
        """Count a key; gives how often it came before."""
        (count,) = self._database.execute(
            "INSERT INTO seen VALUES (?, 0) ON CONFLICT (key) DO UPDATE SET count = count + 1 RETURNING count",
            (key,),
        ).fetchone()
        return int(count)
