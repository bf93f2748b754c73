"""The lock on an output: one run at a time."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from enrich.errors import OutputLocked
from enrich.files.output_lock import hold_output
from tests.helpers.outputs import (
    files,
    python,
)

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from enrich.files.output_lock import hold_output
with hold_output(sys.argv[1]):
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_turned_away(out: Path) -> None:
    """While another process holds an output the second is told which; when that is killed, the way is free."""
    path = out / "x.csv"
    with python(HOLD, str(path)) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "holding\n"
        assert (out / ".x.csv.lock").stat().st_mode & 0o777 == 0o600
        with pytest.raises(OutputLocked, match=f"process {first.pid}") as caught, hold_output(path):
            pass
        assert caught.value.exit_code == 5
        with hold_output(out / "other.csv"):
            pass
        first.send_signal(signal.SIGKILL)
    with hold_output(path):
        pass
    assert files(out) == {}


def test_one_output_under_two_names_is_one(out: Path) -> None:
    """A symbolic link to an output that is held is held as well."""
    out.mkdir()
    (out / "link.csv").symlink_to(out / "x.csv")
    with hold_output(out / "x.csv"), pytest.raises(OutputLocked), hold_output(out / "link.csv"):
        pass


TAKE_TURNS = """
import sys
from enrich.errors import OutputLocked
from enrich.files.output_lock import hold_output
taken = 0
while taken < 200:
    try:
        with hold_output(sys.argv[1]):
            open(sys.argv[1] + ".inside", "x").close()
            __import__("os").unlink(sys.argv[1] + ".inside")
            taken += 1
    except OutputLocked:
        pass
print(taken)
"""


def test_the_lock_never_has_two_holders(out: Path) -> None:
    """Processes that take and release an output as fast as they can are never in it together."""
    processes = [python(TAKE_TURNS, str(out / "x.csv")) for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == ["200\n"] * 3
