"""`report --json`: what a run's end says, and the page shows, for scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.endpoint import BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.warm import Ended

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that calls one row in four secretive."""
    answers = {"a": "pos", "b": "pos", "c": "neg"}
    with BookedEndpoint(
        answer=lambda body: json.dumps({"label": answers.get(body["messages"][-1]["content"], "the secret")})
    ) as server:
        yield server


def test_all_that_a_run_says_is_there(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Rows per step and label, requests, cost and waste of all runs, what to look at; a second run that sends nothing hides none."""
    config = job([{"t": t} for t in "abcd"], step={"schema": SCHEMA, "reask": 1}, tolerate=1)
    first = json.loads(cli("run", config, "--json", endpoint=endpoint).out)
    assert cli("run", config, endpoint=endpoint).code == 0
    told: dict[str, Any] = json.loads(cli("report", config, "--json").out)
    assert told["rows"] == 4
    assert told["failed_rows"] == 1
    assert told["failure_codes"] == {"invalid_output": 1}
    assert told["steps"]["s"]["statuses"] == {"ok": 3, "invalid_output": 1}
    assert told["steps"]["s"]["labels"] == {"s_label": {"pos": 2, "neg": 1}}
    assert told["requests"] == {"sent": 5, "attempts": 5, "failed_attempts": 0}
    assert told["runs"] == 2
    assert sum(model["total_tokens"] for model in told["models"]) == first["total_tokens"]
    assert told["waste"]["total"]["total_tokens"] == first["total_tokens"]
    assert sum(line["total_tokens"] for line in told["waste"]["lines"]) == first["total_tokens"]
    assert told["steps"]["s"]["credits"] == pytest.approx(first["credits"])
    assert told["latency_ms"]["p50"] > 0
    assert told["findings"] == []


def test_without_content_no_answer_is_quoted(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Numbers alone, as on the page."""
    config = job([{"t": t} for t in "abcd"], step={"schema": SCHEMA, "reask": 0}, tolerate=1)
    cli("run", config, endpoint=endpoint)
    text = cli("report", config, "--json", "--no-content").out
    assert "secret" not in text
    told = json.loads(text)
    assert "labels" not in told["steps"]["s"]
    assert told["steps"]["s"]["statuses"] == {"ok": 3, "invalid_output": 1}
    assert "secret" in cli("report", config, "--json").out


def test_what_to_look_at_is_told(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """The page's findings, such as one answer for all rows."""
    config = job([{"t": f"row {n}"} for n in range(30)], step={"schema": SCHEMA, "reask": 0}, tolerate=30)
    with BookedEndpoint(answer=lambda _: '{"label": "pos"}') as server:
        cli("run", config, endpoint=server)
    (finding,) = json.loads(cli("report", config, "--json").out)["findings"]
    assert finding["title"] == "One answer for all rows"
    assert finding.keys() == {"title", "detail", "hint"}
