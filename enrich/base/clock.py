"""The one place that reads a clock, so that tests can turn it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Where time comes from. Seconds everywhere."""

    def wall(self) -> float:
        """Give the seconds since the epoch (may jump)."""

    def boottime(self) -> float:
        """Give the seconds since this machine started, suspended time included (never jumps)."""

    def boot_id(self) -> str:
        """Give a name for this start of the machine: boot times compare only under one name."""


class SystemClock:
    """The machine's clocks."""

    def wall(self) -> float:
        """Give the seconds since the epoch."""
        return time.time()

    def boottime(self) -> float:
        """Give the seconds since the machine started; where it has no such clock, the monotonic one."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def boot_id(self) -> str:
        """Give the kernel's boot id; empty where it has none, and then only the wall clock counts."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return ""
