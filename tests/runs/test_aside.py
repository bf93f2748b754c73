"""What the model said beside its text, in the table: sent by a real server, whole and streamed, kept in the ledger."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.aside import RATE, SAID, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}


@pytest.mark.parametrize("stream", [False, True])
def test_columns_that_a_step_asks_for(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    tmp_path: Path,
    *,
    stream: bool,
) -> None:
    """Tools, log-probabilities and effort bring their columns behind the old ones; the others come by name, from the ledger."""
    endpoint.script = say
    params = {"tools": [RATE], "logprobs": True, "reasoning_effort": "low"}
    config = job([{"t": name} for name in SAID], step={"params": params, "stream": stream})
    cli("run", config, endpoint=endpoint)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names[-5:] == [
        "s_idempotency_key",
        "s_tool_calls",
        "s_logprob",
        "s_confidence",
        "s_reasoning",
    ]
    assert table.column_names[1:-4] == [
        "s", *(f"s_{name}" for name in ("status", "error", "model", "request_id", "finish_reason", "prompt_tokens",
        "completion_tokens", "total_tokens", "credits", "attempts", "latency_ms", "source", "idempotency_key"))
    ]  # fmt: skip
    call = pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())])
    assert table.schema.field("s_tool_calls").type.value_type == call
    text, tool, hollow, refusal = table.to_pylist()
    assert (text["s"], text["s_reasoning"], text["s_tool_calls"]) == ("yes", "hm", None)
    assert (text["s_logprob"], text["s_confidence"]) == pytest.approx((math.log(0.5), 0.25))
    made = {"id": "c1", "name": "rate", "arguments": '{"label": "pos"}'}
    assert (tool["s_status"], tool["s_tool_calls"], tool["s_logprob"]) == ("ok", [made], None)
    assert (hollow["s_status"], hollow["s"]) == ("invalid_output", None)
    assert refusal["s_status"] == "filtered"
    posts = len(endpoint.posts)
    document = yaml.safe_load(config.read_text())
    document["steps"][0]["columns"] = ["refusal", "system_fingerprint", "reasoning"]
    config.write_text(yaml.safe_dump(document, sort_keys=False))  # the tools are part of the request
    assert cli("collect", config, "-o", "more.jsonl", endpoint=endpoint).code == 0
    more = [json.loads(line) for line in (tmp_path / "more.jsonl").read_text().splitlines()]
    assert [row["s_refusal"] for row in more] == [None, None, None, "I will not"]
    assert {row["s_system_fingerprint"] for row in more} == {"fp_7"}
    assert len(endpoint.posts) == posts


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_tool_answers_a_schema(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    tmp_path: Path,
    *,
    stream: bool,
) -> None:
    """Its arguments become typed columns, as an answer's JSON does."""
    endpoint.script = say
    choice = {"type": "function", "function": {"name": "rate"}}
    step = {"params": {"tools": [RATE], "tool_choice": choice}, "schema": SCHEMA, "stream": stream}
    ended = cli("run", job([{"t": "call"}], step=step), endpoint=endpoint)
    assert ended.code == 0, ended.err
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["s_status"], row["s_label"], row["s"]) == ("ok", "pos", '{"label": "pos"}')
