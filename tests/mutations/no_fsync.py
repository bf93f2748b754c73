"""Commits are not synced: they survive a kill, but not a loss of power."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.ledger import sqlite_file

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


def apply() -> None:
    """Break this process's commits."""
    connect = sqlite_file._connect

    def unsynced(path: Path, cache: int, way: sqlite_file.Way = sqlite_file.WRITING) -> sqlite3.Connection:
        connection = connect(path, cache, way)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    sqlite_file._connect = unsynced
