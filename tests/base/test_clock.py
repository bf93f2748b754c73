from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from enrich.base import clock
from enrich.base.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

UPTIME = Path("/proc/uptime")
linux = pytest.mark.skipif(not UPTIME.exists(), reason="Linux alone tells its uptime in a file")


def uptime() -> float:
    """Read the seconds since this machine started, as the kernel writes them (to a hundredth)."""
    return float(UPTIME.read_text(encoding="ascii").split()[0])


@pytest.mark.parametrize(
    ("read", "other"),
    [
        (SystemClock().wall, time.time),
        pytest.param(SystemClock().boottime, uptime, marks=linux),
    ],
)
def test_each_clock_is_the_machine_s(read: Callable[[], float], other: Callable[[], float]) -> None:
    """Both are in seconds, and stand between two looks at the same clock told by another way."""
    before, now, after = other(), read(), other()
    assert before - 0.01 <= now <= after + 0.01


@linux
def test_every_process_of_one_boot_names_it_alike() -> None:
    """Processes compare their boot times under one name."""
    there = subprocess.run(
        [sys.executable, "-c", "from enrich.base.clock import SystemClock; print(SystemClock().boot_id())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert SystemClock().boot_id() == there.stdout.strip() != ""


def test_a_kernel_without_a_boot_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a kernel does not name its start the name is empty: boot times are never compared."""
    monkeypatch.setattr(clock, "Path", lambda _: tmp_path / "boot_id")
    assert SystemClock().boot_id() == ""
