"""What a person should look at before trusting a run: patterns that are seldom meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.report.facts import Finding
from enrich.report.texts import cut, milliseconds, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.report.facts import Requests, Rows, Spread, StepRows

ENOUGH_TO_JUDGE = 20  # rows or attempts; of fewer nothing is concluded
MANY_FILTERED = 0.02  # share of a step's rows
MANY_TRUNCATED = 0.01
MANY_INVALID = 0.02
MANY_UNSUPPORTED = 0.02
MANY_ERRORS = 0.02
STORM = 0.2  # share of all attempts that failed
LONG_TAIL = 10  # times the median
COSTLY = 10  # times the mean

STATUS_FINDINGS = (
    (
        "filtered",
        MANY_FILTERED,
        "Many answers were refused",
        "Read some of them below: the prompt may ask for what the model will not do, or the data may hold it.",
    ),
    (
        "truncated",
        MANY_TRUNCATED,
        "Many answers ran out of tokens",
        "Set on_truncated: retry (twice the tokens), then: beatra-enrich retry CONFIG --status truncated",
    ),
    (
        "invalid_output",
        MANY_INVALID,
        "Many answers break the schema",
        "See which property breaks in the failures below; say it in the prompt, or raise reask.",
    ),
    (
        "unsupported",
        MANY_UNSUPPORTED,
        "Many values do not stand in their source",
        "Read some of them below: the model may have made them up. Ask for the words as they stand in the text, or for null.",
    ),
    ("error", MANY_ERRORS, "Many rows failed", "Fix the cause below, then: beatra-enrich retry CONFIG"),
)


def find(rows: Rows, requests: Requests, *, content: bool) -> tuple[Finding, ...]:
    """Find what is suspicious.

    Args:
        rows: of the output.
        requests: of the ledger.
        content: whether values of answers may be named.
    """
    found: list[Finding] = []
    for step in rows.steps:
        found += _statuses(step)
        found += [finding for spread in step.spreads for finding in _constant(spread, content=content)]
    return (*found, *_costly(rows), *_attempts(requests), *_models(requests))


def _statuses(step: StepRows) -> Iterator[Finding]:
    counts = dict(step.statuses)
    asked = sum(counts.values()) - counts.get("skipped", 0) - counts.get("pending", 0)
    for status, many, title, hint in STATUS_FINDINGS:
        count = counts.get(status, 0)
        if asked >= ENOUGH_TO_JUDGE and count / asked >= many:
            detail = (
                f"{count:,} of {asked:,} rows ({percent(count, asked)}) of step {step.name} are {status}."
            )
            yield Finding(title, detail, hint)
    if step.unknown_finish:
        reasons = ", ".join(f"{cut(reason, 40)} ({count:,})" for reason, count in step.unknown_finish[:5])
        yield Finding(
            "Answers that ended for an unknown reason",
            f"Rows of step {step.name} are ok with a finish reason that is in no table: {reasons}.",
            "Read some of them: they may be cut short. A schema tells whole answers from half ones.",
        )
    if doubt := counts.get("in_doubt", 0):
        detail = f"{doubt:,} rows of step {step.name} may have been charged without an answer."
        yield Finding(
            "Rows in doubt",
            detail,
            "You decide: beatra-enrich retry CONFIG --in-doubt resend (may be charged twice) or --in-doubt skip",
        )


def _constant(spread: Spread, *, content: bool) -> Iterator[Finding]:
    if spread.asked < ENOUGH_TO_JUDGE or len(spread.values) != 1 or spread.nulls:
        return
    value, _ = spread.values[0]
    named = f" is “{value}”" if content else " is the same"
    yield Finding(
        "One answer for all rows",
        f"{spread.column}{named} in all {spread.total:,} rows that are ok.",
        "Check with beatra-enrich preview CONFIG that the prompt really holds the row's text.",
    )


def _costly(rows: Rows) -> Iterator[Finding]:
    total = sum(step.credits for step in rows.steps)
    asked = sum(count for step in rows.steps for name, count in step.sources if name != "copy")
    if not rows.costliest or asked < ENOUGH_TO_JUDGE or not total:
        return
    first, mean = rows.costliest[0], total / asked
    if (first.credits or 0) > COSTLY * mean:
        yield Finding(
            "A few rows cost far more than the rest",
            f"Row {first.row:,} took {number(first.credits, 4)} credits, {(first.credits or 0) / mean:,.0f} times the mean.",
            "See the costliest rows below; cut long texts in the template, for example {{ text[:4000] }}.",
        )


def _attempts(requests: Requests) -> Iterator[Finding]:
    failed, attempts = requests.failed_attempts, requests.attempts
    if failed >= ENOUGH_TO_JUDGE and failed / attempts >= STORM:
        worst = requests.causes[0]
        limited = worst.code == "rate_limited"
        yield Finding(
            "A storm of retries",
            f"{failed:,} of {attempts:,} attempts ({percent(failed, attempts)}) failed, most of them with {worst.code}.",
            "Set limits.requests_per_minute to what the account allows."
            if limited
            else "Ask the endpoint's support with the request ids below.",
        )
    latency = requests.latency
    if latency is not None and latency.answers >= ENOUGH_TO_JUDGE and latency.p99 > LONG_TAIL * latency.p50:
        yield Finding(
            "Some answers took very long",
            f"One in a hundred took {milliseconds(latency.p99)} or more, the median {milliseconds(latency.p50)}.",
            "Long prompts or a busy endpoint; endpoint.timeout ends an attempt that hangs.",
        )


def _models(requests: Requests) -> Iterator[Finding]:
    if requests.elsewhere:
        yield Finding(
            "Another model answered than was asked",
            f"{requests.elsewhere:,} answers came from a model other than the one in the request.",
            "The column ending in _model says which; compare them before mixing them.",
        )
