"""The shared ledger: PostgreSQL, for many processes on many machines; runs hold leases instead of file locks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson
import psycopg

from enrich.base.texts import json_bytes
from enrich.errors import EnrichError, LedgerError
from enrich.ledger import spending
from enrich.ledger.checks import boot_number
from enrich.ledger.postgres_database import Database, DatabaseClock, open_both
from enrich.ledger.postgres_leases import Leaser
from enrich.ledger.postgres_transaction import PostgresTransaction
from enrich.ledger.protocol import Claim
from enrich.ledger.rules import unknown
from enrich.ledger.sql_ledger import SqlLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from enrich.base.clock import Clock
    from enrich.ledger.postgres_database import Connection
    from enrich.ledger.rules import Rules
    from enrich.pace.lease import Lease, LeaseRequest
    from enrich.pace.purse import Reserving
    from enrich.records import Ask, Reply

    Work = Callable[[PostgresTransaction], Any]

LEASE: Final = 15.0  # seconds without a sign of life after which a run's requests may be taken over

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
        writer, reader = await asyncio.to_thread(open_both, database, make=make)
        if clock is None:
            clock = await asyncio.to_thread(DatabaseClock, writer)
    except psycopg.Error as error:
        raise database.explain(error) from None
    return PostgresLedger(database, clock, writer, reader, lease=lease)


class PostgresLedger(SqlLedger[PostgresTransaction]):
    """A `Ledger` in a PostgreSQL database; made by `open_ledger`.

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
        self._writer = writer
        self._reader = reader
        self._lease = lease
        self._leaser = Leaser(database)
        self._keeper: asyncio.Task[None] | None = None
        super().__init__(clock, boot_number(clock.boot_id()))

    # --- runs ----------------------------------------------------------------------------------------------

    async def open_run(self, info: dict[str, Any]) -> int:
        """Register a run and keep its lease until `close_run`; gives its number."""
        self._must_be_closed()
        values = (self._clock.wall(), self._lease, json_bytes(info).decode())
        row = await self._submit(lambda tx: tx.run("insert_run", values).fetchone())
        assert row is not None  # noqa: S101  # the statement returns the number
        self._rules.run = row[0]
        self._keeper = asyncio.create_task(self._keep_alive(), name="beatra-lease")
        return self._rules.run

    async def close_run(self, summary: dict[str, Any]) -> None:
        """Mark the run ended: what it left ``sent`` may be claimed by the next."""
        await self._write("end_run", self._clock.wall(), json_bytes(summary).decode(), self._rules.run)
        await self._let_go()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            with contextlib.suppress(LedgerError):  # the next to write meets it, or it is over by then
                await self._write("renew_lease", self._lease, self._rules.run)

    async def _let_go(self) -> None:
        self._rules.run = 0
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None

    async def version(self) -> str | None:
        """Say that nobody knows who writes into a database."""
        return None

    async def beside(self) -> list[dict[str, Any]]:
        """Give what the other runs that are at work said of themselves as they were opened."""
        runs = await self._read(lambda tx: tx.run("beside", (self._rules.run,)).fetchall())
        return [orjson.loads(info) for (info,) in runs]

    async def close(self) -> None:
        """Write everything that is queued and let go of the database. A run that is still open counts as dead."""
        if run := self._rules.run:
            await self._let_go()
            await self._write("end_lease", run)
        await self._commits.close()
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._reads.shutdown()
        self._reader.close()
        self._writer.close()
        self._leaser.close()

    # --- requests ------------------------------------------------------------------------------------------

    async def claim(
        self, asks: Sequence[Ask], *, resend_failed: bool = False, reserving: Reserving | None = None
    ) -> list[Claim]:
        """Make the intents durable and say for each ask whether this run may send it."""
        self._must_be_open()
        if reserving is not None:
            return await self._submit(
                lambda tx: spending.claim(self._rules, tx, asks, reserving, resend_failed=resend_failed)
            )
        lines = self._rules.new_lines(asks)
        return await self._submit(_Claims(self._rules, asks, lines, resend_failed=resend_failed))

    async def answer(self, key: bytes, reply: Reply, *, within: float = 0.0) -> None:
        """Keep a raw answer. A second one to the same request changes nothing."""
        line = self._rules.answer_line(key, reply, self._clock.wall())
        await self._submit(_Answer(line), within=within)

    async def prune(self, older_than_s: float) -> int:
        """Forget requests that were answered or failed so many seconds ago; gives how many.

        What is ``sent`` stays. A forgotten request is asked, and paid for, anew when it turns up again.

        Raises:
            LedgerError: a run is using the ledger.
        """
        before = self._clock.wall() - older_than_s
        return await self._submit(lambda tx: _prune(tx, before))

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

    # --- in the writer's thread ----------------------------------------------------------------------------

    def _commit(self, works: Sequence[Work]) -> list[Any]:
        """Carry out all the work in one transaction; what cannot be carried out together is halved until it can."""
        claims = sum(isinstance(work, _Claims) for work in works)
        plain = claims <= 1 and all(isinstance(work, _Claims | _Answer) for work in works)
        try:
            return self._insist(functools.partial(self._as_one if plain else self._transact, works))
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

    def _as_one(self, works: Sequence[Work]) -> list[Any]:
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

    def _reading(self, work: Callable[[PostgresTransaction], T]) -> T:
        while True:
            try:
                return work(PostgresTransaction(self._reader, locking=False))
            except psycopg.Error as error:
                if not self._reader.broken:
                    raise self._database.explain(error, in_use=True) from None
                self._reader = self._database.connect_again(error)


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


def _prune(tx: PostgresTransaction, before: float) -> int:
    tx.run("no_new_run")  # it would take what goes now for answered
    (alive,) = tx.run("live_run").fetchone() or (None,)
    if alive is not None:
        raise LedgerError(f"run {alive} is using the ledger", hint="prune it when the run has ended.")
    return tx.run("prune", (before, before)).rowcount
