"""Limits that nobody tells, on real sockets: how long a run takes against the least that the server allows.

    python benchmarks/limits.py [WORK ...] [--bare]

Each work is a server of ``server.c`` on a core of its own. "Ideal" is what the server lets through at the best: rows ÷
its rate, or the sum of latencies ÷ requests at a time. ``--bare`` runs a pool on bare aiohttp beside it, in which only
the request that met a 429 waits (its ``Retry-After``, or a second) and is sent again.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import HERE, enrich, machine, measure, server, table, write_job

if TYPE_CHECKING:
    from common import Server

LATENCY = ("--median", "80", "--sigma", "0.5")  # milliseconds, lognormal
MEAN = 0.080 * math.exp(0.5**2 / 2)  # seconds: the mean of it
BUCKET = ("--rate", "300", "--burst", "30")
CHANCE = ("--seed", "7")


@dataclass(frozen=True, slots=True)
class Work:
    """A server, and what runs against it.

    Attributes:
        says: the server in words.
        options: of ``server.c``.
        ideal: seconds that the server needs at the least.
        concurrency: requests at a time; None for the default.
        rows: asked.
        gauges: whether the run is told where the server shows how busy it is.
    """

    says: str
    options: tuple[str, ...]
    ideal: float
    concurrency: int | None = 64
    rows: int = 6_000
    gauges: bool = False


WORKS = {
    "E": Work("2 % of 429s at random, Retry-After: 1", (*LATENCY, *CHANCE, "--random", "0.02", "--retry-after", "1"), 6_000 * MEAN / 64),
    "E0": Work("2 % of 429s at random", (*LATENCY, *CHANCE, "--random", "0.02"), 6_000 * MEAN / 64),
    "E10": Work("10 % of 429s at random", (*LATENCY, *CHANCE, "--random", "0.10"), 6_000 * MEAN / 64),
    "E10r": Work("10 % of 429s at random, Retry-After: 1", (*LATENCY, *CHANCE, "--random", "0.10", "--retry-after", "1"), 6_000 * MEAN / 64),
    "F": Work("window: 1,200 per 10 s, Retry-After to its end", ("--median", "50", "--fixed", "1200:10"), 40.0, 128),
    "G": Work(
        "300/s, burst 30, Retry-After: 1; 100/s from second 6 to 12",
        ("--median", "50", *BUCKET, "--retry-after", "1", "--slump", "6:12:100"),
        (6_000 - 30 + 1_200) / 300,
        128,
    ),
    "C": Work("300/s, burst 30, Retry-After: 1", ("--median", "50", *BUCKET, "--retry-after", "1"), 19.9),
    "C2": Work("the same, answers after 200 ms", ("--median", "200", *BUCKET, "--retry-after", "1"), 19.9, 256),
    "C0": Work("300/s, burst 30", ("--median", "50", *BUCKET), 19.9),
    "cap": Work("429 above 32 in flight, answers after 80 ms", (*LATENCY, "--cap", "32"), 6_000 * MEAN / 32, 128),
    "Q": Work("no 429: 256 at a time, 1 s each, the rest queues", ("--median", "1000", "--slots", "256"), 10.0, None, 2_560),
    "Q10": Work("the same, ten times the rows", ("--median", "1000", "--slots", "256"), 100.0, None, 25_600),
    "Qm": Work("Q, and its gauges are named: endpoint.metrics_url", ("--median", "1000", "--slots", "256"), 10.0, None, 2_560, gauges=True),
}  # fmt: skip


def ours(work: Work, endpoint: Server, folder: Path, *, times: int = 1) -> list[list[object]]:
    """Run the work so many times, each on new rows, with one ledger: what was learned is kept."""
    lines: list[list[object]] = []
    limits: dict[str, Any] = {} if work.concurrency is None else {"concurrency": work.concurrency}
    if work.gauges:
        limits["metrics_url"] = endpoint.base_url.replace("/v1", "/metrics")
    for number in range(times):
        endpoint.reset()
        config = write_job(folder, endpoint.base_url, work.rows, first=number * work.rows, **limits)
        said = measure(enrich(config)).said
        label = "beatra-enrich" if number == 0 else "beatra-enrich, next run"
        bound = (said.get("bound_by") or {}).get("text", "")
        lines.append([label, *_went(work, said, endpoint), "; ".join([bound, *said.get("found", [])])])
    return lines


def bare(work: Work, endpoint: Server) -> list[object]:
    """Run the work on bare aiohttp."""
    endpoint.reset()
    arguments = [endpoint.base_url, str(work.rows), str(work.concurrency or 256), "retry"]
    said = measure([sys.executable, str(HERE / "bare.py"), *arguments]).said
    return ["bare aiohttp", *_went(work, said, endpoint), ""]


def _went(work: Work, said: dict[str, Any], endpoint: Server) -> list[object]:
    """Say how a client fared, by the server's books."""
    books = endpoint.books()
    refused, answered = (sum(line.status == status for line in books) for status in (429, 200))
    lost = f"{work.rows - said['ok']}, {answered - said['ok']}"
    return [
        f"{said['seconds']:.1f}",
        f"{said['seconds'] / work.ideal:.2f}",
        f"{100 * refused / len(books):.1f} %",
        lost,
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "works", nargs="*", default=list(WORKS), metavar="WORK", help=f"of {', '.join(WORKS)}"
    )
    parser.add_argument("--bare", action="store_true", help="a pool on bare aiohttp beside it")
    options = parser.parse_args()
    print(machine(), "\n")
    lines: list[list[object]] = []
    for name in options.works:
        work = WORKS[name]
        with server(*work.options) as endpoint, tempfile.TemporaryDirectory(dir=".") as folder:
            lines += [
                [name, f"{work.ideal:.1f}", *line] for line in ours(work, endpoint, Path(folder), times=2)
            ]
            if options.bare:
                lines.append([name, f"{work.ideal:.1f}", *bare(work, endpoint)])
        print("\n".join(f"{name}: {line[2:]}" for line in lines if line[0] == name), file=sys.stderr)
    table(["work", "ideal s", "client", "s", "÷ ideal", "rejected", "lost, twice", "said"], lines)
    print("\n" + "\n".join(f"{name}: {WORKS[name].says}" for name in options.works))


if __name__ == "__main__":
    main()
