"""The embedded ledger: one SQLite file in WAL mode, every commit on disk before it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar

import orjson

from enrich.clock import Clock, SystemClock
from enrich.errors import DiskFull, EnrichError, LedgerError
from enrich.ledger import rows, sqlite_file
from enrich.ledger.checks import Moment, answer_crc, boot_number, request_crc
from enrich.ledger.commit import GroupCommit
from enrich.ledger.locks import RunLocks
from enrich.ledger.protocol import Claim, Entry, RunInfo, Totals, VerifyReport, attempt_uuid
from enrich.ledger.rows import FAILED, RELEASED, SENT, SKIPPED, Row
from enrich.ledger.sql import statements
from enrich.ledger.sqlite_file import SQL
from enrich.records import Ask, Failure, Record, Reply, key_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    Work = Callable[[sqlite3.Connection], Any]
    Values = Mapping[str, Any] | Sequence[Any]

KNOWN_KEYS: Final = f"{SQL['known']} {SQL['by_keys']}"
KNOWN_QUESTIONS: Final = f"{SQL['known']} {SQL['by_questions']}"
RESERVE_BYTES: Final = 1 << 20  # freed when the disk is full, so that answers in flight still find room
LOW_WATER: Final = 16 << 20  # bytes free on the disk below which nothing new is sent
IN_LIST_SIZES: Final = (1, 16, 128, 512)  # values per statement; few sizes keep every statement prepared
SCAN_BATCH: Final = 256  # requests per step of a scan

T = TypeVar("T")


async def open_ledger(path: str | Path, *, clock: Clock | None = None) -> SqliteLedger:
    """Open a ledger, or make a new one, readable by its owner only.

    Args:
        path: the database file; its directory is made when it is missing.
        clock: the machine's by default.

    Raises:
        LedgerError: it cannot be opened for writing, is damaged, is of a newer version, or is no ledger.
    """
    real = await asyncio.to_thread(Path(path).resolve)
    clock = clock or SystemClock()
    boot = boot_number(clock.boot_id())
    writer, reader = await asyncio.to_thread(sqlite_file.open_file, real, boot)
    return SqliteLedger(real, clock, boot, writer, reader)


class SqliteLedger:
    """A `Ledger` in one SQLite file; made by `open_ledger`. It belongs to the event loop that opened it."""

    def __init__(
        self, path: Path, clock: Clock, boot: int, writer: sqlite3.Connection, reader: sqlite3.Connection
    ) -> None:
        self._path = path
        self._clock = clock
        self._boot = boot
        self._writer = writer
        self._reader = reader
        self._reserve = path.with_name(f"{path.name}.reserve")
        self._locks = RunLocks(path)
        self._run = 0  # the number of the open run; 0 without one
        self._full = False
        self._commits: GroupCommit[Work] = GroupCommit(self._commit, "ledger-writer")
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")

    # --- runs ----------------------------------------------------------------------------------------------

    async def open_run(self, info: dict[str, Any]) -> int:
        """Register a run, hold it alive until `close_run`, and set room aside; gives its number.

        Raises:
            DiskFull: there is no room to set aside.
        """
        if self._run:
            raise RuntimeError(f"run {self._run} is still open")
        await asyncio.to_thread(self._set_room_aside)
        self._full = False
        self._run = await self._commits.submit(functools.partial(self._open_run, orjson.dumps(info).decode()))
        return self._run

    async def close_run(self, summary: dict[str, Any]) -> None:
        """Mark the run ended."""
        await self._write("end_run", self._clock.wall(), orjson.dumps(summary).decode(), self._run)
        self._run = 0
        self._locks.release()

    async def last_run(self) -> RunInfo | None:
        """Give the newest run that ended."""
        row = await self._read(lambda con: _execute(con, "last_run").fetchone())
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
        return await self._read(functools.partial(self._lookup, keys))

    async def lookup_question(self, questions: Sequence[bytes]) -> dict[bytes, list[Record]]:
        """Give the answered requests per question, oldest first."""
        return await self._read(functools.partial(self._lookup_question, questions))

    async def claim(self, asks: Sequence[Ask], *, resend_failed: bool = False) -> list[Claim]:
        """Make the intents durable and say for each ask whether this run may send it."""
        if not self._run:
            raise RuntimeError("claims need an open run")
        return await self._submit(functools.partial(self._claim, asks, resend_failed=resend_failed))

    async def again(self, key: bytes, failure: Failure) -> int | None:
        """Log that an attempt failed, and that the next is about to be sent; gives its number, None if too old."""
        return await self._submit(functools.partial(self._again, key, failure))

    async def answer(self, key: bytes, reply: Reply) -> None:
        """Keep a raw answer. A second one to the same request changes nothing."""
        await self._commits.submit(functools.partial(self._answer, key, reply, self._clock.wall()))

    async def reject(self, key: bytes, failure: Failure, *, final: bool) -> None:
        """Move an unusable answer into the log: the request is ``failed`` when ``final``, else ``sent``."""
        await self._commits.submit(functools.partial(self._fail, key, failure, final=final, reject=True))

    async def fail(self, key: bytes, failure: Failure, *, final: bool) -> None:
        """Log the last failure. ``final``: the request is ``failed``; else it stays ``sent`` (unknown outcome)."""
        await self._commits.submit(functools.partial(self._fail, key, failure, final=final, reject=False))

    async def withdraw(self, keys: Iterable[bytes]) -> None:
        """Undo claims of this run whose latest attempt never left this machine, or was refused."""
        await self._commits.submit(functools.partial(self._withdraw, [(key, self._run) for key in keys]))

    async def settle_doubt(self, keys: Sequence[bytes], how: Literal["resend", "skip"]) -> int:
        """Carry out the operator's decision on requests in doubt; gives how many it touched."""
        return await self._submit(
            functools.partial(self._settle_doubt, keys, RELEASED if how == "resend" else SKIPPED)
        )

    # --- small things remembered ---------------------------------------------------------------------------

    async def generation(self, step: bytes, *, bump: bool = False) -> int:
        """Give how often ``--fresh`` was asked for this step; ``bump`` counts one more."""
        if bump:
            await self._write("bump_generation", step)
        row = await self._read(lambda con: _execute(con, "generation", (step,)).fetchone())
        return row[0] if row else 0

    async def recall(self, name: str) -> dict[str, Any] | None:
        """Give what was remembered under a name."""
        row = await self._read(lambda con: _execute(con, "recall", (name,)).fetchone())
        return orjson.loads(row[0]) if row else None

    async def remember(self, name: str, value: dict[str, Any]) -> None:
        """Keep a small value for the next run."""
        await self._write("remember", name, orjson.dumps(value).decode())

    # --- looking after the file ----------------------------------------------------------------------------

    async def totals(self) -> Totals:
        """Count the requests per state."""
        return await self._read(self._totals)

    async def scan(self, batch: int = SCAN_BATCH) -> AsyncIterator[list[Entry]]:
        """Give everything the ledger holds, oldest first, so many requests at a time."""
        last = 0
        while True:
            last, entries = await self._read(functools.partial(self._page, after=last, limit=batch))
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
        if count:
            with contextlib.suppress(DiskFull):  # they are forgotten all the same
                await self._read(_shrink)
        return count

    # --- in the writer's thread ----------------------------------------------------------------------------

    async def _submit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        result: T = await self._commits.submit(work)
        return result

    async def _write(self, name: str, *values: Any) -> None:
        await self._commits.submit(lambda con: _execute(con, name, values).rowcount)

    def _commit(self, works: Sequence[Work]) -> list[Any]:
        """Carry out all the work in one transaction; what cannot be carried out together is halved until it can."""
        try:
            return self._transact(works)
        except sqlite3.Error as error:
            if sqlite_file.is_full(error) and self._make_room():
                return self._commit(works)
            if len(works) == 1 or sqlite_file.code(error) == sqlite3.SQLITE_BUSY:
                return [sqlite_file.explain(error, self._path) for _ in works]
        except UnicodeDecodeError:  # SQLite quotes what is damaged in its message
            return [sqlite_file.damaged(self._path) for _ in works]
        half = len(works) // 2
        return [*self._commit(works[:half]), *self._commit(works[half:])]

    def _transact(self, works: Sequence[Work]) -> list[Any]:
        """Run one transaction. Work that raises one of our errors has written nothing and fails alone."""
        results: list[Any] = []
        with self._writer as con:
            con.execute("BEGIN IMMEDIATE")
            for work in works:
                try:
                    results.append(work(con))
                except EnrichError as error:
                    results.append(error)
        return results

    def _open_run(self, info: str, con: sqlite3.Connection) -> int:
        (number,) = _execute(con, "next_run").fetchone()
        while not self._locks.hold(number):
            number += 1
        now = self._now()
        _execute(con, "insert_run", (number, now.wall, now.boot, info))
        return int(number)

    def _claim(self, asks: Sequence[Ask], con: sqlite3.Connection, *, resend_failed: bool) -> list[Claim]:
        self._check_room()
        (last,) = _execute(con, "last_request").fetchone()
        inserted = self._insert(con, asks)
        if inserted == len(asks):
            return [Claim("mine", 1, ask.body) for ask in asks]
        known = {
            row.key: (row, record)
            for row, record in self._known(con, KNOWN_KEYS, [ask.key for ask in asks])
            if row.id <= last
        }
        if inserted + len(known) != len(asks):
            raise sqlite3.IntegrityError("a key stands twice in one claim")
        is_alive = functools.cache(self._locks.is_alive)
        return [
            self._reclaim(con, ask, *known[ask.key], is_alive, resend_failed=resend_failed)
            if ask.key in known
            else Claim("mine", 1, ask.body)
            for ask in asks
        ]

    def _insert(self, con: sqlite3.Connection, asks: Iterable[Ask]) -> int:
        """Write down the intents of the requests that are not known yet; gives how many these were."""
        now = self._now()
        stamp = (self._run, now.wall, now.boot, now.boottime)
        return con.executemany(SQL["insert_request"], [(*stamp, *_columns(ask)) for ask in asks]).rowcount

    def _reclaim(
        self,
        con: sqlite3.Connection,
        ask: Ask,
        row: Row,
        record: Record,
        is_alive: Callable[[int], bool],
        *,
        resend_failed: bool,
    ) -> Claim:
        """Decide on an ask that the ledger knows."""
        if record.state == "answered":
            return Claim("done", record=record)
        if record.state == "failed":
            if row.run == self._run or not resend_failed:
                return Claim("done", record=record)
            return self._retry(con, ask, row, record)
        if row.run != self._run and is_alive(row.run):
            return Claim("held", record=record)
        if record.in_doubt:
            return Claim("in_doubt", record=record)
        return self._take(con, ask, row, record, as_new=row.state == RELEASED)

    def _retry(self, con: sqlite3.Connection, ask: Ask, row: Row, record: Record) -> Claim:
        """Ask a failed request again, unless it may have been paid for and the server has forgotten the key."""
        too_old = self._now().outlives(row.first_sent)
        if too_old and self._harmless(con, row) < row.attempts:
            _execute(con, "set_state", (SENT, row.id))
            return Claim("in_doubt", record=replace(record, state="sent", in_doubt=True))
        return self._take(con, ask, row, record, as_new=too_old)

    def _harmless(self, con: sqlite3.Connection, row: Row) -> int:
        """Count the attempts that were refused or never left this machine."""
        return int(_execute(con, "harmless_failures", {"request": row.id}).fetchone()[0])

    def _take(self, con: sqlite3.Connection, ask: Ask, row: Row, record: Record, *, as_new: bool) -> Claim:
        """Take a request over, with the body it was first sent with."""
        attempt = row.attempts + 1
        first = self._now() if as_new else row.first_sent
        if row.reply is not None:
            self._log(con, row, rows.damaged_answer(row.reply), answer=row.reply)
            _execute(con, "delete_answer", (row.id,))
        values = (self._run, attempt, attempt_uuid(row.key, attempt), first.wall, first.boot, first.boottime)
        _execute(con, "take_over", (*values, row.id))
        crc, body = _execute(con, "stored_body", (row.id,)).fetchone()
        if not rows.matches(request_crc, crc, row.key, body):
            body = ask.body  # the same: the key is a function of it
            _execute(con, "mend_body", (request_crc(row.key, body), body, row.id))
        return Claim("mine", attempt, body, record)

    def _answer(self, key: bytes, reply: Reply, at: float, con: sqlite3.Connection) -> None:
        request_id = None if reply.request_id is None else rows.storable(reply.request_id)
        crc = answer_crc(key, None if request_id is None else request_id.encode(), reply.body)
        measured = (reply.streamed, reply.latency_ms, reply.first_token_ms)
        done = _execute(con, "insert_answer", (self._run, at, *measured, request_id, crc, reply.body, key))
        if not done.rowcount and not _execute(con, "has_request", (key,)).fetchone():
            _unknown(key)

    def _again(self, key: bytes, failure: Failure, con: sqlite3.Connection) -> int | None:
        if self._full:
            raise self._disk_full()
        row = self._row(con, key)
        self._log(con, row, failure)
        if self._now().outlives(row.first_sent):
            return None
        attempt = row.attempts + 1
        _execute(con, "next_attempt", (attempt, attempt_uuid(key, attempt), row.id))
        return attempt

    def _fail(
        self, key: bytes, failure: Failure, con: sqlite3.Connection, *, final: bool, reject: bool
    ) -> None:
        row = self._row(con, key)
        self._log(con, row, failure, answer=row.reply if reject else None)
        if reject:
            _execute(con, "delete_answer", (row.id,))
        _execute(con, "set_state", (FAILED if final else SENT, row.id))

    def _withdraw(self, claims: Sequence[tuple[bytes, int]], con: sqlite3.Connection) -> None:
        con.executemany(SQL["withdraw"], claims)
        con.executemany(SQL["release_refused"], claims)

    def _settle_doubt(self, keys: Sequence[bytes], state: int, con: sqlite3.Connection) -> int:
        is_alive = functools.cache(self._locks.is_alive)
        settled = [
            row
            for row, record in self._known(con, KNOWN_KEYS, keys)
            if record.in_doubt and (row.run == self._run or not is_alive(row.run))
        ]
        con.executemany(SQL["set_state"], [(state, row.id) for row in settled])
        return len(settled)

    def _prune(self, before: float, con: sqlite3.Connection) -> int:
        alive = [
            run for run, _ in _execute(con, "open_runs") if run == self._run or self._locks.is_alive(run)
        ]
        if alive:
            raise LedgerError(
                f"run {alive[0]} is using the ledger {self._path}", hint="prune it when the run has ended."
            )
        _execute(con, "prunable", {"before": before})
        count = con.execute("SELECT count(*) FROM old").fetchone()[0]
        for statement in statements(SQL["prune"]):
            con.execute(statement)
        return int(count)

    def _row(self, con: sqlite3.Connection, key: bytes) -> Row:
        known = self._known(con, KNOWN_KEYS, [key])
        return known[0][0] if known else _unknown(key)

    def _log(
        self, con: sqlite3.Connection, row: Row, failure: Failure, *, answer: bytes | None = None
    ) -> None:
        """Put a failure of a request's latest attempt into the log."""
        request_id = failure.request_id and rows.storable(failure.request_id)
        attempt = (row.id, row.attempts, attempt_uuid(row.key, row.attempts), self._clock.wall())
        what = (rows.storable(failure.code), rows.storable(failure.message), failure.fate.value)
        response = (failure.status, failure.retryable, request_id, failure.retry_after, failure.evidence)
        logged = _execute(con, "insert_failure", (*attempt, *what, *response, answer)).lastrowid
        _execute(con, "last_failure", (logged, row.id))

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

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._reading, work)

    def _reading(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._reader)
        except sqlite3.Error as error:
            raise sqlite_file.explain(error, self._path) from error
        except UnicodeDecodeError:  # SQLite quotes what is damaged in its message
            raise sqlite_file.damaged(self._path) from None

    def _lookup(self, keys: Sequence[bytes], con: sqlite3.Connection) -> dict[bytes, Record]:
        return {record.key: record for record in self._records(con, _select(con, KNOWN_KEYS, keys))}

    def _lookup_question(
        self, questions: Sequence[bytes], con: sqlite3.Connection
    ) -> dict[bytes, list[Record]]:
        records: dict[bytes, list[Record]] = {}
        for row, record in sorted(self._known(con, KNOWN_QUESTIONS, questions), key=lambda pair: pair[0].id):
            if row.question is not None and record.state == "answered":
                records.setdefault(row.question, []).append(record)
        return records

    def _totals(self, con: sqlite3.Connection) -> Totals:
        requests, answered = _execute(con, "count").fetchone()
        now = self._now()
        failed = in_doubt = skipped = 0
        for state, *first in _execute(con, "unanswered"):
            failed += state == FAILED
            skipped += state == SKIPPED
            in_doubt += state == SENT and now.outlives(Moment(*first))
        sent = requests - answered - failed - in_doubt - skipped
        return Totals(requests, answered, failed, sent, in_doubt, skipped)

    def _page(self, con: sqlite3.Connection, *, after: int, limit: int) -> tuple[int, list[Entry]]:
        """Read the requests that follow an id; gives the last id as well."""
        lines = _execute(con, "page", (after, limit)).fetchall()
        logs = rows.to_logs(_select(con, SQL["logs"], [line[0] for line in lines]))
        width = len(Row._fields)
        records = self._records(con, [line[:width] for line in lines])
        entries = [
            rows.to_entry(Row._make(line[:width]), record, line[width:], logs)
            for line, record in zip(lines, records, strict=True)
        ]
        return (lines[-1][0] if lines else after), entries

    def _verify(self, con: sqlite3.Connection) -> VerifyReport:
        problems: list[str] = []
        damaged: dict[str, list[bytes]] = {"request": [], "answer": []}
        requests = answers = 0
        try:
            problems += [text.decode() for (text,) in con.execute("PRAGMA integrity_check") if text != b"ok"]
            requests, answers = _execute(con, "count").fetchone()
            problems += _contradictions(con, requests)
            for entry in self._entries(con):
                for part in entry.damaged:
                    damaged[part].append(entry.ask.key)
        except (sqlite3.Error, LedgerError, UnicodeDecodeError) as error:
            problems.append(str(error).partition("\n")[0])
        return VerifyReport(
            requests, answers, tuple(problems), tuple(damaged["request"]), tuple(damaged["answer"])
        )

    def _entries(self, con: sqlite3.Connection) -> Iterator[Entry]:
        last, entries = self._page(con, after=0, limit=SCAN_BATCH)
        while entries:
            yield from entries
            last, entries = self._page(con, after=last, limit=SCAN_BATCH)

    def _shut(self) -> None:
        self._reads.shutdown()
        self._reader.close()
        self._writer.close()
        self._locks.release()

    # --- in either -----------------------------------------------------------------------------------------

    def _now(self) -> Moment:
        return Moment(self._clock.wall(), self._boot, self._clock.boottime())

    def _known(
        self, con: sqlite3.Connection, query: str, values: Sequence[bytes]
    ) -> list[tuple[Row, Record]]:
        lines = _select(con, query, values)
        return [
            (Row._make(line), record) for line, record in zip(lines, self._records(con, lines), strict=True)
        ]

    def _records(self, con: sqlite3.Connection, lines: Sequence[tuple[Any, ...]]) -> Iterator[Record]:
        """Turn lines of the query ``known`` into records."""
        failed = [line[8] for line in lines if line[8] is not None and line[17] is None]
        failures = {line[0]: rows.to_failure(line[1:]) for line in _select(con, SQL["failures"], failed)}
        now = self._now()
        try:
            for line in lines:
                yield rows.to_record(line, failures, now)
        except TypeError:  # a line's damaged header gives its columns other types
            raise sqlite_file.damaged(self._path) from None


