"""The pace against every model of a server, on a virtual clock: what a run takes ÷ what one takes that knows the server.

    python benchmarks/gym.py [--model "token bucket"] [--latency 0.2] [--retry-after none] [--at-a-time 128] [--cells]

Nothing is sent and nothing waits: the pace is the one of every run, the servers are the tests' (`tests/helpers/servers.py`).
A cell lasts 40 seconds, or twenty answers one after the other where those are longer; 100 to 100,000 rows. Deterministic.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import machine, table

from tests.helpers.cells import CONCURRENCIES, LATENCIES, MODELS, SECONDS, Cell, cells
from tests.helpers.gym import RETRY_AFTER

if TYPE_CHECKING:
    from collections.abc import Sequence

LONG: Final = 20.0  # seconds that the oracle takes from which a cell counts for the worst of all

Line = tuple[
    Cell, float, float, float, float
]  # a cell, its oracle's seconds, ratio, share rejected, stubborn rows


def run(cell: Cell) -> Line:
    """Run a cell; in a process of its own, so what comes back is small."""
    result = cell.run()
    return cell, result.oracle, result.ratio, result.ran.rejected, result.ran.stubborn


def main() -> None:
    """Print the table, and the worst cell at its end."""
    asked = _arguments()
    chosen = [
        cell
        for cell in cells(asked.model or (), asked.seconds, asked.seed)
        if (not asked.latency or cell.latency in asked.latency)
        and (not asked.retry_after or cell.retry_after in asked.retry_after)
        and (not asked.at_a_time or cell.most in asked.at_a_time)
    ]
    print(machine(), "\n")
    with multiprocessing.Pool(asked.processes) as pool:
        lines = pool.map(run, chosen, chunksize=1)
    if asked.cells:
        _print_cells(lines)
    else:
        _print_models(lines)
    long = [line for line in lines if line[1] >= LONG]
    if long:
        cell, oracle, ratio, rejected, _ = max(long, key=lambda line: line[2])
        print(
            f"\nworst of {len(long):,} cells of {LONG:g} s and more: {ratio:.2f} × {oracle:,.1f} s,", end=" "
        )
        print(f"{rejected:.1%} rejected: {cell}")


def _print_models(lines: Sequence[Line]) -> None:
    rows: list[list[object]] = []
    for model, group in itertools.groupby(lines, key=lambda line: line[0].model):
        part = list(group)
        long = [line for line in part if line[1] >= LONG] or part
        ratios = [line[2] for line in long]
        rows.append(
            [
                model,
                len(part),
                f"{statistics.median(ratios):.2f}",
                f"{sorted(ratios)[int(0.9 * len(ratios))]:.2f}",
                f"{max(ratios):.2f}",
                f"{statistics.median(line[3] for line in part):.1%}",
                f"{max(line[3] for line in part):.1%}",
                f"{max(line[4] for line in part):.1%}",
            ]
        )
    table(
        [
            "server",
            "cells",
            "makespan ÷ oracle: median",
            "p90",
            "worst",
            "rejected: median",
            "worst",
            "rows of > 5 attempts: worst",
        ],
        rows,
    )


def _print_cells(lines: Sequence[Line]) -> None:
    table(
        ["cell", "oracle s", "makespan ÷ oracle", "rejected", "rows of > 5 attempts"],
        [
            [cell, f"{oracle:,.1f}", f"{ratio:.2f}", f"{rejected:.1%}", f"{stubborn:.1%}"]
            for cell, oracle, ratio, rejected, stubborn in sorted(lines, key=lambda line: line[2])
        ],
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", choices=MODELS, help="of a server; may be given again")
    parser.add_argument("--latency", action="append", type=float, choices=LATENCIES, help="seconds; likewise")
    parser.add_argument(
        "--retry-after", action="append", choices=RETRY_AFTER, help="what refusals say; likewise"
    )
    parser.add_argument("--at-a-time", action="append", type=int, choices=CONCURRENCIES, help="likewise")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that a cell lasts, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--cells", action="store_true", help="print each cell, the worst last")
    return parser.parse_args()


if __name__ == "__main__":
    main()
