"""What to do after a failed attempt: pure rules from (failure, history, policy) to a decision."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from enrich.engine.key_doubt import may_be_about_the_row
from enrich.records import KEY_CHANGED, Failure, Fate
from enrich.wire.meanings import meaning

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.config import RetryConfig
    from enrich.engine.key_doubt import KeyWord
    from enrich.wire.meanings import Meaning

StopKind = Literal["key_refused", "balance", "certificate", "retry_after", "unsupported_model"]

BASE_WAIT = 0.5  # seconds; the first backoff's upper end, doubled each time
LOOK_AGAIN = (
    2.0  # seconds before a refusal of access that names no cause is looked at again, doubled each time
)
LIMITED_WAIT = 2.0  # seconds; the longest backoff after a 429 that names no time
SLOW_BASE_WAIT = 5.0  # seconds; the same where the server has to settle something first
QUICK_WAIT = 1.0  # seconds; the longest wait before a busy model is asked once more
SPREAD = 0.02  # of a Retry-After, over which the rows spread after it; the pace sees to the rest
LONGEST_RETRY_AFTER = 300.0  # seconds; a longer one stops the run, to be resumed then
MAX_UNUSABLE = 2  # whole but unusable answers: the first, and its replay
MAX_UNAVAILABLE = 2  # quick retries of a model that is unavailable, before the next one

UNUSABLE = frozenset({"compressed_answer", "generation_failed", "invalid_utf8", "no_choices"})
# What is wrong with a picture that was there when its row was read; the endpoint has no part in it.
UNREAD = frozenset({"image_missing", "image_unreadable", "image_too_large", "image_changed"})
STOPS: dict[Meaning | None, StopKind] = {"key": "key_refused", "balance": "balance"}
PASSING = frozenset({408, 421, 425, 429, 499})  # statuses below 500 under which the same request may go again
LASTING: frozenset[Meaning | None] = frozenset(
    {"no_format", "too_long"}
)  # whatever the status, waiting cures none
IN_PROGRESS = frozenset({"idempotency_in_progress", "idempotency_key_in_use", "request_in_progress"})
_IN_PROGRESS_SAID = re.compile(
    r"\brequest\b[^.]{0,60} (?:in progress|being processed|not (?:yet )?(?:completed|finished))",
    re.IGNORECASE,
)
GONE = frozenset({404, 410})


@dataclass(frozen=True, slots=True)
class History:
    """What one request has been through, the failure at hand included.

    Attributes:
        attempts: attempts that were sent and count.
        unknowns: of these, those of unknown outcome.
        unusable: of these, whole answers that could not be used.
        unavailable: of these, refusals because the model was unavailable.
        failures: all failures, also those that do not count; the backoff grows with them.
        waited: seconds since the row's first attempt began.
    """

    attempts: int = 0
    unknowns: int = 0
    unusable: int = 0
    unavailable: int = 0
    failures: int = 0
    waited: float = 0.0

    def add(self, failure: Failure, *, waited: float) -> History:
        """Give the history with one more failure, ``waited`` seconds after the row's first attempt began."""
        return replace(
            self,
            attempts=self.attempts + counts(failure),
            unknowns=self.unknowns + (failure.fate is Fate.UNKNOWN),
            unusable=self.unusable + (failure.code in UNUSABLE),
            unavailable=self.unavailable + (meaning(failure) == "unavailable"),
            failures=self.failures + 1,
            waited=waited,
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """How hard a row is tried.

    Attributes:
        attempts: attempts that count, of one request.
        unknown: how often an unknown outcome is asked again where that may be paid for; None where it is free.
        max_wait: seconds; the longest backoff.
        deadline: seconds that a row may take over all its attempts and waits.
        key: where the API key comes from, for people.
    """

    attempts: int
    max_wait: float
    deadline: float
    unknown: int | None = None
    key: str = "BEATRA_API_KEY"

    @classmethod
    def of(
        cls, config: RetryConfig, *, timeout: float, keeps_keys: bool = True, key: str = "BEATRA_API_KEY"
    ) -> Policy:
        """Read the configuration.

        Args:
            config: the section ``retry``.
            timeout: seconds of one attempt.
            keeps_keys: whether a request that comes again under its key is charged no second time.
            key: where the API key comes from.
        """
        deadline = config.deadline or config.attempts * (timeout + config.max_wait)
        return cls(config.attempts, config.max_wait, deadline, None if keeps_keys else config.unknown, key)

    def forbids(self, unknowns: int) -> bool:
        """Say whether a request may not be sent again after so many attempts of unknown outcome."""
        return self.unknown is not None and unknowns > self.unknown


@dataclass(frozen=True, slots=True)
class Again:
    """Send the same bytes under the same key once more.

    Attributes:
        after: seconds to wait first.
    """

    after: float


@dataclass(frozen=True, slots=True)
class NextModel:
    """Ask the next fallback model: another body, so another request under a key of its own."""


@dataclass(frozen=True, slots=True)
class FailRow:
    """Give the row up.

    Attributes:
        in_doubt: whether the request may have been executed and charged.
    """

    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class StopRun:
    """Stop the whole run, resumable: no row can succeed now. The row stays unanswered."""

    kind: StopKind


Decision = Again | NextModel | FailRow | StopRun


def decide(
    failure: Failure,
    history: History,
    policy: Policy,
    *,
    has_fallback: bool,
    random: Callable[[], float],
    own_model: bool = False,
    key: KeyWord = "key",
) -> Decision:
    """Say what to do after a failed attempt.

    Args:
        failure: of the attempt.
        history: of its request, this failure included.
        policy: of the run.
        has_fallback: whether a model is left to ask instead.
        random: gives a number from 0 up to 1, for the jitter.
        own_model: whether the model is one that this row names.
        key: what is known of a refusal of access that names no cause.
    """
    if failure.code in UNREAD:
        return given_up(failure, history)
    if failure.code == KEY_CHANGED and history.waited <= policy.deadline:
        return Again(0.0)
    if key != "key" and may_be_about_the_row(failure):
        wait = min(policy.max_wait, LOOK_AGAIN * 2.0 ** (history.failures - 1))
        return FailRow() if key == "row" else Again(wait)
    stop = _stop_kind(failure, of_the_row=has_fallback or own_model)
    if stop is not None:
        return StopRun(stop)
    if has_fallback and _leaves_model(failure, history, policy):
        return NextModel()
    return _next_attempt(failure, history, policy, random)


def _next_attempt(
    failure: Failure, history: History, policy: Policy, random: Callable[[], float]
) -> Decision:
    """Say whether and when the same request goes again."""
    if _is_spent(failure, history, policy):
        return FailRow(_is_in_doubt(failure, history))
    if waits_too_long(failure):
        return StopRun("retry_after")
    after = _wait(failure, history, policy, random)
    if history.waited + after > policy.deadline:
        return FailRow(_is_in_doubt(failure, history))
    return Again(after)


def given_up(failure: Failure, history: History) -> FailRow:
    """Say how a row ends whose time is over while its request waits to be tried again."""
    return FailRow(_is_in_doubt(failure, history))


def counts(failure: Failure) -> bool:
    """Say whether a failure uses up one of the row's attempts.

    Waits for a rate limit, an outage, another key or the same request in progress do not; what may have been charged
    always does.
    """
    waits = failure.fate is Fate.UNSENT or is_rate_limit(failure) or _is_in_progress(failure)
    waits = waits or failure.code == KEY_CHANGED
    return failure.fate is Fate.UNKNOWN or not waits


def _stop_kind(failure: Failure, *, of_the_row: bool) -> StopKind | None:
    """Say why the run stops; a model that is not served is no reason where it is `of_the_row`, or there is another."""
    if lacks_model(failure):
        return None if of_the_row else "unsupported_model"
    if failure.code == "certificate_invalid":
        return "certificate"
    meant = meaning(failure)
    if meant is None and failure.status in (401, 403):
        return "key_refused"
    return STOPS.get(meant)


def lacks_model(failure: Failure) -> bool:
    """Tell that the endpoint does not serve this model, or not for this request, and never will."""
    return failure.code == "unsupported_capability" or meaning(failure) == "no_model"


def leaves_model(failure: Failure) -> bool:
    """Tell a failure after which another model is asked, where there is one.

    A 404 without a word may be the model's too: a gateway that routes by it knows no other way to say so.
    """
    return meaning(failure) == "unavailable" or failure.status in GONE or lacks_model(failure)


def _leaves_model(failure: Failure, history: History, policy: Policy) -> bool:
    """Say whether this model is no use: it is not there, cannot do this, or was unavailable for more than a moment."""
    if meaning(failure) != "unavailable":
        return leaves_model(failure)
    lasting = history.unavailable > MAX_UNAVAILABLE or waits_too_long(failure)
    return lasting or _is_spent(failure, history, policy)


def _is_spent(failure: Failure, history: History, policy: Policy) -> bool:
    """Say whether another attempt is not allowed, or not any more."""
    if not may_retry(failure):
        return True
    if not counts(failure):
        return False
    replayed = failure.code in UNUSABLE and history.unusable >= MAX_UNUSABLE
    return replayed or history.attempts >= policy.attempts or policy.forbids(history.unknowns)


def _is_in_doubt(failure: Failure, history: History) -> bool:
    """Say whether a request that is given up may have been charged without an answer to show for it."""
    if failure.code in UNUSABLE or failure.code == "body_too_large":
        return False  # the answer came, it is just no use
    if failure.fate is Fate.REFUSED and not may_retry(failure):
        return False  # a final word under the same key also speaks for the attempts before
    return history.unknowns > 0 or _is_in_progress(failure)


def may_retry(failure: Failure) -> bool:
    """Hold the envelope's flag and the status to each other: both must allow another attempt.

    Without a flag the status decides alone, and without a status (the connection failed) nothing forbids it.
    """
    if failure.retryable is False or failure.code == "body_too_large" or meaning(failure) in LASTING:
        return False
    status = failure.status
    if status is None or status < 300:
        passes = is_rate_limit(failure) or meaning(failure) == "unavailable"
        return failure.retryable is True or passes or failure.fate is not Fate.REFUSED
    if status == 409:
        return _is_in_progress(failure)
    return status in PASSING or status >= 500 or is_rate_limit(failure)


def refuses_format(failure: Failure) -> bool:
    """Tell that the endpoint, or the model, does not take this `response_format`."""
    return meaning(failure) == "no_format"


def is_rate_limit(failure: Failure) -> bool:
    """Tell that the endpoint asks for fewer requests, also by an event of a stream or an envelope in a 200."""
    return failure.status == 429 or failure.code == "rate_limited" or meaning(failure) == "limited"


def _is_in_progress(failure: Failure) -> bool:
    """Tell the 409 of a request that is still being worked on from that of a key used for another body."""
    said = failure.code in IN_PROGRESS or _IN_PROGRESS_SAID.search(failure.message) is not None
    return failure.status == 409 and (failure.retryable is True or said) and failure.retryable is not False


def waits_too_long(failure: Failure) -> bool:
    """Tell a server that asks to wait longer than a run does: the run stops for it."""
    return failure.retry_after is not None and failure.retry_after > LONGEST_RETRY_AFTER


def _wait(failure: Failure, history: History, policy: Policy, random: Callable[[], float]) -> float:
    """Give the seconds to wait: exponential with full jitter, or what the server asks and a little more."""
    if failure.retry_after:
        return failure.retry_after * (1 + SPREAD * random())
    if meaning(failure) == "unavailable" and history.unavailable <= MAX_UNAVAILABLE:
        return random() * min(policy.max_wait, QUICK_WAIT)
    if is_rate_limit(failure):  # how many go is the pace's to say; this is for the one that was refused
        return random() * min(policy.max_wait, LIMITED_WAIT, BASE_WAIT * 2.0 ** min(history.failures - 1, 30))
    base = SLOW_BASE_WAIT if failure.code == "billing_failed" else BASE_WAIT
    doublings = min(max(history.failures - 1, 0), 30)  # beyond that every max_wait is reached
    return random() * min(policy.max_wait, base * 2.0**doublings)
