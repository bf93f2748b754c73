"""`init --describe`: one request for a draft, its price first, and a file that a person edits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import enrich
from enrich.cli import main
from enrich.config import load_config
from tests.helpers.chaos import place
from tests.helpers.endpoint import BookedEndpoint
from tests.helpers.terminal import on_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DRAFT: dict[str, Any] = {
    "instructions": "Say what mood {{ the }} review is in.\nQuote what shows it.",
    "columns": ["review", "review", "made_up"],
    "fields": [
        {
            "name": "mood",
            "type": "string",
            "description": "of who wrote it: what they felt",
            "values": ["good", "bad", "bad"],
        },
        {"name": "stars", "type": "integer", "description": "0 where there are none", "values": []},
        {"name": "quote", "type": "string", "description": 'their own words, in "quotes"', "values": []},
    ],
}
ASK = ["init", "reviews.csv", "--describe", "label the mood"]


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BookedEndpoint]:
    """An endpoint that drafts, beside a table in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = "id,review,shop,by_hand\n" + "".join(
        f"{n},{'a very long text ' * 30}number {n},north,good\n" for n in range(9)
    )
    (tmp_path / "reviews.csv").write_text(rows, encoding="utf-8")
    draft = {**DRAFT, "columns": ["review"]}
    with BookedEndpoint(answer=lambda _: json.dumps(draft)) as made:
        for name, value in place(made).items():
            monkeypatch.setenv(name, value)
        yield made


def test_a_draft_is_paid_for_once_and_runs(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """The request shows the columns that a prompt may have and three rows of them, cut; the file passes `check` and runs."""
    said = CliRunner().invoke(main, [*ASK, "--yes"], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert "A draft takes one request" in said.output
    assert "credits " in said.output
    body = endpoint.posts[0].body
    shown = body["messages"][-1]["content"]
    assert "label the mood" in shown
    assert shown.count("a very long text") == 3 * 11
    assert "number 3" not in shown
    assert "by_hand" not in shown
    assert "id" not in [line.split()[1] for line in shown.splitlines() if line.startswith("- ")]
    config = load_config(tmp_path / "config.yaml")
    step = config.steps[0]
    assert (step.prompt or "").startswith(
        "Say what mood (( the )) review is in.\nQuote what shows it.\n\nreview: {{ review }}"
    )
    assert isinstance(step.answer_schema, dict)
    assert step.answer_schema["properties"]["mood"] == {
        "enum": ["good", "bad"],
        "description": "of who wrote it: what they felt",
    }
    assert config.gold is not None
    assert config.gold.columns == {"answer_mood": "by_hand"}
    assert CliRunner().invoke(main, ["check", "config.yaml"]).exit_code == 0
    assert enrich.run("config.yaml", sandbox=True).statuses["ok"] == 9
    (tmp_path / "config.yaml").unlink()
    assert CliRunner().invoke(main, [*ASK, "--yes"]).exit_code == 0
    assert len(endpoint.charges) == 1


def test_nothing_is_sent_unless_somebody_says_so(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """Without a terminal it takes --yes; a draft of the sandbox is free, and said to be made up."""
    said = CliRunner().invoke(main, ASK)
    assert said.exit_code == 2
    assert "--yes" in said.output
    for wrong in (["--task", "Sum up."], ["--labels", "a,b"]):
        assert CliRunner().invoke(main, [*ASK, *wrong]).exit_code == 2
    assert CliRunner().invoke(main, ["init", "demo", "--describe", "x", "--yes"]).exit_code == 2
    assert not (tmp_path / "config.yaml").exists()
    said = CliRunner().invoke(main, [*ASK, "--sandbox"])
    assert said.exit_code == 0
    assert "made up" in said.output
    assert enrich.run("config.yaml").statuses["ok"] == 9
    assert endpoint.posts == []


def test_a_question_on_a_terminal(endpoint: BookedEndpoint, tmp_path: Path) -> None:
    """The price stands above the question; no sends nothing and writes nothing."""
    code, seen = on_terminal(tmp_path, 100, *ASK, typed="n\n", **place(endpoint))
    assert code == 130
    assert seen.index("credits ") < seen.index("Ask for it?") < seen.index("Nothing was sent.")
    assert endpoint.posts == []
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize("answer", ["no JSON", "{}", json.dumps({**DRAFT, "fields": []})])
def test_an_answer_that_is_no_draft_is_said(endpoint: BookedEndpoint, tmp_path: Path, answer: str) -> None:
    """It ends with 4 and what was wrong; no file is half written."""
    endpoint.answer = lambda _: answer
    said = CliRunner().invoke(main, [*ASK, "--yes"])
    assert said.exit_code == 4
    assert "no draft came" in said.output
    assert not (tmp_path / "config.yaml").exists()
