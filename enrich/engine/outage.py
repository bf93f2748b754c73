"""When the endpoint is out of service, and what a run says when it stops for it."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING

from enrich.engine.retry import is_rate_limit
from enrich.errors import BalanceSpent, EndpointFailing, KeyRefused, RunStopped
from enrich.records import TOO_MANY_FILES, Failure, Fate
from enrich.wire.meanings import meaning
from enrich.wire.stream_end import NO_FINISH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from enrich.records import RowStatus

WINDOW = 50  # attempts looked at
ENOUGH = 20  # attempts before a judgement; so many failures in a row are one, however well it went before
SHARE = 0.9  # of the window failed: out of service
DIFFERENT = 10  # requests among them, where some succeeded before: fewer may be to blame themselves
UNREACHABLE = 5  # failures to connect, from the first attempt on, that are judgement enough
FIRST_PAUSE = 1.0  # seconds before the first probe; doubles
LONGEST_PAUSE = 60.0  # seconds
PATIENCE = 300.0  # seconds of outage after which the run stops, to be resumed later
PATIENCE_LIMITED = 180.0  # seconds of nothing but 429s, from the first attempt on; less where rows get less
OF_DEADLINE = 0.9  # of a row's time, after which that is enough: before rows are given up for it
PATIENCE_AT_START = (
    30.0  # seconds, when nothing ever succeeded: more likely a wrong address; less where rows get less
)
ALIKE = 20  # rows, the first ones, that must fail in the same way to stop a run in which nothing succeeded
ALIKE_AT_ONCE = 10 * ALIKE  # rows that are enough while an earlier one is still awaited


class Outage:
    """The breaker: a sliding window over attempts. When nearly all fail, one request at a time probes.

    Attributes:
        on: whether the endpoint counts as out of service.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, *, deadline: float = math.inf
    ) -> None:
        self._monotonic = monotonic
        self._patience_limited = min(PATIENCE_LIMITED, OF_DEADLINE * deadline)
        self._patience_at_start = min(PATIENCE_AT_START, deadline)
        self._limited_since: float | None = None  # nothing but 429s came since
        self._last: deque[bytes | None] = deque(maxlen=WINDOW)  # whose attempt failed; None for a success
        self._unsent = 0
        self._unfinished = 0
        self._in_a_row = 0
        self._ever_succeeded = False
        self._since = 0.0
        self._paused_at = 0.0
        self._pause = FIRST_PAUSE
        self.on = False

    def success(self, sent_at: float) -> None:
        """Note an answer to an attempt that was sent at ``sent_at``, in monotonic seconds."""
        self._last.append(None)
        self._in_a_row = 0
        self._ever_succeeded = True
        self._limited_since = None
        self._alive(sent_at)

    def failure(self, failure: Failure, key: bytes, sent_at: float) -> float | None:
        """Note a failed attempt.

        Args:
            failure: how it failed.
            key: of the request, by which further attempts of it are told from other requests.
            sent_at: monotonic seconds.

        Returns:
            The seconds to pause when it shows an outage.
        """
        if not is_rate_limit(failure):
            self._limited_since = None
        elif self._limited_since is None:
            self._limited_since = sent_at
        if not _is_trouble(failure):
            self._alive(sent_at)
            return None
        self._last.append(key)
        self._in_a_row += 1
        self._unfinished = self._unfinished + 1 if failure.message == NO_FINISH else 0
        self._unsent = self._unsent + 1 if failure.fate is Fate.UNSENT else 0
        if not self.on and not self._out_of_service():
            return None
        now = self._monotonic()
        if not self.on:
            self.on, self._since = True, now
        elif sent_at < self._paused_at:
            return None  # it was in flight when the outage showed: no probe of ours
        self._paused_at = now
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause

    def _alive(self, sent_at: float) -> None:
        """End an outage, unless what came answers an attempt from before it."""
        if self.on and sent_at >= self._paused_at:
            self.on, self._pause = False, FIRST_PAUSE
            self._last.clear()
            self._in_a_row = 0

    @property
    def never_finishes(self) -> bool:
        """Say whether all streams so far ended with ``[DONE]``, but without a finish reason."""
        return not self._ever_succeeded and self._unfinished >= ENOUGH

    @property
    def hopeless(self) -> bool:
        """Say whether the outage has lasted longer than a run should wait."""
        patience = PATIENCE if self._ever_succeeded else self._patience_at_start
        return self.on and self._monotonic() - self._since > patience

    @property
    def fruitless(self) -> bool:
        """Say whether nothing ever succeeded, and nothing but 429s came for longer than a run should wait."""
        since = self._limited_since
        waited = since is not None and self._monotonic() - since > self._patience_limited
        return waited and not self._ever_succeeded

    def _out_of_service(self) -> bool:
        if not self._ever_succeeded and self._unsent >= UNREACHABLE:
            return True
        failed = [key for key in self._last if key is not None]
        nearly_all = len(self._last) >= ENOUGH and len(failed) >= SHARE * len(self._last)
        if not nearly_all and self._in_a_row < ENOUGH:
            return False
        return not self._ever_succeeded or self._unsent >= ENOUGH or len(set(failed)) >= DIFFERENT


