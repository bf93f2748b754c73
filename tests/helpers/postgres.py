"""A real PostgreSQL server of our own for the tests: made in a temporary directory, on a socket of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.helpers.loopback import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


def find_binaries() -> Path | None:
    """Find where the server's programs are; None when there is no PostgreSQL on this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # Debian keeps them off the PATH
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@dataclass
class Server:
    """A running server.

    Attributes:
        durable: whether it waits for the disk; it outlives its own crash either way.
        url: of its database ``postgres``.
    """

    binaries: Path
    data: Path
    port: int
    durable: bool = True

    @property
    def url(self) -> str:
        """For `ledger:`."""
        return self.database("postgres")

    def database(self, name: str) -> str:
        """Give the URL of one of its databases."""
        return f"postgresql://beatra@127.0.0.1:{self.port}/{name}"

    def create(self, name: str) -> str:
        """Make an empty database; gives its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.database(name)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self.data} -c listen_addresses=127.0.0.1 -c max_connections=400"
        options += f" -c fsync={'on' if self.durable else 'off'}"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.data / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; ``immediate`` is a crash."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.binaries / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=owner(),
            cwd="/",
        )


def owner() -> str | None:
    """Name the user that runs the server: it refuses to be root."""
    return "postgres" if os.geteuid() == 0 else None


@contextlib.contextmanager
def running(*, durable: bool = True) -> Iterator[Server]:
    """Make a server and run it while the block runs."""
    binaries = find_binaries()
    assert binaries is not None
    with tempfile.TemporaryDirectory(prefix="beatra-postgres-") as directory:
        data = Path(directory) / "data"
        data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres")
            shutil.chown(data, "postgres")
        server = Server(binaries, data, free_port(), durable)
        server._run("initdb", "-D", str(data), "-U", "beatra", "-A", "trust", "-E", "UTF8", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):  # a test may have stopped it
                server.stop()
