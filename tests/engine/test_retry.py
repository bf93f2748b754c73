from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.config import RetryConfig
from enrich.engine.retry import (
    LIMITED_WAIT,
    LONGEST_RETRY_AFTER,
    SPREAD,
    Again,
    Decision,
    FailRow,
    History,
    NextModel,
    Policy,
    StopRun,
    counts,
    decide,
)
from enrich.records import Failure, Fate

if TYPE_CHECKING:
    from random import Random

POLICY = Policy(attempts=6, max_wait=60.0, deadline=1000.0)
REFUSED, UNKNOWN, UNSENT = Fate.REFUSED, Fate.UNKNOWN, Fate.UNSENT


def refusal(
    status: int, code: str = "some_code", *, retryable: bool | None = None, retry_after: float | None = None
) -> Failure:
    """Give a failure that the server answered with."""
    return Failure(code, "", REFUSED, status=status, retryable=retryable, retry_after=retry_after)


def unknown(
    code: str = "connection_lost", status: int | None = None, *, retryable: bool | None = None
) -> Failure:
    """Give a failure that may have been charged."""
    return Failure(code, "", UNKNOWN, status=status, retryable=retryable)


def after(
    *failures: Failure, policy: Policy = POLICY, has_fallback: bool = False, waited: float = 0.0
) -> Decision:
    """Give the decision after the last of these failures, all of one request."""
    history = History()
    for failure in failures:
        history = history.add(failure, waited=waited)
    return decide(failures[-1], history, policy, has_fallback=has_fallback, random=lambda: 0.5)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (refusal(401, "unauthorized", retryable=False), "key_refused"),
        (refusal(401, "invalid_api_key", retryable=False), "key_refused"),
        (refusal(401, "http_401"), "key_refused"),
        (refusal(401, "http_401", retryable=True), "key_refused"),
        (refusal(403, "tenant_disabled", retryable=False), "key_refused"),
        (refusal(403, "forbidden", retryable=False), "key_refused"),
        (refusal(400, "api_key_region_mismatch", retryable=False), "key_refused"),
        (refusal(402, "insufficient_balance", retryable=False), "balance"),
        (refusal(402, "http_402"), "balance"),
        (refusal(200, "insufficient_balance", retryable=False), "balance"),
        (Failure("certificate_invalid", "", UNSENT), "certificate"),
        (refusal(400, "unsupported_model", retryable=False), "unsupported_model"),
        (refusal(400, "unsupported_capability", retryable=False), "unsupported_model"),
        (refusal(429, retryable=True, retry_after=301.0), "retry_after"),
        (refusal(503, retryable=True, retry_after=3600.0), "retry_after"),
    ],
)
def test_stops_the_run(failure: Failure, kind: str) -> None:
    """What no row can get past stops the run at once."""
    assert after(failure) == StopRun(kind)  # type: ignore[arg-type]  # the table's strings are the kinds


@pytest.mark.parametrize(
    "failure",
    [
        refusal(400, "invalid_request", retryable=False),
        refusal(422, "invalid_request", retryable=False),
        refusal(422, "unsupported_option", retryable=False),
        refusal(400, retryable=True),
        refusal(404, retryable=True),
        refusal(422, retryable=True),
        refusal(404),
        refusal(409, retryable=False),
        refusal(409),
        refusal(429, "rate_limited", retryable=False),
        refusal(500, retryable=False),
        refusal(503, "model_unavailable", retryable=False),
        refusal(302, "redirected"),
        refusal(500, "context_length_exceeded"),
        refusal(200, "rate_limited", retryable=False),
        refusal(409, "idempotency_key_in_use", retryable=False),
        refusal(200, retryable=False),
        refusal(200),
        Failure("body_too_large", "", UNKNOWN, status=200),
    ],
)
def test_fails_the_row_at_once(failure: Failure) -> None:
    """Unless status and flag both allow it, nothing is sent again, and the refusal is final."""
    assert after(failure) == FailRow(in_doubt=False)


@pytest.mark.parametrize(
    "failure",
    [
        refusal(500, retryable=True),
        refusal(502, retryable=True),
        refusal(408, retryable=True),
        refusal(503),
        refusal(200, retryable=True),
    ],
)
def test_refused_for_now(failure: Failure) -> None:
    """A retryable refusal is tried again until the attempts are used up, and then is an error, not a doubt."""
    assert after(failure) == Again(0.25)
    assert isinstance(after(*[failure] * 5), Again)
    assert after(*[failure] * 6) == FailRow(in_doubt=False)


@pytest.mark.parametrize("code", ["rate_limited", "model_unavailable", "throttling"])
def test_what_passes_within_a_200(code: str) -> None:
    """An envelope in a 200 that says slower, or not yet, is heeded without a flag."""
    assert isinstance(after(refusal(200, code)), Again)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("idempotency_key_in_use", ""),
        ("conflict", "The original request is still being processed."),
        ("http_409", "A request with this key is in progress"),
    ],
)
def test_the_same_request_in_progress(code: str, message: str) -> None:
    """A 409 that says so is waited for: its answer comes under the same key."""
    assert isinstance(after(Failure(code, message, Fate.REFUSED, 409)), Again)
    assert after(Failure("conflict", "the key was used for another request", Fate.REFUSED, 409)) == FailRow(
        in_doubt=False
    )


