"""Who is alive: each run holds a lock on a file of its own beside the ledger, and a dead one holds none."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from enrich.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path


class RunLocks:
    """The files ``<ledger>.run-<number>``; the kernel drops a lock the moment its process dies.

    The lock belongs to the open file, so two ledgers in one process see each other as well.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._held: tuple[int, int] | None = None  # run number, file descriptor

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
            descriptor = os.open(self.path(run), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _lock(descriptor, fcntl.LOCK_EX):
                return False
        except OSError as error:
            raise LedgerError(
                f"the lock file {self.path(run)} cannot be used: {error.strerror}",
                hint="put the ledger into a local directory of your own.",
            ) from None
        self._held = (run, descriptor)
        return True

    def release(self) -> None:
        """Let go of the run that is held, if any, and remove its file."""
        if self._held:
            run, descriptor = self._held
            self._held = None
            with contextlib.suppress(OSError):  # the folder may have become read-only
                self.path(run).unlink(missing_ok=True)
            os.close(descriptor)

    def is_alive(self, run: int) -> bool:
        """Say whether a run's process lives; when in doubt, it does. Removes the file of a dead one.

        A shared lock asks the question, so that two who ask at once do not take each other for the run.
        """
        path = self.path(run)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if _lock(descriptor, fcntl.LOCK_SH):
                with contextlib.suppress(OSError):  # likewise; whoever looks next finds it dead as well
                    path.unlink(missing_ok=True)
                os.close(descriptor)
                return False
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True


def _lock(descriptor: int, kind: int) -> bool:
    """Try to lock an open file; one that cannot be locked is closed."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return False
        raise
    return True
