"""How fast a run over finished rows is: everything is found in the ledger, nothing is sent.

    python benchmarks/resume.py [--rows 100000 1000000] [--repeat N] [--against REF]

The ledger is filled through its own interface first, with the keys that the run will look for. CPU is the whole
process's, its start included; `over a run of one row` leaves the start out. The first run checks the ledger's file, which
nobody vouches for yet. The second goes through all rows again (``--force``): it is the one that counts. The third is told
nothing of the kind: nothing has changed, so it ends at once. ``--against`` has the build of another commit, one that
knows ``--force``, do the second and third beside this one, run by run; figures are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from common import KEY, Measured, builds, enrich, machine, measure, middle, table, write_job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from enrich.config import Config

URL = "http://127.0.0.1:9/v1"  # nobody listens: nothing is sent
GROUP = 2_000  # requests claimed and answered together
ANSWER = (
    b'{"id":"chatcmpl-%d","object":"chat.completion","created":1700000000,"model":"fast-1","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"positive"},"finish_reason":"stop"}],"usage":{"prompt_tokens":21,'
    b'"completion_tokens":1,"total_tokens":22,"credits":0.0022}}'
)


async def fill(config: Config) -> None:
    """Put an answer to every row's request into the job's ledger."""
    from enrich.files.source import open_source
    from enrich.ledger.sqlite import open_ledger
    from enrich.records import Reply
    from enrich.runs.job import compile_job

    source = open_source(config.input)
    builder = compile_job(config, source.schema).steps[0].builder
    ledger = await open_ledger(config.ledger_location())
    await ledger.open_run({})
    number = 0
    for batch in source.batches():
        for start in range(0, batch.num_rows, GROUP):
            rows = batch.slice(start, GROUP).to_pylist()
            asks = [builder.ask(builder.prepare(row)) for row in rows]
            await ledger.claim(asks)
            answers = [
                ledger.answer(ask.key, Reply(ANSWER % n, f"req-{n:010d}", 1.25))
                for n, ask in enumerate(asks, number)
            ]
            await asyncio.gather(*answers)
            number += len(rows)
    await ledger.close_run({})
    await ledger.close()


def finished(
    folder: Path, rows: int, repeat: int, ours: Mapping[str, Mapping[str, str]]
) -> dict[str, list[Measured]]:
    """Fill a ledger and run its job; gives the runs by what they are and whose build."""
    from enrich.config import load_config

    config = write_job(folder, URL, rows)
    asyncio.run(fill(load_config(config)))
    runs = {"file checked": [measure(enrich(config))]}
    for _ in range(repeat):
        for label, env in ours.items():
            for name, flags in {"all rows again": ["--force"], "nothing has changed": []}.items():
                runs.setdefault(f"{name}; {label}", []).append(measure(enrich(config, *flags), env))
    every = [run for several in runs.values() for run in several]
    assert all(run.said["ok"] == rows and run.said["requests"] == 0 for run in every)
    return runs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--against", metavar="REF", help="a commit whose build is measured beside this one")
    options = parser.parse_args()
    os.environ["BEATRA_API_KEY"] = KEY
    print(machine(), "\n")
    lines = []
    with tempfile.TemporaryDirectory(dir=".") as folder, builds(options.against) as ours:
        one = finished(Path(folder, "1"), 1, options.repeat, ours)
        for rows in options.rows:
            for label, runs in finished(Path(folder, str(rows)), rows, options.repeat, ours).items():
                cpu = middle([run.cpu for run in runs])
                start = middle([run.cpu for run in one[label]])
                said = middle([run.said["rows_per_second"] for run in runs])
                over = (cpu - start) / rows * 1e6
                peak = middle([run.peak_mb for run in runs])
                lines.append(
                    [f"{rows:,}, {label}", f"{said:,.0f}", f"{cpu:.2f}", f"{over:.1f}", f"{peak:.0f}"]
                )
    table(["finished rows", "rows/s", "CPU s", "µs/row over a run of one row", "peak MB"], lines)


if __name__ == "__main__":
    main()
