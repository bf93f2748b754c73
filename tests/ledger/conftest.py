"""What the tests of the ledger share: where it lies, and both kinds of it, opened as often as a test needs."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.helpers.ledgers import FakeClock, Opener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from enrich.ledger.protocol import Ledger
    from tests.helpers.ledgers import Open
    from tests.helpers.postgres import Server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a ledger that is not there yet."""
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock to turn."""
    return FakeClock()


@pytest.fixture(params=["sqlite", "postgres"])
async def another(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Opener]:
    """Open the same ledger as often as a test needs; closes them all."""
    kind = request.param
    if kind == "postgres":
        server: Server = request.getfixturevalue("postgres_server")
        kind = server.create(f"test_{uuid.uuid4().hex}")
    opener = Opener(kind, tmp_path, clock)
    yield opener
    for ledger in opener.opened:
        await ledger.close()


@pytest.fixture
def damage(another: Opener) -> Callable[[str], None]:
    """Give a way to change what the ledger holds behind its back."""

    def carry_out(statement: str) -> None:
        if another.kind == "sqlite":
            with contextlib.closing(sqlite3.connect(another.directory / "ledger.db")) as con, con:
                con.execute(statement)
        else:
            with psycopg.connect(another.kind, options="-c search_path=beatra") as connection:
                connection.execute(statement.encode())

    return carry_out


@pytest.fixture
async def ledger(another: Open) -> Ledger:
    """Give a ledger with an open run."""
    opened = await another()
    await opened.open_run({})
    return opened
