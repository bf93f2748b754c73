"""Where the shared ledger is: connections, a database that went away, its tables made and brought up to date."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from typing import Any, Final

from enrich.base.clock import SystemClock
from enrich.config.ledger_url import without_password
from enrich.errors import ConfigError, LedgerError, LedgerFailing
from enrich.ledger.notes import add_checksums
from enrich.ledger.sql import load_queries

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError:
    raise ConfigError(
        "a ledger on PostgreSQL needs psycopg", hint="pip install 'beatra-enrich[postgres]'"
    ) from None

Connection = psycopg.Connection[tuple[Any, ...]]

SQL: Final = load_queries("postgres.sql")
# Script n takes a ledger from version n - 1 to n.
SCHEMAS: Final = tuple(SQL[f"schema_{number}"] for number in range(1, 7))
DATABASE_PATIENCE: Final = 300.0  # seconds that a lost database is waited for
RECONNECT_EVERY: Final = 1.0  # seconds between tries
DATABASE_TIMEOUT: Final = 10  # seconds
UNHEARD: Final = (
    30_000  # milliseconds after which a network that drops everything counts as lost, not as slow
)
MIGRATION_LOCK: Final = 0x42656C31  # the advisory lock under which the tables are made
IS_IT_UP: Final = "check the `ledger` URL and that the database is up, then run the same command again."
POOLER_TRIES: Final = 5  # statements of each connection, by which a pooler shows its mode
MOVED_ON: Final = (
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedTable,
)  # what an open ledger raises where its tables are of another version by now
RIGHTS: Final = (
    "whoever makes the tables needs CREATE on the database; whoever uses them needs USAGE on the schema beatra,"
    " and SELECT, INSERT, UPDATE and DELETE on its tables."
)

log = logging.getLogger("enrich")


@functools.cache
def query(name: str) -> bytes:
    """Give a named query as psycopg takes it."""
    return SQL[name].encode()


class Database:
    """Where a ledger is, and how long it has been away: the connections of one ledger lose it together.

    Raises:
        LedgerError: the URL cannot be taken apart.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._secrets = _secrets(url)
        self._lost: float | None = None  # monotonic seconds when the first connection lost it

    def __str__(self) -> str:
        return without_password(self._url)

    def connect(self) -> Connection:
        """Open a connection.

        What a session needs is set by a statement, since poolers refuse it where a connection begins.
        """
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=DATABASE_TIMEOUT,
            application_name="beatra-enrich",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=UNHEARD,
        )
        with contextlib.ExitStack() as opened:
            opened.callback(connection.close)
            connection.execute(query("session"))
            opened.pop_all()
        return connection

    def connect_again(self, lost: psycopg.Error) -> Connection:
        """Wait for a database that was lost, in all connections together no longer than `DATABASE_PATIENCE`.

        Raises:
            LedgerFailing: it stayed away.
        """
        told = self._lost is not None
        since = self._lost = self._lost or time.monotonic()
        while True:
            try:
                connection = self.connect()
            except psycopg.OperationalError as error:
                if time.monotonic() - since > DATABASE_PATIENCE:
                    raise self.explain(error, in_use=True) from None
                lost = error
            else:
                self._lost = None
                return connection
            if not told:
                told = True
                log.warning("the ledger %s is away, and waited for: %s", self, self._said(lost))
            time.sleep(RECONNECT_EVERY)

    def explain(self, error: psycopg.Error, *, in_use: bool = False) -> LedgerError:
        """Put a database's error into words, never the password; one of a ledger in use stops the run."""
        kind = LedgerFailing if in_use else LedgerError
        if isinstance(error, MOVED_ON):
            what = f"a later beatra-enrich has brought the tables of the ledger {self} up to date"
            return kind(f"{what}: {self._said(error)}", hint="pip install --upgrade beatra-enrich")
        hint = RIGHTS if isinstance(error, psycopg.errors.InsufficientPrivilege) else IS_IT_UP
        return kind(f"the ledger {self} cannot be used: {self._said(error)}", hint=hint)

    def _said(self, error: psycopg.Error) -> str:
        """Give what a database said, on one line, without any password."""
        what = " ".join(str(error).split()) or type(error).__name__
        for secret in self._secrets:
            what = what.replace(secret, "…")
        return what[:500]


