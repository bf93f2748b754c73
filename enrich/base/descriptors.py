"""How many files and connections this process may have open."""

from __future__ import annotations

import contextlib
import errno
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from enrich.errors import UsageError

LIMITED: Final = find_spec("resource") is not None  # Windows limits no process so
NEEDED: Final = 32  # descriptors: what a run of a few rows opens at once, and some more
NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE})  # of this process, of the whole machine
RAISE_IT: Final = (
    "raise the limit (`ulimit -n 4096`, LimitNOFILE= of a service), then run the same command again."
)
SPARE_DESCRIPTORS = 64  # descriptors kept for files: ledger, input, output, and what libraries open
UNLIMITED = 1 << 30  # descriptors, where nothing limits them
USUAL = 128  # descriptors that are open where the system does not tell


def room_for_connections() -> int:
    """Raise the soft limit on open files to the hard one; gives how many connections fit below it."""
    return max(1, _left() - SPARE_DESCRIPTORS)


def require_descriptors() -> None:
    """Refuse to begin where so few files may be open that the smallest job would meet the limit half-way.

    Raises:
        UsageError: they are too few.
    """
    if LIMITED and _left(otherwise=NEEDED) < NEEDED:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise UsageError(
            f"this process may have only {limit:,} files open, and {NEEDED} more are needed than are open now",
            hint=RAISE_IT,
        )


def _left(otherwise: int = 0) -> int:
    """Raise the soft limit to the hard one and give how many more files may be open.

    Args:
        otherwise: given at the least where nobody tells how many are open.
    """
    if not LIMITED:
        return UNLIMITED
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return UNLIMITED
    try:
        return soft - sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError as error:
        if error.errno in NONE_LEFT:
            return 0
        return max(otherwise, soft - USUAL)


def no_descriptor_left() -> bool:
    """Say whether nothing can be opened any more: a connection that fails then says nothing of the endpoint."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in NONE_LEFT
    return False
