"""The sections `limits` and `retry`: how fast, how hard."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import (
    Field,
    model_validator,
)

from enrich.base.concurrency import reach
from enrich.config.section import Number, PerMinute, Seconds, Section

UNTOLD = 64  # requests in flight where nothing is told and nothing is to be found out
RATES = ("requests_per_minute", "tokens_per_minute")  # the limits over a span of time, beside `windows`


class WindowConfig(Section):
    """At most so many requests or tokens in any span of so many seconds.

    Attributes:
        requests: how many may begin.
        tokens: how many may be used.
        seconds: the span.
    """

    requests: Annotated[int, Field(ge=1), Number] | None = None
    tokens: Annotated[int, Field(ge=1), Number] | None = None
    seconds: Seconds

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.requests is None and self.tokens is None:
            raise ValueError("a window needs `requests` or `tokens`")
        return self


class LimitsConfig(Section):
    """How fast requests may go. All limits hold at once; with a ledger on PostgreSQL, for all runs of one API key together.

    Attributes:
        concurrency: the most requests in flight, of each run for itself; by default as many as file descriptors and
            memory reach for, found upwards while more of them bring more answers.
        adaptive: find out what the endpoint can do, below `concurrency`, from its answers and refusals; false goes to
            `concurrency` at once (64 by default then) and learns no limit.
        requests_per_minute: spread evenly, without a burst at the start.
        tokens_per_minute: estimated before sending, settled on usage.
        windows: further limits over other spans.
    """

    concurrency: Annotated[int, Field(ge=1, le=20_000), Number] | None = None
    adaptive: bool = True
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    windows: list[WindowConfig] = []

    @property
    def most(self) -> int:
        """Give how many requests may be in flight at most."""
        if self.concurrency is not None:
            return self.concurrency
        return reach().requests if self.adaptive else UNTOLD


class RetryConfig(Section):
    """How hard a row is tried.

    Attributes:
        attempts: requests that may be sent for one body; waits for a rate limit or an outage use none up.
        unknown: how often one whose outcome is unknown is asked again where the endpoint keeps no keys (see
            `endpoint.idempotent`): each time it may be paid for once more. Where it keeps them, that is free.
        max_wait: the longest backoff, in seconds. A Retry-After is honoured beyond it.
        deadline: seconds that all attempts of one row may take together; default attempts × (timeout + max_wait).
    """

    attempts: Annotated[int, Field(ge=1, le=100), Number] = 6
    unknown: Annotated[int, Field(ge=0, le=100), Number] = 1
    max_wait: Seconds = 60.0
    deadline: Seconds | None = None
