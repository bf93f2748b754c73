"""The embedded ledger's file: opened, brought up to date, and its errors put into words."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple

from enrich.base.descriptors import NONE_LEFT, RAISE_IT, no_descriptor_left
from enrich.base.locks import hold_folder
from enrich.errors import DiskFull, EnrichError, LedgerDamaged, LedgerError, LedgerFailing
from enrich.ledger.locks import RunLocks
from enrich.ledger.mounts import kernel_type, network_type, unreadable
from enrich.ledger.notes import add_checksums
from enrich.ledger.soundness import Voucher, problem
from enrich.ledger.sql import load_queries, statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SQL: Final = load_queries("sqlite.sql")
SCHEMAS: Final = (
    SQL["schema_1"],
    SQL["schema_2"],
    SQL["schema_3"],
)  # script n takes a ledger from version n - 1 to n
APPLICATION_ID: Final = 0x42656C31  # marks the file as a ledger of ours, in its header
BUSY_TIMEOUT: Final = 30.0  # seconds to wait for another process's commit
WRITER_CACHE: Final = 32_768  # KiB of pages: the index of keys of a million requests
READER_CACHE: Final = 16_384  # KiB of pages
CHECKPOINT_PAGES: Final = 4_000  # pages of 4 KiB in the WAL before they are written into the file


class Way(NamedTuple):
    """How SQLite opens the file: the options of its URI, and whether nothing is shared with others."""

    options: str
    alone: bool = False


WRITING: Final = Way("mode=rw")
READING: Final = Way("mode=ro")
UNCHANGING: Final = Way("mode=ro&immutable=1")  # its log is empty; no further file is looked for
_NO_LOCKS: Final = "win32-none" if os.name == "nt" else "unix-none"
UNSHARED: Final = Way(f"mode=ro&vfs={_NO_LOCKS}", alone=True)  # its log is read too, without locks


def open_file(path: Path, voucher: Voucher, now: float) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Give the writer and the reader of a ledger that is there, whole, and of this version.

    Args:
        path: the file.
        voucher: may know that it is whole.
        now: wall seconds since the epoch.
    """
    _must_be_on_a_disk(path)
    _must_be_local(path)
    with contextlib.ExitStack() as opened:
        try:
            with contextlib.ExitStack() as alone:
                _enter(path.parent, alone)
                whole = voucher.holds(now)
                _create(path)
                writer = opened.enter_context(contextlib.closing(_connect(path, WRITER_CACHE)))
                _migrate(writer, path, SCHEMAS)
                reader = opened.enter_context(contextlib.closing(_connect(path, READER_CACHE)))
            if not whole:
                _check(writer, path)
                voucher.checked(now)
            _clear_away(writer, RunLocks(path))
        except sqlite3.Error as error:
            raise explain(error, path) from error
        except UnicodeDecodeError:  # SQLite quotes the damaged schema in its message
            raise damaged(path) from None
        opened.pop_all()
    return writer, reader


def _must_be_on_a_disk(path: Path) -> None:
    if (kind := kernel_type(path)) is not None:
        raise LedgerError(
            f"the ledger {path} would lie among the system's own files ({kind})",
            hint="put it on a disk: `ledger: /folder/ledger.db`",
        )


