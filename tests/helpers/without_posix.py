"""The program as it would start where nothing of POSIX is: `python -m tests.helpers.without_posix ARGUMENTS`.

No Windows stands in a test, so what it lacks is taken away here: the modules, the functions and flags of `os`, signals in
the event loop, and the leave to rename or remove a file that this process has open.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "uvloop")
FUNCTIONS = [
    "fchmod",
    "fchown",
    "geteuid",
    "getgid",
    "getegid",
    "getpgid",
    "killpg",
    "setsid",
    "fork",
    "forkpty",
    "pread",
    "pwrite",
    "preadv",
    "pwritev",
    "posix_fallocate",
    "fstatvfs",
    "mkfifo",
    "mknod",
    "lockf",
    "sched_getaffinity",
    "getloadavg",
    "fdatasync",
    "sync",
    "nice",
    "chown",
    "lchown",
]
FLAGS = ["O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "O_PATH", "O_DSYNC", "O_SYNC", "O_NOATIME"]
LOOP = asyncio.SelectorEventLoop


def take_away() -> None:
    """Make this process do without."""
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # how an import is made to fail
    for name in (*FUNCTIONS, *FLAGS):
        if hasattr(os, name):
            delattr(os, name)
    LOOP.add_signal_handler = _refuse  # type: ignore[method-assign, assignment]
    for name in ("rename", "replace", "unlink", "remove"):
        setattr(os, name, _sharing(getattr(os, name)))
    import mmap

    for name in [name for name in dir(mmap) if name.startswith("MADV_")]:
        delattr(mmap, name)
    import enrich.base.system

    enrich.base.system.RENAMES_OPEN_FILES = False  # type: ignore[misc]
    enrich.base.system.HAS_MODES = False  # type: ignore[misc]


def _refuse(*_: object) -> None:
    raise NotImplementedError


def _sharing(change: Any) -> Any:
    def changed(path: Any, *others: Any, **further: Any) -> None:
        opened = set()
        for link in os.scandir("/proc/self/fd"):
            with suppress(OSError):
                opened.add(str(Path(link.path).readlink()))
        for one in (path, *others):
            if isinstance(one, str | Path) and os.path.realpath(one) in opened:
                raise PermissionError(errno.EACCES, "used by another process", str(one))
        change(path, *others, **further)

    return changed


if __name__ == "__main__":
    take_away()
    from enrich.cli.program import program

    program()
