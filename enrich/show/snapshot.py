"""Where a run stands at one moment, in numbers and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from enrich.base.words import duration

TOLD = 3  # causes told in words


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands.

    Attributes:
        phase: what is being done.
        done: rows done in this phase.
        total: rows of this phase, when known.
        seconds: since the phase began.
        rate: rows per second, lately.
        eta: seconds that are left, when that can be said.
        ceiling: the most requests that may be in flight now; 0 where none are sent.
        failures: rows that failed, by cause, the most frequent first.
        retries: attempts that were made again, by cause, likewise.
        waiting_for: why nothing moves, when nothing moves.
        elapsed: seconds since the run began.
        found: what was found out of the endpoint's limits.
        bound_by: what holds the run up most.
        rows: how many stand how: step, status, count.
        input_rows: rows of the input, as far as they are known.
        requests: distinct ones that were sent.
        attempts: HTTP requests, those made again included.
        pause: seconds for which nobody may send.
        budget_left: what may still be spent of what there is a budget for.
        commits: of the ledger.
        commit_seconds: that they took together.
    """

    phase: str
    done: int
    total: int | None
    seconds: float
    rate: float = 0.0
    eta: float | None = None
    in_flight: int = 0
    ceiling: int = 0
    tokens: int = 0
    credits: float = 0.0
    failures: tuple[tuple[str, int], ...] = ()
    retries: tuple[tuple[str, int], ...] = ()
    waiting_for: str = ""
    elapsed: float = 0.0
    found: str = ""
    bound_by: str = ""
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    credits_usd: float = 0.0
    rows: tuple[tuple[str, str, int], ...] = ()
    input_rows: int = 0
    requests: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    pause: float = 0.0
    budget_left: tuple[tuple[str, float], ...] = ()
    commits: int = 0
    commit_seconds: float = 0.0

    @property
    def place(self) -> str:
        """Tell how far it is: rows, rate, time left."""
        of = f" of {self.total:,}" if self.total else ""
        parts = [f"{self.done:,}{of} rows"]
        if self.rate:
            parts.append(f"{self.rate:,.0f}/s" if self.rate >= 10 else f"{self.rate:,.1f}/s")
        if self.eta is not None:
            parts.append(f"{duration(self.eta)} left")
        return " · ".join(parts)

    @property
    def facts(self) -> str:
        """Tell what is under way and what was spent."""
        parts = []
        if self.elapsed >= 1:
            parts.append(f"{duration(self.elapsed)} so far")
        if self.ceiling and self.in_flight > self.ceiling:
            parts.append(f"{self.in_flight:,} in flight, going down to {self.ceiling:,}")
        elif self.ceiling:
            parts.append(f"{self.in_flight:,} in flight of {self.ceiling:,}")
        if self.found:
            parts.append(self.found)
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens{self._of_them()}")
        if self.credits:
            parts.append(f"{self.credits:,.4g} credits")
        if self.credits_usd:
            parts.append(f"{self.credits_usd:,.4g} USD")
        return " · ".join(parts)

    def _of_them(self) -> str:
        """Tell which of the tokens were read from a cache, and which were thought."""
        kinds = ((self.cached_tokens, "cached"), (self.reasoning_tokens, "reasoning"))
        told = ", ".join(f"{count:,} {kind}" for count, kind in kinds if count)
        return f" ({told})" if told else ""

    @property
    def failed(self) -> str:
        """Tell what failed for good."""
        return f"failed: {_causes(self.failures)}" if self.failures else ""

    @property
    def retried(self) -> str:
        """Tell what was tried again."""
        return f"retried: {_causes(self.retries)}" if self.retries else ""

    def line(self) -> str:
        """Tell it on one line."""
        parts = (f"{self.phase}: {self.place}", self.facts, self.retried, self.failed, self.waiting_for)
        return " · ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {**asdict(self), **{name: dict(getattr(self, name)) for name in _COUNTS}}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Snapshot:
        """Read what `to_dict` gave, of an earlier or a later version too."""
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        counts = {name: tuple(known.get(name, {}).items()) for name in _COUNTS}
        return cls(**{**known, **counts, "rows": tuple(map(tuple, known.get("rows", ())))})


_COUNTS = ("failures", "retries", "budget_left")


def _causes(counts: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in counts[:TOLD])
