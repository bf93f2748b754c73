"""Opens the ledger that a path or a URL names."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from enrich.errors import LedgerError
from enrich.ledger.mounts import unreadable

if TYPE_CHECKING:
    from enrich.base.clock import Clock
    from enrich.ledger.protocol import Ledger


async def open_ledger(
    location: str, *, clock: Clock | None = None, read_only: bool = False, make: bool = True
) -> Ledger:
    """Open the ledger at a path or URL.

    Args:
        location: of the ledger.
        clock: tells the age of requests.
        read_only: open a file that is there, and leave whoever works with it alone.
        make: whether a database without a ledger gets one.

    Raises:
        LedgerError: it cannot be opened.
    """
    if location.startswith(("postgresql://", "postgres://")):
        from enrich.ledger import postgres

        return await postgres.open_ledger(location, clock=clock, make=make and not read_only)
    if "://" in location:
        raise LedgerError(
            f"a ledger cannot lie at a {location.partition('://')[0]}:// URL",
            hint="give the path of a file, or a URL that begins with postgresql://",
        )
    from enrich.ledger import sqlite

    return await sqlite.open_ledger(Path(location), clock=clock, read_only=read_only)


def require_ledger(location: str) -> None:
    """Refuse the path of a ledger that is not there; a database says itself what it lacks.

    Raises:
        LedgerError: there is no such file, or none that this user may see.
    """
    if "://" in location:
        return
    try:
        there = Path(location).is_file()
    except OSError as error:  # of a folder above it
        raise unreadable(location, error.errno or errno.EACCES) from None
    if not there:
        raise LedgerError(f"there is no ledger at {location} yet", hint="beatra-enrich run CONFIG makes it.")
