from __future__ import annotations

from typing import Any

import pytest

from enrich.config import StepConfig
from enrich.prompt.models import LONGEST_NAME, Models
from enrich.prompt.request import RequestBuilder
from enrich.prompt.template import RowError

URL = "http://x/v1"


def builder(**step: Any) -> RequestBuilder:
    """Make the requests of a step."""
    return RequestBuilder(StepConfig.model_validate({"name": "s", "prompt": "{{ t }}", **step}), URL)


def models(row: dict[str, Any], **step: Any) -> tuple[str, ...]:
    """Give a row's models."""
    return Models(StepConfig.model_validate({"name": "s", "prompt": "x", **step}), "steps.s").of(row)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({}, ("auto",)),
        ({"model": "a", "fallback_models": ["b", "a", "auto"]}, ("a", "b", "auto")),
        ({"model": "{{ m }}"}, ("fast-1",)),
        ({"model": " {{ m }}\n"}, ("fast-1",)),
        ({"model": "{{ m }}-{{ n }}"}, ("fast-1-7",)),
        ({"model": "{% if n > 5 %}big{% else %}small{% endif %}"}, ("big",)),
        ({"model": "{{ m }}", "fallback_models": ["fast-1", "{{ other }}", "auto"]}, ("fast-1", "slow-2", "auto")),
        ({"model": "a", "fallback_models": ["{{ other }}"], "prompt_text": 1}, ("a", "slow-2")),
        ({"model": "{# the cheap one #}auto"}, ("auto",)),
    ],
)  # fmt: skip
def test_the_models_of_a_row(step: dict[str, Any], expected: tuple[str, ...]) -> None:
    """Each once, in the order in which they are asked; templates are rendered, blanks around a name left out."""
    assert models({"m": "fast-1", "n": 7, "other": "slow-2"}, **step) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "template_error: steps.s.model: this row names no model"),
        (" \n", "template_error: steps.s.model: this row names no model"),
        ("a\nb", r"template_error: steps.s.model: 'a\nb' is no model's name"),
        ("x" * (LONGEST_NAME + 1), "is no model's name"),
        ("\ud800", "is no model's name"),
    ],
)
def test_what_is_no_name(value: str, said: str) -> None:
    """A row that names no model fails by name; nothing is asked in its place."""
    with pytest.raises(RowError) as caught:
        models({"m": value}, model="{{ m }}")
    assert said in str(caught.value)


@pytest.mark.parametrize("on_null", ["error", "skip", "render"])
def test_a_row_without_a_model(on_null: Any) -> None:
    """A null is what `on_null` says of a prompt's; rendered empty, it names no model."""
    made = builder(model="{{ m }}", on_null=on_null)
    with pytest.raises(RowError) as caught:
        made.prepare({"t": "x", "m": None})
    assert caught.value.code == ("null_value" if on_null != "render" else "template_error")
    assert made.skips(caught.value.code) == (on_null == "skip")


def test_a_row_s_model_makes_the_request_that_the_model_s_own_name_makes() -> None:
    """Body, key and question are those of a step that names the model: what was paid for serves both."""
    row = {"t": "x", "m": "fast-1"}
    plain, named = builder(model="fast-1", check="answer"), builder(model="{{ m }}", check="answer")
    asks = [made.ask(made.prepare(row)) for made in (plain, named)]
    assert asks[0] == asks[1]
    assert asks[0].body.startswith(b'{"model":"fast-1","messages":')
    assert named.columns == {"t", "m"}
