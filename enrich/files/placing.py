"""Files put in place whole: written beside their target under a hidden name, then renamed over it, a manifest beside them."""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from enrich.base.location import ObjectUrl
from enrich.base.locks import FileLock
from enrich.base.system import NO_LINK, RENAMES_OPEN_FILES, sync_folder
from enrich.config import MANIFEST_SUFFIX
from enrich.files import storage

if TYPE_CHECKING:
    from enrich.files.access import OutputPlace


class Temporary:
    """A hidden file beside its target, or where an object is made ready; locked while this process lives."""

    def __init__(self, target: Path, *, private: bool = False) -> None:
        self._private = private
        self._open = True
        mode = 0o600 if private else 0o666
        while True:
            self.path = temporary_path(target)
            self._lock = FileLock(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
            if self._lock.take() and self._lock.is_in_place():
                return
            self._lock.close()  # a sweep came between the two calls

    def sync(self) -> None:
        """Bring what was written to disk."""
        os.fsync(self._lock.descriptor)

    def replace(self, target: OutputPlace) -> None:
        """Take the target's place, a file under its permissions; durable when this returns."""
        if isinstance(target, ObjectUrl):
            storage.put(str(target), self.path)
            return
        with suppress(FileNotFoundError):
            if not self._private:
                self.path.chmod(stat.S_IMODE(target.stat().st_mode))
        self.sync()
        if not RENAMES_OPEN_FILES:
            self._close()
        self.path.replace(target)
        sync_folder(target.parent)

    def discard(self) -> None:
        """Remove the file, unless it took its place; a folder that became read-only keeps it, for a later sweep."""
        self._close(remove=True)

    def _close(self, *, remove: bool = False) -> None:
        if self._open:
            self._open = False
            self._lock.close(remove=remove)
        elif remove:  # it was closed to be renamed
            self._lock.unlink()


def temporary_path(target: Path) -> Path:
    """Give a hidden name beside a target that no other file has."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")


def sweep(target: Path) -> None:
    """Remove what runs that died left of this output: its temporary files that nobody locks any more."""
    name = rf"\.?{re.escape(target.name)}({re.escape(MANIFEST_SUFFIX)})?"
    with os.scandir(target.parent) as entries:
        stale = [
            entry.path for entry in entries if re.fullmatch(rf"\.{name}\.[0-9a-f]{{16}}\.tmp", entry.name)
        ]
    for path in stale:
        with suppress(OSError):  # gone already, or another user's
            lock = FileLock(path, os.O_RDWR | NO_LINK)
            lock.close(remove=lock.take())


def sidecar_of(target: OutputPlace, *, hidden: bool = False) -> OutputPlace:
    """Give the place of the manifest of a text output."""
    name = "." * hidden + target.name + MANIFEST_SUFFIX
    return target.with_name(name) if isinstance(target, Path) else target.beside(name)


def replace_with_sidecar(
    temporary: Temporary, target: OutputPlace, place: OutputPlace, manifest: bytes
) -> None:
    """Put a file and its manifest in place; a crash in between may cost the manifest, never leaves a wrong one."""
    if isinstance(place, ObjectUrl):
        if storage.stat(str(place)) is not None:
            storage.write(str(place), b"")  # who may write need not be allowed to remove
        temporary.replace(target)
        storage.write(str(place), manifest)
        return
    sidecar = Temporary(place)
    try:
        sidecar.path.write_bytes(manifest)
        sidecar.sync()
        temporary.sync()
        place.unlink(missing_ok=True)
        temporary.replace(target)
        sidecar.replace(place)
    finally:
        sidecar.discard()
