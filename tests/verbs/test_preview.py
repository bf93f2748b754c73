"""Preview: the first rows' requests as text, without sending one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import enrich
from enrich.verbs.preview import preview_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST = {"name": "mood", "prompt": "Judge: {{ t }}"}
SANDBOX = {"base_url": "sandbox"}


def previewed(path: Path, rows: int = 10) -> list[str]:
    """Give the lines that `preview` prints."""
    return list(preview_job(enrich.load_config(path), rows))


def test_preview_of_a_chain(job: Callable[..., Path]) -> None:
    """Preview shows each step's body as far as it needs no earlier answer."""
    steps = [FIRST, {"name": "b", "prompt": "{{ mood }}"}, {"name": "c", "prompt": "{{ t }}"}]
    lines = list(
        preview_job(enrich.load_config(job([{"t": "x"}], steps=steps, endpoint={"base_url": "sandbox"})), 1)
    )
    assert lines.count("needs the answer of mood") == 1
    assert [json.loads(line)["messages"][-1]["content"] for line in lines if line.startswith("{")] == [
        "Judge: x",
        "x",
    ]


def test_a_row_without_a_request_says_why(job: Callable[..., Path]) -> None:
    """Rows that are skipped, or that no request can be made of, stand among the others in order."""
    rows: list[dict[str, Any]] = [{"t": "one"}, {"t": None}, {"t": "three"}]
    lines = previewed(job(rows, step={"when": "{{ t != 'one' }}"}, endpoint=SANDBOX))
    assert lines[:2] == ["# row 1, step s", "skipped: `when` is false"]
    assert lines[2:4] == ["# row 2, step s", "no request: null_value: column `t` is null"]
    assert lines[4:6] == ["# row 3, step s", "POST sandbox/chat/completions"]


def test_only_the_first_rows_are_shown(job: Callable[..., Path]) -> None:
    """As many as are asked for, and each row's text as it is: no escapes for what is not ASCII."""
    lines = previewed(job([{"t": "über 東🙂"}, {"t": "x"}], endpoint=SANDBOX), 1)
    assert [line for line in lines if line.startswith("#")] == ["# row 1, step s"]
    (body,) = (line for line in lines if line.startswith("{"))
    assert "über 東🙂" in body
    assert json.loads(body)["messages"] == [{"role": "user", "content": "über 東🙂"}]


def test_what_is_shown_is_what_is_sent_next_time_too(job: Callable[..., Path]) -> None:
    """The key of a row does not depend on when, or with how many others, it is shown."""
    path = job([{"t": "a"}, {"t": "b"}], endpoint=SANDBOX)
    assert previewed(path, 2)[: len(previewed(path, 1))] == previewed(path, 1)
