"""Answers that an earlier version kept are read by today's rules: at no cost, or aloud."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from enrich.ledger.opening import open_ledger
from enrich.prompt.request import RequestBuilder
from enrich.records import Reply
from enrich.schema.schema import step_schema
from tests.helpers.endpoint import BookedEndpoint
from tests.helpers.wire import Ran, config_of, run

if TYPE_CHECKING:
    from pathlib import Path

    from enrich.config import Config

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}


def whole(text: str | None, finish: str | None = "stop", **more: Any) -> bytes:
    """Write an answer in one piece."""
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": finish}], **more}).encode()


async def keep(config: Config, text: str, body: bytes, *, streamed: bool) -> None:
    """Put an answer to a row into the ledger, as a run of an earlier version did."""
    step = config.steps[0]
    assert config.endpoint.base_url is not None
    builder = RequestBuilder(step, config.endpoint.base_url, step_schema(step))
    ask = builder.ask(builder.prepare({"t": text}))
    ledger = await open_ledger(config.ledger_location())
    try:
        await ledger.open_run({})
        await ledger.claim([ask])
        await ledger.answer(ask.key, Reply(body, "r-1", 1.0, streamed=streamed))
    finally:
        await ledger.close()


def run_over(tmp_path: Path, body: bytes, *, streamed: bool = False, **step: Any) -> tuple[Ran, int]:
    """Run over a ledger that holds this answer; gives how many requests were sent as well."""
    with BookedEndpoint(answer=lambda _: '{"label": "pos"}') as server:
        config = config_of(tmp_path, ["x"], server.base_url, step={"stream": streamed, **step})
        asyncio.run(keep(config, "x", body, streamed=streamed))
        return run(config), len(server.posts)


@pytest.mark.parametrize(
    ("body", "streamed", "status", "code"),
    [
        (b'data: {"choices":[{"delta":{"content":"half"}}]}\n\ndata: [DONE]\n\n', True, "truncated", "response_cut"),
        (whole("half", "abort"), False, "truncated", "generation_failed"),
        (whole("half", "MAX_TOKENS"), False, "truncated", "length"),
        (whole("half", "SAFETY"), False, "filtered", "content_filter"),
        (whole(""), False, "invalid_output", "no_content"),
        (whole("all of it", "end_turn"), False, "ok", None),
        (b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n', True, "ok", None),
    ],
    ids=["done alone", "abort", "max tokens", "safety", "empty", "end of turn", "no done"],
)  # fmt: skip
def test_read_anew(tmp_path: Path, body: bytes, streamed: bool, status: str, code: str | None) -> None:
    """What is kept is judged by today's rules and asked for again by none of them."""
    ran, sent = run_over(tmp_path, body, streamed=streamed)
    assert sent == 0
    (row,) = ran.rows
    assert row["s_status"] == status
    assert (row["s_error"] or "").partition(":")[0] == (code or "")


def test_answer_of_half_a_stream_can_be_asked_for(tmp_path: Path) -> None:
    """`on_truncated` aside, only `retry` asks for a kept half again; a setting takes it for whole."""
    body = b'data: {"choices":[{"delta":{"content":"half"}}]}\n\ndata: [DONE]\n\n'
    with BookedEndpoint() as server:
        config = config_of(
            tmp_path, ["x"], server.base_url, step={"stream": True}, endpoint={"finish_reason": "optional"}
        )
        asyncio.run(keep(config, "x", body, streamed=True))
        ran = run(config)
        assert (ran.rows[0]["s_status"], ran.rows[0]["s"], len(server.posts)) == ("ok", "half", 0)


def test_draft_of_an_earlier_version(tmp_path: Path) -> None:
    """A kept answer that turns out to be a draft is asked for again, which the run says before it sends anything."""
    body = whole('<think>Perhaps {"label": "neg"}</think> Sorry.')
    ran, sent = run_over(tmp_path, body, schema=SCHEMA)
    assert (sent, ran.rows[0]["s_label"]) == (1, "pos")
    said = [record.getMessage() for record in ran.logged if "answers of earlier runs" in record.getMessage()]
    assert len(said) == 1
