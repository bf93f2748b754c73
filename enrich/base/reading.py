"""Reads a small file of this machine that is said to be one: what is a pipe, a device or too large is refused at once."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from enrich.base.system import BYTES, NO_WAIT

if TYPE_CHECKING:
    from pathlib import Path


def read_small(path: str | Path, most: int) -> tuple[bytes, os.stat_result]:
    """Read a regular file whole.

    Args:
        path: the file.
        most: bytes that it may have; of one that has more nothing further is read.

    Returns:
        Its bytes, and what the system says of it.

    Raises:
        OSError: it cannot be read, is no regular file or too large; its ``strerror`` says which, for people.
    """
    try:  # a pipe would be waited for, and some of the system's own files as well
        descriptor = os.open(path, os.O_RDONLY | NO_WAIT | BYTES)
    except ValueError as error:  # a NUL in it, or what no name can be written with
        raise OSError(errno.EINVAL, f"it is no path: {error}", str(path)) from None
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        is_file = stat.S_ISREG(info.st_mode)
        content = file.read(most + 1) if is_file and info.st_size <= most else b""
        if not is_file or content is None:  # some of the system's own files would have us wait
            raise OSError(errno.EINVAL, "it is a device or pipe, not a file", str(path))
        if max(info.st_size, len(content)) > most:
            size = max(info.st_size, len(content))
            raise OSError(errno.EFBIG, f"it has {size:,} bytes; at most {most:,} are read", str(path))
    return content, info