def _must_be_local(path: Path) -> None:
    kind = network_type(path)
    if kind is not None:
        raise LedgerError(
            f"the ledger {path} lies on a file system that machines share ({kind}), where SQLite can lose answers",
            hint="put it on a local disk with `ledger: /folder/ledger.db`, or share one: `ledger: postgresql://…`",
        )


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Give a connection to a ledger that is there; nothing is made, locked or checked.

    One of an earlier release is brought up to date first.
    """
    _must_be_on_a_disk(path)
    with contextlib.ExitStack() as opened:
        try:
            way = _way_to_read(path)
            if way is READING:
                _bring_up_to_date(path)
            con = opened.enter_context(contextlib.closing(_connect(path, READER_CACHE, way)))
            _must_be_current(con, path)
        except sqlite3.Error as error:
            raise explain(error, path) from error
        opened.pop_all()
    return con


def _way_to_read(path: Path) -> Way:
    """Tell how to read a ledger: beside others, or as one in whose folder nothing can be made.

    What readers and writers share, SQLite keeps in files beside the ledger, and makes them where they are missing. It
    cannot in a folder that is read-only, where nobody is writing either.
    """
    try:
        with contextlib.closing(_connect(path, READER_CACHE, READING)) as con:
            _pragma(con, "user_version")
    except sqlite3.OperationalError as error:
        if code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or not os.access(
            path, os.R_OK
        ):
            raise
    else:
        return READING
    with contextlib.suppress(FileNotFoundError):
        if path.with_name(f"{path.name}-wal").stat().st_size:
            return UNSHARED
    return UNCHANGING


def _bring_up_to_date(path: Path) -> None:
    with contextlib.closing(_connect(path, READER_CACHE, READING)) as con:
        current = _pragma(con, "application_id") != APPLICATION_ID or not (
            0 < _pragma(con, "user_version") < len(SCHEMAS)
        )
    if not current:
        with contextlib.closing(_connect(path, READER_CACHE)) as con:
            _migrate(con, path, SCHEMAS)


def _must_be_current(con: sqlite3.Connection, path: Path) -> None:
    version = _pragma(con, "user_version")
    if version > len(SCHEMAS):
        raise _too_new(path, version, len(SCHEMAS))
    if version < len(SCHEMAS) or _pragma(con, "application_id") != APPLICATION_ID:
        raise LedgerError(f"{path} is no ledger of this version", hint="beatra-enrich run CONFIG makes one.")


def _enter(directory: Path, stack: contextlib.ExitStack) -> None:
    """Make a directory, readable by its owner only, and keep others from opening a ledger in it meanwhile."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(hold_folder(directory))
    except OSError as error:
        raise unwritable(directory, error) from None


def _create(path: Path) -> None:
    """Make the file, readable by its owner only; SQLite gives its side files the same mode.

    A file that is there is not opened: closing it would drop SQLite's own locks in this process.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise LedgerError(f"the ledger {path} is a directory", hint="name a file in it.") from None
    except OSError as error:
        raise unwritable(path, error) from None


def _connect(path: Path, cache: int, way: Way = WRITING) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{way.options}"
    con = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        if way.alone:
            con.execute("PRAGMA locking_mode = EXCLUSIVE")  # what would be shared is kept in memory
        _set(con, cache)
    except BaseException:  # the file may be damaged; nobody else knows of the connection yet
        con.close()
        raise
    return con


def _set(con: sqlite3.Connection, cache: int) -> None:
    con.text_factory = bytes  # damaged text must not keep the rest from being read
    for setting in (
        f"cache_size = -{cache}",
        "synchronous = FULL",
        "fullfsync = ON",  # macOS alone: to the disk itself, not to its cache
        "temp_store = MEMORY",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    ):
        con.execute(f"PRAGMA {setting}")


def _migrate(con: sqlite3.Connection, path: Path, schemas: Sequence[str]) -> None:
    """Bring a ledger to the newest version, one script after the other, all or none.

    Raises:
        LedgerError: it is of a newer version still, or no ledger of ours.
    """
    version = _pragma(con, "user_version")
    if version > len(schemas):
        raise _too_new(path, version, len(schemas))
    if (
        _pragma(con, "application_id") != APPLICATION_ID
        and con.execute("SELECT 1 FROM sqlite_master").fetchone()
    ):
        raise LedgerError(
            f"{path} is an SQLite database, but no ledger", hint="set `ledger:` to another file."
        )
    con.execute("PRAGMA journal_mode = WAL")
    if version < len(schemas):
        with con:
            con.execute("BEGIN IMMEDIATE")
            for script in schemas[version:]:
                for statement in statements(script):
                    con.execute(statement)
            add_checksums(lambda name, values=(): con.execute(SQL[name], values))
            con.execute(f"PRAGMA user_version = {len(schemas)}")
            con.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _too_new(path: Path, version: int, known: int) -> LedgerError:
    return LedgerError(
        f"the ledger {path} is of version {version}; this beatra-enrich knows {known}",
        hint="pip install --upgrade beatra-enrich",
    )


def _pragma(con: sqlite3.Connection, name: str) -> int:
    return int(con.execute(f"PRAGMA {name}").fetchone()[0])


def _clear_away(con: sqlite3.Connection, locks: RunLocks) -> None:
    """Remove the lock files of runs that died."""
    for (run,) in con.execute(SQL["open_runs"]).fetchall():
        if locks.path(run).exists():
            locks.is_alive(run)


def _check(con: sqlite3.Connection, path: Path) -> None:
    """Look for damage anywhere in the file.

    A damaged index would hide an answer that is paid for, so this comes before anything is looked up or sent.
    """
    found = problem(con, SCHEMAS)
    if found is not None:
        raise damaged(path, found)


# --- errors --------------------------------------------------------------------------------------------------


def code(error: sqlite3.Error) -> int:
    """Give SQLite's primary result code; 0 for an error of Python's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_full(error: sqlite3.Error) -> bool:
    """Say whether an error means that the disk, a quota or a limit on the file's size leaves no room."""
    extended = getattr(error, "sqlite_errorcode", 0)
    return extended in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


