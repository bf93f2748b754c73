from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

RETRY = {"attempts": 4, "max_wait": 0.02}


def busy_once(first: Raw) -> Callable[[Seen], Raw | None]:
    """Refuse each request's first attempt."""
    seen: set[str] = set()

    def script(request: Seen) -> Raw | None:
        if request.method != "POST" or request.key in seen:
            return None
        seen.add(request.key)
        return first

    return script


def test_retries_in_the_summary(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """The summary counts each attempt that was followed by another one, per cause."""
    with BookedEndpoint(script=busy_once(envelope("internal_error", 500, retryable=True))) as endpoint:
        ended = cli("run", job(retry=RETRY), "--json", "--no-progress", endpoint=endpoint)
    summary = json.loads(ended.out)
    assert summary["retries"] == {"internal_error": 3}
    assert (summary["requests"], summary["attempts"]) == (3, 6)


def test_retries_as_text(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """With -v each wait is a line on stderr: how long, and why; without it there is none."""
    for flags, lines in ((["-v"], 3), ([], 0)):
        with BookedEndpoint(script=busy_once(Raw(b"<html>Bad Gateway</html>", 502))) as endpoint:
            ended = cli("run", job(retry=RETRY), "--no-progress", "--fresh", *flags, endpoint=endpoint)
        told = [line for line in ended.err.splitlines() if "again in" in line]
        assert len(told) == lines
        assert all("http_502: HTTP 502 and no error in JSON" in line for line in told)
        assert KEY not in ended.err


def test_retries_as_json(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """As JSON a line carries the request's key, model, cause, the response's id and the seconds to wait."""
    refused = envelope("internal_error", 500, retryable=True)
    with BookedEndpoint(script=busy_once(refused)) as endpoint:
        ended = cli("run", job(retry=RETRY), "-v", "--log-format", "json", "--no-progress", endpoint=endpoint)
    *lines, last = [json.loads(line) for line in ended.err.splitlines()]
    assert len(lines) == 3
    assert last["message"].startswith("3 rows done: ")
    for line in lines:
        assert (line["level"], line["code"], line["model"]) == ("info", "internal_error", "auto")
        assert line["request_id"].startswith("req-")
        assert 0 <= line["wait_seconds"] <= 0.02
    assert {line["key"] for line in lines} == {seen.key.replace("-", "") for seen in endpoint.posts}


def test_another_way_is_told(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """Turning to another model is told as well."""

    def script(seen: Seen) -> Raw | None:
        if seen.method != "POST" or seen.body["model"] != "fast-1":
            return None
        return envelope("model_unavailable", 503, retryable=False)

    step = {"model": "fast-1", "fallback_models": ["auto"]}
    with BookedEndpoint(script=script) as endpoint:
        ended = cli(
            "run", job(step=step, limits={"concurrency": 1}), "-v", "--no-progress", endpoint=endpoint
        )
    assert ended.code == 0
    assert "asking another way: model_unavailable: " in ended.err
