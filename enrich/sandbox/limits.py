"""The emulator's rate limits: token buckets that refill evenly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enrich.sandbox.options import SandboxOptions


class Bucket:
    """Holds so many tokens, refills at an even rate. May be overdrawn, and is refilled before it gives again.

    Args:
        rate: tokens per second.
        size: the most it holds.
    """

    def __init__(self, rate: float, size: float) -> None:
        self._rate, self._size = rate, size
        self._level, self._at = size, float("-inf")

    def has(self, amount: float, now: float) -> bool:
        """Say whether so much is there; ``now`` is in seconds on a clock that never jumps."""
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level >= amount

    def take(self, amount: float) -> None:
        """Take so much out, whether it is there or not."""
        self._level -= amount


class Limits:
    """All limits of one emulator; a request must pass them all."""

    def __init__(self, options: SandboxOptions) -> None:
        rates = [options.rate] if options.rate else []
        rates += [options.rpm / 60] if options.rpm else []
        self._requests = [Bucket(rate, max(1.0, options.burst or rate)) for rate in rates]
        self._tokens = [Bucket(options.tpm / 60, options.tpm / 60)] if options.tpm else []

    def admit(self, now: float) -> bool:
        """Let one request through, or refuse it; a refused one costs nothing."""
        free = all(bucket.has(1.0, now) for bucket in self._requests)
        if not free or not all(bucket.has(0.0, now) for bucket in self._tokens):
            return False
        for bucket in self._requests:
            bucket.take(1.0)
        return True

    def spend(self, tokens: int) -> None:
        """Count the tokens of an answer against later requests."""
        for bucket in self._tokens:
            bucket.take(tokens)
