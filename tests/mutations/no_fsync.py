"""Commits are not synced: they survive a kill, but not a loss of power."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from enrich.ledger import sqlite_file

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


def apply() -> None:
    """Break this process's commits."""
    connect = sqlite_file._connect

    def unsynced(path: Path, cache: int, mode: Literal["rw", "ro"] = "rw") -> sqlite3.Connection:
        connection = connect(path, cache, mode)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    sqlite_file._connect = unsynced
