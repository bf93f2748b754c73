"""How many requests this machine can have in flight: as far as file descriptors and memory reach."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final, NamedTuple

from enrich.base.descriptors import room_for_connections

EACH: Final = 512 * 1024  # bytes of memory that a request in flight may take: connection, bodies, row
SHARE_OF_MEMORY: Final = 0.25  # of the memory that is free now, for requests in flight
MOST_IN_FLIGHT: Final = 20_000  # what one event loop and one address's ports are good for
UNKNOWN: Final = 4_096  # where the system does not say


class Reach(NamedTuple):
    """How many requests may be in flight, and what sets that."""

    requests: int
    why: str


def reach() -> Reach:
    """Say how many requests this machine can have in flight."""
    files, memory = room_for_connections(), _memory()
    least = min(files, memory, MOST_IN_FLIGHT)
    if least == files < MOST_IN_FLIGHT:
        return Reach(max(1, files), "as far as this process's file descriptors reach")
    if least == memory < MOST_IN_FLIGHT:
        return Reach(max(1, memory), "as far as this machine's memory reaches")
    return Reach(MOST_IN_FLIGHT, "the most that one run has in flight")


def _memory() -> int:
    """Give how many requests the memory is good for: what is available, and what the control group allows."""
    sizes = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return int(SHARE_OF_MEMORY * min(sizes) / EACH) if sizes else UNKNOWN
