"""How fast the ledgers are, side by side: claims and answers at several group sizes, a stream of answers, look-ups.

    python benchmarks/ledger.py [--rows 20000] [--directory DIR] [--only sqlite] [--known 10000000]

A row of the first table is one claim and one answer, both on disk when they are counted. CPU of the client is the
process's own and the kernel's on its behalf; that of the server is all of PostgreSQL's processes. The server is one of
our own, on this machine, as its package configures it (synchronous_commit on, fsync on).

With ``--known`` the SQLite file holds so many requests before the rows of a further line come: of its index of keys, which
are hashes, nearly each new one changes a page of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import sqlite3
import tempfile
import time
import uuid
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from enrich import __version__
from enrich.ledger import postgres, sqlite
from enrich.records import Ask, Reply
from tests.helpers.postgres import find_binaries, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from enrich.ledger.postgres import PostgresLedger
    from enrich.ledger.sqlite import SqliteLedger
    from tests.helpers.postgres import Server

    AnyLedger = PostgresLedger | SqliteLedger

REQUEST_BYTES = 600  # a short prompt in its envelope
REPLY_BYTES = 900  # a short answer in its envelope
GROUPS = (1, 10, 64, 1_000)  # requests that are claimed, and answered, together; an engine claims up to 64
IN_FLIGHT = 1_024  # answers that are on their way at once
LOOKUPS = (1_024, 8_192)  # keys in one call
KNOWN = """
INSERT INTO request (key, state, run, attempts, sent_at, boot, boottime, attempt_id, model, crc, body)
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
SELECT randomblob(16) AS key, 0, 1, 1, 0.0, 0, 0.0, x'00', 'auto', 0, x'00' FROM number ORDER BY key
"""
TICK = os.sysconf("SC_CLK_TCK")  # per second, of /proc


@dataclass
class Timing:
    """What a stretch of work took, in seconds."""

    wall: float = 0.0
    client: float = 0.0
    server: float = 0.0


class Site:
    """Where ledgers are made: files in a folder, or databases of a server."""

    def __init__(self, name: str, folder: Path, server: Server | None) -> None:
        self.name = name
        self._folder = folder
        self._server = server
        self._place = ""

    @property
    def is_file(self) -> bool:
        """Say whether it is a SQLite file's."""
        return self._server is None

    async def fresh(self) -> AnyLedger:
        """Make an empty ledger and open a run on it."""
        name = uuid.uuid4().hex
        self._place = self._server.create(name) if self._server else str(self._folder / name)
        ledger = await self.again()
        await ledger.open_run({})
        return ledger

    async def large(self, known: int) -> AnyLedger:
        """Make a SQLite ledger of so many requests, written in one sorted sweep, and open a run on it."""
        await (await self.fresh()).close()
        with closing(sqlite3.connect(self._place, isolation_level=None)) as con:
            for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -1000000"):
                con.execute(f"PRAGMA {setting}")
            con.execute(KNOWN, (known,))
        ledger = await self.again()
        await ledger.open_run({})
        return ledger

    async def again(self) -> AnyLedger:
        """Open the last one once more."""
        if self._server:
            return await postgres.open_ledger(self._place)
        return await sqlite.open_ledger(self._place)

    def server_cpu(self) -> float:
        """Give the seconds of CPU that the server has used so far."""
        if self._server is None:
            return 0.0
        head = int((self._server.data / "postmaster.pid").read_text(encoding="ascii").split()[0])
        return sum(_ticks(process, head) for process in Path("/proc").glob("[0-9]*")) / TICK


