"""What an output holds is its owner's choice; what is left out stays in the ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended

ROWS = [{"id": 1, "t": "good"}, {"id": 2, "t": "bad"}, {"id": 3, "t": "good"}]
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
CHAIN = [
    {"name": "tone", "prompt": "{{ t }}", "schema": SCHEMA, "columns": []},
    {
        "name": "reply",
        "prompt": "to {{ tone_label }}",
        "when": "{{ tone_label == 'good' and tone_status == 'ok' }}",
        "columns": ["status", "answer"],
        "rename": {"answer": "letter"},
    },
]


def answer(body: dict[str, Any]) -> str:
    """Give a label that is the prompt, or a text."""
    said = body["messages"][-1]["content"]
    return json.dumps({"label": said}) if "response_format" in body else f"{said}!"


def change(path: Path, **steps: Any) -> None:
    """Write other keys into a configuration's steps; None takes a key out."""
    document = yaml.safe_load(path.read_text())
    for step in document["steps"]:
        step.update(steps)
        for key in [key for key, value in step.items() if value is None]:
            del step[key]
    path.write_text(yaml.safe_dump(document))


def test_a_chain_sees_what_is_not_written(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Columns, their order and their names are as chosen; later steps use what is not there. `collect` shows it for nothing."""
    endpoint.answer = answer
    config = job(ROWS, steps=CHAIN, output={"path": "out.parquet", "columns": ["id"]})
    assert cli("run", config, endpoint=endpoint).code == 0
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"id": 1, "reply_status": "ok", "letter": "to good!"},
        {"id": 2, "reply_status": "skipped", "letter": None},
        {"id": 3, "reply_status": "ok", "letter": "to good!"},
    ]
    posts = len(endpoint.posts)
    plain = [{key: step[key] for key in step if key not in ("columns", "rename")} for step in CHAIN]
    whole = job(ROWS, steps=plain)
    assert cli("collect", whole, "-o", "all.parquet", endpoint=endpoint).code == 0
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["tone_label"].to_pylist() == ["good", "bad", "good"]
    assert table["reply"].to_pylist() == ["to good!", None, "to good!"]
    assert len(table.column_names) == 2 + 15 + 14
    assert len(endpoint.posts) == posts


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet", "made/"])
def test_another_choice_costs_nothing(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path, name: str
) -> None:
    """The choice is no part of a request: another one is no reason to ask, to warn or to leave an output as it is."""
    config = job(ROWS, output=name, step={"columns": "minimal"})
    assert cli("run", config, endpoint=endpoint).code == 0
    assert len(endpoint.posts) == 2
    change(config, columns=["all"], rename={"status": "state"})
    plan = cli("plan", config, "--json", endpoint=endpoint)
    assert json.loads(plan.out)["reasked"] is None
    again = cli("run", config, "--json", endpoint=endpoint)
    assert (json.loads(again.out)["requests"], len(endpoint.posts)) == (0, 2)
    assert "asked again" not in again.err
    made = tmp_path / name if "." in name else next((tmp_path / "made").rglob("*.parquet"))
    raw = pq.read_table(made).column_names if made.suffix == ".parquet" else made.read_text()
    for column in ("state", "s_credits_usd", "s_latency_ms"):
        assert column in raw


def test_old_configurations_write_the_old_columns(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Without a choice all is as it was; `standard` says the same."""
    config = job(ROWS, output="out.csv")
    assert cli("run", config, endpoint=endpoint).code == 0
    before = (tmp_path / "out.csv").read_bytes()
    assert before.splitlines()[0].decode().replace('"', "").split(",") == [
        *(
            "id",
            "t",
            "s",
            "s_status",
            "s_error",
            "s_model",
            "s_request_id",
            "s_finish_reason",
            "s_prompt_tokens",
        ),
        *("s_completion_tokens", "s_total_tokens", "s_credits", "s_attempts", "s_latency_ms", "s_source"),
        "s_idempotency_key",
    ]
    change(config, columns="standard")
    assert cli("collect", config, "-o", "again.csv", endpoint=endpoint).code == 0
    assert (tmp_path / "again.csv").read_bytes().replace(b"ledger", b"api") == before


def test_what_reads_an_output_reads_a_slim_one(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Report and `show` tell what is there, under whatever names; what is not there is said."""
    config = job(
        ROWS,
        step={"columns": ["answer", "status"], "rename": {"status": "state", "answer": "said"}},
        output={"path": "out.parquet", "columns": ["id"]},
        report="report.html",
    )
    assert cli("run", config, endpoint=endpoint).code == 0
    assert "3" in (tmp_path / "report.html").read_text()
    shown = cli("show", config, "--prompts", endpoint=endpoint)
    assert shown.code == 0, shown.err
    assert "s_status: ok" in shown.out
    table = cli("show", config, endpoint=endpoint).out
    assert "said" in table
    assert "state" in table
    assert cli("show", config, "--failed", endpoint=endpoint).code == 0
    change(config, columns=["answer"], rename=None)
    assert cli("run", config, endpoint=endpoint).code == 0
    assert (tmp_path / "report.html").exists()
    refused = cli("show", config, "--failed", endpoint=endpoint)
    assert refused.code == 2
    assert "the output has no column s_status" in refused.err


@pytest.mark.parametrize(
    ("step", "more", "message"),
    [
        ({"columns": ["lable"]}, {}, "steps.s.columns: the step has no column `lable`"),
        ({"rename": {"status": "t"}}, {}, "step `s` makes a column `t`, which the input has too"),
        (
            {"rename": {"status": "x", "error": "x"}},
            {},
            "step `s` makes a column `x`, which step `s` has too",
        ),
        ({}, {"output": {"path": "o.csv", "columns": ["idd"]}}, "the input has no column `idd`"),
        ({"columns": []}, {"output": {"path": "o.csv", "columns": []}}, "the output would have no columns"),
        ({"columns": 3}, {}, "columns"),
    ],
)
def test_choices_that_cannot_be(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    *,
    step: dict[str, Any],
    more: dict[str, Any],
    message: str,
) -> None:
    """A column that is not there, two of one name, or none at all: exit 2, and nothing is sent."""
    for command in ("check", "run", "plan"):
        ended = cli(command, job(ROWS, step=step, **more), endpoint=endpoint)
        assert ended.code == 2, ended.err
        assert message in ended.err + ended.out
    assert not endpoint.posts


def test_a_name_of_input_and_step_is_not_guessed_at(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """A step may be called as an input column is, where one of both is not written; no template may mean either."""
    rows = [{"tone": "given", "t": "x"}]
    steps = [{"name": "tone", "prompt": "{{ t }}"}, {"name": "b", "prompt": "{{ t }} again"}]
    output = {"path": "out.jsonl", "columns": ["t"]}
    assert cli("run", job(rows, steps=steps, output=output), endpoint=endpoint).code == 0
    steps[1]["prompt"] = "{{ tone }}"
    refused = cli("run", job(rows, steps=steps, output=output), endpoint=endpoint)
    assert refused.code == 2
    assert "`tone` is a column of the input and of step `tone`" in refused.err
