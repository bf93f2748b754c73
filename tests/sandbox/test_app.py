"""The emulator's contract, over HTTP: answers, streams, errors, models, keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.sandbox import Sandbox, SandboxOptions
from enrich.sandbox.answers import complete, events
from tests.helpers.sandbox import (
    Caller,
    ask,
    chunks,
    new_key,
)

if TYPE_CHECKING:
    import aiohttp


async def test_an_answer_has_what_the_contract_lists(caller: Caller) -> None:
    """A 200 names the serving model, one choice, the usage and the charge, and is marked as made up."""
    answer = await caller.chat()
    reply = answer.json
    assert answer.status == 200
    assert reply["model"] == "fast-1"
    assert reply["system_fingerprint"] == "sandbox"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["choices"][0]["message"]["role"] == "assistant"
    assert answer.text.startswith("[sandbox] ")
    assert "Is this good?" in answer.text
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["credits"] > usage["credits_usd_reference"] > 0
    assert answer.headers["X-Request-Id"].startswith("req_")


async def test_a_pinned_model_serves(caller: Caller) -> None:
    """A model that is asked for by its id is the one that serves."""
    assert (await caller.chat({**ask(), "model": "smart-1"})).json["model"] == "smart-1"


async def test_models_and_health(caller: Caller) -> None:
    """The models need a key; the health of the endpoint needs none."""
    models = (await caller.get("/v1/models", Authorization="Bearer sk-any")).json
    assert models["object"] == "list"
    assert {"id": "fast-1", "object": "model", "owned_by": "sandbox"} in models["data"]
    assert (await caller.get("/v1/models")).error["code"] == "unauthorized"
    assert (await caller.get("/v1/health")).json == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/v1/completions", 404, "not_found"), ("/v1/chat/completions", 405, "method_not_allowed")],
)
async def test_other_paths_and_methods_get_the_envelope(
    caller: Caller, path: str, status: int, code: str
) -> None:
    """What the endpoint does not offer is refused in its own form, too."""
    answer = await caller.get(path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["request_id"] == answer.headers["X-Request-Id"]


async def test_keys_are_checked(session: aiohttp.ClientSession) -> None:
    """Without a key, or with a wrong one, nothing is answered; the two have codes of their own."""
    async with Sandbox(SandboxOptions(api_keys=("sk-right",))) as sandbox:
        caller = Caller(session, sandbox.base_url)
        missing = await caller.chat(headers={"Authorization": "Bearer "})
        wrong = await caller.chat()
        right = await caller.chat(headers={"Authorization": "Bearer sk-right"})
    assert (missing.status, missing.error["code"]) == (401, "unauthorized")
    assert (wrong.status, wrong.error["code"]) == (401, "invalid_api_key")
    assert right.status == 200
    assert "sk-" not in str(sandbox.books.to_dict(attempts=True))


async def test_the_content_type_must_be_json(caller: Caller) -> None:
    """JSON under another name is refused."""
    answer = await caller.chat(headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


async def test_a_stream_has_the_shape_of_the_contract(caller: Caller) -> None:
    """The role comes first, then text, then the finish reason with an empty delta, then `[DONE]`."""
    plain, streamed = await caller.chat(), await caller.chat(ask(stream=True))
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    first, *middle, last = [chunk["choices"][0] for chunk in chunks(streamed.body)]
    assert first["delta"] == {"role": "assistant"}
    assert (last["delta"], last["finish_reason"]) == ({}, "stop")
    text = "".join(choice["delta"]["content"] for choice in middle)
    assert text.rpartition(" ")[0] == plain.text.rpartition(" ")[0]


async def test_usage_is_streamed_when_it_was_asked_for(caller: Caller) -> None:
    """The usage comes in a chunk of its own without choices, and a replay streams the same."""
    key, body = new_key(), ask(stream=True, stream_options={"include_usage": True})
    first, again = await caller.chat(body, key=key), await caller.chat(body, key=key)
    last = chunks(first.body)[-1]
    assert last["choices"] == []
    assert last["usage"]["credits"] > 0
    assert again.body == first.body


async def test_a_refused_stream_is_an_ordinary_error(caller: Caller) -> None:
    """What fails before the stream starts is JSON with its status."""
    answer = await caller.chat({**ask(stream=True), "model": "gpt-9"})
    assert (answer.status, answer.error["code"]) == (400, "unsupported_model")


@given(text=st.text(min_size=1), count=st.integers(1, 3))
def test_a_stream_carries_the_same_text(text: str, count: int) -> None:
    """Whatever the prompt, the pieces of a stream add up to the text of the answer."""
    reply, _ = complete(ask(text, n=count), b"0" * 32, completion_id="x", model="m")
    joined = [""] * count
    for chunk in chunks(b"".join(events(reply, usage=False))):
        [choice] = chunk["choices"]
        joined[choice["index"]] += choice["delta"].get("content", "")
    assert joined == [choice["message"]["content"] for choice in reply["choices"]]
