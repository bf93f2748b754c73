"""How much may be read at once: so many lines as fit into some megabytes, by the size of those read before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BYTES = 16 << 20  # read at once, or nearly
FIRST = 1 << 20  # bytes that a line is taken for before any was read
FORGETTING = 0.5  # of the mean that the newest lines make up


class Sizes:
    """Learns the size of lines; large ones count at once, small ones by and by."""

    def __init__(self) -> None:
        self._mean = float(FIRST)

    def share_of(self, lines: int) -> int:
        """Say how many of so many lines may be read at once; at least one, if there is any."""
        return min(lines, max(1, int(BYTES / self._mean)))

    def learn(self, sizes: Iterable[int]) -> None:
        """Take note of lines that were read, in bytes."""
        seen = list(sizes)
        if seen:
            mean = sum(seen) / len(seen) + 1
            self._mean = max(mean, self._mean + FORGETTING * (mean - self._mean), BYTES / 16_384)
