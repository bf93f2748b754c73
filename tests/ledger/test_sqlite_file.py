"""The embedded ledger's file: what is one, what is none, and what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from enrich.errors import LedgerError
from enrich.ledger import sqlite_file
from enrich.ledger.sqlite import open_ledger
from tests.helpers.sqlite import (
    fill,
    make_ask,
    opened,
)


async def test_only_the_owner_can_read_what_is_kept(path: Path) -> None:
    """The directory, the database, its side files, the lock and the reserve are private."""
    async with opened(path) as ledger:
        await fill(ledger, [1])
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    names = {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.run-1", "ledger.db.reserve"}
    assert modes == dict.fromkeys(names, 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_closed_ledger_is_one_file_its_reserve_and_a_note(path: Path) -> None:
    """Neither locks nor write-ahead logs stay behind; what was written is in the file; a note says that it is whole."""
    async with opened(path) as ledger:
        asks = await fill(ledger, [1, 2])
        await ledger.close_run({})
    assert {file.name for file in path.parent.iterdir()} == {
        "ledger.db",
        "ledger.db.reserve",
        "ledger.db.whole",
    }
    async with opened(path, run=False) as ledger:
        assert len(await ledger.lookup([ask.key for ask in asks])) == 2


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Somebody else's file is named, and left as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are notes, not a ledger\n" * 200)
    with pytest.raises(LedgerError, match=r"notes\.txt is no ledger.*\nHint: set `ledger:`"):
        await open_ledger(path)
    assert path.read_bytes() == b"these are notes, not a ledger\n" * 200


async def test_a_file_that_cannot_be_opened_is_let_go_of(tmp_path: Path) -> None:
    """The connection is closed at once, not when the error is forgotten."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are notes, not a ledger\n" * 200)
    with pytest.raises(LedgerError) as kept:
        await open_ledger(path)
    held = await asyncio.to_thread(_open_files)
    assert kept.value.__traceback__ is not None
    assert path not in held


def _open_files() -> list[Path]:
    """Give what this process has open."""
    return [link.resolve() for link in Path("/proc/self/fd").iterdir()]


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """An SQLite file that holds other tables is left alone."""
    path = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute("CREATE TABLE users (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="no ledger"):
        await open_ledger(path)
    assert path.read_bytes() == before


async def test_a_newer_ledger_is_refused(path: Path) -> None:
    """A ledger from a later release is not touched; the hint says how to get that release."""
    async with opened(path, run=False):
        pass
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match=r"version 99.*\nHint: pip install --upgrade"):
        await open_ledger(path)


async def test_an_older_ledger_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further schema script is run once, over what is there."""
    async with opened(path) as ledger:
        asks = await fill(ledger, [1])
    newer = (*sqlite_file.SCHEMAS, "ALTER TABLE run ADD COLUMN note TEXT; -- why\nCREATE TABLE extra (x)")
    monkeypatch.setattr(sqlite_file, "SCHEMAS", newer)
    for _ in range(2):
        async with opened(path) as ledger:
            assert len(await ledger.lookup([asks[0].key])) == 1
    with contextlib.closing(sqlite3.connect(path)) as con:
        assert con.execute("PRAGMA user_version").fetchone() == (len(newer),)
        assert con.execute("SELECT count(*) FROM extra").fetchone() == (0,)


async def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger is brought up to date whole or not at all."""
    async with opened(path, run=False):
        pass
    monkeypatch.setattr(
        sqlite_file, "SCHEMAS", (*sqlite_file.SCHEMAS, "CREATE TABLE extra (x); CREATE TABLE run (x)")
    )
    with pytest.raises(LedgerError, match="cannot be used"):
        await open_ledger(path)
    with contextlib.closing(sqlite3.connect(path)) as con:
        assert con.execute("PRAGMA user_version").fetchone() == (len(sqlite_file.SCHEMAS) - 1,)
        assert con.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)


@pytest.mark.parametrize(
    "place", ["/proc/ledger.db", "/proc/none/ledger.db", "{tmp}", "{tmp}/file/ledger.db"]
)
async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    """Whatever keeps the file from being made, the message names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="ledger"):
        await open_ledger(place.format(tmp=tmp_path))


async def test_a_locked_ledger_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that sits on the file is waited for, then named as the cause."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.05)
    async with opened(path) as ledger:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as con:
            con.execute("BEGIN IMMEDIATE")
            results = await asyncio.gather(
                ledger.claim([make_ask(1)]), ledger.remember("a", {}), return_exceptions=True
            )
        assert all(isinstance(result, LedgerError) for result in results)
        assert "locked by another program" in str(results[0])
        assert [c.verdict for c in await ledger.claim([make_ask(1)])] == ["mine"]


async def test_tables_that_are_not_a_ledgers_are_refused(path: Path) -> None:
    """A damaged or changed schema is found, not stumbled over."""
    async with opened(path, run=False):
        pass
    with contextlib.closing(sqlite3.connect(path)) as con, con:
        con.execute("ALTER TABLE run RENAME COLUMN info TO inf0")
    with pytest.raises(LedgerError, match="damaged: its tables"):
        await open_ledger(path)


async def test_a_ledger_made_when_a_comment_read_otherwise_is_one(path: Path) -> None:
    """What a release says of its tables, beside the tables, is no part of them."""
    async with opened(path, run=False):
        pass
    with contextlib.closing(sqlite3.connect(path)) as con, con:
        con.execute("PRAGMA writable_schema = ON")
        changed = con.execute(
            "UPDATE sqlite_master SET sql = replace(sql, '-- JSON', '-- some\n   -- JSON ')"
        )
        assert changed.rowcount
    async with opened(path) as ledger:
        assert (await ledger.verify()).sound
