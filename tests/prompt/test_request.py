from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.config import StepConfig
from enrich.config.steps import PARAMETERS
from enrich.errors import ConfigError
from enrich.prompt.request import RequestBuilder
from enrich.prompt.template import RowError
from enrich.schema.schema import load_schema

URL = "https://api.beatra.ai/v1"
ANSWER = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT.filter(lambda text: "{" not in text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def builder(*, url: str = URL, schema: Any = None, **step: Any) -> RequestBuilder:
    """Make the requests of a step that asks about column `t`, unless told otherwise."""
    given_step = {"name": "s", **({} if "messages" in step else {"prompt": "{{ t }}"}), **step}
    return RequestBuilder(StepConfig.model_validate(given_step), url, load_schema(schema) if schema else None)


def body(made: RequestBuilder, **values: Any) -> Any:
    """Give the body for one row, read back."""
    return json.loads(made.ask(made.prepare(values)).body)


@given(TEXT, TEXT)
def test_a_body_says_what_was_asked(system: str, text: str) -> None:
    """Any text comes back from the body as it was, byte for byte."""
    asked = body(builder(messages=[{"role": "system", "content": "{{ a }}"}, {"role": "user", "content": "{{ b }}"}], on_empty="send"),
                 a=system, b=text)  # fmt: skip
    assert asked == {
        "model": "auto",
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": text}],
    }


OWN = {
    "model",
    "messages",
    "stream",
    "response_format",
    *PARAMETERS,
}  # fields whose values are held to their kinds


@given(st.dictionaries(TEXT.filter(lambda name: name not in OWN), JSON, max_size=4))
def test_params_pass_through(params: dict[str, Any]) -> None:
    """Any further request field goes into the body as it was given."""
    asked = body(builder(params=params), t="x")
    assert {name: asked[name] for name in params} == params


def test_the_order_of_params_does_not_matter() -> None:
    """The same fields in another order are the same request, under the same key."""
    one, other = builder(params={"seed": 1, "user": "u"}), builder(params={"user": "u", "seed": 1})
    assert one.ask(one.prepare({"t": "x"})) == other.ask(other.prepare({"t": "x"}))


def test_named_fields_stand_in_the_body() -> None:
    """Temperature, tokens, stream and system go where the API wants them; a stream asks for its usage."""
    asked = body(
        builder(system="Be brief.", temperature=0, max_tokens=64, stream=True, model="fast-1"), t="x"
    )
    assert asked == {
        "model": "fast-1",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}],
        "max_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }


def test_params_may_be_templates() -> None:
    """A parameter that is one whole expression keeps its type; a token limit must be a whole number from 1."""
    made = builder(params={"seed": "{{ n }}", "user": "u-{{ n }}"}, max_tokens="{{ n * 10 }}")
    asked = body(made, t="x", n=4)
    assert (asked["seed"], asked["user"], asked["max_tokens"]) == (4, "u-4", 40)
    with pytest.raises(RowError, match="is no whole number from 1"):
        made.prepare({"t": "x", "n": 0})


@pytest.mark.parametrize("changed", [{"url": "https://other.example/v1"}, {"model": "fast-1"}, {"seed": 8}])
def test_whatever_changes_the_request_changes_its_key(changed: dict[str, Any]) -> None:
    """Another endpoint, model or parameter is another request."""
    plain = builder(params={"seed": 7})
    more = {"params": {"seed": changed["seed"]}} if "seed" in changed else {"params": {"seed": 7}, **changed}
    other = builder(**more)
    assert plain.ask(plain.prepare({"t": "x"})).key != other.ask(other.prepare({"t": "x"})).key


def test_an_ordinal_asks_for_a_separate_answer() -> None:
    """The same body under another ordinal has a key of its own."""
    made = builder()
    asks = [made.ask(made.prepare({"t": "x"}), ordinal=number) for number in range(3)]
    assert len({ask.body for ask in asks}) == 1
    assert len({ask.key for ask in asks}) == 3


@pytest.mark.parametrize("value", [None, float("nan")])
def test_nulls_are_refused_or_rendered(value: object) -> None:
    """A null in a column that the prompt needs is an error, unless `on_null: render`."""
    with pytest.raises(RowError, match="null_value: column `t` is null"):
        builder().prepare({"t": value})
    if value is None:
        assert body(builder(on_null="render", on_empty="send"), t=None)["messages"][0]["content"] == ""


def test_nulls_elsewhere_do_not_matter() -> None:
    """A null in a column that only `when` looks at is no error."""
    made = builder(when="{{ n is none or n > 3 }}")
    assert made.wanted({"t": "x", "n": None})
    assert body(made, t="x", n=None)["messages"][0]["content"] == "x"
    assert not made.wanted({"t": "x", "n": 1})


def test_a_lone_surrogate_fails_the_row() -> None:
    """A text that UTF-8 cannot hold is that row's error, not the run's."""
    made = builder()
    with pytest.raises(RowError, match="template_error"):
        made.ask(made.prepare({"t": "\ud800"}))


@pytest.mark.parametrize("mode", ["json_schema", "json_object", "prompt"])
def test_the_schema_is_told_in_three_ways(mode: str) -> None:
    """As a response_format that holds it, or in words behind the system message, with a bare response_format or none."""
    asked = body(builder(schema=ANSWER, schema_mode=mode, system="Sort."), t="x")
    kind = asked.get("response_format", {}).get("type")
    assert kind == (None if mode == "prompt" else mode)
    system = asked["messages"][0]["content"]
    assert system.startswith("Sort.")
    assert ("must conform to this JSON Schema" in system) == (mode != "json_schema")
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]


def test_a_changed_template_has_another_fingerprint() -> None:
    """The fingerprint tells one question from another; the name of the step is no part of it."""
    assert builder().fingerprint == builder(name="other").fingerprint
    assert builder().fingerprint != builder(prompt="{{ t }}!").fingerprint
    assert builder().fingerprint != builder(temperature=0).fingerprint


def test_params_must_be_json() -> None:
    """NaN among the parameters is refused when the job is compiled."""
    with pytest.raises(ConfigError, match=r"steps\.s\.params: not JSON"):
        builder(params={"bias": float("nan")})
