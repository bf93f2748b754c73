"""How long it takes to begin: ``--help`` and a run of one row, against ``python -c pass``.

python benchmarks/startup.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import Measured, enrich, machine, measure, middle, server, table, write_job

TIMES = 7


def main() -> None:
    """Print the table."""
    print(machine(), "\n")
    python = [sys.executable]
    with server() as endpoint, tempfile.TemporaryDirectory(dir=".") as folder:
        config = write_job(Path(folder), endpoint.base_url, 1)
        commands = {
            "python -c pass": [*python, "-c", "pass"],
            "beatra-enrich --version": [*python, "-m", "enrich.cli", "--version"],
            "beatra-enrich --help": [*python, "-m", "enrich.cli", "--help"],
            "python -c 'import pandas'": [*python, "-c", "import pandas"],
            "beatra-enrich run, one row": enrich(config, "--fresh"),
        }
        runs: dict[str, list[Measured]] = {name: [] for name in commands}
        for _ in range(TIMES):
            for name, command in commands.items():
                runs[name].append(measure(command))
    base = middle([run.cpu for run in runs["python -c pass"]])
    lines = [
        [
            name,
            f"{middle([r.wall for r in done]) * 1e3:.0f}",
            f"{middle([r.cpu for r in done]) * 1e3:.0f}",
            f"{middle([r.cpu for r in done]) / base:.1f}",
        ]
        for name, done in runs.items()
    ]
    table(["command", "ms", "CPU ms", "CPU ÷ pass"], lines)


if __name__ == "__main__":
    main()
