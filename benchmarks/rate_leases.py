"""A thousand workers on one limit: the very code that leases slots, on a virtual clock, and leases of a real database.

    python benchmarks/rate_leases.py [--seed 1] [--only simulation]

Nothing is sent. A simulated worker takes every slot it can get; the database is a milliseconds-away queue that
answers one at a time, as a row that is locked does, in as long as the real one takes here. Deterministic by its seed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enrich import __version__
from enrich.config import LimitsConfig
from enrich.ledger.postgres_database import SQL, Database, migrate
from enrich.ledger.postgres_leases import lease_values
from enrich.pace.lease import LeaseRequest
from enrich.pace.shared_windows import LeasedSlots, shared_windows
from tests.helpers.postgres import find_binaries, running
from tests.helpers.virtual import SimulatedLeases, VirtualLoop, busiest, run_virtually

if TYPE_CHECKING:
    from enrich.pace.lease import Lease

AWAY = 0.001  # seconds from a worker to the database, one way
SERVICE = 0.0005  # seconds that the database takes for one lease; see the second table
AWAY_AT, AWAY_FOR = 30.0, 10.0  # seconds after the start, and seconds: when the database is not there
KILLED_AT = 30.0  # seconds after the start when half of the workers are killed
CONNECTIONS = (1, 4, 16)  # that lease at the same time from the real database


@dataclass
class Queue(SimulatedLeases):
    """Leases that wait for each other."""

    free: float = 0.0
    waited: list[float] = field(default_factory=list)

    async def lease(self, account: bytes, request: LeaseRequest) -> Lease:
        """Give the next slots when it is this one's turn."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.free = max(self.free, began + self.away) + SERVICE
        await asyncio.sleep(self.free - began - self.away)
        lease = await super().lease(account, request)
        self.waited.append(loop.time() - began)
        return lease


@dataclass
class Outcome:
    """What a simulation gave: when each worker sent, and what the database was asked."""

    times: list[list[float]]
    began: float
    leases: Queue

    def all(self) -> list[float]:
        """Give when anything was sent."""
        return sorted(at for times in self.times for at in times)

    def between(self, start: float, end: float) -> int:
        """Count what was sent between two moments after the start."""
        return sum(self.began + start <= at < self.began + end for times in self.times for at in times)


def simulate(
    workers: int, per_minute: float, seconds: float, *, seed: int, down: bool = False, kill: bool = False
) -> Outcome:
    """Let workers take slots for so many virtual seconds; they start within the first one."""
    limits = LimitsConfig(requests_per_minute=per_minute)
    random_ = random.Random(seed)

    async def main(loop: VirtualLoop) -> Outcome:
        began = loop.time()
        leases = Queue(runs=workers, away=AWAY)
        if down:
            leases.down = (began + AWAY_AT, began + AWAY_AT + AWAY_FOR)
        times: list[list[float]] = [[] for _ in range(workers)]

        async def worker(sent: list[float], after: float) -> None:
            await asyncio.sleep(after)
            async with LeasedSlots(leases, b"account", limits, monotonic=loop.time) as slots:
                while True:
                    await slots.take(0.0)
                    slots.sent()
                    sent.append(loop.time())

        tasks = [asyncio.create_task(worker(sent, random_.random())) for sent in times]
        if kill:
            for task in tasks[::2]:
                loop.call_later(KILLED_AT, task.cancel)
        await asyncio.wait(tasks, timeout=seconds)
        outcome = Outcome([list(sent) for sent in times], began, leases)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return outcome

    result: Outcome = run_virtually(main)
    return result


def jain(counts: list[int]) -> float:
    """Give Jain's index of fairness: 1 when all have the same, 1/n when one has all."""
    return sum(counts) ** 2 / (len(counts) * sum(count**2 for count in counts))