@pytest.mark.parametrize(
    "failure",
    [
        unknown(),
        unknown("timeout"),
        unknown("response_cut", 200),
        unknown("http_502", 502),
        unknown("http_408", 408),
        unknown("http_499", 499),
        unknown("billing_failed", 500, retryable=True),
        unknown("stream_error", 200, retryable=True),
        unknown("stream_error", 200),
    ],
)
def test_unknown_outcome(failure: Failure) -> None:
    """What may have been charged is sent again under the same key, as often as anything else, and then is in doubt."""
    assert isinstance(after(failure), Again)
    assert isinstance(after(*[failure] * (POLICY.attempts - 1)), Again)
    assert after(*[failure] * POLICY.attempts) == FailRow(in_doubt=True)
    assert after(failure, policy=replace(POLICY, attempts=1)) == FailRow(in_doubt=True)


@pytest.mark.parametrize("unknown_again", [0, 1, 3])
def test_unknown_outcome_without_keys(unknown_again: int) -> None:
    """Where asking again may be paid for again, it is done so often and no oftener."""
    policy = replace(POLICY, unknown=unknown_again)
    lost = unknown()
    for number in range(1, unknown_again + 1):
        assert isinstance(after(*[lost] * number, policy=policy), Again)
    assert after(*[lost] * (unknown_again + 1), policy=policy) == FailRow(in_doubt=True)


@pytest.mark.parametrize(
    "failure",
    [unknown("stream_error", 200, retryable=False), unknown("billing_failed", 500, retryable=False)],
)
def test_unknown_and_not_retryable(failure: Failure) -> None:
    """Where the server forbids another attempt of what may be charged, the row is in doubt."""
    assert after(failure) == FailRow(in_doubt=True)


@pytest.mark.parametrize("code", ["no_choices", "invalid_utf8"])
def test_unusable_answer(code: str) -> None:
    """An answer that came whole but is no use is replayed once, and then is an error."""
    failure = unknown(code, 200)
    assert isinstance(after(failure), Again)
    assert after(failure, failure) == FailRow(in_doubt=False)


@pytest.mark.parametrize(
    "failure",
    [
        refusal(400, "ThrottlingException"),
        refusal(403, "rateLimitExceeded"),
        refusal(429, "rate_limit_exceeded"),
    ],
)
def test_rate_limit_in_other_words(failure: Failure) -> None:
    """Words that ask for fewer requests are waited for under a 400 and 403 too; a request too large for a limit is final."""
    assert after(*[failure] * 50) == Again(LIMITED_WAIT / 2)
    assert after(refusal(413, failure.code)) == FailRow(in_doubt=False)


def test_rate_limit() -> None:
    """A 429 uses up no attempt, however often it comes; the one that got it waits a moment, the pace does the rest."""
    limited = refusal(429, "rate_limited", retryable=True)
    assert after(limited) == Again(0.25)
    assert after(*[limited] * 50) == Again(LIMITED_WAIT / 2)
    assert after(refusal(429, "rate_limited")) == Again(0.25)


@pytest.mark.parametrize("seconds", [0.5, 7.0, 61.0, LONGEST_RETRY_AFTER])
def test_retry_after(seconds: float) -> None:
    """A Retry-After is waited out, also beyond the longest backoff, and a little spread is added."""
    assert after(refusal(429, retryable=True, retry_after=seconds)) == Again(seconds * (1 + SPREAD / 2))
    assert after(refusal(500, retryable=True, retry_after=seconds)) == Again(seconds * (1 + SPREAD / 2))


def test_retry_after_nothing() -> None:
    """A Retry-After of zero seconds does not switch the backoff off."""
    assert after(refusal(500, retryable=True, retry_after=0.0)) == Again(0.25)


def test_rate_limit_within_a_stream() -> None:
    """A rate limit that breaks a stream off may have been charged: it counts as an attempt."""
    broken = unknown("rate_limited", 200, retryable=True)
    assert after(broken) == Again(0.25)
    assert after(*[broken] * POLICY.attempts) == FailRow(in_doubt=True)


def test_request_in_progress() -> None:
    """A request that is still being worked on is waited for, and is in doubt when time runs out."""
    running = refusal(409, "idempotency_in_progress", retryable=True)
    assert after(*[running] * 20) == Again(30.0)
    assert after(running, waited=1000.0) == FailRow(in_doubt=True)


@pytest.mark.parametrize("code", ["dns_failed", "connect_failed", "tls_failed"])
def test_outage(code: str) -> None:
    """What was not sent uses up no attempt: an outage is waited for until the row's time is over."""
    failure = Failure(code, "", UNSENT)
    assert after(*[failure] * 100) == Again(30.0)
    assert after(failure, waited=1000.0) == FailRow(in_doubt=False)
    assert after(unknown(), failure, waited=1000.0) == FailRow(in_doubt=True)


