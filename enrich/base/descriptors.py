"""How many files and connections this process may have open."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path

SPARE_DESCRIPTORS = 64  # descriptors kept for files: ledger, input, output, and what libraries open
USUAL = 128  # descriptors that are open where the system does not tell


def room_for_connections() -> int:
    """Raise the soft limit on open files to the hard one; gives how many connections fit below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    try:
        in_use = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        in_use = USUAL
    return max(1, soft - in_use - SPARE_DESCRIPTORS)


def no_descriptor_left() -> bool:
    """Say whether nothing can be opened any more: a connection that fails then says nothing of the endpoint."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False
