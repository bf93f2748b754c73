"""An output is held by one run at a time: a lock beside it, which goes with the process."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_state_path

from enrich.base.location import is_url
from enrich.base.locks import FileLock
from enrich.base.system import NO_LINK
from enrich.errors import OutputError, OutputLocked
from enrich.files.access import FOLDER_TRIES, access_errors, folders, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def hold_output(path: str | Path, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold an output against every other run until the block ends, or the process dies.

    An object is held against this user's runs on this machine: no store can tell that a process has died.

    Args:
        path: the output.
        wait: block until it is free.
        shared: only against those who want it for themselves alone.

    Raises:
        OutputLocked: another run holds it.
        OutputError: the folder cannot be written.
    """
    output = str(path) if is_url(str(path)) else os.path.realpath(path)
    lock = _lock_path(output)
    with ExitStack() as stack:
        with _lock_errors(lock, output):
            stack.enter_context(folders(lock))
            held = _lock(lock, output, wait=wait, shared=shared)
        try:
            yield
        finally:
            held.close(
                remove=not shared or held.take()
            )  # held alone: nobody can have locked this very file in between


def _lock_path(output: str) -> Path:
    if is_url(output):
        name = hashlib.sha256(output.encode()).hexdigest()[:32]
        return user_state_path("beatra-enrich") / "locks" / f"{name}.lock"
    return Path(output).with_name(f".{Path(output).name}.lock")


@contextmanager
def _lock_errors(lock: Path, output: str) -> Iterator[None]:
    if not is_url(output):
        with access_errors(Path(output)):
            yield
        return
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{output} cannot be held against other runs: {lock} cannot be made: {error.strerror}",
            hint="point XDG_STATE_HOME at a folder that this user may write to.",
        ) from None


def _lock(lock: Path, target: str, *, wait: bool, shared: bool) -> FileLock:
    """Lock a lock file that is still in its place, and write this process's id into it."""
    while True:
        opened = _open_lock(lock)
        if not opened.take(shared=shared, wait=wait):
            owner = opened.read(20).decode("ascii", "replace").strip()
            opened.close()
            raise OutputLocked(
                f"another run (process {owner or 'unknown'}) holds {target}",
                hint="wait for it to end, or choose another output.",
            )
        if opened.is_in_place():
            opened.write(b"%d\n" % os.getpid())
            return opened
        opened.close()  # its holder removed it between the two calls


def _open_lock(lock: Path) -> FileLock:
    """Open a lock file; where its folder went with a holder that ended and left it empty, make that again."""
    for _ in range(FOLDER_TRIES):
        with suppress(FileNotFoundError):
            return FileLock(lock, os.O_RDWR | os.O_CREAT | NO_LINK)
        make_folder(lock.parent)
    raise FileNotFoundError(
        errno.ENOENT, os.strerror(errno.ENOENT), str(lock)
    )  # as in /proc, which takes no files