def test_model_unavailable() -> None:
    """A model that is unavailable is asked twice more, quickly; then the next model is, if there is one."""
    gone = refusal(503, "model_unavailable", retryable=True)
    assert after(gone, has_fallback=True) == Again(0.5)
    assert after(gone, gone, has_fallback=True) == Again(0.5)
    assert after(gone, gone, gone, has_fallback=True) == NextModel()
    assert after(gone, gone, gone) == Again(1.0)
    assert after(*[gone] * 6) == FailRow(in_doubt=False)
    assert after(replace(gone, retryable=False), has_fallback=True) == NextModel()
    assert after(replace(gone, retry_after=900.0), has_fallback=True) == NextModel()


def test_unsupported_model_with_a_fallback() -> None:
    """A model that the account does not have leads to the next one."""
    assert after(refusal(400, "unsupported_model", retryable=False), has_fallback=True) == NextModel()


def test_backoff_doubles_up_to_the_longest() -> None:
    """The backoff's upper end doubles with each failure up to `max_wait`; billing is given more time."""
    failing = refusal(503, retryable=True)
    waits = [after(*[failing] * n) for n in range(1, 6)]
    assert [w.after for w in waits if isinstance(w, Again)] == [
        0.25,
        0.5,
        1.0,
        2.0,
        4.0,
    ]
    assert after(unknown("billing_failed", 500, retryable=True)) == Again(2.5)


def test_deadline() -> None:
    """A row is given up when the next wait would end after its deadline, in doubt if any outcome is unknown."""
    assert isinstance(after(refusal(500, retryable=True), waited=999.75), Again)
    assert after(refusal(500, retryable=True), waited=999.76) == FailRow(in_doubt=False)
    assert after(unknown(), refusal(500, retryable=True), waited=999.9) == FailRow(in_doubt=True)


def test_final_refusal_after_an_unknown_outcome() -> None:
    """A final refusal under the same key speaks for the attempts before as well."""
    assert after(unknown(), refusal(400, "invalid_request", retryable=False)) == FailRow(in_doubt=False)


def test_policy_of_a_configuration() -> None:
    """Without a deadline a row has the time that all its attempts and waits can take."""
    assert Policy.of(RetryConfig(), timeout=120.0) == Policy(6, 60.0, 6 * 180.0)
    assert Policy.of(RetryConfig(attempts=2, max_wait=5, deadline=9), timeout=120.0) == Policy(2, 5.0, 9.0)


CODES = [
    "some_code",
    "rate_limited",
    "billing_failed",
    "model_unavailable",
    "no_choices",
    "invalid_utf8",
    "timeout",
    "body_too_large",
]
failures = st.builds(
    Failure,
    code=st.sampled_from(CODES),
    message=st.just(""),
    fate=st.sampled_from(Fate),
    status=st.none() | st.sampled_from([200, 301, 400, 404, 408, 409, 422, 429, 500, 502, 503, 504]),
    retryable=st.sampled_from([None, True, False]),
    retry_after=st.none() | st.floats(0, 10_000),
)
policies = st.builds(
    Policy,
    attempts=st.integers(1, 100),
    max_wait=st.floats(0.001, 1e6),
    deadline=st.floats(0.001, 1e9),
    unknown=st.none() | st.integers(0, 5),
)


@given(
    st.lists(failures, min_size=1, max_size=120), policies, st.booleans(), st.randoms(use_true_random=False)
)
def test_every_request_comes_to_an_end(
    made: list[Failure], policy: Policy, has_fallback: bool, random: Random
) -> None:
    """Waits are finite and never negative, and no more attempts are made than the policy allows."""
    history, sent, lost = History(), 0, 0
    for failure in made:
        history = history.add(failure, waited=history.waited)
        sent += counts(failure)
        lost += failure.fate is Fate.UNKNOWN
        decision = decide(failure, history, policy, has_fallback=has_fallback, random=random.random)
        if not isinstance(decision, Again):
            break
        assert math.isfinite(decision.after)
        assert 0 <= decision.after <= max(policy.max_wait, LONGEST_RETRY_AFTER + SPREAD)
        assert failure.retryable is not False
        assert not counts(failure) or sent < policy.attempts
        history = replace(history, waited=history.waited + decision.after)
        assert history.waited <= policy.deadline
    assert sent <= policy.attempts
    assert policy.unknown is None or lost <= policy.unknown + 1


@pytest.mark.parametrize("code", ["unsupported_model", "unsupported_capability"])
def test_a_model_that_one_row_names(code: str) -> None:
    """That it is not served fails this row; where all rows ask the same model, it stops the run."""
    failure = refusal(400, code, retryable=False)
    history = History().add(failure, waited=0.0)
    for own_model, expected in ((True, FailRow()), (False, StopRun("unsupported_model"))):
        decided = decide(
            failure, history, POLICY, has_fallback=False, own_model=own_model, random=lambda: 0.5
        )
        assert decided == expected