def fairness(seed: int) -> None:
    """Print how the limit is held and shared."""
    print(
        f"{'workers':>8}{'limit/s':>9}{'seconds':>9}{'used':>8}{'busiest s':>11}{'Jain':>8}{'p1':>6}{'p99':>6}{'leases/s':>10}{'wait ms':>9}"
    )
    for workers, per_second, seconds in (
        (10, 10, 120),
        (10, 100, 120),
        (100, 100, 120),
        (100, 1_000, 60),
        (1_000, 10, 1_200),
        (1_000, 100, 240),
        (1_000, 1_000, 60),
    ):
        outcome = simulate(workers, per_second * 60, seconds, seed=seed)
        sent = outcome.all()
        counts = sorted(len(times) for times in outcome.times)
        mean = len(sent) / workers
        p1, p99 = counts[workers // 100] / mean, counts[-1 - workers // 100] / mean
        most = busiest(sent, 1.0) / per_second
        waits = sorted(outcome.leases.waited)
        print(
            f"{workers:>8,}{per_second:>9,}{seconds:>9,}{len(sent) / (sent[-1] - sent[0]) / per_second:>8.3f}{most:>11.3f}"
            f"{jain(counts):>8.3f}{p1:>6.2f}{p99:>6.2f}{outcome.leases.trips / seconds:>10,.0f}"
            f"{waits[len(waits) * 99 // 100] * 1e3:>9.1f}",
            flush=True,
        )


def losses(seed: int) -> None:
    """Print what a database that goes away costs, and what workers that die take with them."""
    workers, per_second = 1_000, 1_000
    outcome = simulate(workers, per_second * 60, 60, seed=seed, down=True)
    back = AWAY_AT + AWAY_FOR
    resumed = next(at for at in outcome.all() if at >= outcome.began + back) - outcome.began - back
    after = outcome.between(back, back + 10)
    print(f"\nthe database is away for {AWAY_FOR:.0f} s, {workers:,} workers, {per_second:,}/s:")
    print(f"  sent while it was away: {outcome.between(AWAY_AT, back) / per_second:.2f} s worth of the limit")
    print(
        f"  first request after it was back: {resumed:.2f} s; in the 10 s after: {after / per_second / 10:.3f} of the limit"
    )
    print(f"  busiest second of all: {busiest(outcome.all(), 1.0) / per_second:.3f} of the limit")
    outcome = simulate(workers, per_second * 60, 60, seed=seed, kill=True)
    lost = [
        1 - outcome.between(KILLED_AT + second, KILLED_AT + second + 1) / per_second for second in range(5)
    ]
    print(f"half of the {workers:,} workers are killed: unused of the limit in the seconds after:")
    print("  " + ", ".join(f"{share:.3f}" for share in lost))


def real() -> None:
    """Print how many leases a second a real database gives, all for one account."""
    print(f"\n{'connections':>12}{'leases/s':>10}{'ms each':>9}")
    window = tuple(shared_windows(LimitsConfig(requests_per_minute=6e9, tokens_per_minute=6e9), 0.1))
    with running() as server:
        for connections in CONNECTIONS:
            url = server.create(uuid.uuid4().hex)
            with Database(url).connect() as connection:
                migrate(connection)
            counts: Counter[int] = Counter()
            until = time.monotonic() + 4.0

            def work(
                number: int, url: str = url, counts: Counter[int] = counts, until: float = until
            ) -> None:
                values = lease_values(b"account", LeaseRequest(window, 1, each=100.0), runs=1, started=0.0)
                with Database(url).connect() as connection:
                    while time.monotonic() < until:
                        connection.execute(SQL["lease"].encode(), values).fetchall()
                        counts[number] += 1

            threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            total = sum(counts.values()) / 4.0
            print(f"{connections:>12}{total:>10,.0f}{connections / total * 1e3:>9.2f}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Measure the leases of a shared limit.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["simulation", "database"])
    options = parser.parse_args()
    print(
        f"beatra-enrich {__version__}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; the database of the simulation is {AWAY * 1e3:g} ms away and takes "
        f"{SERVICE * 1e6:.0f} µs a lease\n"
    )
    if options.only != "database":
        fairness(options.seed)
        losses(options.seed)
    if options.only != "simulation" and find_binaries() is not None:
        real()


if __name__ == "__main__":
    main()
