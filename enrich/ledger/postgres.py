"""The shared ledger: PostgreSQL, for many processes on many machines; runs hold leases instead of file locks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import orjson

from enrich.base.clock import Clock, SystemClock
from enrich.config import without_password
from enrich.errors import ConfigError, EnrichError, LedgerError, LedgerFailing
from enrich.ledger.checks import boot_number
from enrich.ledger.commit import GroupCommit
from enrich.ledger.protocol import Claim, Entry, RunInfo, Totals, VerifyReport
from enrich.ledger.rows import RELEASED, SKIPPED
from enrich.ledger.rules import KEY, Rules, unknown
from enrich.ledger.sql import load_queries
from enrich.pace.lease import Lease

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError:
    raise ConfigError(
        "a ledger on PostgreSQL needs psycopg", hint="pip install 'beatra-enrich[postgres]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from enrich.pace.lease import LeaseRequest
    from enrich.records import Ask, Failure, Record, Reply

    Connection = psycopg.Connection[tuple[Any, ...]]
    Work = Callable[["PostgresTransaction"], Any]

SQL: Final = load_queries("postgres.sql")
# Script n takes a ledger from version n - 1 to n.
SCHEMAS: Final = (SQL["schema_1"], SQL["schema_2"], SQL["schema_3"])
LEASE: Final = 15.0  # seconds without a sign of life after which a run's requests may be taken over
PATIENCE: Final = 300.0  # seconds that a lost database is waited for
RECONNECT_EVERY: Final = 1.0  # seconds between tries
CONNECT_TIMEOUT: Final = 10  # seconds
UNHEARD: Final = (
    30_000  # milliseconds after which a network that drops everything counts as lost, not as slow
)
COUNT_EVERY: Final = 5.0  # seconds between looks at how many runs share a limit
SCAN_BATCH: Final = 256  # requests per step of a scan
MIGRATION_LOCK: Final = 0x42656C31  # the advisory lock under which the tables are made
IS_IT_UP: Final = "check the `ledger` URL and that the database is up, then run the same command again."
RIGHTS: Final = (
    "whoever makes the tables needs CREATE on the database; whoever uses them needs USAGE on the schema beatra,"
    " and SELECT, INSERT, UPDATE and DELETE on its tables."
)

log = logging.getLogger("enrich")

T = TypeVar("T")


async def open_ledger(
    url: str, *, clock: Clock | None = None, lease: float = LEASE, make: bool = True
) -> PostgresLedger:
    """Open the ledger in a database, making its tables in the schema ``beatra`` when they are missing.

    Args:
        url: ``postgresql://user:password@host/database``, as libpq takes it.
        clock: by default the machine's, its time of day corrected by the database's.
        lease: seconds without a sign of life after which another process may take this run's requests over.
        make: False where nothing is to be made: a database without a ledger is an error then.

    Raises:
        LedgerError: the database cannot be reached or used, or its ledger is of a newer version.
    """
    database = Database(url)
    try:
        writer, reader = await asyncio.to_thread(_open, database, make=make)
        if clock is None:
            clock = await asyncio.to_thread(DatabaseClock, writer)
    except psycopg.Error as error:
        raise database.explain(error) from None
    return PostgresLedger(database, clock, writer, reader, lease=lease)


class PostgresLedger:
    """A `Ledger` in a PostgreSQL database; made by `open_ledger`. It belongs to the event loop that opened it.

    A lost connection is waited for: what was queued is carried out once the database is back.
    """

    ahead = 256  # a commit takes a round trip and the server's own write to the disk: the more it carries, the better

    def __init__(
        self,
        database: Database,
        clock: Clock,
        writer: Connection,
        reader: Connection,
        *,
        lease: float = LEASE,
    ) -> None:
        self._database = database
        self._clock = clock
        self._rules = Rules(clock, boot_number(clock.boot_id()))
        self._writer = writer
        self._reader = reader
        self._lease = lease
        self._commits: GroupCommit[Work] = GroupCommit(self._commit, "ledger-writer")
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")
        self._leaser = _Leaser(database)
        self._keeper: asyncio.Task[None] | None = None

    # --- runs ----------------------------------------------------------------------------------------------

    async def open_run(self, info: dict[str, Any]) -> int:
        """Register a run and keep its lease until `close_run`; gives its number."""
        if self._rules.run:
            raise RuntimeError(f"run {self._rules.run} is still open")
        values = (self._clock.wall(), self._lease, orjson.dumps(info).decode())
        row = await self._submit(lambda tx: tx.run("insert_run", values).fetchone())
        assert row is not None  # noqa: S101  # the statement returns the number
        self._rules.run = row[0]
        self._keeper = asyncio.create_task(self._keep_alive(), name="beatra-lease")
        return self._rules.run

    async def close_run(self, summary: dict[str, Any]) -> None:
        """Mark the run ended: what it left ``sent`` may be claimed by the next."""
        values = (self._clock.wall(), orjson.dumps(summary).decode(), self._rules.run)
        await self._submit(lambda tx: tx.run("end_run", values))
        await self._let_go()

    async def _keep_alive(self) -> None:
        values = (self._lease, self._rules.run)
        while True:
            await asyncio.sleep(self._lease / 3)
            with contextlib.suppress(LedgerError):  # the next to write meets it, or it is over by then
                await self._submit(lambda tx: tx.run("renew_lease", values))

    async def _let_go(self) -> None:
        self._rules.run = 0
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None

    async def beside(self) -> list[dict[str, Any]]:
        """Give what the other runs that are at work said of themselves as they were opened."""
        runs = await self._read(lambda tx: tx.run("beside", (self._rules.run,)).fetchall())
        return [orjson.loads(info) for (info,) in runs]

    async def last_run(self) -> RunInfo | None:
        """Give the newest run that ended."""
        row = await self._read(lambda tx: tx.run("last_run").fetchone())
        if not row:
            return None
        number, started_at, ended_at, summary = row
        return RunInfo(number, started_at, ended_at, orjson.loads(summary))

    async def close(self) -> None:
        """Write everything that is queued and let go of the database. A run that is still open counts as dead."""
        if run := self._rules.run:
            await self._let_go()
            await self._submit(lambda tx: tx.run("end_lease", (run,)))
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
        lines = self._rules.new_lines(asks)
        return await self._submit(_Claims(self._rules, asks, lines, resend_failed=resend_failed))

    async def again(self, key: bytes, failure: Failure) -> int | None:
        """Log that an attempt failed, and that the next is about to be sent; gives its number, None if too old."""
        return await self._submit(lambda tx: self._rules.again(tx, key, failure))

    async def answer(self, key: bytes, reply: Reply) -> None:
        """Keep a raw answer. A second one to the same request changes nothing."""
        line = self._rules.answer_line(key, reply, self._clock.wall())
        await self._submit(_Answer(line))

    async def reject(self, key: bytes, failure: Failure, *, final: bool, answer: bytes | None = None) -> None:
        """Move an unusable answer into the log: the request is ``failed`` when ``final``, else ``sent``."""
        await self._submit(lambda tx: self._rules.reject(tx, key, failure, final=final, answer=answer))

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
            await self._submit(lambda tx: tx.run("bump_generation", (step,)))
        row = await self._read(lambda tx: tx.run("generation", (step,)).fetchone())
        return row[0] if row else 0

    async def recall(self, name: str) -> dict[str, Any] | None:
        """Give what was remembered under a name."""
        row = await self._read(lambda tx: tx.run("recall", (name,)).fetchone())
        return orjson.loads(row[0]) if row else None

    async def remember(self, name: str, value: dict[str, Any]) -> None:
        """Keep a small value for the next run."""
        values = (name, orjson.dumps(value).decode())
        await self._submit(lambda tx: tx.run("remember", values))

    # --- the shared limit ----------------------------------------------------------------------------------

    async def fingerprint(self, *secrets: str) -> bytes:
        """Give 16 bytes that name an account in this ledger without giving its key away."""
        row = await self._read(lambda tx: tx.run("salt").fetchone())
        assert row is not None  # noqa: S101  # it comes with the tables
        said = "\0".join(secrets).encode()
        return hashlib.blake2b(said, digest_size=16, key=row[0].encode()).digest()

    async def lease(self, account: bytes, request: LeaseRequest) -> Lease:
        """Tell what is new and take the next slots; waits for a lost database.

        What was told as the connection broke may be told twice: a cut and a pause count once all the same, and the
        count of requests is only for learning.

        Raises:
            LedgerFailing: the database stayed away, or cannot be used.
        """
        return await self._leaser.lease(account, request, self._rules.run)

    # --- looking after the tables --------------------------------------------------------------------------

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
        """Check every checksum, and that every key is there once."""
        return await self._read(self._verify)

    async def prune(self, older_than_s: float) -> int:
        """Forget requests that were answered or failed so many seconds ago; gives how many.

        What is ``sent`` stays. A forgotten request is asked, and paid for, anew when it turns up again.

        Raises:
            LedgerError: a run is using the ledger.
        """
        before = self._clock.wall() - older_than_s
        return await self._submit(lambda tx: _prune(tx, before))

    def _verify(self, tx: PostgresTransaction) -> VerifyReport:
        requests, answers = tx.run("count").fetchone() or (0, 0)
        damaged: dict[str, list[bytes]] = {"request": [], "answer": []}
        for entry in self._entries(tx):
            for part in entry.damaged:
                damaged[part].append(entry.ask.key)
        problems = tuple(self._rules.contradictions(tx))
        return VerifyReport(requests, answers, problems, tuple(damaged["request"]), tuple(damaged["answer"]))

    def _entries(self, tx: PostgresTransaction) -> Iterator[Entry]:
        last, entries = self._rules.page(tx, after=0, limit=SCAN_BATCH)
        while entries:
            yield from entries
            last, entries = self._rules.page(tx, after=last, limit=SCAN_BATCH)

    # --- in the writer's thread ----------------------------------------------------------------------------

    async def _submit(self, work: Callable[[PostgresTransaction], T]) -> T:
        result: T = await self._commits.submit(work)
        return result

    def _commit(self, works: Sequence[Work]) -> list[Any]:
        """Carry out all the work in one transaction; what cannot be carried out together is halved until it can."""
        claims = sum(isinstance(work, _Claims) for work in works)
        plain = claims <= 1 and all(isinstance(work, _Claims | _Answer) for work in works)
        try:
            return self._insist(functools.partial(self._write if plain else self._transact, works))
        except psycopg.Error as error:
            if len(works) == 1:
                return [self._database.explain(error, in_use=True)]
        except LedgerError as error:
            return [error for _ in works]
        half = len(works) // 2
        return [*self._commit(works[:half]), *self._commit(works[half:])]

    def _insist(self, transact: Callable[[], T]) -> T:
        """Run a transaction again when the connection was lost, or when it lost a race against another process.

        Everything that is queued can be carried out twice: a claim of this run is this run's, an answer that is
        there stays.
        """
        while True:
            try:
                return transact()
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                continue
            except psycopg.Error as error:
                if not self._writer.broken:
                    raise
                self._writer = self._database.connect_again(error)

    def _write(self, works: Sequence[Work]) -> list[Any]:
        """Carry out answers and at most one claim as one statement, which is a transaction of its own.

        Each statement costs this thread a wait for the interpreter, which the event loop has most of the time.
        """
        tx = PostgresTransaction(self._writer, locking=True)
        for work in works:
            if isinstance(work, _Answer):
                work(tx)
        claim = next((work for work in works if isinstance(work, _Claims)), None)
        claimed: list[Claim] = []
        if claim is not None:
            new = tx.insert_with_answers(claim.lines)
            if len(new) == len(claim.lines):
                claimed = [Claim("mine", 1, ask.body) for ask in claim.asks]
            else:
                with self._writer.transaction():
                    claimed = claim.decide(tx, new)
        tx.flush_answers()
        return [claimed if work is claim else _was_claimed(work, None, tx.missing) for work in works]

    def _transact(self, works: Sequence[Work]) -> list[Any]:
        """Run one transaction; answers that stand side by side go as one statement."""
        results: list[Any] = []
        with self._writer.transaction():
            tx = PostgresTransaction(self._writer, locking=True)
            for work in works:
                try:
                    results.append(work(tx))
                except EnrichError as error:
                    results.append(error)
            tx.flush_answers()
        return [_was_claimed(work, result, tx.missing) for work, result in zip(works, results, strict=True)]

    # --- in the reader's thread ----------------------------------------------------------------------------

    async def _read(self, work: Callable[[PostgresTransaction], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._reading, work)

    def _reading(self, work: Callable[[PostgresTransaction], T]) -> T:
        while True:
            try:
                return work(PostgresTransaction(self._reader, locking=False))
            except psycopg.Error as error:
                if not self._reader.broken:
                    raise self._database.explain(error, in_use=True) from None
                self._reader = self._database.connect_again(error)

    def _shut(self) -> None:
        self._reads.shutdown()
        self._reader.close()
        self._writer.close()
        self._leaser.close()


class PostgresTransaction:
    """The queries of ``postgres.sql`` on one connection.

    Args:
        connection: to run them on.
        locking: hold the requests that are looked at until the transaction ends.

    Attributes:
        missing: the keys of answers to requests that were never claimed.
    """

    __slots__ = ("_answers", "_connection", "_locking", "missing")

    def __init__(self, connection: Connection, *, locking: bool) -> None:
        self._connection = connection
        self._locking = locking
        self._answers: list[tuple[Any, ...]] = []
        self.missing: set[bytes] = set()

    def run(self, name: str, values: Sequence[Any] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a query once."""
        self.flush_answers()
        return self._execute(name, values)

    def many(self, name: str, values: Sequence[Sequence[Any]]) -> int:
        """Run a query for each of these; gives how many lines it touched."""
        self.flush_answers()
        with self._connection.cursor() as cursor:
            cursor.executemany(_query(name), values)
            return cursor.rowcount

    def select(self, name: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a query over a list of values."""
        if not values:
            return []
        if self._locking and name == "known_keys":
            name = "known_keys_locked"
        return self.run(name, (list(values),)).fetchall()

    def insert_requests(self, lines: Sequence[tuple[Any, ...]]) -> set[bytes]:
        """Write down new requests, in the order of their keys so that two processes never wait for each other."""
        if not lines:
            return set()
        return {key for (key,) in self.run("insert_requests", _request_columns(lines)).fetchall()}

    def insert_with_answers(self, lines: Sequence[tuple[Any, ...]]) -> set[bytes]:
        """Do the same and write the answers taken so far, as one statement."""
        if not (lines and self._answers):
            return self.insert_requests(lines)
        answers, self._answers = self._answers, []
        values = (*_request_columns(lines), *_columns(answers))
        written, new = self._execute("insert_both", values).fetchall()[0]
        self._check_written(answers, written)
        return set(new or ())

    def is_alive(self, run: int) -> bool:
        """Say whether a run's lease holds."""
        row = self.run("is_alive", (run,)).fetchone()
        return bool(row and row[0])

    def add_answer(self, line: tuple[Any, ...]) -> None:
        """Take an answer's line; it is written before anything else of this transaction."""
        self._answers.append(line)

    def flush_answers(self) -> None:
        """Write the answers taken so far, as one statement."""
        if not self._answers:
            return
        lines, self._answers = self._answers, []
        self._check_written(lines, self._execute("insert_answers", _columns(lines)).rowcount)

    def _check_written(self, lines: Sequence[tuple[Any, ...]], written: int) -> None:
        """Find out which answers were to requests that were never claimed, where some were not written."""
        if written < len(lines):
            keys = {line[-1] for line in lines}
            self.missing |= keys - {key for (key,) in self._execute("has_requests", (list(keys),)).fetchall()}

    def _execute(self, name: str, values: Sequence[Any]) -> psycopg.Cursor[tuple[Any, ...]]:
        return self._connection.execute(_query(name), values, binary=True)


class _Leaser:
    """Leases over a connection of their own, made at the first one: they wait for no commit, and need not be on disk.

    A server that crashes forgets less than a second of them; see `RESTARTED`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger-leaser")
        self._connection: Connection | None = None
        self._started = 0.0  # when the server was started, by its clock
        self._runs: dict[
            bytes, tuple[int, float]
        ] = {}  # that share an account; monotonic seconds of that count

    async def lease(self, account: bytes, request: LeaseRequest, run: int) -> Lease:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._lease, account, request, run
        )

    def _lease(self, account: bytes, request: LeaseRequest, run: int) -> Lease:
        while True:
            try:
                if self._connection is None:
                    self._connection = self._database.connect()
                runs = self._count(self._connection, account, run)
                values = _lease_values(account, request, runs=runs, started=self._started)
                return Lease(*self._connection.execute(_query("lease"), values).fetchall()[0])
            except psycopg.Error as error:
                if self._connection is not None and not self._connection.broken:
                    raise self._database.explain(error, in_use=True) from None
                self._connection = self._database.connect_again(error)
                self._runs.clear()

    def _count(self, connection: Connection, account: bytes, run: int) -> int:
        """Look up how many live runs share an account, now and then."""
        runs, counted = self._runs.get(account, (1, -math.inf))
        if time.monotonic() - counted >= COUNT_EVERY:
            connection.execute(_query("share_account"), (account, run, account))
            found, self._started = connection.execute(_query("count_sharing"), (account,)).fetchall()[0]
            runs = max(1, found)
            self._runs[account] = (runs, time.monotonic())
        return runs

    def close(self) -> None:
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()


def _lease_values(
    account: bytes, request: LeaseRequest, *, runs: int, started: float, now: float | None = None
) -> tuple[Any, ...]:
    """Give the arguments of the query ``lease``; without ``now`` the database's clock counts."""
    cut, windows = request.cut, request.windows
    lanes = [[getattr(w, name) for w in windows] for name in ("tokens", "amount", "seconds", "spacing")]
    learned = (
        (cut.episode, cut.known, cut.burst, cut.rate, cut.probe, cut.patience, cut.lower)
        if cut
        else (None,) * 7
    )
    asked = (request.want, request.each, request.settled, request.sent, request.adaptive)
    told = (request.trouble, request.pause, request.cause)
    return (account, runs, now, started, *lanes, *asked, *told, *learned)


class _Claims:
    """The work of claiming requests."""

    __slots__ = ("_resend_failed", "_rules", "asks", "lines")

    def __init__(
        self, rules: Rules, asks: Sequence[Ask], lines: Sequence[tuple[Any, ...]], *, resend_failed: bool
    ) -> None:
        self._rules = rules
        self._resend_failed = resend_failed
        self.asks = asks
        self.lines = lines

    def __call__(self, tx: PostgresTransaction) -> list[Claim]:
        return self.decide(tx, tx.insert_requests(self.lines))

    def decide(self, tx: PostgresTransaction, new: set[bytes]) -> list[Claim]:
        """Decide on the requests, of which these were new."""
        return self._rules.decide(tx, self.asks, new, resend_failed=self._resend_failed)


class _Answer:
    """The work of keeping one answer."""

    __slots__ = ("line",)

    def __init__(self, line: tuple[Any, ...]) -> None:
        self.line = line

    def __call__(self, tx: PostgresTransaction) -> None:
        tx.add_answer(self.line)


def _was_claimed(work: Work, result: Any, missing: set[bytes]) -> Any:
    """Turn the result of an answer to a request that was never claimed into its error."""
    if not isinstance(work, _Answer) or work.line[-1] not in missing:
        return result
    try:
        unknown(work.line[-1])
    except EnrichError as error:
        return error


def _request_columns(lines: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Turn requests' lines into what all have in common and columns of the rest, in the order of their keys."""
    ordered = sorted(lines, key=lambda line: line[KEY])
    return (*ordered[0][:KEY], *_columns([line[KEY:] for line in ordered]))


def _columns(lines: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*lines, strict=True)]


@functools.cache
def _query(name: str) -> bytes:
    return SQL[name].encode()


def _prune(tx: PostgresTransaction, before: float) -> int:
    tx.run("no_new_run")  # it would take what goes now for answered
    (alive,) = tx.run("live_run").fetchone() or (None,)
    if alive is not None:
        raise LedgerError(f"run {alive} is using the ledger", hint="prune it when the run has ended.")
    return tx.run("prune", (before, before)).rowcount


class DatabaseClock(SystemClock):
    """The machine's clocks, but that the time of day is the database's: machines may differ by minutes."""

    def __init__(self, connection: Connection) -> None:
        before = super().wall()
        ((now,),) = connection.execute(_query("now")).fetchall()
        self._ahead: float = now - (before + super().wall()) / 2

    def wall(self) -> float:
        """Give the seconds since the epoch by the database's clock."""
        return super().wall() + self._ahead


# --- the connection -------------------------------------------------------------------------------------


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
            connect_timeout=CONNECT_TIMEOUT,
            application_name="beatra-enrich",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=UNHEARD,
        )
        with contextlib.ExitStack() as opened:
            opened.callback(connection.close)
            connection.execute(_query("session"))
            opened.pop_all()
        return connection

    def connect_again(self, lost: psycopg.Error) -> Connection:
        """Wait for a database that was lost, in all connections together no longer than `PATIENCE`.

        Raises:
            LedgerFailing: it stayed away.
        """
        told = self._lost is not None
        since = self._lost = self._lost or time.monotonic()
        while True:
            try:
                connection = self.connect()
            except psycopg.OperationalError as error:
                if time.monotonic() - since > PATIENCE:
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


