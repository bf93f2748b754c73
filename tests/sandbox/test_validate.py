"""What the emulator takes, and what it says of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.sandbox import (
    Caller,
    ask,
    with_schema,
)

MESSAGE = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b'{"model":"auto","messages":[', 400, None),
        (b"[]", 400, ""),
        ({"messages": [MESSAGE]}, 422, "/model"),
        ({"model": 3, "messages": [MESSAGE]}, 422, "/model"),
        ({"model": "auto"}, 422, "/messages"),
        ({"model": "auto", "messages": []}, 422, "/messages"),
        ({"model": "auto", "messages": ["x"]}, 422, "/messages/0"),
        ({"model": "auto", "messages": [{"role": "tool", "content": "x"}]}, 422, "/messages/0/role"),
        ({"model": "auto", "messages": [MESSAGE, {"role": "user"}]}, 422, "/messages/1/content"),
        ({"model": "auto", "messages": [{"role": "user", "content": [{}]}]}, 422, "/messages/0/content"),
        ({"model": "auto", "messages": [{**MESSAGE, "a/b": 1}]}, 422, "/messages/0/a~1b"),
        (ask(temperature=2.1), 422, "/temperature"),
        (ask(temperature=True), 422, "/temperature"),
        (ask(temperature=None), 422, "/temperature"),
        (ask(top_p=-0.1), 422, "/top_p"),
        (ask(temperature=0, top_p=1), 422, "/top_p"),
        (ask(max_tokens=1, max_completion_tokens=1), 422, "/max_completion_tokens"),
        (ask(max_tokens=0), 422, "/max_tokens"),
        (ask(n=1.0), 422, "/n"),
        (ask(stop=[1]), 422, "/stop"),
        (ask(stream="yes"), 422, "/stream"),
        (ask(stream_options={"include_usage": 1}), 422, "/stream_options"),
        (ask(response_format={"type": "xml"}), 422, "/response_format/type"),
        (with_schema({"type": "thing"}), 422, "/response_format/json_schema/schema"),
        (with_schema({"$ref": "http://127.0.0.1:9/x"}), 422, "/response_format/json_schema/schema"),
        (ask(response_format={"type": "json_schema"}), 422, "/response_format/json_schema/schema"),
    ],
)
async def test_a_body_that_breaks_the_contract_is_refused(
    caller: Caller, body: Any, status: int, param: str | None
) -> None:
    """The refusal points into the body and lists every field; it is final and costs nothing."""
    answer = await caller.chat(body)
    assert (answer.status, answer.error["code"]) == (status, "invalid_request")
    assert answer.error["retryable"] is False
    assert answer.error.get("param") == param
    if status == 422:
        assert answer.error["details"]["errors"][0]["field"] == param
    assert answer.error["request_id"] == answer.headers["X-Request-Id"]


async def test_every_problem_of_a_body_is_listed(caller: Caller) -> None:
    """One answer names all the fields that are wrong."""
    error = (await caller.chat({"model": "auto", "messages": "x", "temperature": 9, "seed": "x"})).error
    assert [e["field"] for e in error["details"]["errors"]] == ["/messages", "/temperature", "/seed"]


async def test_unknown_fields_and_models_have_codes_of_their_own(caller: Caller) -> None:
    """Fields to remove are named; an unknown model is named; a reasoning model refuses the legacy limit."""
    option = await caller.chat(ask(zeal=1, best_of=2))
    assert (option.status, option.error["code"]) == (422, "unsupported_option")
    assert option.error["details"] == {"unsupported_fields": ["best_of", "zeal"]}
    assert option.error["param"] == "/best_of"
    legacy = await caller.chat({**ask(max_tokens=5), "model": "reason-1"})
    assert legacy.error["details"] == {"unsupported_fields": ["max_tokens"]}
    model = await caller.chat({**ask(), "model": "gpt-9"})
    assert (model.status, model.error["code"], model.error["param"]) == (400, "unsupported_model", "/model")


async def test_every_documented_option_is_taken(caller: Caller) -> None:
    """A request with every field of the contract in its right form is answered."""
    body = ask(
        stream=False,
        temperature=2.0,
        max_tokens=20,
        n=2,
        seed=7,
        stop=["END"],
        stream_options={"include_usage": True},
        frequency_penalty=0.5,
        presence_penalty=-1,
        logit_bias={"50256": -100},
        logprobs=True,
        top_logprobs=2,
        tools=[{"type": "function"}],
        tool_choice="auto",
        parallel_tool_calls=False,
        response_format={"type": "text"},
        reasoning_effort="low",
        metadata={"job": "1"},
        store=False,
        service_tier="default",
        safety_identifier="u",
        prompt_cache_key="k",
        user="u",
        model_options={"any": 1},
    )
    answer = await caller.chat(body)
    assert answer.status == 200
    assert len({c["message"]["content"] for c in answer.json["choices"]}) == 2