def _secrets(url: str) -> list[str]:
    """Give the passwords in a URL.

    Raises:
        LedgerError: libpq cannot take it apart, or not as it was meant.
    """
    shown = without_password(url)
    with contextlib.suppress(psycopg.ProgrammingError):
        parts = conninfo_to_dict(url)
        if not shown.endswith("://…"):
            return [str(value) for name, value in parts.items() if "password" in name and value]
    raise LedgerError(
        f"the ledger's URL {shown} cannot be taken apart",
        hint="write postgresql://user@host:port/database. In a password / is written %2F, @ is %40, and % is %25;"
        " or leave it out and set PGPASSWORD.",
    )


def open_both(database: Database, *, make: bool) -> tuple[Connection, Connection]:
    """Open a connection that writes and one that reads, the tables made or brought up to date.

    Raises:
        LedgerError: the database cannot hold a ledger, has none and none is to be made, or one of a newer version; or it
            is reached through a pooler that hands a session around.
    """
    with contextlib.ExitStack() as opened:
        writer = opened.enter_context(contextlib.closing(database.connect()))
        reader = opened.enter_context(contextlib.closing(database.connect()))
        _check_pooler(database, writer, reader)
        encoding = writer.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise LedgerError(
                f"the database {database} has the encoding {encoding}, which cannot hold every text",
                hint="CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
            )
        version = _version(writer)
        if not (version or make):
            raise LedgerError(
                f"there is no ledger in {database} yet", hint="beatra-enrich run CONFIG makes it."
            )
        if version != len(SCHEMAS):
            migrate(writer)
        opened.pop_all()
    return writer, reader


def _check_pooler(database: Database, one: Connection, other: Connection) -> None:
    """Refuse a pooler in transaction mode: there what one connection sets is another's, and prepared statements go astray.

    It gives two connections, one after the other, the same session; the server never does, nor a pooler in session mode.

    Raises:
        LedgerError: there is one.
    """
    if one.info.backend_pid == _session(one):
        return  # no pooler stands in between
    of_one, of_other = set(), set()
    for _ in range(POOLER_TRIES):
        of_one.add(_session(one))
        of_other.add(_session(other))
    if len(of_one) == len(of_other) == 1 and of_one != of_other:
        return
    for connection in (one, other):
        connection.execute(b"RESET ALL")  # others get these sessions next
    raise LedgerError(
        f"the ledger {database} is reached through a pooler in transaction mode, which keeps nothing that a connection sets",
        hint="set pool_mode = session for this database in PgBouncer, or name the port of the database itself.",
    )


def _session(connection: Connection) -> int:
    row = connection.execute(b"SELECT pg_backend_pid()", prepare=False).fetchone()
    return int(row[0]) if row else 0


def _version(connection: Connection) -> int:
    """Give the version of the ledger's tables; 0 when there are none."""
    ((_, made),) = connection.execute(query("made")).fetchall()
    row = connection.execute(query("version")).fetchone() if made else None
    return int(row[0]) if row else 0


def migrate(connection: Connection) -> None:
    """Make the tables, or bring them up to date, one process at a time.

    Raises:
        LedgerError: they are of a newer version, or a run of an earlier release is at work with them.
    """
    with connection.transaction():
        connection.execute(b"SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        version = _version(connection)
        if version > len(SCHEMAS):
            raise LedgerError(
                f"the ledger's tables have version {version}; this program knows up to {len(SCHEMAS)}",
                hint="pip install --upgrade beatra-enrich",
            )
        at_work = connection.execute(query("at_work")).fetchone() if 0 < version < len(SCHEMAS) else None
        if at_work is not None:
            raise LedgerError(
                f"run {at_work[0]} of an earlier beatra-enrich is at work with the ledger, whose tables are to be changed",
                hint="wait until it has ended, or end it, then run the same command again.",
            )
        ((schema, made),) = connection.execute(
            query("made")
        ).fetchall()  # what is cached by name may be out of date
        if not schema:
            connection.execute(b"CREATE SCHEMA beatra")
        if not made:
            connection.execute(b"CREATE TABLE beatra.version (number INTEGER NOT NULL)")
        for script in SCHEMAS[version:]:
            connection.execute(script.encode())
        add_checksums(lambda name, values=(): connection.execute(query(name), values, binary=True))
        connection.execute(b"DELETE FROM beatra.version")
        connection.execute(b"INSERT INTO beatra.version VALUES (%s)", (len(SCHEMAS),))


class DatabaseClock(SystemClock):
    """The machine's clocks, but that the time of day is the database's: machines may differ by minutes."""

    def __init__(self, connection: Connection) -> None:
        before = super().wall()
        ((now,),) = connection.execute(query("now")).fetchall()
        self._ahead: float = now - (before + super().wall()) / 2

    def wall(self) -> float:
        """Give the seconds since the epoch by the database's clock."""
        return super().wall() + self._ahead
