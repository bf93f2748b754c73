"""The embedded ledger: one SQLite file in WAL mode, every commit on disk before it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import orjson

from enrich.base.clock import Clock, SystemClock
from enrich.errors import DiskFull, EnrichError, LedgerError
from enrich.ledger import sqlite_file
from enrich.ledger.checks import boot_number
from enrich.ledger.commit import GroupCommit
from enrich.ledger.locks import RunLocks
from enrich.ledger.protocol import Claim, Entry, RunInfo, Totals, VerifyReport
from enrich.ledger.read_ahead import ReadAhead
from enrich.ledger.rows import RELEASED, SKIPPED
from enrich.ledger.rules import KEY, Rules, unknown
from enrich.ledger.soundness import Voucher
from enrich.ledger.sql import statements
from enrich.ledger.sqlite_file import SQL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from enrich.records import Ask, Failure, Record, Reply

    AnswerLine = tuple[Any, ...]  # as `Rules.answer_line` gives it
    Work = Callable[["SqliteTransaction"], Any] | AnswerLine
    Values = Mapping[str, Any] | Sequence[Any]

RESERVE_BYTES: Final = 1 << 20  # freed when the disk is full, so that answers in flight still find room
LOW_WATER: Final = 16 << 20  # bytes free on the disk below which nothing new is sent
IN_LIST_SIZES: Final = (1, 16, 128, 512)  # values per statement; few sizes keep every statement prepared
INSERT_SIZES: Final = (64, 16, 4, 1)  # lines per statement, likewise
SCAN_BATCH: Final = 256  # requests per step of a scan

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
    real = await asyncio.to_thread(Path(path).resolve)
    clock = clock or SystemClock()
    boot = boot_number(clock.boot_id())
    voucher = Voucher(real, boot)
    if read_only:
        reader = await asyncio.to_thread(sqlite_file.open_for_reading, real)
        return SqliteLedger(real, clock, boot, reader, reader, voucher=voucher)
    writer, reader = await asyncio.to_thread(sqlite_file.open_file, real, voucher, clock.wall())
    return SqliteLedger(real, clock, boot, writer, reader, voucher=voucher)


class SqliteLedger:
    """A `Ledger` in one SQLite file; made by `open_ledger`. It belongs to the event loop that opened it."""

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
        self._clock = clock
        self._boot = boot
        self._ahead = ReadAhead()
        self._rules = Rules(clock, boot, self._ahead.find)
        self._voucher = voucher
        self._writer = writer
        self._reader = reader
        self._reserve = path.with_name(f"{path.name}.reserve")
        self._locks = RunLocks(path)
        self._full = False
        self._commits: GroupCommit[Work] = GroupCommit(self._commit, "ledger-writer")
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")

    # --- runs ----------------------------------------------------------------------------------------------

    async def open_run(self, info: dict[str, Any]) -> int:
        """Register a run, hold it alive until `close_run`, and set room aside; gives its number.

        Raises:
            DiskFull: there is no room to set aside.
        """
        if self._rules.run:
            raise RuntimeError(f"run {self._rules.run} is still open")
        await asyncio.to_thread(self._set_room_aside)
        self._full = False
        self._rules.run = await self._commits.submit(
            functools.partial(self._open_run, orjson.dumps(info).decode())
        )
        return self._rules.run

    async def close_run(self, summary: dict[str, Any]) -> None:
        """Mark the run ended."""
        await self._write("end_run", self._clock.wall(), orjson.dumps(summary).decode(), self._rules.run)
        self._rules.run = 0
        self._locks.release()

    async def beside(self) -> list[dict[str, Any]]:
        """Give what the other runs that are at work said of themselves as they were opened."""
        runs = await self._read(lambda tx: tx.run("beside", (self._rules.run,)).fetchall())
        return [orjson.loads(info) for run, info in runs if self._locks.is_alive(run)]

    async def last_run(self) -> RunInfo | None:
        """Give the newest run that ended."""
        row = await self._read(lambda tx: tx.run("last_run").fetchone())
        if not row:
            return None
        number, started_at, ended_at, summary = row
        return RunInfo(number, started_at, ended_at, orjson.loads(summary))

    async def close(self) -> None:
        """Write everything that is queued and close the file. A run that is still open counts as dead."""
        await self._commits.close()
        await asyncio.to_thread(self._shut)

    # --- requests ------------------------------------------------------------------------------------------

    async def lookup(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        """Give what is known of these keys; unknown ones are absent."""
        return await self._read(lambda tx: self._rules.lookup(tx, keys))

    async def lookup_question(self, questions: Sequence[bytes]) -> dict[bytes, list[Record]]:
        """Give the answered requests per question, oldest first."""
        return await self._read(lambda tx: self._rules.lookup_question(tx, questions))

    async def claim(self, asks: Sequence[Ask], *, resend_failed: bool = False) -> list[Claim]:
        """Make the intents durable and say for each ask whether this run may send it."""
        if not self._rules.run:
            raise RuntimeError("claims need an open run")

        def work(tx: SqliteTransaction) -> list[Claim]:
            self._check_room()
            return self._rules.claim(tx, asks, resend_failed=resend_failed)

        return await self._submit(work)

    async def again(self, key: bytes, failure: Failure) -> int | None:
        """Log that an attempt failed, and that the next is about to be sent; gives its number, None if too old."""

        def work(tx: SqliteTransaction) -> int | None:
            if self._full:
                raise self._disk_full()
            return self._rules.again(tx, key, failure)

        return await self._submit(work)

    async def answer(self, key: bytes, reply: Reply) -> None:
        """Keep a raw answer. A second one to the same request changes nothing."""
        await self._commits.submit(self._rules.answer_line(key, reply, self._clock.wall()))

    async def reject(self, key: bytes, failure: Failure, *, final: bool, answer: bytes | None = None) -> None:
        """Move an unusable answer into the log: the request is ``failed`` when ``final``, else ``sent``."""
        await self._submit(lambda tx: self._rules.reject(tx, key, failure, final=final, answer=answer))
        self._ahead.forget()

    async def fail(self, key: bytes, failure: Failure, *, final: bool) -> None:
        """Log the last failure. ``final``: the request is ``failed``; else it stays ``sent`` (unknown outcome)."""
        await self._submit(lambda tx: self._rules.fail(tx, key, failure, final=final))

    async def withdraw(self, keys: Iterable[bytes]) -> None:
        """Undo claims of this run whose latest attempt never left this machine, or was refused."""
        withdrawn = list(keys)
        await self._submit(lambda tx: self._rules.withdraw(tx, withdrawn))

    async def settle_doubt(self, keys: Sequence[bytes], how: Literal["resend", "skip"]) -> int:
        """Carry out the operator's decision on requests in doubt; gives how many it touched."""
        state = RELEASED if how == "resend" else SKIPPED
        return await self._submit(lambda tx: self._rules.settle_doubt(tx, keys, state))

    # --- small things remembered ---------------------------------------------------------------------------

    async def generation(self, step: bytes, *, bump: bool = False) -> int:
        """Give how often ``--fresh`` was asked for this step; ``bump`` counts one more."""
        if bump:
            await self._write("bump_generation", step)
        row = await self._read(lambda tx: tx.run("generation", (step,)).fetchone())
        return row[0] if row else 0

    async def recall(self, name: str) -> dict[str, Any] | None:
        """Give what was remembered under a name."""
        row = await self._read(lambda tx: tx.run("recall", (name,)).fetchone())
        return orjson.loads(row[0]) if row else None

    async def remember(self, name: str, value: dict[str, Any]) -> None:
        """Keep a small value for the next run."""
        await self._write("remember", name, orjson.dumps(value).decode())

    # --- looking after the file ----------------------------------------------------------------------------

    async def totals(self) -> Totals:
        """Count the requests per state."""
        return await self._read(self._rules.totals)

    async def scan(self, batch: int = SCAN_BATCH) -> AsyncIterator[list[Entry]]:
        """Give everything the ledger holds, oldest first, so many requests at a time."""
        last = 0
        while True:
            last, entries = await self._read(functools.partial(self._rules.page, after=last, limit=batch))
            if not entries:
                return
            yield entries

    async def verify(self) -> VerifyReport:
        """Check the whole file: SQLite's own structures, every checksum, every key there once."""
        return await self._read(self._verify)

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

    async def _submit(self, work: Callable[[SqliteTransaction], T]) -> T:
        result: T = await self._commits.submit(work)
        return result

    async def _write(self, name: str, *values: Any) -> None:
        await self._commits.submit(lambda tx: tx.run(name, values).rowcount)

    def _commit(self, works: Sequence[Work]) -> list[Any]:
        """Carry out all the work in one transaction; what cannot be carried out together is halved until it can."""
        try:
            return self._transact(works)
        except sqlite3.Error as error:
            if sqlite_file.is_full(error) and self._make_room():
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

    # --- room on the disk ----------------------------------------------------------------------------------

    def _set_room_aside(self) -> None:
        """Write the reserve. Random bytes take their room on every file system, compressed or sparse."""
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(RESERVE_BYTES))
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            raise self._disk_full(error.strerror) from None

    def _make_room(self) -> bool:
        """Stop claims and free the reserve; False when it was freed before."""
        self._full = True
        try:
            self._reserve.unlink()
        except FileNotFoundError:
            return False
        return True

    def _check_room(self) -> None:
        disk = os.statvfs(self._path.parent)
        if self._full or disk.f_bavail * disk.f_frsize < LOW_WATER:
            raise self._disk_full()

    def _disk_full(self, why: str | None = None) -> DiskFull:
        return sqlite_file.no_room(self._path, why or "the disk is full")

    # --- in the reader's thread ----------------------------------------------------------------------------

    async def _read(self, work: Callable[[SqliteTransaction], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._reading, work)

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

    def _verify(self, tx: SqliteTransaction) -> VerifyReport:
        problems: list[str] = []
        damaged: dict[str, list[bytes]] = {"request": [], "answer": []}
        requests = answers = 0
        try:
            found = tx.connection.execute("PRAGMA integrity_check")
            problems += [text.decode() for (text,) in found if text != b"ok"]
            requests, answers = tx.run("count").fetchone()
            problems += self._rules.contradictions(tx)
            for entry in self._entries(tx):
                for part in entry.damaged:
                    damaged[part].append(entry.ask.key)
        except (sqlite3.Error, TypeError, UnicodeDecodeError) as error:
            problems.append(str(error).partition("\n")[0])
        if problems:
            self._voucher.take_back()
        return VerifyReport(
            requests, answers, tuple(problems), tuple(damaged["request"]), tuple(damaged["answer"])
        )

    def _entries(self, tx: SqliteTransaction) -> Iterator[Entry]:
        last, entries = self._rules.page(tx, after=0, limit=SCAN_BATCH)
        while entries:
            yield from entries
            last, entries = self._rules.page(tx, after=last, limit=SCAN_BATCH)

    def _shut(self) -> None:
        self._reads.shutdown()
        self._reader.close()
        self._writer.close()
        self._voucher.give()
        self._locks.release()


class SqliteTransaction:
    """The queries of ``sqlite.sql`` on one connection."""

    __slots__ = ("_locks", "connection")

    def __init__(self, connection: sqlite3.Connection, locks: RunLocks) -> None:
        self.connection = connection
        self._locks = locks

    def run(self, name: str, values: Values = ()) -> sqlite3.Cursor:
        """Run a query once."""
        return self.connection.execute(SQL[name], values)

    def many(self, name: str, values: Sequence[Sequence[Any]]) -> int:
        """Run a query for each of these; gives how many lines it touched."""
        return self.connection.executemany(SQL[name], values).rowcount

    def select(self, name: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a query over a list of any length, in statements of a few sizes filled up with NULL."""
        lines: list[tuple[Any, ...]] = []
        for start in range(0, len(values), IN_LIST_SIZES[-1]):
            chunk = values[start : start + IN_LIST_SIZES[-1]]
            size = next(size for size in IN_LIST_SIZES if size >= len(chunk))
            lines += self.connection.execute(_in_list(name, size), [*chunk, *[None] * (size - len(chunk))])
        return lines

    def insert_requests(self, lines: Sequence[tuple[Any, ...]]) -> set[bytes]:
        """Write down new requests; gives the keys that were new."""
        (last,) = self.run("last_request").fetchone()
        if self._insert("insert_request", lines) == len(lines):
            return {line[KEY] for line in lines}
        return {key for (key,) in self.run("keys_since", (last,))}

    def insert_answers(self, lines: Sequence[AnswerLine]) -> set[bytes]:
        """Write down answers, leaving those that are there alone; gives the keys of no request."""
        if self._insert("insert_answer", lines) == len(lines):
            return set()
        keys = {line[-1] for line in lines}
        return {key for key in keys if self.run("has_request", (key,)).fetchone() is None}

    def _insert(self, name: str, lines: Sequence[tuple[Any, ...]]) -> int:
        """Insert lines, many in one statement; gives how many were new. Each statement is a turn with Python's lock."""
        count = start = 0
        while start < len(lines):
            size = next(size for size in INSERT_SIZES if size <= len(lines) - start)
            values = list(itertools.chain.from_iterable(lines[start : start + size]))
            count += self.connection.execute(_rows(name, size, len(lines[0])), values).rowcount
            start += size
        return count

    def is_alive(self, run: int) -> bool:
        """Say whether another process holds a run's lock."""
        return self._locks.is_alive(run)


def _carried_out(work: Work, tx: SqliteTransaction, strange: set[bytes]) -> Any:
    """Give the result of a piece of work, or our error; answers are written already, but for those of no request."""
    try:
        if not isinstance(work, tuple):
            return work(tx)
        return unknown(work[-1]) if work[-1] in strange else None
    except EnrichError as error:
        return error


@functools.cache
def _rows(name: str, size: int, width: int) -> str:
    row = f"({','.join('?' * width)})"
    return SQL[name].replace(":rows", ",".join([row] * size))


@functools.cache
def _in_list(name: str, size: int) -> str:
    return SQL[name].replace(":list", ",".join("?" * size))


def _shrink(tx: SqliteTransaction) -> None:
    tx.connection.execute("VACUUM")