def explain(error: sqlite3.Error, path: Path, *, in_use: bool = False) -> EnrichError:
    """Turn an error of SQLite's into one a user can act on; one of a ledger in use stops the run."""
    kind = LedgerFailing if in_use else LedgerError
    if is_full(error):
        return no_room(path, str(error))
    match code(error):
        case sqlite3.SQLITE_NOTADB:
            return LedgerError(f"{path} is no ledger: {error}", hint="set `ledger:` to another file.")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_CONSTRAINT:
            return damaged(path, str(error))
        case sqlite3.SQLITE_BUSY:
            return kind(
                f"the ledger {path} was locked by another program for {BUSY_TIMEOUT:.0f} s",
                hint="close whatever has it open, then run the same command again.",
            )
        case sqlite3.SQLITE_CANTOPEN if _is_hidden(path):
            return unreadable(path, errno.EACCES)
        case _:
            why, mended = str(error), "its directory must be local and writable."
            if no_descriptor_left():  # SQLite does not say so
                why, mended = os.strerror(errno.EMFILE), RAISE_IT
            return kind(f"the ledger {path} cannot be used: {why}", hint=mended)


def _is_hidden(path: Path) -> bool:
    """Say whether this user may not read a file that is there, or may not even look for it."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.EACCES
    return not os.access(path, os.R_OK)


def no_room(path: Path, why: str) -> DiskFull:
    """Say that nothing more can be kept."""
    return DiskFull(
        f"the ledger {path} has no room left: {why}",
        hint="free some space, then run the same command again: what was paid for is kept.",
    )


def damaged(path: Path, why: str = "a page or a line cannot be read") -> LedgerDamaged:
    """Say that the file is not what was written."""
    return LedgerDamaged(
        f"the ledger {path} is damaged: {why}",
        hint=f"`beatra-enrich ledger verify {path}` says what is lost; `beatra-enrich ledger repair {path} -o NEW` gives"
        " back all that is not.",
    )


def unwritable(path: Path, error: OSError) -> LedgerError:
    """Say why a file or folder of the ledger's cannot be made."""
    mended = RAISE_IT if error.errno in NONE_LEFT else "set `ledger:` to a file in a directory of your own."
    return LedgerError(f"the ledger needs {path}, which cannot be written: {error.strerror}", hint=mended)