def _columns(ask: Ask) -> tuple[Any, ...]:
    """Give the part of a new request's line that is a function of the ask."""
    crc = request_crc(ask.key, ask.body)
    return ask.key, attempt_uuid(ask.key, 1), ask.model, ask.parent, ask.question, crc, ask.body


def _execute(con: sqlite3.Connection, name: str, values: Values = ()) -> sqlite3.Cursor:
    return con.execute(SQL[name], values)


def _select(con: sqlite3.Connection, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a query over a list of any length, in statements of a few sizes filled up with NULL."""
    lines: list[tuple[Any, ...]] = []
    for start in range(0, len(values), IN_LIST_SIZES[-1]):
        chunk = values[start : start + IN_LIST_SIZES[-1]]
        size = next(size for size in IN_LIST_SIZES if size >= len(chunk))
        lines += con.execute(_in_list(query, size), [*chunk, *[None] * (size - len(chunk))])
    return lines


@functools.cache
def _in_list(query: str, size: int) -> str:
    return query.replace(":list", ",".join("?" * size))


def _shrink(con: sqlite3.Connection) -> None:
    con.execute("VACUUM")


def _contradictions(con: sqlite3.Connection, requests: int) -> list[str]:
    """Give what is wrong between the tables."""
    problems = []
    (distinct,) = _execute(con, "distinct_keys").fetchone()
    if distinct != requests:
        problems.append(f"{requests} requests have only {distinct} distinct keys")
    (orphans,) = _execute(con, "orphans").fetchone()
    if orphans:
        problems.append(f"{orphans} answers or failures belong to no request")
    return problems


def _unknown(key: bytes) -> NoReturn:
    raise EnrichError(f"the ledger holds no request {key_text(key)}: it was never claimed")
