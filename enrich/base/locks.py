"""Files that are locked as long as a process lives: a lock that nobody holds any more says that its holder is gone."""

from __future__ import annotations

import errno
import os
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from enrich.base.system import BYTES, RENAMES_OPEN_FILES

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

HAS_FLOCK: Final = find_spec("fcntl") is not None  # Windows has none
FOLDER_LOCK: Final = ".beatra-enrich.folder"  # what is locked for a folder where folders cannot be
_BESIDE = "-lock"  # the end of the name of the file that SQLite locks instead of the file itself
_LOOK_SECONDS = 1.0  # seconds between looks at a lock that is waited for, where the system does not wait


class FileLock:
    """A file that is open, and may be locked: by `flock`, which goes with the open file, so two in one process see each other too.

    Where there is no `flock`, SQLite locks an empty file beside it, which every system can: by LockFileEx on Windows, against
    processes and threads alike. The file itself stays free to be read and written.

    Args:
        path: the file.
        flags: how it is opened, as `os.open` takes them.
        mode: its permissions, should it be made.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | Path, flags: int = os.O_RDWR, mode: int = 0o600) -> None:
        self.path = Path(path)
        self.descriptor = os.open(path, flags | BYTES, mode)
        self._beside: sqlite3.Connection | None = None

    def take(self, *, shared: bool = False, wait: bool = False) -> bool:
        """Lock it, or change the lock that is held; False when somebody else's stands in the way.

        Args:
            shared: beside others who share it.
            wait: until it is free.

        Raises:
            OSError: this file cannot be locked.
        """
        if not HAS_FLOCK:
            return self._take_beside(shared=shared, wait=wait)
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self.descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _take_beside(self, *, shared: bool, wait: bool) -> bool:
        import sqlite3

        self._let_go()
        while True:
            beside = sqlite3.connect(
                self._beside_path,
                timeout=_LOOK_SECONDS if wait else 0,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                beside.execute("PRAGMA journal_mode = MEMORY")  # no further file
                beside.execute("BEGIN" if shared else "BEGIN EXCLUSIVE")
                beside.execute(
                    "SELECT count(*) FROM sqlite_master"
                ).fetchall()  # a lock that is shared is taken here
            except sqlite3.OperationalError as error:
                beside.close()
                held = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if (held and wait) or (
                    not held and not self.is_in_place()
                ):  # or it was removed under our eyes
                    continue
                if held:
                    return False
                number = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
                raise OSError(number, os.strerror(number), str(self.path)) from None
            self._beside = beside
            with suppress(OSError):
                self._beside_path.chmod(0o600)
            return True

    @property
    def _beside_path(self) -> Path:
        return self.path.with_name(self.path.name + _BESIDE)

    def is_in_place(self) -> bool:
        """Say whether the file still has its name: who held it before may have removed it."""
        return os.fstat(self.descriptor).st_nlink > 0

    def read(self, most: int) -> bytes:
        """Give its first bytes."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return os.read(self.descriptor, most)

    def write(self, content: bytes) -> None:
        """Let it hold nothing else."""
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        os.write(self.descriptor, content)

    def close(self, *, remove: bool = False) -> None:
        """Let go of it; the file goes too if so wished and allowed: in a folder that became read-only it stays."""
        if remove and RENAMES_OPEN_FILES:
            self.unlink()
        self._let_go()
        os.close(self.descriptor)
        if remove and not RENAMES_OPEN_FILES:  # which fails while anybody else has it open
            self.unlink()

    def unlink(self) -> None:
        """Remove its names, its own last: who locks what was beside it finds then that it is no longer in place."""
        if not HAS_FLOCK:
            with suppress(OSError):
                self._beside_path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _let_go(self) -> None:
        if self._beside is not None:
            self._beside.close()
            self._beside = None


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep others who ask for the same out of a folder until the block ends; waits for them.

    Raises:
        OSError: it cannot be opened.
    """
    if HAS_FLOCK:
        with closing(FileLock(folder, os.O_RDONLY)) as lock:
            lock.take(wait=True)
            yield
        return
    while True:
        lock = FileLock(folder / FOLDER_LOCK, os.O_RDWR | os.O_CREAT)
        lock.take(wait=True)
        if lock.is_in_place():
            break
        lock.close()
    try:
        yield
    finally:
        lock.close(remove=True)
