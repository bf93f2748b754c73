"""What stands in the way of an output: folders that are missing or closed, and locks that others hold."""

from __future__ import annotations

import errno
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from enrich.base.descriptors import NONE_LEFT, RAISE_IT
from enrich.base.location import ObjectUrl
from enrich.errors import OutputError
from enrich.files import storage

if TYPE_CHECKING:
    from collections.abc import Iterator

OutputPlace = Path | ObjectUrl  # where an output belongs

FOLDER_TRIES = 100  # times that another run may take an output's folder away before its lock is held
HINTS = {
    errno.EACCES: "choose a folder that this user may write to.",
    errno.EPERM: "choose a folder that this user may write to.",
    errno.EROFS: "choose a folder that is not read-only.",
    errno.ENOTDIR: "a part of the path is a file; choose another folder.",
    errno.ENAMETOOLONG: "choose a shorter name.",
    errno.ENOSPC: "free some disk space.",
    errno.EDQUOT: "free some of this user's quota.",
    **dict.fromkeys(NONE_LEFT, RAISE_IT),
}


@contextmanager
def access_errors(target: OutputPlace) -> Iterator[None]:
    """What stands in the way before a run is the user's to mend."""
    try:
        yield
    except OSError as error:
        if isinstance(target, ObjectUrl):
            problem, hint, passes = storage.explain(error, str(target))
            what = f"the output {target} cannot be written: {problem}"
            raise OutputError(what, hint=hint, passes=passes) from None
        problem = (error.strerror or str(error)).lower()
        hint = HINTS.get(error.errno or 0, "choose another output.")
        raise OutputError(f"the output {target} cannot be written: {problem}", hint=hint) from None


@contextmanager
def folders(target: Path) -> Iterator[None]:
    """Make the folders above a target that are missing; on the way out, remove those that stayed empty."""
    missing = [folder for folder in target.parents if not folder.exists()]
    make_folder(target.parent)
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, also while other runs take theirs away."""
    for _ in range(FOLDER_TRIES):
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
        if folder.exists() and not folder.is_dir():
            break
    folder.mkdir(parents=True, exist_ok=True)
