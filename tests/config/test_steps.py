from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from enrich.config.steps import StepConfig

MESSAGES = [{"role": "user", "content": "{{ t }}"}]
EXAMPLES = [{"user": "a", "assistant": "b"}]


def refused(**keys: Any) -> str:
    """Give what is said of a step with these keys."""
    with pytest.raises(ValidationError) as caught:
        StepConfig.model_validate({"name": "s", **keys})
    return " ".join(problem["msg"] for problem in caught.value.errors())


@pytest.mark.parametrize(
    "way", [{"prompt": "x"}, {"prompt_file": "p"}, {"messages": MESSAGES}, {"messages_file": "m.yaml"}]
)
def test_there_is_one_way_to_ask(way: dict[str, Any]) -> None:
    """Each of the four is enough; none, or two, are refused."""
    assert StepConfig.model_validate({"name": "s", **way}).model_fields_set == {"name", *way}
    assert "needs `prompt`, `prompt_file`, `messages` or `messages_file`" in refused()
    other = {"messages": MESSAGES} if "prompt" in next(iter(way)) else {"prompt": "x"}
    assert "exclude each other" in refused(**way, **other)


@pytest.mark.parametrize("way", [{"messages": MESSAGES}, {"messages_file": "m.yaml"}])
@pytest.mark.parametrize("beside", [{"system": "x"}, {"examples": EXAMPLES}, {"examples_file": "e.yaml"}])
def test_a_whole_conversation_has_nothing_beside_it(way: dict[str, Any], beside: dict[str, Any]) -> None:
    """`system` and examples would have no place in messages that are given: they are messages themselves."""
    assert "beside `prompt`" in refused(**way, **beside)


def test_empty_and_double() -> None:
    """No message asks nothing; examples come from one place."""
    assert "`messages` is empty" in refused(messages=[])
    assert "`examples` and `examples_file`" in refused(prompt="x", examples=EXAMPLES, examples_file="e")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"temperature": 0, "top_p": 0}, "`temperature` and `top_p` exclude each other"),
        ({"temperature": 0, "params": {"top_p": 1}}, "`temperature` and `top_p` exclude each other"),
        ({"params": {"temperature": 0, "top_p": 1}}, "`temperature` and `top_p` exclude each other"),
        (
            {"params": {"temperature": 2.5}},
            "`params.temperature` must be less than or equal to 2 (it is 2.5)",
        ),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "exclude each other"),
        ({"params": {"model": "m"}}, "`params.model` is set by the step's own `model` key"),
        ({"params": {"messages": []}}, "`params.messages` is set by"),
        ({"params": {"stream": True}}, "`params.stream` is set by"),
        ({"schema": {}, "params": {"response_format": {}}}, "`params.response_format` is set by"),
        ({"params": {"n": 2}}, "`params.n` must be 1"),
        ({"on_truncated": "retry"}, "`on_truncated: retry` doubles `max_tokens`"),
        ({"name": "two words"}, "pattern"),
        ({"name": "1st"}, "pattern"),
        ({"name": "é"}, "pattern"),
        ({"reask": 11}, "less than or equal to 10"),
    ],
)
def test_what_no_request_can_hold(keys: dict[str, Any], said: str) -> None:
    """It is refused before anything is asked, wherever the two that clash stand."""
    assert said in refused(**{"prompt": "x", **keys})


@pytest.mark.parametrize(
    "keys",
    [
        {"temperature": 0},
        {"top_p": 0},
        {"params": {"n": 1}},
        {"params": {"response_format": {"type": "json_object"}}},
        {"params": {"temperature": "{{ t }}"}},
        {"on_truncated": "retry", "params": {"max_completion_tokens": 5}},
        {"on_truncated": "retry", "max_tokens": "{{ n }}"},
    ],
)
def test_what_a_request_can_hold(keys: dict[str, Any]) -> None:
    """What looks like a clash and is none is taken."""
    assert (
        StepConfig.model_validate({"name": "s", "prompt": "x", **keys}).model_dump(include=set(keys)) == keys
    )
