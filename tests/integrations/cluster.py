"""What the tests of engines that spread work have in common: a database, a job, the command line to compare with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.endpoint import KEY, BookedEndpoint
from tests.helpers.postgres import find_binaries, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.endpoint import Raw, Seen
    from tests.helpers.postgres import Server

OWN = ("s_latency_ms", "s_request_id")  # what differs between two ways to the same answers


def install(package: str) -> None:
    """Install a Debian package that the tests need, where that is possible."""
    subprocess.run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", package], check=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a PostgreSQL server of our own, installed first where there is none."""
    if find_binaries() is None:
        install("postgresql")
    with running() as server:
        yield server


@pytest.fixture
def ledger(server: Server) -> str:
    """Give a ledger of our own that all processes of a cluster reach."""
    return server.create(uuid.uuid4().hex)


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """Run an endpoint that keeps books."""
    with BookedEndpoint() as running:
        yield running


def job(endpoint: BookedEndpoint, ledger: str, **more: Any) -> dict[str, Any]:
    """Make a job of one step."""
    step = {"name": "s", "prompt": "{{ t }}"}
    return {"ledger": ledger, "endpoint": {"base_url": endpoint.base_url}, "steps": [step], **more}


def java() -> None:
    """See to it that there is a Java."""
    if "JAVA_HOME" not in os.environ and shutil.which("java") is None:
        install("openjdk-17-jre-headless")


def ask_cli(folder: Path, table: pa.Table, config: dict[str, Any]) -> pa.Table:
    """Let the command line do the same job in a folder, on a ledger of its own; gives its output."""
    pq.write_table(table, folder / "in.parquet")
    whole = {**config, "input": "in.parquet", "output": "out.parquet", "ledger": "cli.db"}
    (folder / "config.yaml").write_text(json.dumps(whole), encoding="utf-8")
    command = Path(sys.executable).parent / "beatra-enrich"
    env = {**os.environ, "BEATRA_API_KEY": KEY}
    done = subprocess.run(
        [command, "run", "config.yaml", "-q"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr
    return pq.read_table(folder / "out.parquet")


def plain(table: pa.Table, by: str = "n") -> list[dict[str, Any]]:
    """Give a table's rows in an order of their own, without what no two runs have in common."""
    rows = table.sort_by(by).drop_columns([name for name in OWN if name in table.column_names])
    return rows.to_pylist()


def runs(url: str) -> int:
    """Count the runs that a shared ledger has seen."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM beatra.run").fetchone()
    assert found is not None
    return int(found[0])


def busiest_second(moments: list[float]) -> int:
    """Give how many of these moments, in seconds, lie within the busiest second."""
    return max(sum(start <= moment < start + 1 for moment in moments) for start in moments)


def clocked(moments: list[float]) -> Callable[[Seen], Raw | None]:
    """Make a script for an endpoint that notes when each request for a completion came."""

    def script(seen: Seen) -> None:
        if seen.method == "POST":
            moments.append(time.monotonic())

    return script


def processes(said: str) -> dict[int, int]:
    """Give the processes whose command line says something, each with its parent."""
    found = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if said.encode() in (folder / "cmdline").read_bytes():
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def kill(number: int) -> None:
    """Kill a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)


def paid_once(endpoint: BookedEndpoint, bodies: int) -> None:
    """Check the books: so many bodies, each charged once, no key ever with two of them."""
    assert len(endpoint.charges_per_body) == bodies
    assert Counter(endpoint.charges_per_body.values()) == {1: bodies}
    assert endpoint.conflicts == 0
