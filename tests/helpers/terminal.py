"""A real pseudo-terminal of a given width, for what people see on theirs."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import struct
import subprocess
import termios
from fcntl import ioctl
from typing import TYPE_CHECKING

from tests.conftest import SCRIPT

if TYPE_CHECKING:
    from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(
    folder: Path, columns: int, *args: str | Path, typed: str = "", **env: str
) -> tuple[int, str]:
    """Run the command line with all its streams on a terminal; gives its exit code and what was seen, without colours.

    What is typed lies ready from the start.
    """
    there = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [SCRIPT, *args],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**there, "TERM": "xterm-256color", **env},
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    seen = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while more := os.read(ours, 65_536):
            seen += more
    os.close(ours)
    return process.wait(60), _CONTROL.sub("", seen.decode()).replace("\r", "")
