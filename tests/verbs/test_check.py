"""`check`: all that can be checked is, whatever else is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended


def lines_of(ended: Ended) -> dict[str, tuple[str, str]]:
    """Read the findings: name → mark and text."""
    found = {}
    for line in ended.out.splitlines():
        if not line.startswith(" "):
            mark, name, text = line.split(None, 2)
            found[name] = (mark, text)
    return found


def test_without_a_key_all_else_is_checked(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """A missing key has a line of its own; templates, output, ledger and the endpoint are looked at all the same."""
    ended = cli("check", job(endpoint={"base_url": "https://localhost.invalid/v1"}))
    found = lines_of(ended)
    assert ended.code == 2
    assert [found[name][0] for name in ("config", "input", "templates", "output", "ledger")] == ["ok"] * 5
    assert found["key"] == ("FAIL", "there is no API key; searched in this order:")
    assert "endpoint" in found


@pytest.mark.parametrize("model", ["auto", "gpt-nope"])
def test_a_model_that_is_not_listed(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, model: str
) -> None:
    """Before any row gets a 404: the model is named, `auto` too where the endpoint has none, with those there are."""
    listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in ("llama-3", "qwen-3")]}

    def models(seen: Seen) -> Raw | None:
        return Raw(json.dumps(listed).encode()) if seen.path.endswith("/models") else None

    endpoint.script = models
    ended = cli("check", job(step={"model": model}), endpoint=endpoint)
    assert ended.code == 2
    assert lines_of(ended)["models"] == ("FAIL", f"not listed: {model}")
    assert "choose one of llama-3, qwen-3" in ended.out
    assert KEY not in ended.out


def test_the_query_of_a_base_url_stays_behind_each_path(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """An endpoint whose version stands in the query is asked with it, for health, models and answers."""
    answer = {"choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]}
    endpoint.script = lambda seen: Raw(json.dumps(answer if seen.method == "POST" else {"data": []}).encode())
    config = job(endpoint={"base_url": f"{endpoint.base_url}?api-version=2024-10-21&x=a%20b"})
    cli("check", config, BEATRA_API_KEY=KEY)
    assert cli("run", config, BEATRA_API_KEY=KEY).code == 0
    paths = {seen.path for seen in endpoint.seen}
    query = "?api-version=2024-10-21&x=a%20b"
    assert paths == {f"/v1/health{query}", f"/v1/models{query}", f"/v1/chat/completions{query}"}
