"""Where nothing of POSIX is at hand, the program does what it does elsewhere: it locks, is killed, goes on, and stops when asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.chaos import make_job, place, violations
from tests.helpers.endpoint import BookedEndpoint, Raw, Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.helpers.chaos import Job

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "tests.helpers.without_posix")


def start(endpoint: BookedEndpoint, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the program without POSIX."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, **place(endpoint), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for its end: the exit code, and what it said."""
    out, err = process.communicate(timeout=90)
    return process.returncode, out + err


def run(endpoint: BookedEndpoint, job: Job, *arguments: str) -> tuple[int, str]:
    """Run a command in a job's folder to its end."""
    return ended(start(endpoint, job.folder, *arguments))


COMMANDS: Sequence[tuple[str, ...]] = (
    ("check", "config.yaml"),
    ("preview", "config.yaml", "--limit", "2"),
    ("plan", "config.yaml"),
    ("run", "config.yaml"),
    ("run", "config.yaml", "--force"),
    ("status", "config.yaml"),
    ("show", "config.yaml"),
    ("report", "config.yaml"),
    ("collect", "config.yaml"),
    ("retry", "config.yaml"),
    ("ledger", "ls", "config.yaml"),
    ("ledger", "verify", "config.yaml"),
    ("ledger", "export", "config.yaml", "-o", "answers.parquet"),
)


def test_every_command_works(tmp_path: Path) -> None:
    """Each command does its work; nothing is charged twice, and no lock or temporary file is left."""
    job = make_job(tmp_path, 20)
    with BookedEndpoint() as endpoint:
        for arguments in COMMANDS:
            code, said = run(endpoint, job, *arguments)
            assert code == 0, (arguments, said)
            assert "Traceback" not in said
        assert violations(job, endpoint) == []
    names = {path.name for path in job.folder.iterdir()}
    assert not [name for name in names if name.endswith((".tmp", ".lock", "-lock"))]
    ledger = {path.name for path in job.ledger.parent.iterdir()}
    assert not [name for name in ledger if ".run-" in name]


def test_killed_and_run_again(tmp_path: Path) -> None:
    """Killed with requests in flight, the next run finds it dead and pays for nothing twice; while it lives, it is respected."""
    job = make_job(tmp_path, 40, limits={"concurrency": 4})
    with BookedEndpoint() as endpoint:
        arrived: list[Seen] = []

        def slow(seen: Seen) -> Raw | None:
            arrived.append(seen)
            if len(arrived) == 12:
                endpoint.pause()
            return None

        endpoint.script = slow
        first = start(endpoint, job.folder, "run", "config.yaml", "-q")
        deadline = time.monotonic() + 60
        while len(arrived) < 12 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(arrived) >= 12
        code, said = run(endpoint, job, "run", "config.yaml", "-q")
        assert code == 5, said
        assert "another run" in said
        first.kill()
        assert ended(first)[0] == -signal.SIGKILL
        endpoint.resume()
        code, said = run(endpoint, job, "run", "config.yaml", "-q")
        assert code == 0, said
        assert violations(job, endpoint) == []


def test_stops_in_good_order(tmp_path: Path) -> None:
    """The first interrupt stops it when what is in flight is answered, as everywhere; the next run asks the rest alone."""
    job = make_job(tmp_path, 30, limits={"concurrency": 2})
    with BookedEndpoint() as endpoint:
        running: list[subprocess.Popen[str]] = []

        def interrupt(seen: Seen) -> Raw | None:
            if len(endpoint.posts) == 6:
                running[0].send_signal(signal.SIGINT)
            return None

        endpoint.script = interrupt
        running.append(start(endpoint, job.folder, "run", "config.yaml"))
        code, said = ended(running[0])
        assert code == 130, said
        assert "stopping: nothing more is sent" in said
        assert len(endpoint.charges) < 30
        code, said = run(endpoint, job, "run", "config.yaml")
        assert code == 0, said
        assert violations(job, endpoint) == []


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_is_what_it_is_elsewhere(tmp_path: Path, *, shared: bool) -> None:
    """Beside a lock that is shared another one may be, beside one that is not none; either is gone with its process."""
    program = f"""
import os, sys
from tests.helpers.without_posix import take_away
take_away()
from enrich.base.locks import FileLock
lock = FileLock(sys.argv[1], os.O_RDWR | os.O_CREAT)
print(lock.take(shared={shared}), flush=True)
other = FileLock(sys.argv[1])
print(other.take(), other.take(shared=True), flush=True)
sys.stdin.read()
"""
    ask = program.replace("print(other", "sys.exit();print(other")
    target = str(tmp_path / "x")
    holder = subprocess.Popen(
        [sys.executable, "-c", program, target], cwd=ROOT, text=True, stdin=-1, stdout=-1
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "True\n"
        assert holder.stdout.readline() == f"False {shared}\n"
        assert subprocess.check_output([sys.executable, "-c", ask, target], cwd=ROOT, text=True) == (
            f"{shared}\n"
        )
        holder.kill()
    assert subprocess.check_output([sys.executable, "-c", ask, target], cwd=ROOT, text=True) == "True\n"
