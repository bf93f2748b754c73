"""The embedded ledger: one SQLite file in WAL mode, every commit on disk before it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from enrich.base.clock import Clock, SystemClock
from enrich.base.texts import json_bytes
from enrich.errors import DiskFull, EnrichError, LedgerError
from enrich.ledger import spending, sqlite_file
from enrich.ledger.checks import boot_number
from enrich.ledger.locks import RunLocks
from enrich.ledger.presence import Presence
from enrich.ledger.read_ahead import ReadAhead
from enrich.ledger.room import Room
from enrich.ledger.rows import told
from enrich.ledger.rules import unknown
from enrich.ledger.soundness import Voucher
from enrich.ledger.sql import statements
from enrich.ledger.sql_ledger import SqlLedger
from enrich.ledger.sqlite_file import SQL
from enrich.ledger.sqlite_transaction import SqliteTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from enrich.ledger.protocol import Claim
    from enrich.ledger.sqlite_transaction import AnswerLine
    from enrich.pace.purse import Reserving
    from enrich.records import Ask, Failure, Reply

    Work = Callable[[SqliteTransaction], Any] | AnswerLine

T = TypeVar("T")


async def open_ledger(
    path: str | Path, *, clock: Clock | None = None, read_only: bool = False
) -> SqliteLedger:
    """Open a ledger, or make a new one, readable by its owner only.

    Args:
        path: the database file; its directory is made when it is missing.
        clock: the machine's by default.
        read_only: open one that is there, and leave whoever works with it alone; nothing can be written then.

    Raises:
        LedgerError: it cannot be opened for writing, is damaged, is of a newer version, or is no ledger.
    """
    real = Path(
        await asyncio.to_thread(os.path.realpath, path)
    )  # of links that lead in a circle `resolve` makes a defect
    clock = clock or SystemClock()
    boot = boot_number(clock.boot_id())
    voucher = Voucher(real, boot)
    if read_only:
        reader = await asyncio.to_thread(sqlite_file.open_for_reading, real)
        return SqliteLedger(real, clock, boot, reader, reader, voucher=voucher)
    writer, reader = await asyncio.to_thread(sqlite_file.open_file, real, voucher, clock.wall())
    return SqliteLedger(real, clock, boot, writer, reader, voucher=voucher)


class SqliteLedger(SqlLedger[SqliteTransaction]):
    """A `Ledger` in one SQLite file; made by `open_ledger`."""

    _broken = (sqlite3.Error, TypeError, UnicodeDecodeError)  # SQLite quotes damaged text in its messages
    ahead = 64  # more would make a commit little cheaper per request, and leave more in doubt after a kill

    def __init__(
        self,
        path: Path,
        clock: Clock,
        boot: int,
        writer: sqlite3.Connection,
        reader: sqlite3.Connection,
        *,
        voucher: Voucher,
    ) -> None:
        self._path = path
        self._ahead = ReadAhead()
        self._voucher = voucher
        self._writer = writer
        self._reader = reader
        self._presence = Presence(path)
        self._room = Room(path)
        self._locks = RunLocks(path)
        super().__init__(clock, boot, self._ahead.find)

    # --- runs ----------------------------------------------------------------------------------------------

    async def open_run(self, info: dict[str, Any]) -> int:
        """Register a run, hold it alive until `close_run`, and set room aside; gives its number.

        Raises:
            DiskFull: there is no room to set aside.
        """
        self._must_be_closed()
        await asyncio.to_thread(self._room.set_aside)
        opening = functools.partial(self._open_run, json_bytes(info).decode())
        self._rules.run = await self._submit(opening)
        return self._rules.run

    async def close_run(self, summary: dict[str, Any]) -> None:
        """Mark the run ended."""
        await self._write("end_run", self._clock.wall(), json_bytes(summary).decode(), self._rules.run)
        self._rules.run = 0
        self._locks.release()

    async def beside(self) -> list[dict[str, Any]]:
        """Give what the other runs that are at work said of themselves as they were opened."""
        runs = await self._read(lambda tx: tx.run("beside", (self._rules.run,)).fetchall())
        return [told(info) or {} for run, info in runs if self._locks.is_alive(run)]

    async def close(self) -> None:
        """Write everything that is queued and close the file. A run that is still open counts as dead."""
        await self._commits.close()
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._reads.shutdown()
        if self._presence.lost:
            self._presence.rescue(self._writer)
        self._reader.close()
        self._writer.close()
        self._voucher.give()
        self._locks.release()

    async def version(self) -> str | None:
        """Name what the ledger holds; None where the file is not vouched for."""
        since = self._voucher.unbroken_since
        if since is None:
            return None
        counts = await self._read(lambda tx: tx.run("version").fetchone())
        return " ".join(map(str, (since, *counts)))

    # --- requests ------------------------------------------------------------------------------------------

    async def claim(
        self, asks: Sequence[Ask], *, resend_failed: bool = False, reserving: Reserving | None = None
    ) -> list[Claim]:
        """Make the intents durable and say for each ask whether this run may send it."""
        self._must_be_open()

        def work(tx: SqliteTransaction) -> list[Claim]:
            self._room.check()
            if reserving is not None:
                return spending.claim(self._rules, tx, asks, reserving, resend_failed=resend_failed)
            return self._rules.claim(tx, asks, resend_failed=resend_failed)

        return await self._submit(work)

    async def again(self, key: bytes, failure: Failure) -> int | None:
        """Log that an attempt failed, and that the next is about to be sent; gives its number, None if too old."""

        def work(tx: SqliteTransaction) -> int | None:
            if self._room.full:
                raise self._room.none_left()
            return self._rules.again(tx, key, failure)

        return await self._submit(work)

    async def answer(self, key: bytes, reply: Reply, *, within: float = 0.0) -> None:
        """Keep a raw answer. A second one to the same request changes nothing."""
        line = self._rules.answer_line(key, reply, self._clock.wall())
        await self._commits.submit(line, within=within)

    async def reject(self, key: bytes, failure: Failure, *, final: bool, answer: bytes | None = None) -> None:
        """Move an unusable answer into the log: the request is ``failed`` when ``final``, else ``sent``."""
        await super().reject(key, failure, final=final, answer=answer)
        self._ahead.forget()

    async def prune(self, older_than_s: float) -> int:
        """Forget requests that were answered or failed so many seconds ago; gives how many. Shrinks the file.

        What is ``sent`` stays. A forgotten request is asked, and paid for, anew when it turns up again.

        Raises:
            LedgerError: a run is using the ledger.
        """
        before = self._clock.wall() - older_than_s
        count = await self._submit(functools.partial(self._prune, before))
        self._ahead.forget()
        if count:
            with contextlib.suppress(DiskFull):  # they are forgotten all the same
                await self._read(_shrink)
        return count

    # --- in the writer's thread ----------------------------------------------------------------------------

    def _commit(self, works: Sequence[Work]) -> list[Any]:
        """Carry out all the work in one transaction; what cannot be carried out together is halved until it can."""
        try:
            results = self._transact(works)
            gone = self._presence.check()
            return results if gone is None else [gone for _ in works]
        except sqlite3.Error as error:
            if sqlite_file.is_full(error) and self._room.free():
                return self._commit(works)
            if len(works) == 1 or sqlite_file.code(error) == sqlite3.SQLITE_BUSY:
                return [self._explain(error) for _ in works]
        except UnicodeDecodeError:  # SQLite quotes what is damaged in its message
            return [self._damaged() for _ in works]
        half = len(works) // 2
        return [*self._commit(works[:half]), *self._commit(works[half:])]

    def _transact(self, works: Sequence[Work]) -> list[Any]:
        """Run one transaction. Work that raises one of our errors has written nothing and fails alone."""
        with self._writer as con:
            con.execute("BEGIN IMMEDIATE")
            tx = SqliteTransaction(con, self._locks)
            strange = tx.insert_answers([work for work in works if isinstance(work, tuple)])
            return [_carried_out(work, tx, strange) for work in works]

    def _open_run(self, info: str, tx: SqliteTransaction) -> int:
        (number,) = tx.run("next_run").fetchone()
        while not self._locks.hold(number):
            number += 1
        now = self._rules.now()
        tx.run("insert_run", (number, now.wall, now.boot, info))
        return int(number)

    def _prune(self, before: float, tx: SqliteTransaction) -> int:
        runs = [run for (run,) in tx.run("open_runs").fetchall()]
        alive = [run for run in runs if run == self._rules.run or tx.is_alive(run)]
        if alive:
            raise LedgerError(
                f"run {alive[0]} is using the ledger {self._path}", hint="prune it when the run has ended."
            )
        tx.run("prunable", {"before": before})
        (count,) = tx.connection.execute("SELECT count(*) FROM old").fetchone()
        for statement in statements(SQL["prune"]):
            tx.connection.execute(statement)
        return int(count)

    # --- in the reader's thread ----------------------------------------------------------------------------

    def _reading(self, work: Callable[[SqliteTransaction], T]) -> T:
        try:
            return work(SqliteTransaction(self._reader, self._locks))
        except sqlite3.Error as error:
            raise self._explain(error) from error
        except (
            TypeError,
            UnicodeDecodeError,
        ):  # a damaged line's columns change their types; SQLite quotes damage
            raise self._damaged() from None

    def _explain(self, error: sqlite3.Error) -> EnrichError:
        """Turn an error of SQLite's into ours; whatever may come of damage has the file checked before the next run."""
        if not sqlite_file.is_full(error) and sqlite_file.code(error) != sqlite3.SQLITE_BUSY:
            self._voucher.take_back()
        return sqlite_file.explain(error, self._path, in_use=True)

    def _damaged(self) -> EnrichError:
        self._voucher.take_back()
        return sqlite_file.damaged(self._path)

    def _structure(self, tx: SqliteTransaction) -> list[str]:
        found = tx.connection.execute("PRAGMA integrity_check")
        return [str(text, "utf-8", "replace") for (text,) in found if text != b"ok"]

    def _found(self, problems: Sequence[str]) -> None:
        if problems:
            self._voucher.take_back()


def _carried_out(work: Work, tx: SqliteTransaction, strange: set[bytes]) -> Any:
    """Give the result of a piece of work, or our error; answers are written already, but for those of no request."""
    try:
        if not isinstance(work, tuple):
            return work(tx)
        return unknown(work[-1]) if work[-1] in strange else None
    except EnrichError as error:
        return error


def _shrink(tx: SqliteTransaction) -> None:
    tx.connection.execute("VACUUM")
