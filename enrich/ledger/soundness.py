"""Whether the embedded ledger's file is whole: it is checked when it is opened, unless a clean end vouches for it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from enrich.ledger.sql import statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VOUCHED_FOR: Final = 86_400.0  # seconds; after that the file is checked again, whoever closed it
_SCHEMA: Final = (
    "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name"
)


def problem(con: sqlite3.Connection, schemas: Sequence[str]) -> str | None:
    """Check the whole file: its structures, each index against its table, and the schema; some µs a request.

    Args:
        con: a connection to it.
        schemas: the scripts that make it.

    Returns:
        What is wrong, or None.

    Raises:
        sqlite3.Error: it cannot even be read.
    """
    if _structure(con) != _schema(tuple(schemas)):
        return "its tables are not those of a ledger"
    (found,) = con.execute("PRAGMA integrity_check(1)").fetchone()
    said = found if isinstance(found, str) else str(found, "utf-8", "replace")
    return None if said == "ok" else said.splitlines()[-1]


@functools.cache
def _schema(schemas: tuple[str, ...]) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as con:
        for script in schemas:
            for statement in statements(script):
                con.execute(statement)
        con.text_factory = bytes  # as the ledger's own connections have it
        return _structure(con)


def _structure(con: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Give what the tables and indexes are; comments are for whoever reads the scripts, and may change."""
    return [(*names, _plain(sql)) for *names, sql in con.execute(_SCHEMA).fetchall()]


def _plain(sql: Any) -> Any:
    """Leave comments and line breaks out; what damage turned into a number is no SQL."""
    return b" ".join(re.sub(rb"--[^\n]*", b"", sql).split()) if isinstance(sql, bytes) else sql


class Voucher:
    """The word of who closed the file last: it was whole when it was opened, and nobody has touched it since.

    A word on a file that has changed, from before the machine started or more than a day old, is worth nothing; one on
    a file that was found damaged is taken back.

    Args:
        ledger: the database file; the word stands beside it.
        boot: which start of the machine this is; 0 where that is not known, and no word is good then.
    """

    def __init__(self, ledger: Path, boot: int) -> None:
        self._ledger = ledger
        self._path = ledger.with_name(f"{ledger.name}.whole")
        self._boot = boot
        self._checked_at: float | None = None

    def holds(self, now: float) -> bool:
        """Say whether the file, not opened yet, need not be checked now (wall seconds since the epoch)."""
        try:
            said = json.loads(self._path.read_bytes())
            holds = said["state"] == self._state() is not None and 0 <= now - said["checked_at"] < VOUCHED_FOR
        except (OSError, ValueError, TypeError, KeyError):
            return False
        if holds and self._boot:
            self._checked_at = float(said["checked_at"])
        return self._checked_at is not None

    @property
    def unbroken_since(self) -> float | None:
        """Give when the file was last found whole (wall seconds); since then nobody but a ledger has written to it.

        None while that is not known, and after the word was taken back.
        """
        return self._checked_at if self._boot else None

    def checked(self, now: float) -> None:
        """Note that the file was found whole."""
        self._checked_at = now

    def give(self) -> None:
        """Vouch for the file as it is now, closed, if nobody else has it open."""
        if self._checked_at is None or not self._boot:
            return
        with contextlib.suppress(OSError):  # the next to open it checks it
            state = self._state()
            if state is None:
                return
            word = json.dumps({"checked_at": self._checked_at, "state": state})
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(word)

    def take_back(self) -> None:
        """Let the next to open the file check it: it is, or may be, damaged."""
        self._checked_at = None
        with contextlib.suppress(OSError):  # where it cannot be removed, nothing can be written either
            self._path.unlink(missing_ok=True)

    def _state(self) -> list[int] | None:
        """Tell the file from what it may become; None while somebody is writing to it, or died as it did.

        Who only reads leaves an empty log of writes behind.
        """
        info = self._ledger.stat()
        with contextlib.suppress(FileNotFoundError):
            if self._ledger.with_name(f"{self._ledger.name}-wal").stat().st_size:
                return None
        return [self._boot, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
