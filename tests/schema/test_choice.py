from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from enrich.answer.columns import step_columns, step_fields
from enrich.config import StepConfig
from enrich.errors import ConfigError
from enrich.records import Outcome
from enrich.schema.choice import choose, written_names
from enrich.schema.schema import load_schema

SCHEMA = load_schema({"properties": {"label": {"enum": ["pos", "neg"]}, "score": {"type": "number"}}})
ODD = load_schema({"properties": {name: {"type": "string"} for name in ("text", "tokens", "credits_usd")}})
STANDARD = [field.name for field in step_fields("s", SCHEMA)]


def step(columns: Any = None, **more: Any) -> StepConfig:
    """Make a step that writes these columns."""
    return StepConfig(name="s", prompt="x", columns=columns, **more)


def names(columns: Any = None, schema: Any = SCHEMA, **more: Any) -> list[str]:
    """Give the names under which a choice is written."""
    return [column.field.name for column in choose(step(columns, **more), schema)]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (None, STANDARD),
        ("standard", STANDARD),
        ("minimal", ["s", "s_label", "s_score", "s_status", "s_error"]),
        ("answer", ["s", "s_label", "s_score"]),
        ("fields", ["s_label", "s_score"]),
        (["text"], ["s"]),
        (["status", "answer"], ["s_status", "s", "s_label", "s_score"]),
        (["label", "model", "label", "s_model"], ["s_label", "s_model"]),
        (["tokens", "credits"], ["s_prompt_tokens", "s_completion_tokens", "s_total_tokens", "s_credits"]),
        (["s", "s_credits_usd", "cached_tokens"], ["s", "s_credits_usd", "s_cached_tokens"]),
        (["standard", "reasoning_tokens"], [*STANDARD, "s_reasoning_tokens"]),
        ([], []),
    ],
)
def test_words_and_names(columns: Any, expected: list[str]) -> None:
    """Words stand for several columns, names for one; they are written in the order of the choice, each once."""
    assert names(columns) == expected


def test_a_property_without_a_name_takes_no_column_away() -> None:
    """JSON allows it; the answer's text stays beside it."""
    unnamed = load_schema({"properties": {"": {"type": "string"}}})
    assert names("answer", unnamed) == ["s", "s_"]
    assert names(None, unnamed) == [field.name for field in step_fields("s", unnamed)]


def test_all_begins_with_the_standard() -> None:
    """`all` adds to the standard columns and changes none of them."""
    everything = names("all")
    assert everything[: len(STANDARD)] == STANDARD
    assert {"s_cached_tokens", "s_reasoning_tokens", "s_credits_usd"} <= set(everything)


@pytest.mark.parametrize(
    ("params", "brought"),
    [
        ({}, []),
        ({"seed": 7, "tools": [], "logprobs": False, "reasoning_effort": None}, []),
        ({"tools": [{}]}, ["s_tool_calls"]),
        ({"functions": [{}]}, ["s_tool_calls"]),
        ({"logprobs": True, "top_logprobs": 5}, ["s_logprob", "s_confidence"]),
        ({"reasoning_effort": "low"}, ["s_reasoning"]),
        ({"model_options": {"reasoning": {"effort": "low"}}}, ["s_reasoning"]),
        ({"chat_template_kwargs": {"enable_thinking": True}, "tools": [{}]}, ["s_tool_calls", "s_reasoning"]),
        ({"chat_template_kwargs": {"enable_thinking": False}}, []),
    ],
)
def test_what_the_request_asks_for_is_standard(params: dict[str, Any], brought: list[str]) -> None:
    """A step whose request asks for what a column shows has it behind the others, unless it names its columns."""
    assert names(None, params=params) == [*STANDARD, *brought]
    assert names("minimal", params=params) == names("minimal")
    called = load_schema({"properties": {"tool_calls": {"type": "string"}, "logprob": {"type": "string"}}})
    assert names(None, called, params={"tools": [{}], "logprobs": True})[-1] == "s_confidence"


def test_a_property_comes_before_a_further_column() -> None:
    """A schema's property keeps its column, whatever else could be called so."""
    assert names("answer", ODD) == ["s", "s_text", "s_tokens", "s_credits_usd"]
    assert names(["text"], ODD) == ["s", "s_text"]
    assert names("all", ODD).count("s_credits_usd") == 1
    (column,) = choose(step(["credits_usd"]), ODD)
    assert (column.is_value, column.field.type) == (True, pa.string())


def test_renamed_columns() -> None:
    """A column is renamed by its short or its whole name; the others keep theirs."""
    renamed = {"answer": "text", "s_status": "state", "label": "tone", "model": "served_by"}
    assert names("minimal", rename=renamed) == ["text", "tone", "s_score", "state", "s_error"]
    assert written_names(step("minimal", rename=renamed), SCHEMA) == {
        "s": "text",
        "s_label": "tone",
        "s_score": "s_score",
        "s_status": "state",
        "s_error": "s_error",
    }


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"columns": ["answr"]}, "steps.s.columns: the step has no column `answr`", "answer"),
        ({"columns": "minimum"}, "steps.s.columns: the step has no column `minimum`", "minimal"),
        ({"columns": [""]}, "steps.s.columns: the step has no column ``", "there is"),
        ({"rename": {"lable": "x"}}, "steps.s.rename: the step has no column `lable`", "label"),
        ({"rename": {"minimal": "x"}}, "steps.s.rename: the step has no column `minimal`", ""),
    ],
)
def test_what_is_not_there(given: dict[str, Any], message: str, hint: str) -> None:
    """A name that the step does not have is refused, with the nearest that it has."""
    with pytest.raises(ConfigError, match=message) as caught:
        choose(step(**given), SCHEMA)
    assert hint in caught.value.hint


def test_what_is_chosen_is_what_is_built() -> None:
    """The arrays of a choice are those of its columns, in its order."""
    outcome = Outcome(
        "ok", None, None, "t", {"label": "neg", "score": 0.5}, credits_usd=0.25, cached_tokens=3
    )
    chosen = choose(step(["credits_usd", "score", "cached_tokens", "label", "status"]), SCHEMA)
    arrays = step_columns(chosen, SCHEMA, [outcome, Outcome("pending")])
    table = pa.Table.from_arrays(arrays, schema=pa.schema([column.field for column in chosen]))
    table.validate(full=True)
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (0.25, 0.5, 3, "neg", "ok"),
        (None, None, None, None, "pending"),
    ]


class Said(BaseModel):
    """An answer whose only field has the name of a word."""

    answer: str


def test_a_property_called_answer() -> None:
    """It comes with the answer, as a column of its own."""
    assert names("answer", load_schema(Said)) == ["s", "s_answer"]
    assert names("minimal", load_schema(Said), rename={"answer": "said"})[:2] == ["s", "said"]
