"""Refusals in the words of other servers, through whole runs: which stop, which turn to another model or format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.endpoint import BookedEndpoint, Raw, Seen
from tests.helpers.wire import Ran, config_of, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
TEXTS = [f"row {number}" for number in range(8)]


def refusal(status: int, **error: Any) -> Raw:
    """Write an error as OpenAI does."""
    return Raw(json.dumps({"error": error}).encode(), status)


def prompt(seen: Seen) -> str:
    """Give a request's last message."""
    text: str = seen.body["messages"][-1]["content"]
    return text


def outcome(ran: Ran) -> tuple[int, list[str]]:
    """Give the exit code and the rows' statuses."""
    return ran.summary.exit_code, [row["s_status"] for row in ran.rows]


def test_row_that_a_firewall_refuses(tmp_path: Path) -> None:
    """One row that is answered with 403 fails; the run goes on, and does not stop for it later."""
    script = lambda seen: Raw(b"<html>blocked</html>", 403) if prompt(seen) == "row 2" else None  # noqa: E731
    with BookedEndpoint(script=script) as server:
        config = config_of(tmp_path, TEXTS, server.base_url, limits={"concurrency": 2})
        first, second = run(config), run(config)
    assert outcome(first) == (3, ["ok", "ok", "error", *["ok"] * 5])
    assert first.rows[2]["s_error"].startswith("http_403")
    assert outcome(second) == outcome(first)
    assert second.summary.attempts == 0


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("status", [401, 403])
def test_key_that_a_proxy_refuses(tmp_path: Path, rows: int, status: int) -> None:
    """Where nothing is let through, the key is refused: the run stops and no row is given up."""
    with BookedEndpoint(script=lambda _: Raw(b"<html>no</html>", status)) as server:
        config = config_of(tmp_path, TEXTS[:rows], server.base_url)
        ran = run(config)
    assert (ran.summary.exit_code, ran.rows) == (4, [])
    assert "refused the API key" in ran.summary.reason
    assert {entry.record.state for entry in ran.entries} <= {"sent"}


@pytest.mark.parametrize(
    "refused",
    [
        refusal(429, code="insufficient_quota", type="insufficient_quota", message="You exceeded your current quota"),
        refusal(429, code=None, type="insufficient_quota", message="see billing"),
        refusal(400, type="invalid_request_error", message="Your credit balance is too low to access the API."),
        refusal(400, code="400", type="budget_exceeded", message="Budget has been exceeded!"),
    ],
)  # fmt: skip
def test_money_that_is_gone(tmp_path: Path, refused: Raw) -> None:
    """A refusal that no waiting cures stops the run as an empty balance does."""
    with BookedEndpoint(script=lambda _: refused) as server:
        ran = run(config_of(tmp_path, TEXTS, server.base_url, limits={"concurrency": 2}))
    assert ran.summary.exit_code == 4
    assert "balance is spent" in ran.summary.reason
    assert ran.summary.attempts <= 2


GONE = [
    refusal(
        404, code="model_not_found", type="invalid_request_error", message="The model `old` was retired."
    ),
    refusal(404, code=404, type="NotFoundError", message="The model `old` does not exist."),
    refusal(
        400, code="400", type="None", message="There are no healthy deployments for this model. model=old"
    ),
    refusal(400, code="400", type="invalid_request_error", message="Server is pinned to 'new'."),
    refusal(403, type="key_model_access_denied", message="key not allowed to access model"),
    Raw(b"<html><h1>404 Not Found</h1><hr>nginx</html>", 404, {"Content-Type": "text/html"}),
]


@pytest.mark.parametrize("gone", GONE)
def test_model_that_is_gone(tmp_path: Path, gone: Raw) -> None:
    """What means `not this model, here` turns to the fallback, whoever says it."""
    with BookedEndpoint(script=lambda seen: gone if seen.body["model"] == "old" else None) as server:
        step = {"model": "old", "fallback_models": ["new"]}
        ran = run(config_of(tmp_path, TEXTS, server.base_url, step=step))
    assert outcome(ran) == (0, ["ok"] * 8)
    assert len(server.charges) == 8


@pytest.mark.parametrize("gone", GONE[:5])
def test_model_that_is_gone_without_another(tmp_path: Path, gone: Raw) -> None:
    """Without a fallback the run stops at once and names the model."""
    with BookedEndpoint(script=lambda _: gone) as server:
        ran = run(
            config_of(tmp_path, TEXTS, server.base_url, step={"model": "old"}, limits={"concurrency": 2})
        )
    assert ran.summary.exit_code == 4
    assert "does not serve model `old`" in ran.summary.reason
    assert "beatra-enrich models" in ran.summary.reason


