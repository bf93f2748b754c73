"""Room on the disk for the embedded ledger: a reserve is set aside, so that answers in flight still find some."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from enrich.base.descriptors import NONE_LEFT
from enrich.base.system import free_bytes
from enrich.ledger import sqlite_file

if TYPE_CHECKING:
    from pathlib import Path

    from enrich.errors import DiskFull

RESERVE_BYTES: Final = 1 << 20  # freed when the disk is full, so that answers in flight still find room
LOW_WATER: Final = 16 << 20  # bytes free on the disk below which nothing new is sent


class Room:
    """The reserve beside a ledger's file.

    Attributes:
        full: whether the disk was found full: nothing new is sent then.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._reserve = ledger.with_name(f"{ledger.name}.reserve")
        self.full = False

    def set_aside(self) -> None:
        """Write the reserve. Random bytes take their room on every file system, compressed or sparse.

        Raises:
            DiskFull: there is no room for it.
            LedgerError: no more files may be open.
        """
        self.full = False
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(RESERVE_BYTES))
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._reserve.unlink(missing_ok=True)
            if error.errno in NONE_LEFT:
                raise sqlite_file.unwritable(self._reserve, error) from None
            raise self.none_left(error.strerror) from None

    def free(self) -> bool:
        """Stop claims and free the reserve; False when it was freed before."""
        self.full = True
        try:
            self._reserve.unlink()
        except OSError:  # it is gone, or the folder became read-only
            return False
        return True

    def check(self) -> None:
        """Keep new requests from being sent where their answers may find no room.

        Raises:
            DiskFull: they may not.
        """
        if self.full or free_bytes(self._ledger.parent) < LOW_WATER:
            raise self.none_left()

    def none_left(self, why: str | None = None) -> DiskFull:
        """Say that the disk is full."""
        return sqlite_file.no_room(self._ledger, why or "the disk is full")
