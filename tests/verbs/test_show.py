"""Rows of the output in the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.helpers.endpoint import BookedEndpoint, envelope
from tests.helpers.terminal import on_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended


@pytest.mark.parametrize("columns", [80, 140])
def test_the_demo_is_seen_in_a_terminal(tmp_path: Path, cli: Callable[..., Ended], columns: int) -> None:
    """At any usual width each row is there with its review and its whole label, and no line is too long."""
    cli("init", "demo")
    cli("run", "demo/config.yaml")
    code, seen = on_terminal(tmp_path, columns, "show", "demo/config.yaml")
    head, names, *rows = seen.splitlines()
    assert code == 0
    assert "8 of 8 rows; sandbox: answers are made up" in head
    assert {"review", "sentiment_label", "sentiment_score", "sentiment_status"} <= set(names.split())
    assert sum(any(f" {label} " in row for label in ("pos", "neg", "neutral")) for row in rows) == 8
    assert max(map(len, [names, *rows])) <= columns


def test_failed_rows_with_prompt_and_reason(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """`--failed --prompts` shows what was asked of the failed rows, and why there is no answer; no other row."""
    endpoint.script = lambda seen: envelope("invalid_request", 400) if b"two" in seen.raw else None
    config = job()
    cli("run", config, endpoint=endpoint)
    shown = cli("show", config, "--failed", "--prompts", endpoint=endpoint).out
    assert "row 2" in shown
    assert "user: two" in shown
    assert "s_error: invalid_request: as told" in shown
    assert "row 1" not in shown


def test_rows_are_chosen(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """`--where` chooses rows, `--columns` columns, `-n` how many; rows whose value is null meet no condition."""
    config = job([{"t": "a", "n": 1}, {"t": "b", "n": None}, {"t": "c", "n": 3}, {"t": "d", "n": 4}])
    cli("run", config, "--sandbox")
    shown = cli("show", config, "--where", "n > 2", "--columns", "t,n", "--json", "-n", "1")
    assert [json.loads(line) for line in shown.out.splitlines()] == [{"row": 3, "t": "c", "n": 3}]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--columns", "nope"), "--columns nope: the output has no such column"),
        (("--where", "nope > 1"), "--where: no column `nope`"),
        (("--where", "t <"), "syntax error"),
        (("--where", "t < 1"), "`t` is string"),
        (("--output", "other.parquet"), "there is no output yet"),
    ],
)
def test_what_cannot_be_shown_is_said(
    cli: Callable[..., Ended], job: Callable[..., Path], flags: tuple[str, ...], said: str
) -> None:
    """A column, an expression or an output that is not there ends with exit code 2 and a hint."""
    config = job()
    cli("run", config, "--sandbox")
    ended = cli("show", config, *flags)
    assert ended.code == 2
    assert said in ended.err
    assert "Hint: " in ended.err