REFUSED_FORMATS = [
    refusal(400, type="invalid_request_error", param="response_format",
            message="Invalid schema for response_format 's': 'additionalProperties' is required to be false."),
    refusal(422, message="Not supported: response_format", code="unsupported_option", retryable=False),
    Raw(json.dumps({"detail": [{"loc": ["body", "response_format", "type"], "msg": "Input should be 'text'"}]}).encode(), 422),
    refusal(500, type="internal_server_error", code=None,
            message="[{'loc': ('body', 'response_format', 'type'), 'msg': \"Input should be 'text'\"}]"),
]  # fmt: skip


@pytest.mark.parametrize("refused", REFUSED_FORMATS)
def test_format_that_is_refused(tmp_path: Path, refused: Raw) -> None:
    """A refused format turns to the next way of telling the schema; that is learned and said once per ledger."""
    script: Callable[[Seen], Raw | None] = lambda seen: refused if "response_format" in seen.body else None  # noqa: E731
    with BookedEndpoint(script=script, answer=lambda _: '{"label": "pos"}') as server:
        first = run(config_of(tmp_path, TEXTS, server.base_url, step={"schema": SCHEMA}))
        asked = len(server.posts)
        second = run(config_of(tmp_path, [*TEXTS, "one more"], server.base_url, step={"schema": SCHEMA}))
    assert outcome(first) == (0, ["ok"] * 8)
    assert outcome(second) == (0, ["ok"] * 9)
    assert len(server.posts) - asked == 1
    assert len(server.charges) == 9
    said = [[r for r in ran.logged if "does not take" in r.getMessage()] for ran in (first, second)]
    assert 1 <= len(said[0]) <= 3
    assert said[1] == []


def test_schema_that_is_not_strict(tmp_path: Path) -> None:
    """A server that wants strict schemas to be strict is asked with `strict: false` next."""

    def script(seen: Seen) -> Raw | None:
        return REFUSED_FORMATS[0] if seen.body["response_format"]["json_schema"]["strict"] else None

    with BookedEndpoint(script=script, answer=lambda _: '{"label": "pos"}') as server:
        ran = run(config_of(tmp_path, TEXTS, server.base_url, step={"schema": SCHEMA}))
    assert outcome(ran) == (0, ["ok"] * 8)
    assert {seen.body["response_format"]["type"] for seen in server.posts} == {"json_schema"}


def test_prompt_that_is_filtered(tmp_path: Path) -> None:
    """A content filter that answers with 400 gives `filtered`, as one that answers with 200 does."""
    refused = refusal(
        400, code="content_filter", message="The prompt triggered the content management policy."
    )
    script = lambda seen: refused if prompt(seen) == "row 1" else None  # noqa: E731
    with BookedEndpoint(script=script) as server:
        ran = run(config_of(tmp_path, TEXTS[:3], server.base_url))
    assert outcome(ran) == (3, ["ok", "filtered", "ok"])


@pytest.mark.parametrize("status", [421, 425])
def test_too_early(tmp_path: Path, status: int) -> None:
    """A 425 or 421 is asked again."""
    turns = iter([Raw(b"", status)])
    with BookedEndpoint(script=lambda _: next(turns, None)) as server:
        ran = run(config_of(tmp_path, ["x"], server.base_url))
    assert outcome(ran) == (0, ["ok"])
    assert ran.rows[0]["s_attempts"] == 2


def test_streams_that_all_end_without_a_finish_reason(tmp_path: Path) -> None:
    """Where the first streams all end with [DONE] alone, the run stops and says what may be done."""
    cut = Raw(b'data: {"choices":[{"delta":{"content":"half"}}]}\n\ndata: [DONE]\n\n', 200, {"Content-Type": "text/event-stream"}, charge=True)  # fmt: skip
    with BookedEndpoint(script=lambda _: cut) as server:
        ran = run(config_of(tmp_path, [str(n) for n in range(30)], server.base_url, step={"stream": True}))
    assert ran.summary.exit_code == 4
    assert "limits.concurrency: 1" in ran.summary.reason
    assert "endpoint.finish_reason: optional" in ran.summary.reason
