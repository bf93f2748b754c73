"""Command lines without the wait: a process that has imported everything forks one per call, to be killed at will.

What runs is the real entry point in a real process; only the second of imports is saved. Run as a module it is that
process: it reads one JSON order a line, answers with the child's id, then with how it ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

ROOT = Path(__file__).parents[2]
MUTATION = "MUTATION"  # the environment variable that names a module of tests.mutations to apply


@dataclass(frozen=True)
class Ended:
    """How a command line ended.

    Attributes:
        code: its exit code; a negative one is the signal that killed it.
        rss: bytes of memory at its peak; 0 where nobody looked.
    """

    code: int
    out: str
    err: str
    rss: int = 0


class Running:
    """A command line under way."""

    def __init__(self, warm: Warm, pid: int, folder: Path) -> None:
        self.pid = pid
        self._warm = warm
        self._folder = folder

    def signal(self, number: int) -> None:
        """Send it a signal; one that has ended gets none."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Wait for its end."""
        end = self._warm.reply()
        self._warm.running = None
        out, err = (
            (self._folder / name).read_text(encoding="utf-8", errors="replace")
            for name in ("stdout", "stderr")
        )
        return Ended(end["code"], out, err, end["rss"])


class Warm:
    """Forks command lines, one at a time. A context manager."""

    def __init__(self) -> None:
        self.running: Running | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.warm"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.reply()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def start(
        self, folder: Path, *args: str | Path, env: Mapping[str, str] | None = None, stopped: bool = False
    ) -> Running:
        """Start ``beatra-enrich`` with these arguments in a folder.

        Args:
            folder: where it runs, and where its ``stdout`` and ``stderr`` go.
            args: of the command line.
            env: added to the environment.
            stopped: let it wait for SIGCONT before it does anything.
        """
        order = {
            "folder": str(folder),
            "args": [str(arg) for arg in args],
            "stopped": stopped,
            "env": dict(env or {}),
        }
        if self.running is not None:  # of a test that failed
            self.running.signal(signal.SIGKILL)
            self.running.wait()
        for name in ("stdout", "stderr"):
            (folder / name).touch()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self.running = Running(self, self.reply()["pid"], folder)
        return self.running

    def run(self, folder: Path, *args: str | Path, env: Mapping[str, str] | None = None) -> Ended:
        """Run ``beatra-enrich`` to its end."""
        return self.start(folder, *args, env=env).wait()

    def reply(self) -> Any:
        """Read what the process says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the warm process died"
        return json.loads(line)


def serve() -> None:
    """Take orders until there are no more; returns in a child too, whose order it is to carry out."""
    say({"ready": os.getpid()})
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            become(order)
            return
        if order["stopped"]:
            os.waitpid(pid, os.WUNTRACED)
        say({"pid": pid})
        _, status, used = os.wait4(pid, 0)
        say({"code": os.waitstatus_to_exitcode(status), "rss": used.ru_maxrss * 1024})
    sys.exit(0)


def say(what: dict[str, int]) -> None:
    """Write one line to whoever gives the orders."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def become(order: dict[str, Any]) -> None:
    """Turn a fork into the process that was ordered."""
    os.chdir(order["folder"])
    os.environ.update(order["env"])
    for name, number, flags in (
        (os.devnull, 0, os.O_RDONLY),
        ("stdout", 1, os.O_WRONLY | os.O_TRUNC),
        ("stderr", 2, os.O_WRONLY | os.O_TRUNC),
    ):
        descriptor = os.open(name, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["beatra-enrich", *order["args"]]
    if order["stopped"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    if MUTATION in os.environ:
        importlib.import_module(f"tests.mutations.{os.environ[MUTATION]}").apply()


if __name__ == "__main__":
    for module in (
        "enrich.runs.run",
        "enrich.show.progress",
        "enrich.show.logs",
        "enrich.ledger.sqlite",
        "enrich.sandbox.server",
        "pandas",
        "uvloop",
    ):
        importlib.import_module(module)  # ahead of every fork
    importlib.import_module("encodings.idna")
    from enrich.cli.program import program

    serve()
    random.seed()  # a fork would jitter like its brothers
    program()
