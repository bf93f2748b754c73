"""What telemetry by OpenTelemetry costs: CPU per row of work B with a collector on loopback, beside the same run without.

    python benchmarks/telemetry.py [--rows N] [--repeat N]

The process's CPU, less that of a run of one row of the same kind; runs interleaved, medians of the pairs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from common import HERE, enrich, machine, measure, middle, server, table, write_job

sys.path.insert(0, str(HERE.parent))
from tests.helpers.collector import Collector

WORK_B = ["--median", "200", "--sigma", "0.5"]  # at concurrency 256


def main() -> None:
    """Measure pairs of runs, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--repeat", type=int, default=3)
    wanted = parser.parse_args()
    cpu: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as folder, server(*WORK_B) as endpoint, Collector() as collector:
        envs = {"off": dict(os.environ), "on": {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}}
        alone: dict[str, list[float]] = {how: [] for how in cpu}
        for number in range(wanted.repeat):
            for how, env in envs.items():
                one = write_job(Path(folder) / f"one-{how}-{number}", endpoint.base_url, 1)
                alone[how].append(measure(enrich(one), env).cpu)
                many = write_job(
                    Path(folder) / f"{how}-{number}", endpoint.base_url, wanted.rows, concurrency=256
                )
                cpu[how].append(measure(enrich(many), env).cpu)
    rows = [
        [
            how,
            f"{1e3 * (middle(cpu[how]) - middle(alone[how])) / wanted.rows:.3f}",
            f"{middle(alone[how]):.2f}",
        ]
        for how in cpu
    ]
    pairs = [
        (on - middle(alone["on"])) / (off - middle(alone["off"]))
        for off, on in zip(cpu["off"], cpu["on"], strict=True)
    ]
    print(machine())
    table(["telemetry", "CPU ms/row", "CPU s of one row"], rows)
    print(f"on ÷ off: {middle(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})")


if __name__ == "__main__":
    main()
