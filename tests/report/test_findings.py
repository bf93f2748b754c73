"""What the report calls out: patterns that are seldom meant, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from enrich.report.facts import (
    FailureCause,
    Finding,
    Latency,
    Requests,
    Rows,
    Sample,
    Spread,
    StepRows,
    Timeline,
)
from enrich.report.findings import find


def rows_of(**step: Any) -> Rows:
    """Make the rows of one step."""
    given_ = {"statuses": (("ok", 100),), "sources": (("api", 100),), "credits": 10.0, "spreads": (), **step}
    return Rows(100, (StepRows("s", **given_),), (), (), (), ())


def requests_of(**more: Any) -> Requests:
    """Make the requests of a run in which nothing went wrong."""
    latency = Latency(100, (1.0, 2.0), (100,), 100.0, 200.0, 300.0, 400.0)
    timeline = Timeline((0.0,), 1.0, (1.0,), (0.0,), (1.0,), (1.0,), ())
    base = Requests(100, 100, 0, timeline, latency, (), (), ((1, 100),), 0)
    return replace(base, **more)


def titles(rows: Rows, requests: Requests) -> list[str]:
    """Give the titles of what is found."""
    return [finding.title for finding in find(rows, requests, content=True)]


def test_a_good_run_has_no_findings() -> None:
    """Nothing is called out without a reason."""
    assert (
        titles(rows_of(spreads=(Spread("s_label", 100, 100, (("a", 60), ("b", 40))),)), requests_of()) == []
    )


@pytest.mark.parametrize(
    ("rows", "requests", "title"),
    [
        (
            rows_of(spreads=(Spread("s_label", 100, 100, (("a", 100),)),)),
            requests_of(),
            "One answer for all rows",
        ),
        (rows_of(statuses=(("ok", 97), ("filtered", 3))), requests_of(), "Many answers were refused"),
        (rows_of(statuses=(("ok", 98), ("truncated", 2))), requests_of(), "Many answers ran out of tokens"),
        (
            rows_of(statuses=(("ok", 97), ("invalid_output", 3))),
            requests_of(),
            "Many answers break the schema",
        ),
        (rows_of(statuses=(("ok", 97), ("error", 3))), requests_of(), "Many rows failed"),
        (rows_of(statuses=(("ok", 99), ("in_doubt", 1))), requests_of(), "Rows in doubt"),
        (
            rows_of(),
            requests_of(
                attempts=200,
                failed_attempts=100,
                causes=(FailureCause("rate_limited", 100, 100, 429, "", None),),
            ),
            "A storm of retries",
        ),
        (
            rows_of(),
            requests_of(latency=Latency(100, (1.0, 2.0), (100,), 100.0, 200.0, 3_000.0, 4_000.0)),
            "Some answers took very long",
        ),
        (rows_of(), requests_of(elsewhere=3), "Another model answered than was asked"),
        (
            replace(rows_of(), costliest=(Sample(7, "s", "ok", "m", None, "", 9, 2.0, 1.0, ""),)),
            requests_of(),
            "A few rows cost far more than the rest",
        ),
    ],
)
def test_each_suspicious_pattern_is_called_out(rows: Rows, requests: Requests, title: str) -> None:
    """What is seldom meant is named, alone, with what to do about it."""
    assert titles(rows, requests) == [title]
    (finding,) = find(rows, requests, content=True)
    assert isinstance(finding, Finding)
    assert finding.detail
    assert finding.hint


def test_a_constant_answer_is_not_named_without_content() -> None:
    """`--no-content` holds for findings as well."""
    rows = rows_of(spreads=(Spread("s_label", 100, 100, (("hush", 100),)),))
    (finding,) = find(rows, requests_of(), content=False)
    assert "hush" not in finding.detail


def test_few_rows_prove_nothing() -> None:
    """One label on three requests is no pattern, however many rows have copies of them."""
    assert titles(rows_of(spreads=(Spread("s_label", 100, 3, (("a", 100),)),)), requests_of()) == []


@pytest.mark.parametrize(
    ("statuses", "named"),
    [
        ((("ok", 95), ("filtered", 2)), True),
        ((("ok", 999), ("filtered", 19)), False),
        ((("ok", 17), ("filtered", 2)), False),
        ((("ok", 18), ("filtered", 2)), True),
        ((("ok", 0), ("filtered", 5), ("skipped", 500)), False),
        ((("ok", 90), ("filtered", 5), ("pending", 5_000)), True),
    ],
)
def test_shares_are_of_the_rows_that_were_asked(
    statuses: tuple[tuple[str, int], ...], *, named: bool
) -> None:
    """Skipped and pending rows neither hide a pattern nor make one out of a few."""
    assert (titles(rows_of(statuses=statuses), requests_of()) == ["Many answers were refused"]) == named


def test_a_column_with_another_value_is_no_finding() -> None:
    """One row that differs is enough."""
    rows = rows_of(spreads=(Spread("s_label", 100, 100, (("a", 99), ("b", 1))),))
    assert titles(rows, requests_of()) == []


def test_the_remedy_of_a_storm_is_that_of_its_cause() -> None:
    """A limit that is too high is lowered; what is the endpoint's is taken to its support."""
    storm: dict[str, Any] = {"attempts": 200, "failed_attempts": 100}
    hints = [
        find(
            rows_of(), requests_of(**storm, causes=(FailureCause(code, 100, 100, 0, "", None),)), content=True
        )[0].hint
        for code in ("rate_limited", "http_500")
    ]
    assert "limits.requests_per_minute" in hints[0]
    assert "support" in hints[1]


def test_answers_that_ended_for_a_reason_in_no_table_are_called_out() -> None:
    """However few: their text may be half of what it should be, though they are ok."""
    (finding,) = find(rows_of(unknown_finish=(("because", 2), ("moon", 1))), requests_of(), content=True)
    assert finding.title == "Answers that ended for an unknown reason"
    assert "because (2), moon (1)" in finding.detail
