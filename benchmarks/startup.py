"""How long it takes to begin: ``--help`` and a run of one row, against ``python -c pass``.

python benchmarks/startup.py [--against REF]

With ``--against`` the run of one row of another commit's build is measured beside this one's. Bytecode is compiled first, as
an installed package has it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common import Measured, builds, compiled, enrich, machine, measure, middle, server, table, write_job

TIMES = 7


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="REF", help="a commit whose build is measured beside this one")
    against = parser.parse_args().against
    print(machine(), "\n")
    python = [sys.executable]
    with (
        server() as endpoint,
        tempfile.TemporaryDirectory(dir=".") as folder,
        compiled(Path(folder, "bytecode")),
        builds(against) as ours,
    ):
        # A folder for each build: an earlier one refuses the ledger of a later one.
        jobs = {label: write_job(Path(folder, f"{n}"), endpoint.base_url, 1) for n, label in enumerate(ours)}
        commands = {
            "python -c pass": [*python, "-c", "pass"],
            "beatra-enrich --version": [*python, "-m", "enrich.cli", "--version"],
            "beatra-enrich --help": [*python, "-m", "enrich.cli", "--help"],
            "python -c 'import pandas'": [*python, "-c", "import pandas"],
        }
        works: list[tuple[str, list[str], dict[str, str]]] = [
            (name, command, {}) for name, command in commands.items()
        ]
        works += [
            (f"{label} run, one row", enrich(jobs[label], "--fresh"), env) for label, env in ours.items()
        ]
        runs: dict[str, list[Measured]] = {}
        for number in range(TIMES + 1):
            for name, command, env in works:
                run = measure(command, env)
                if number:  # the first one compiles
                    runs.setdefault(name, []).append(run)
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
