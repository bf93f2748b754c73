"""Whole runs on each ledger, side by side: SQLite, PostgreSQL, and two runs at once that share a PostgreSQL.

    python benchmarks/ledger_runs.py [--rows N] [--repeat N] [--concurrency N ...]

No delay, distinct rows, work A otherwise. PostgreSQL runs on the same two cores as the clients, with ``fsync`` and
``synchronous_commit`` on. The two that share it ask rows of their own.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import Measured, enrich, machine, measure, middle, server, table, write_job

from tests.helpers.postgres import running


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 128, 256])
    options = parser.parse_args()
    print(machine(), "\n")
    lines = []
    everything = range(options.rows)
    with server() as endpoint, running() as database, tempfile.TemporaryDirectory(dir=".") as folder:

        def run(name: str, numbers: range, concurrency: int, ledger: str | None) -> Measured:
            rows = len(numbers)
            job = write_job(
                Path(folder) / name, endpoint.base_url, rows, first=numbers.start, concurrency=concurrency
            )
            done = measure(enrich(job, *(["--set", f"ledger={ledger}"] if ledger else [])))
            assert done.said["ok"] == rows, done.said
            return done

        for concurrency in options.concurrency:
            speeds: dict[str, list[float]] = {"SQLite": [], "PostgreSQL": [], "PostgreSQL, two runs": []}
            for number in range(options.repeat):
                tag = f"{concurrency}-{number}"
                alone = run(f"sqlite-{tag}", everything, concurrency, None)
                speeds["SQLite"].append(options.rows / alone.said["seconds"])
                alone = run(f"own-{tag}", everything, concurrency, database.create(f"own-{tag}"))
                speeds["PostgreSQL"].append(options.rows / alone.said["seconds"])
                shared = database.create(f"shared-{tag}")
                with ThreadPoolExecutor() as pool:
                    pair = [
                        pool.submit(run, f"{part.start}-{tag}", part, concurrency, shared)
                        for part in (everything[: options.rows // 2], everything[options.rows // 2 :])
                    ]
                    slower = max(one.result().said["seconds"] for one in pair)
                speeds["PostgreSQL, two runs"].append(options.rows / slower)
            base = middle(speeds["SQLite"])
            lines += [
                [str(concurrency), name, f"{middle(seen):,.0f}", f"{middle(seen) / base:.2f}"]
                for name, seen in speeds.items()
            ]
    table(["concurrency", "ledger", "rows/s", "÷ SQLite"], lines)


if __name__ == "__main__":
    main()