def _ticks(process: Path, head: int) -> int:
    """Give the ticks of one process if it is the server's head (with its dead children) or a child of it."""
    try:
        fields = (process / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0
    if int(process.name) == head:
        return sum(map(int, fields[11:15]))
    return sum(map(int, fields[11:13])) if int(fields[1]) == head else 0


@contextmanager
def timed(site: Site) -> Iterator[Timing]:
    """Time what happens inside, all threads together."""
    timing = Timing()
    server, wall, cpu = site.server_cpu(), time.perf_counter(), os.times()
    yield timing
    after = os.times()
    timing.wall = time.perf_counter() - wall
    timing.client = after.user - cpu.user + after.system - cpu.system
    timing.server = site.server_cpu() - server


def make_asks(rows: int) -> list[Ask]:
    """Make requests with random keys, as hashes are."""
    body = os.urandom(REQUEST_BYTES // 2).hex().encode()
    return [Ask(uuid.uuid4().bytes, body, "auto") for _ in range(rows)]


def make_reply() -> Reply:
    """Make an answer."""
    return Reply(os.urandom(REPLY_BYTES // 2).hex().encode(), "req-0123456789", 12.5)


async def fill(ledger: AnyLedger, asks: list[Ask], group: int) -> None:
    """Claim and answer requests, so many at a time, each answer in a call of its own."""
    reply = make_reply()
    for start in range(0, len(asks), group):
        batch = asks[start : start + group]
        await ledger.claim(batch)
        await asyncio.gather(*(ledger.answer(ask.key, reply) for ask in batch))


async def stream(ledger: AnyLedger, asks: list[Ask], group: int) -> None:
    """Claim requests so many at a time while the answers of earlier ones come in, one by one: as a run does."""
    reply, room = make_reply(), asyncio.Semaphore(IN_FLIGHT)

    async def answer(ask: Ask) -> None:
        await ledger.answer(ask.key, reply)
        room.release()

    async with asyncio.TaskGroup() as tasks:
        for start in range(0, len(asks), group):
            batch = asks[start : start + group]
            await ledger.claim(batch)
            for ask in batch:
                await room.acquire()
                tasks.create_task(answer(ask))


async def measure(
    sites: list[Site],
    what: str,
    rows: int,
    work: Callable[[AnyLedger, list[Ask]], Awaitable[None]],
    *,
    full: bool,
    known: int = 0,
) -> None:
    """Print one line of the table: the same work on every kind of ledger, one after the other."""
    asks = make_asks(rows)
    timings = []
    for site in sites:
        ledger = await (site.large(known) if known else site.fresh())
        if full:
            await fill(ledger, asks, 1_000)
        with timed(site) as timing:
            await work(ledger, asks)
        await ledger.close()
        timings.append(timing)
    cells = [
        f"{rows / t.wall:>14,.0f}{t.client / rows * 1e6:>10.1f}{t.server / rows * 1e6:>10.1f}"
        for t in timings
    ]
    ratio = f"{timings[0].wall / timings[-1].wall:>10.2f}" if len(timings) > 1 else ""
    print(f"{what:<30}{''.join(cells)}{ratio}", flush=True)


async def tables(sites: list[Site], rows: int, known: int) -> None:
    """Print the table."""
    heads = "".join(f"{site.name + '/s':>14}{'µs client':>10}{'µs server':>10}" for site in sites)
    print(f"{'':<30}{heads}{'ratio':>10}" if len(sites) > 1 else f"{'':<30}{heads}")
    for group in GROUPS:
        name = f"claim + answer, {group} a group"
        count = min(rows, group * 500)
        await measure(sites, name, count, lambda ledger, asks, g=group: fill(ledger, asks, g), full=False)  # type: ignore[misc]  # mypy infers no default
    name = f"claim 64, {IN_FLIGHT:,} answers open"
    await measure(sites, name, rows, lambda ledger, asks: stream(ledger, asks, 64), full=False)
    for size in LOOKUPS:
        await measure(
            sites,
            f"lookup, {size:,} keys, shuffled",
            rows,
            lambda ledger, asks, s=size: look_up(ledger, asks, s),  # type: ignore[misc]  # as above
            full=True,
        )
    await measure(sites, "verify", rows, verify, full=True)
    for count in (1, known) if known and sites[0].is_file else ():
        name = f"64 a group, {count:,} known"
        await measure(
            sites[:1], name, rows, lambda ledger, asks: fill(ledger, asks, 64), full=False, known=count
        )


async def look_up(ledger: AnyLedger, asks: list[Ask], size: int) -> None:
    """Find answered requests by their keys, in no order."""
    keys = [ask.key for ask in asks]
    random.shuffle(keys)
    for start in range(0, len(keys), size):
        await ledger.lookup(keys[start : start + size])


async def verify(ledger: AnyLedger, asks: list[Ask]) -> None:
    """Check everything."""
    assert (await ledger.verify()).requests == len(asks)


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure the ledgers.")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--known", type=int, default=0, help="requests that a large SQLite ledger holds")
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    parser.add_argument(
        "--directory",
        type=Path,
        help="where to put the SQLite files; the system's temporary one if not given",
    )
    options = parser.parse_args()
    print(
        f"beatra-enrich {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory)))
        sites = []
        if options.only != "postgresql":
            sites.append(Site("SQLite", folder, None))
        if options.only != "sqlite" and (binaries := find_binaries()) is not None:
            print(f"PostgreSQL in {binaries}")
            sites.append(Site("PostgreSQL", folder, stack.enter_context(running())))
        print(f"{REQUEST_BYTES} B a request, {REPLY_BYTES} B a reply; the ratio is of the rows per second\n")
        await tables(sites, options.rows, options.known)


if __name__ == "__main__":
    asyncio.run(main())
