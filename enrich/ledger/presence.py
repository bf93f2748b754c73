"""Whether the file that the embedded ledger writes to is still the one at its path: else it pays into nowhere."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from enrich.errors import LedgerFailing

if TYPE_CHECKING:
    from pathlib import Path


class Presence:
    """Looks at the file and the log beside it; each look costs two calls of stat.

    Args:
        ledger: the database file, open by now.

    Attributes:
        lost: what became of it, once it is gone; empty before.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._log = ledger.with_name(f"{ledger.name}-wal")
        self._file = _identity(ledger)
        self._log_file: tuple[int, int] | None = None
        self.lost = ""

    @property
    def rescued(self) -> Path:
        """Where what the ledger held is written to as it is closed."""
        return self._ledger.with_name(f"{self._ledger.name}.rescued-{os.getpid()}")

    def check(self) -> LedgerFailing | None:
        """Look, after a commit; gives the error that says that the file is gone."""
        log = _identity(self._log)
        self._log_file = self._log_file or log
        for name, now, then in (
            (self._ledger, _identity(self._ledger), self._file),
            (self._log, log, self._log_file),
        ):
            if now != then and not self.lost:
                self.lost = f"{name} was {'replaced' if now else 'removed'} while it was in use"
        if not self.lost:
            return None
        return LedgerFailing(
            f"the ledger is gone: {self.lost}",
            hint=f"what it holds is written to {self.rescued} now: put that in its place, then run again.",
            passes=False,
        )

    def rescue(self, connection: sqlite3.Connection) -> None:
        """Write what the file holds, which only this process can still reach, to a file of its own."""
        with contextlib.suppress(OSError, sqlite3.Error):  # it was said that the file is gone
            os.close(os.open(self.rescued, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            connection.execute("VACUUM INTO ?", (str(self.rescued),))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino
