"""How fast the embedded ledger is: claims and answers at several group sizes, and lookups.

    python benchmarks/ledger.py [--rows 50000] [--directory DIR]

CPU is the process's own and the kernel's on its behalf; a row of the first table is one claim and one answer, both
on disk when they are counted.
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from enrich import __version__
from enrich.ledger.sqlite import SqliteLedger, open_ledger
from enrich.records import Ask, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST_BYTES = 600  # a short prompt in its envelope
REPLY_BYTES = 900  # a short answer in its envelope
GROUPS = (1, 10, 100, 1_000)  # requests that are claimed, and answered, together
LOOKUPS = (256, 1_024, 8_192)  # keys in one call


@dataclass
class Timing:
    """What a stretch of work took, in seconds."""

    wall: float = 0.0
    user: float = 0.0
    system: float = 0.0

    def line(self, what: str, rows: int) -> str:
        """Give one line of the table."""
        wall, user, system = (value / rows * 1e6 for value in (self.wall, self.user, self.system))
        return f"{what:<28}{rows / self.wall:>12,.0f}{wall:>12.1f}{user:>12.1f}{system:>12.1f}"


@contextmanager
def timed() -> Iterator[Timing]:
    """Time what happens inside, all threads together."""
    timing = Timing()
    wall, cpu = time.perf_counter(), os.times()
    yield timing
    after = os.times()
    timing.wall = time.perf_counter() - wall
    timing.user, timing.system = after.user - cpu.user, after.system - cpu.system


def make_asks(rows: int) -> list[Ask]:
    """Make requests with random keys, as hashes are."""
    body = os.urandom(REQUEST_BYTES // 2).hex().encode()
    return [Ask(uuid.uuid4().bytes, body, "auto") for _ in range(rows)]


async def fill(ledger: SqliteLedger, asks: list[Ask], group: int) -> None:
    """Claim and answer requests, so many at a time, each answer in a call of its own."""
    reply = Reply(os.urandom(REPLY_BYTES // 2).hex().encode(), "req-0123456789", 12.5)
    for start in range(0, len(asks), group):
        batch = asks[start : start + group]
        await ledger.claim(batch)
        await asyncio.gather(*(ledger.answer(ask.key, reply) for ask in batch))


async def writes(directory: Path, rows: int) -> None:
    """Print the cost of a claim with its answer, per group size."""
    for group in GROUPS:
        count = min(rows, group * 500)
        asks = make_asks(count)
        ledger = await open_ledger(directory / f"{group}.db")
        await ledger.open_run({})
        with timed() as timing:
            await fill(ledger, asks, group)
        print(timing.line(f"claim + answer, {group} a group", count), flush=True)
        await ledger.close()


async def reads(directory: Path, rows: int) -> None:
    """Print the cost of finding an answered request by its key, in the order of writing and shuffled."""
    ledger = await open_ledger(directory / "reads.db")
    await ledger.open_run({})
    asks = make_asks(rows)
    await fill(ledger, asks, 1_000)
    keys = [ask.key for ask in asks]
    for order in ("in order", "shuffled"):
        for size in LOOKUPS:
            with timed() as timing:
                for start in range(0, rows, size):
                    await ledger.lookup(keys[start : start + size])
            print(timing.line(f"lookup, {size} keys, {order}", rows), flush=True)
        random.shuffle(keys)
    await ledger.close()
    with timed() as timing:
        ledger = await open_ledger(directory / "reads.db")
    print(timing.line("open (per ledger)", 1))
    with timed() as timing:
        report = await ledger.verify()
    print(timing.line("verify", rows))
    assert report.sound
    await ledger.close()


async def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Measure the embedded ledger.")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument(
        "--directory", type=Path, help="where to put the ledgers; the system's temporary one if not given"
    )
    options = parser.parse_args()
    print(
        f"beatra-enrich {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    )
    print(f"{REQUEST_BYTES} B a request, {REPLY_BYTES} B a reply\n")
    print(f"{'':<28}{'rows/s':>12}{'µs wall':>12}{'µs user':>12}{'µs system':>12}")
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        await writes(Path(directory), options.rows)
        await reads(Path(directory), options.rows)


if __name__ == "__main__":
    asyncio.run(main())
