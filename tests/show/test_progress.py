"""What a person sees of a run: true, on one screen, and gone at the end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import struct
import subprocess
import termios
from fcntl import ioctl
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from enrich.show import progress
from enrich.show.logs import PROGRESS, set_up_logs
from enrich.show.progress import gap, shown
from enrich.show.watch import Watch
from tests.conftest import SCRIPT
from tests.helpers.endpoint import KEY, BookedEndpoint
from tests.helpers.waiting import until
from tests.show.test_snapshot import SNAPSHOTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enrich.show.snapshot import Snapshot


@given(SNAPSHOTS, st.integers(20, 250))
def test_the_picture_fits_the_terminal(now: Snapshot, width: int) -> None:
    """At any width the picture has at most five lines, none wider than the terminal."""
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(progress._picture(now, width))
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 5
    assert all(len(line.rstrip()) <= width for line in lines)


async def test_lines_and_events(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is a line per interval; in JSON logs it is an event with the figures apart."""
    watch, stream = Watch(), io.StringIO()
    watch.phase("writing the output", 10)
    async with shown(watch, stream, live=False, every=0.01):
        await until(lambda: stream.getvalue().count("\n") >= 2)
    assert stream.getvalue().startswith("writing the output: 0 of 10 rows\n")
    set_up_logs(0, "json", quiet=False)
    async with shown(watch, stream, live=False, log=PROGRESS, every=0.01):
        await asyncio.sleep(0.1)
    event = json.loads(capsys.readouterr().err.splitlines()[0])
    assert event["level"] == "info"
    assert event["progress"]["phase"] == "writing the output"
    assert event["progress"]["total"] == 10


def test_drawing_takes_next_to_nothing_of_the_run() -> None:
    """Redraws come ten times a second, and less often where a picture costs more than a fiftieth of a core's time."""
    assert gap(0.001) == pytest.approx(0.1)
    assert gap(0.01) == pytest.approx(0.5)
    assert gap(10.0) == progress.BAR_AT_LEAST


@pytest.mark.parametrize("columns", [80, 200])
def test_on_a_terminal_nothing_is_left_over(
    job: Callable[..., Path], endpoint: BookedEndpoint, columns: int
) -> None:
    """On a real terminal of any width the bar is drawn, wiped at the end, and the cursor is back."""
    endpoint.pause()
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    there = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [SCRIPT, "run", job()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, **there},
    )
    os.close(theirs)
    seen = b""
    while b"in flight" not in seen:
        seen += os.read(ours, 4096)
    endpoint.resume()
    with contextlib.suppress(OSError):  # the other end is closed
        while more := os.read(ours, 4096):
            seen += more
    process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    *_, end = seen.split(b"\x1b[?25h")  # from here on the cursor is visible again
    assert b"3 rows done" in end
    assert b"in flight" not in end
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") == 1