def _open(database: Database, *, make: bool) -> tuple[Connection, Connection]:
    with contextlib.ExitStack() as opened:
        writer = opened.enter_context(contextlib.closing(database.connect()))
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
            _migrate(writer)
        reader = opened.enter_context(contextlib.closing(database.connect()))
        opened.pop_all()
    return writer, reader


def _version(connection: Connection) -> int:
    """Give the version of the ledger's tables; 0 when there are none."""
    ((_, made),) = connection.execute(_query("made")).fetchall()
    row = connection.execute(_query("version")).fetchone() if made else None
    return int(row[0]) if row else 0


def _migrate(connection: Connection) -> None:
    """Make the tables, or bring them up to date, one process at a time.

    Raises:
        LedgerError: they are of a newer version.
    """
    with connection.transaction():
        connection.execute(b"SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        version = _version(connection)
        if version > len(SCHEMAS):
            raise LedgerError(
                f"the ledger's tables have version {version}; this program knows up to {len(SCHEMAS)}",
                hint="pip install --upgrade beatra-enrich",
            )
        ((schema, made),) = connection.execute(
            _query("made")
        ).fetchall()  # what is cached by name may be out of date
        if not schema:
            connection.execute(b"CREATE SCHEMA beatra")
        if not made:
            connection.execute(b"CREATE TABLE beatra.version (number INTEGER NOT NULL)")
        for script in SCHEMAS[version:]:
            connection.execute(script.encode())
        connection.execute(b"DELETE FROM beatra.version")
        connection.execute(b"INSERT INTO beatra.version VALUES (%s)", (len(SCHEMAS),))
