"""How a run ended, in figures and in words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import enrich
from enrich.config import load_config
from enrich.errors import OutputLocked, RowsUnasked
from enrich.runs.summary import check_finished, left_alone
from tests.helpers.endpoint import KEY, BookedEndpoint, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enrich.records import Summary


@pytest.fixture
def ran(
    job: Callable[..., Path], endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Summary]:
    """Run a job over some texts, of which those with `bad` in them are refused."""
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    endpoint.script = lambda seen: envelope("invalid_request", 400) if b"bad" in seen.raw else None

    def run(*texts: str, collect: bool = False, **config: Any) -> Summary:
        path = job([{"t": text} for text in texts], **config)
        return (enrich.collect if collect else enrich.run)(path)

    return run


@pytest.mark.parametrize(
    ("texts", "tolerate", "code", "reason"),
    [
        (["a"], 0, 0, "1 row done"),
        (["a", "b"], 0, 0, "2 rows done"),
        (["a", "bad"], 0, 3, "2 rows done, but 1 error"),
        (["a", "bad"], 1, 0, "2 rows done, 1 error (tolerated: 1)"),
        (["a", "bad", "bad 2"], 1, 3, "3 rows done, but 2 error"),
        (["a", "bad"], "50%", 0, "2 rows done, 1 error (tolerated: 1)"),
        (["a", "bad"], "49%", 3, "2 rows done, but 1 error"),
    ],
)
def test_a_finished_run_says_what_failed(
    ran: Callable[..., Summary], texts: list[str], tolerate: int | str, code: int, reason: str
) -> None:
    """Failed rows count by status; as many as are tolerated still make a success."""
    summary = ran(*texts, tolerate=tolerate)
    assert (summary.exit_code, summary.reason) == (code, reason)
    assert summary.rows == len(texts) == sum(summary.statuses.values())


def test_the_figures_are_the_endpoint_s(ran: Callable[..., Summary], endpoint: BookedEndpoint) -> None:
    """Requests, tokens and credits are those that were charged; another run adds none."""
    summary = ran("a", "b", "a", "bad")
    assert (summary.requests, summary.attempts) == (3, 3)
    assert summary.credits == pytest.approx(endpoint.credits)
    assert summary.total_tokens == sum(c.prompt_tokens + c.completion_tokens for c in endpoint.charges)
    again = ran("a", "b", "a")
    assert (again.requests, again.credits, again.total_tokens) == (0, 0.0, 0)


def test_a_stopped_run_says_how_to_go_on(ran: Callable[..., Summary], endpoint: BookedEndpoint) -> None:
    """Rows that it did not come to are pending; nothing is lost, and the next run goes on."""
    endpoint.script = lambda seen: envelope("insufficient_balance", 402) if seen.method == "POST" else None
    summary = ran("a", "b", "c")
    assert (summary.exit_code, summary.rows, summary.statuses["pending"]) == (4, 3, 3)
    assert summary.reason.startswith("stopped: ")
    assert "after 0 of 3 rows." in summary.reason
    assert "Everything paid for is kept" in summary.reason
    endpoint.script = None
    assert ran("a", "b", "c").reason == "3 rows done"


def test_a_collection_counts_what_is_pending(ran: Callable[..., Summary]) -> None:
    """What the ledger does not hold is told, and is no failure."""
    ran("a")
    summary = ran("a", "b", collect=True)
    assert (summary.exit_code, summary.reason) == (0, "2 rows collected, 1 of them pending")
    assert ran("a", collect=True).reason == "1 row collected"


def test_a_retry_does_not_replace_an_output_by_rows_that_were_never_asked() -> None:
    """It is refused with their number; without any it goes on."""
    check_finished(Counter({"ok": 3}))
    with pytest.raises(RowsUnasked, match="1 row was never asked in this form"):
        check_finished(Counter({"ok": 3, "pending": 1}))
    with pytest.raises(RowsUnasked, match="2 rows were never asked"):
        check_finished(Counter({"pending": 2}))


def test_a_run_that_leaves_another_alone(job: Callable[..., Path]) -> None:
    """It has done nothing, says why, and is a success: so it was asked to."""
    summary = left_alone(load_config(job()), OutputLocked("it is held"), 0.5)
    assert (summary.exit_code, summary.rows, summary.reason) == (0, 0, "nothing done: it is held")
    assert set(summary.statuses.values()) == {0}
