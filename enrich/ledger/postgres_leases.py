"""Rate leases over a connection of their own: the slots of a limit that runs on many machines share."""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import psycopg

from enrich.ledger.postgres_database import query
from enrich.pace.lease import Lease

if TYPE_CHECKING:
    from enrich.ledger.postgres_database import Connection, Database
    from enrich.pace.lease import LeaseRequest

COUNT_EVERY: Final = 5.0  # seconds between looks at how many runs share a limit


class Leaser:
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
        """Tell what is new of a run and take the next slots of an account.

        Raises:
            LedgerFailing: the database stayed away, or cannot be used.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._lease, account, request, run
        )

    def _lease(self, account: bytes, request: LeaseRequest, run: int) -> Lease:
        while True:
            try:
                if self._connection is None:
                    self._connection = self._database.connect()
                runs = self._count(self._connection, account, run)
                values = lease_values(account, request, runs=runs, started=self._started)
                return Lease(*self._connection.execute(query("lease"), values).fetchall()[0])
            except psycopg.Error as error:
                if self._connection is not None and not self._connection.broken:
                    raise self._database.explain(error, in_use=True) from None
                self._connection = self._database.connect_again(error)
                self._runs.clear()

    def _count(self, connection: Connection, account: bytes, run: int) -> int:
        """Look up how many live runs share an account, now and then."""
        runs, counted = self._runs.get(account, (1, -math.inf))
        if time.monotonic() - counted >= COUNT_EVERY:
            connection.execute(query("share_account"), (account, run, account))
            found, self._started = connection.execute(query("count_sharing"), (account,)).fetchall()[0]
            runs = max(1, found)
            self._runs[account] = (runs, time.monotonic())
        return runs

    def close(self) -> None:
        """Let go of the connection."""
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()


def lease_values(
    account: bytes, request: LeaseRequest, *, runs: int, started: float, now: float | None = None
) -> tuple[Any, ...]:
    """Give the arguments of the query ``lease``; without ``now`` the database's clock counts."""
    cut, windows = request.cut, request.windows
    lanes = [[getattr(w, name) for w in windows] for name in ("tokens", "amount", "seconds", "spacing")]
    asked = (request.want, request.each, request.settled, request.sent)
    learned = (cut.episode, cut.known) if cut else (None, None)
    return (account, runs, now, started, *lanes, *asked, *learned)
