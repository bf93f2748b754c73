"""What systems differ in, said once: flags that some have not, room on a disk, folders brought to disk, pages given back."""

from __future__ import annotations

import mmap
import os
import shutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# Python opens every file close-on-exec by itself (PEP 446), and Windows knows none of these but the last.
NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)  # opening a pipe does not wait for who writes
NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)  # a symbolic link is refused
BYTES: Final = getattr(os, "O_BINARY", 0)  # bytes as they are, line ends too
RENAMES_OPEN_FILES: Final = (
    os.name != "nt"
)  # elsewhere a file that is open can neither be renamed nor removed
HAS_MODES: Final = os.name != "nt"  # permission bits that say who may read a file
_FORGET = getattr(mmap, "MADV_DONTNEED", None)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to disk, so that a file renamed in it stays renamed; Windows does that by itself."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Give the bytes that this user may still write to the disk that a folder lies on.

    Raises:
        OSError: the system does not tell.
    """
    return shutil.disk_usage(folder).free


def give_back(pages: mmap.mmap) -> None:
    """Let the system have the pages of a map of a file again, which keeps what was written; advice, where it is taken."""
    if _FORGET is not None:
        pages.madvise(_FORGET)


def user_number() -> int:
    """Give a number that tells this user from others; 0 where users have their temporary folders to themselves."""
    return os.getuid() if hasattr(os, "getuid") else 0