def _is_trouble(failure: Failure) -> bool:
    """Tell what the endpoint as a whole suffers from, from what is wrong with one request."""
    if (
        failure.code in {"model_unavailable", TOO_MANY_FILES}
        or failure.status == 429
        or meaning(failure)
        not in (None, "unavailable")  # a server that loads its only model is away as a whole
    ):
        return False
    return failure.fate is not Fate.REFUSED or (failure.status or 0) >= 500


class Alike:
    """Tells when the first rows of a run, without exception, fail in the same way.

    A refusal comes sooner than an answer, so the first failures to come are not those of the first rows: a row counts
    when every one that was sent before it has failed as well.

    Attributes:
        rows: how many failed.
    """

    def __init__(self) -> None:
        self._code: str | None = None
        self._sent: list[float] = []
        self._over = False

    @property
    def rows(self) -> int:
        """Give how many rows failed."""
        return len(self._sent)

    def succeeded(self) -> None:
        """Note an answer: the rows do not all fail."""
        self._over = True

    def failed(self, failure: Failure, first_sent: float, awaited_since: Callable[[], float]) -> bool:
        """Note a row that failed; says whether this shows that all would.

        Args:
            failure: its last one.
            first_sent: monotonic seconds.
            awaited_since: gives when the oldest row that is still awaited was first sent, likewise.
        """
        self._over = self._over or self._code not in (None, failure.code)
        if self._over:
            return False
        self._code = failure.code
        self._sent.append(first_sent)
        if self.rows < ALIKE or self.rows >= ALIKE_AT_ONCE:
            return self.rows >= ALIKE
        oldest = awaited_since()
        return sum(sent < oldest for sent in self._sent) >= ALIKE


# Per reason to stop: the error, what happened, and what to do before running again.
_STOPS: dict[str, tuple[type[RunStopped], str, str]] = {
    "key_refused": (
        KeyRefused,
        "the endpoint refused the API key: {said}",
        "check {key}, then run again.",
    ),
    "balance": (
        BalanceSpent,
        "the account's balance is spent: {said}",
        "top the account up, then run again.",
    ),
    "certificate": (
        EndpointFailing,
        "the endpoint's certificate is not trusted: {said}",
        "set endpoint.ca_file, or check base_url.",
    ),
    "retry_after": (
        EndpointFailing,
        "the endpoint asks to wait {wait:,.0f} seconds: {said}",
        "run again after that.",
    ),
    "stream_end": (
        EndpointFailing,
        "every stream so far was cut: {said}",
        (
            "set limits.concurrency: 1 if the server ends a stream when another request comes, or stream: false; "
            "for one that never sends a finish_reason, endpoint.finish_reason: optional."
        ),
    ),
    "unsupported_model": (
        EndpointFailing,
        "the endpoint does not serve model `{model}` for this request: {said}",
        "see which models there are: `beatra-enrich models CONFIG`.",
    ),
    "fruitless": (
        EndpointFailing,
        "the endpoint refused every request: {said}",
        "see what the account's limits are, and who else uses them; then run again.",
    ),
    "outage": (EndpointFailing, "the endpoint is out of service: {said}", "run again later."),
}


def stop_error(kind: str, failure: Failure, model: str, key: str = "the API key") -> RunStopped:
    """Make the error a run stops with: what happened, and what to do before running again.

    Args:
        kind: of the reason.
        failure: that shows it.
        model: that was asked.
        key: where the API key came from, for people.
    """
    said = f"{failure}" + (f" (request id {failure.request_id})" if failure.request_id else "")
    error, what, hint = _STOPS[kind]
    what = what.format(said=said, model=model, wait=failure.retry_after or 0.0)
    return error(what, hint=hint.format(key=key) if kind == "key_refused" else hint)


def unfit_error(statuses: Mapping[RowStatus, int], step: str) -> RunStopped:
    """Make the error for a run whose first rows were all answered, and none of the answers is fit.

    Args:
        statuses: rows by how they stand.
        step: whose rows they are.
    """
    told = ", ".join(f"{count:,} {status}" for status, count in statuses.items() if count)
    return EndpointFailing(
        f"none of the first {sum(statuses.values()):,} answers of step {step} is fit ({told}), and each was paid for",
        hint="look at them with `beatra-enrich collect CONFIG`, then mend prompt, schema or max_tokens; "
        "`tolerate: 100%` goes on regardless.",
        passes=False,
    )


def alike_error(failure: Failure, rows: int) -> RunStopped:
    """Make the error for a run whose first rows all fail in the same way."""
    return EndpointFailing(
        f"the first {rows} requests all failed alike: {failure}",
        hint="look at the request bodies: `beatra-enrich preview CONFIG`.",
    )
