"""Who is alive: each run holds a lock on a file of its own beside the ledger, and a dead one holds none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from enrich.base.locks import FileLock
from enrich.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path


class RunLocks:
    """The files ``<ledger>.run-<number>``; the kernel drops a lock the moment its process dies.

    The lock belongs to the open file, so two ledgers in one process see each other as well.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._held: FileLock | None = None

    def path(self, run: int) -> Path:
        """Give the lock file of a run."""
        return self._ledger.with_name(f"{self._ledger.name}.run-{run}")

    def hold(self, run: int) -> bool:
        """Take the lock of a new run instead of any held so far; False when its file is held by somebody else.

        Raises:
            LedgerError: the file cannot be made or locked.
        """
        self.release()
        try:
            lock = _locked(self.path(run), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise LedgerError(
                f"the lock file {self.path(run)} cannot be used: {error.strerror}",
                hint="put the ledger into a local directory of your own.",
            ) from None
        self._held = lock
        return lock is not None

    def release(self) -> None:
        """Let go of the run that is held, if any, and remove its file."""
        if self._held:
            held, self._held = self._held, None
            held.close(remove=True)

    def is_alive(self, run: int) -> bool:
        """Say whether a run's process lives; when in doubt, it does. Removes the file of a dead one.

        A shared lock asks the question, so that two who ask at once do not take each other for the run.
        """
        try:
            lock = _locked(self.path(run), os.O_RDONLY, shared=True)
            if lock is not None:
                lock.close(
                    remove=True
                )  # where it may not be removed, whoever looks next finds it dead as well
                return False
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True


def _locked(path: Path, flags: int, *, shared: bool = False) -> FileLock | None:
    """Open a file and lock it; None, and closed again, when it is locked by somebody else."""
    lock = FileLock(path, flags)
    taken = False
    try:
        taken = lock.take(shared=shared)
    finally:
        if not taken:
            lock.close()
    return lock if taken else None
