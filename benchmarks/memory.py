"""Peak memory against rows, and how fast finished rows are read back: every row sent once, then a run that sends none.

    python benchmarks/memory.py [--rows 100000 1000000]

Memory is the process's peak, less that of an interpreter that imported pyarrow. The second run of each size finds every
answer in the ledger.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common import enrich, machine, measure, server, table, write_job


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    sizes = parser.parse_args().rows
    print(machine(), "\n")
    bare = measure([sys.executable, "-c", "import pyarrow, pyarrow.parquet"]).peak_mb
    lines = []
    with server() as endpoint:
        for rows in sizes:
            with tempfile.TemporaryDirectory(dir=".") as folder:
                config = write_job(Path(folder), endpoint.base_url, rows, concurrency=128)
                asked, cached = measure(enrich(config)), measure(enrich(config))
            assert asked.said["ok"] == rows
            assert cached.said["requests"] == 0
            for label, run in (("sent", asked), ("found in the ledger", cached)):
                lines.append(
                    [
                        f"{rows:,} {label}",
                        f"{run.peak_mb:.0f}",
                        f"{run.peak_mb - bare:.0f}",
                        f"{run.said['rows_per_second']:,.0f}",
                        f"{run.cpu / rows * 1e6:.1f}",
                    ]
                )
    table(["rows", "peak MB", "over pyarrow alone", "rows/s", "CPU µs/row"], lines)


if __name__ == "__main__":
    main()
