"""How long the event loop is held up while 2,000 requests are in flight.

    python benchmarks/lag.py [--rows 40000] [--concurrency 2000]

The server answers after a lognormal latency (median 200 ms, sigma 0.5). A timer on the run's own loop is due every
5 ms; how late it fires is the lag, which any other code on that loop would feel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from common import HERE, KEY, machine, measure, server, table, write_job

EVERY = 0.005  # seconds between two looks at the clock


async def watched(config: Path) -> list[float]:
    """Run a job; gives how late each look at the clock came, in seconds, while requests were in flight."""
    from enrich.config import load_config
    from enrich.runs.options import RunOptions
    from enrich.runs.run import run_job

    late: list[float] = []

    async def look() -> None:
        while True:
            due = time.perf_counter() + EVERY
            await asyncio.sleep(EVERY)
            late.append(time.perf_counter() - due)

    looking = asyncio.create_task(look())
    summary = await run_job(load_config(config), RunOptions())
    looking.cancel()
    assert summary.exit_code == 0, summary.reason
    return late


def run(config: Path) -> None:
    """Run in a process of its own and say how late the clock was."""
    from enrich.base.collector import collect_seldom, keep_imports
    from enrich.base.loops import loop_factory

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    collect_seldom()
    keep_imports()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        late = sorted(runner.run(watched(config)))
    shares = {share: late[int(len(late) * share / 100)] * 1e3 for share in (50, 95, 99)}
    print(json.dumps({"looks": len(late), **{f"p{s}": v for s, v in shares.items()}, "most": late[-1] * 1e3}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--concurrency", type=int, default=2_000)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job is not None:
        run(options.job)
        return
    os.environ["BEATRA_API_KEY"] = KEY
    print(machine(), "\n")
    with (
        server("--median", "200", "--sigma", "0.5") as endpoint,
        tempfile.TemporaryDirectory(dir=".") as folder,
    ):
        config = write_job(Path(folder), endpoint.base_url, options.rows, concurrency=options.concurrency)
        said = measure([sys.executable, str(HERE / "lag.py"), "--job", str(config)]).said
    figures = [f"{said[name]:.1f}" for name in ("p50", "p95", "p99", "most")]
    table(
        ["requests in flight", "looks", "p50 ms", "p95 ms", "p99 ms", "longest ms"],
        [[f"{options.concurrency:,}", f"{said['looks']:,}", *figures]],
    )


if __name__ == "__main__":
    main()
