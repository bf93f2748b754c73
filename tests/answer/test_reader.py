"""What is read of an answer: values by their types, or why there are none.

It is long because it is a table of answers as models give them.
"""

# ruff: noqa: PD011  # an Answer's values, not a frame's
from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from enrich.answer.columns import step_columns, step_fields
from enrich.answer.json_values import NOT_JSON
from enrich.answer.reader import MAX_PROBLEMS, SEVERAL, Answer, AnswerReader, reask_messages
from enrich.config import StepConfig
from enrich.errors import TemplateError
from enrich.records import Completion, Outcome, Reply, ToolCall, Usage
from enrich.schema.choice import choose
from enrich.schema.schema import AnswerSchema, load_schema
from enrich.wire.completion import read as read_reply
from tests.schema.test_schema import NUMBERS, PARTS, SENTIMENT, TEXT, objects

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = load_schema(SENTIMENT)
GOOD = {"label": "pos", "score": 0.5}
GOOD_TEXT = '{"label": "pos", "score": 0.5}'
ANYTHING = load_schema({"properties": {"n": {"type": "number"}, "i": {"type": "integer"}, "free": {}}})


def reader(schema: AnswerSchema | None = SCHEMA, **step: Any) -> AnswerReader:
    """Read the answers of a step."""
    config = StepConfig.model_validate({"name": "s", "prompt": "x", **step})
    return AnswerReader(config, schema, choose(config, schema) if config.columns is not None else ())


def completion(text: str | None, **given: Any) -> Completion:
    """A completion with this text."""
    return Completion(**{"text": text, "model": "m", "finish_reason": "stop", "usage": Usage(), **given})


def answer(text: str | None, schema: AnswerSchema | None = SCHEMA, **step: Any) -> Answer:
    """What a text amounts to."""
    return reader(schema, **step).read(completion(text))


# --- what came ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "status", "error"),
    [
        ({"text": GOOD_TEXT}, "ok", None),
        ({"text": "fine"}, "invalid_output", f"invalid_output: {NOT_JSON}"),
        ({"text": None}, "invalid_output", "no_content: the model answered with no content"),
        (
            {"text": None, "tool_calls": True},
            "invalid_output",
            "no_content: the model answered with tool calls",
        ),
        ({"text": GOOD_TEXT, "finish_reason": "length"}, "truncated", "length: the answer ran out of tokens"),
        (
            {"text": "half", "finish_reason": "content_filter"},
            "filtered",
            "content_filter: the answer was withheld by the content filter",
        ),
        ({"text": None, "refusal": "I can't\nhelp."}, "filtered", "refusal: I can't help."),
    ],
)
def test_status(given: dict[str, Any], status: str, error: str | None) -> None:
    """An answer's status comes from its finish reason, its refusal and its text; the text is kept as it came."""
    found = reader().read(completion(**given))
    assert (found.status, found.error, found.text) == (status, error, given["text"])
    assert found.values == (GOOD if status == "ok" else None)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"answer": {"label": "pos"}}', False),
        ('{"name": "s", "arguments": {"label": "pos"}}', False),
        ('```json\n{"result": {"label": "pos"}}\n```', False),
        ("{}", True),
        ('{"label": null}', True),
        ('{"label": "pos", "more": 1}', True),
    ],
)
def test_an_object_beside_the_point_is_no_answer(text: str, fits: bool) -> None:
    """A schema that requires nothing takes a wrapper around the answer, and every column would be null without a word."""
    schema = load_schema({"properties": {"label": {"type": ["string", "null"]}}})
    found = answer(text, schema)
    assert found.status == ("ok" if fits else "invalid_output")
    assert fits or "has none of the properties label" in (found.error or "")


def test_tool_calls_that_were_asked_for() -> None:
    """Tool calls are an answer to a step that offers tools."""
    offering = reader(None, params={"tools": [{"type": "function"}]})
    calls = (ToolCall("c", "find", "{}"),)
    assert offering.read(completion(None, tool_calls=True, calls=calls)).status == "ok"
    assert offering.read(completion(None, tool_calls=True)).status == "invalid_output"  # one of nothing
    assert offering.read(completion(None)).status == "invalid_output"


def test_without_a_schema_any_text_will_do() -> None:
    """A step without a schema takes what comes, as it came."""
    assert answer(" x\n", None) == Answer("ok", " x\n")


@pytest.mark.parametrize("text", [None, "", " \n", "<think>long thoughts</think>", "<think>never closed {}"])
@pytest.mark.parametrize("schema", [SCHEMA, None])
def test_nothing_was_said(text: str | None, schema: AnswerSchema | None) -> None:
    """An empty text, or reasoning alone, is no answer, as null is none."""
    found = answer(text, schema)
    assert (found.status, found.values) == ("invalid_output", None)
    if schema is None or not (text or "").strip():
        assert found.error is not None
        assert found.error.startswith("no_content")
        assert found.text is None  # so that nothing is asked again by itself


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("end_turn", "ok"), ("STOP", "ok"), ("because", "ok"), (None, "ok"),
        ("MAX_TOKENS", "truncated"), ("model_context_window_exceeded", "truncated"),
        ("SAFETY", "filtered"), ("refusal", "filtered"),
        ("error", "truncated"), ("abort", "truncated"),
    ],
)  # fmt: skip
def test_finish_reasons(reason: str | None, status: str) -> None:
    """Finish reasons count for what they mean; one that is not known does not spoil an answer that fits."""
    assert reader().read(completion(GOOD_TEXT, finish_reason=reason)).status == status


def test_stream_that_gave_no_finish_reason() -> None:
    """An answer that was kept without its finish reason may be half of one: it is not asked for again unasked."""
    found = reader(None).read(completion("half", finish_reason=None, cut=True))
    assert (found.status, found.error) == (
        "truncated", "response_cut: the stream ended with [DONE], but gave no finish_reason"
    )  # fmt: skip


POS, NEG = '{"label": "pos", "score": 0.5}', '{"label": "neg", "score": 0.5}'
FENCE = "```"


@pytest.mark.parametrize(
    "text",
    [
        f"<think>First try:\n{FENCE}json\n{NEG}\n{FENCE}\nNo, it praises.</think>\n{POS}",
        f"<think>Perhaps {NEG}</think>\nSo: {POS}",
        f"Perhaps {NEG}\n</think>\n\n{POS}",
        f"[THINK]{NEG}[/THINK]{POS}",
        f"Well. <think>{NEG}</think>{POS}",
        f"<|channel|>analysis<|message|>{NEG}<|end|><|start|>assistant<|channel|>final<|message|>{POS}<|return|>",
        f"The set {{a, b}} gives {POS}",
        f"Use {{ to open. {POS}",
        f"{POS}\nThat is: {POS}",
        '{"label": "good"}\nThat is not allowed. ' + POS,
        f"{FENCE}json\n{POS}\n{FENCE}\nIn {{braces}}.",
        json.dumps(POS),
        json.dumps(json.dumps(POS)),
        f"{FENCE}json\n{json.dumps(POS)}\n{FENCE}",
        '{"label": "pos", "score": 0.5, "label": "pos"}',
    ],
)
def test_the_answer_among_others(text: str) -> None:
    """Reasoning, braces in prose and JSON within JSON hide no answer."""
    found = answer(text)
    assert (found.status, found.values) == ("ok", GOOD)
    assert found.text == text


@pytest.mark.parametrize(
    "text",
    [
        f"{FENCE}json\n{NEG}\n{FENCE}\nThat is wrong. Final: {POS}",
        f"<think>Perhaps {NEG}</think>\nSorry, I cannot tell.",
        f"<think>Perhaps {NEG}",
        f"{POS} or {NEG}",
        f'{POS}\nWait: {{"label": "neg", "score": 2}}',
        f'{POS}\nWait: {{"label": "neg", sco}}',
        '{"label": "neg", "score": 0.5, "label": "pos"}',
        'So: {"label": "neg", "score": 0.5, "label": "pos"}',
        f'"label": {POS}}}',
        f'{{"x": 1 "draft": {POS}}}',
    ],
)
def test_nothing_is_settled_by_chance(text: str) -> None:
    """Drafts, objects that differ, one that says two things, and parts of a broken one are no answer."""
    found = answer(text)
    assert (found.status, found.values) == ("invalid_output", None)
    assert found.problems


def test_text_behind_reasoning() -> None:
    """A text's reasoning is not part of it; what only looks like a mark is."""
    assert answer("<think>hm</think>\n\nParis", None).text == "Paris"
    assert answer("The tag <think>x</think> opens.", None).text == "The tag <think>x</think> opens."


@pytest.mark.parametrize(
    ("text", "i"),
    [
        ('{"i": 9007199254740993.0}', 9007199254740993),
        ('{"i": 9.007199254740993e15}', 9007199254740993),
        ('So {"i": 9007199254740993.0}', 9007199254740993),
        ('{"i": 9223372036854775807}', 2**63 - 1),
    ],
)
def test_no_digit_is_lost(text: str, i: int) -> None:
    """A whole number keeps its digits however it is written."""
    assert answer(text, ANYTHING).values == {"n": None, "i": i, "free": None}


def test_no_digit_is_lost_in_free_parts() -> None:
    """A part that is kept as JSON keeps the digits of its numbers."""
    text = '{"free": [12345678901234567890.123456789, 0.1, "\ue0000\ue001"]}'
    values = answer(text, ANYTHING).values
    assert values is not None
    assert values["free"] == '[12345678901234567890.123456789,0.1,"\ue0000\ue001"]'


# --- JSON, nearly ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        GOOD_TEXT,
        f"```json\n{GOOD_TEXT}\n```",
        f"```\n{GOOD_TEXT}```",
        f"Here is the answer:\n```json\n{GOOD_TEXT}\n```\nAnything else?",
        f"The answer is {GOOD_TEXT}, I think.",
        f"```json\n{GOOD_TEXT}\n```\nthat is\n```json\n{GOOD_TEXT}\n```",
        f"\ufeff {GOOD_TEXT}",
        '{"label": "pos", "score": 0.50,}',
        "{'label': 'pos', 'score': 0.5}",
        "{label: 'pos', score: 0.5}",
        "```python\n{'label': 'pos', 'score': 0.5,}\n```",
    ],
)
def test_nearly_json(text: str) -> None:
    """Fences, text around the object, trailing commas, other quotes: the value is the same, the text as it came."""
    assert answer(text) == Answer("ok", text, values=GOOD)
    bare = answer(text, repair=False)
    assert bare.status == ("ok" if text == GOOD_TEXT else "invalid_output")


@pytest.mark.parametrize(
    "text",
    [
        '{"label": "pos", "score": 0.5',
        '{"label": "pos", "score": 0.',
        '{"label": "pos", "score": 0,5}',
        '{"label": "pos", "score": 50%}',
        '{"label": "pos", "score": 00.5}',
        '{"label": "pos", "score": .5}',
        '{"label": "pos" "score": 0.5}',
        '{"label": pos, "score": 0.5}',
        '{"label": "pos, "score": 0.5}',
        '{"label": "pos", "score": 0.5 // or 0.6\n}',
        '{"label": "pos", "score": 0.1, "score": 0.5,}',
        '{"label": "pos", "score": 0.5]',
        '{"label": "pos", "score": 0.5}, "score": 0.9}',
        '{"why": "x"{"label": "pos", "score": 0.5}',
    ],
)
def test_what_would_have_to_be_guessed(text: str) -> None:
    """What is cut, ambiguous or would lose something when mended is no answer, though the library makes one of it."""
    assert answer(text) == Answer("invalid_output", text, f"invalid_output: {NOT_JSON}", problems=(NOT_JSON,))


def test_several_objects() -> None:
    """Two fenced objects that differ are no answer: nobody knows which one is meant."""
    text = f'```\n{GOOD_TEXT}\n```\nor\n```\n{{"label": "neg", "score": 1}}\n```'
    assert answer(text).problems == (SEVERAL,)
    one = f'```\n{{"thought": "hm"}}\n```\nso\n```\n{GOOD_TEXT}\n```'
    assert answer(one).values == GOOD


def test_a_repair_must_validate() -> None:
    """A mended object that breaks the schema says how it does."""
    assert answer("{'label': 'meh', 'score': 2,}").problems == (
        '/label: "meh" is not one of "pos", "neg" or "neutral"',
        "/score: 2 is greater than the maximum of 1",
    )


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "nan", "1e400", "-1e400", "1e99999999"])
@pytest.mark.parametrize("dress", ["{}", "```json\n{}\n```", "{},"])
@pytest.mark.parametrize("field", ["n", "free"])
def test_no_number(word: str, dress: str, field: str) -> None:
    """NaN, Infinity and numbers beyond a double are refused, also where the repair library takes them."""
    text = dress.replace("{}", f'{{"{field}": {word}}}')
    assert answer(text, ANYTHING).values is None
    assert answer(f'{{"{field}": {word},}}', ANYTHING).values is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"i": 3328859648821064}', 3328859648821064),
        ('{"i": 9223372036854775807}', 2**63 - 1),
        ('{"i": 9223372036854775808}', None),
        ('{"i": 18446744073709551616}', None),
        ('{"i": -99999999999999999999999999}', None),
        ('{"i": 1e3}', 1000),
        ('{"i": 1.5}', None),
        ('{"n": 9007199254740993}', None),
        ('{"n": 100000000000000000001}', None),
        ('{"n": 100000000000000000000}', 1e20),
        ('{"n": 0.1234567890123456789012}', 0.1234567890123456789012),
        ('{"n": ' + "9" * 5_000 + "}", None),
    ],
)
def test_large_numbers(text: str, value: float | None) -> None:
    """A number beyond its column's range, or that the column would round, is invalid; it is not wrapped."""
    name = text[2]
    for dressed in (text, f"```\n{text}\n```"):
        values = answer(dressed, ANYTHING).values
        assert (values and values[name]) == value
    mended = answer(text.replace("}", ",}"), ANYTHING).values
    assert mended is None or mended[name] == value


@pytest.mark.parametrize(
    "text",
    [
        '{"free": ' * 10_000,
        '{"free": ' * 10_000 + "1" + "}" * 10_000,
        '{"free": ' + "[" * 900 + "]" * 900 + "}",
        '{"free": ' * 900 + "1" + "}" * 900,
        '{"free": ' + '[{"a": ' * 500 + "1" + "}]" * 500 + "}",
        '{"free": ' + "[" * 1_022 + "]" * 1_022 + "}",
        '{"free": ' + "[" * 10_000 + "]" * 10_000 + "}",
        "[" * 100_000,
        "{" * 16_000 + "}" * 16_000,
        "{" + "'" * 32_000 + "}",
        "```" + " " * 100_000,
        "```{}" * 10_000,
        '{"n": ' + "1" * 100_000,
        '{"free": "\\ud83d"}',
        '{"\\ud83d": 1, "free": "\\udc00",}',
        '{"free": "\x00"}',
        "{" + '"free": 1, ' * 50_000 + "}",
        '{"free": "' + "x" * 1_000_000,
    ],
)
def test_hostile_texts(text: str) -> None:
    """Endless nesting, halves of characters, megabytes of nothing: an answer is invalid, quickly, never an exception."""
    found = answer(text, ANYTHING)
    assert found.status in ("ok", "invalid_output")
    assert len(found.error or "") < 1_200
    assert all(len(problem) < 400 for problem in found.problems)


# --- rules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        ("{{ score <= 1 and label }}", True),
        ("score > 0.9", False),
        ("{{ label == 'pos' }}", True),
        ("{% if score > 0.9 %}yes{% endif %}", False),
        ("{{ answer | length < 10 }}", False),
        ("{{ score / 0 }}", False),
        ("{{ row.score < 1 }}", True),
    ],
)
def test_rules(check: str, holds: bool) -> None:
    """A rule is an expression on the parsed answer; one that is false, or fails, makes the answer invalid."""
    found = answer(GOOD_TEXT, check=check)
    assert found.status == ("ok" if holds else "invalid_output")
    assert (found.values is not None) is holds


def test_a_property_named_answer() -> None:
    """A rule sees the text as `answer`, unless the schema has such a property."""
    schema = load_schema({"properties": {"answer": {"type": "integer"}}})
    assert answer('{"answer": 4}', schema, check="answer == 4").status == "ok"
    assert answer("forty", None, check="{{ answer | length > 10 }}").problems == (
        "the rule `{{ answer | length > 10 }}` does not hold",
    )


def test_a_rule_on_what_is_not_there() -> None:
    """A rule that names no property is refused before anything is asked."""
    with pytest.raises(TemplateError, match=r"steps\.s\.check: the answer has no `scor`") as caught:
        reader(check="{{ scor < 1 }}")
    assert "did you mean `score`?" in str(caught.value)


# --- asking again ---------------------------------------------------------------------------------------


def test_reask_messages() -> None:
    """A re-ask shows the bad answer as it came, and at most eight problems of a line each."""
    schema = load_schema({"properties": {f"p{i}": {"type": "integer"} for i in range(20)}})
    bad = answer(json.dumps({f"p{i}": "x" * 10_000 for i in range(20)}), schema)
    told, corrected = reask_messages(bad, as_json=True)
    assert told == {"role": "assistant", "content": bad.text}
    lines = corrected["content"].splitlines()
    assert sum(line.startswith("- ") for line in lines) == MAX_PROBLEMS
    assert all(len(line) < 300 for line in lines)
    assert corrected["role"] == "user"
    assert "JSON object" in corrected["content"]
    assert "JSON" not in reask_messages(Answer("invalid_output", "x"), as_json=False)[1]["content"]


# --- any schema, any answer -----------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """A pandas value as plain Python."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if value is None or value is pd.NA or value is pd.NaT else value


def _reply(text: str) -> Reply:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Reply(json.dumps({"model": "m", "choices": [choice]}).encode(), "id", 1.0)


def _from_pandas(schema: AnswerSchema, answers: list[Answer], path: Path) -> list[dict[str, Any]]:
    """Take answers through columns and a Parquet file to pandas."""
    outcomes = [Outcome(a.status, a.error, None, a.text, a.values) for a in answers]
    columns_ = choose(StepConfig(name="s", prompt="x"), schema)
    table = pa.Table.from_arrays(
        step_columns(columns_, schema, outcomes), schema=pa.schema(step_fields("s", schema))
    )
    table.validate(full=True)
    pq.write_table(table, path)
    frame = pd.read_parquet(path, dtype_backend="pyarrow")
    names = list(schema.columns)
    columns = [frame.iloc[:, 1 + place].tolist() for place in range(len(names))]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in zip(*columns, strict=True)]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_answer_comes_back_from_pandas(data: st.DataObject, tmp_path: Path) -> None:
    """Whatever the schema: reply → answer → columns → Parquet → pandas gives the values back."""
    document, conforming = data.draw(objects(PARTS))
    values = data.draw(st.lists(conforming, min_size=1, max_size=3))
    schema = load_schema(document)
    made = pa.schema(step_fields("s", schema)).names
    assume(len(set(made)) == len(made))  # a field called as one of every step's columns is refused at check
    answers = []
    for value in values:
        text = json.dumps(
            value, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 2]))
        )
        whole = read_reply(_reply(text))
        assert isinstance(whole, Completion)
        answers.append(reader(schema).read(whole))
    assert [found.status for found in answers] == ["ok"] * len(values)
    assert [found.values for found in answers] == [schema.coerce(value) for value in values]
    assert _from_pandas(schema, answers, tmp_path / "x.parquet") == [found.values for found in answers]


DRESSES = (
    lambda value: f"```json\n{json.dumps(value)}\n```",
    lambda value: f"Sure! {json.dumps(value, ensure_ascii=False)} Is that all?",
    lambda value: json.dumps(value)[:-1] + ",}",
    repr,
    lambda value: f"```\n{value!r}\n```",
    lambda value: json.dumps(value, indent=2).replace('"', "'"),
)


@settings(max_examples=100)
@given(data=st.data())
def test_a_dressed_answer_has_its_own_value_or_none(data: st.DataObject) -> None:
    """Whatever a model puts around its JSON or makes of its quotes, the value is the one that was meant, or none."""
    document, conforming = data.draw(objects(PARTS))
    schema, value = load_schema(document), data.draw(conforming)
    text = data.draw(st.sampled_from(DRESSES))(value)
    found = reader(schema).read(completion(text))
    assert found.values in (None, schema.coerce(value)), text


def _is_json(text: str) -> bool:
    """Say whether a text is, or holds, JSON that says something (else): raw line ends and last commas are let through."""
    inner = text[text.find("{") : text.rfind("}") + 1]
    for part in (text, inner, re.sub(r",\s*(?=[}\]])", "", inner)):
        try:
            json.loads(part, strict=False)
        except json.JSONDecodeError:
            continue
        return True
    return False


SIGNS = st.sampled_from(list("\"'{}[]:,\\ \n01.-ex`")) | st.characters(codec="utf-8")


@settings(max_examples=100)
@given(data=st.data())
def test_a_broken_answer_never_gives_a_wrong_value(data: st.DataObject) -> None:
    """Cut anywhere, with a character lost, put in or changed: the value that was meant or none, no exception."""
    document, conforming = data.draw(objects(PARTS))
    schema, value = load_schema(document), data.draw(conforming)
    text = json.dumps(value, ensure_ascii=False)
    at = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.sampled_from([at, at + 1, len(text)]))
    broken = text[:at] + data.draw(st.just("") | SIGNS) + text[end:]
    found = reader(schema).read(completion(broken))
    assert _is_json(broken) or found.values in (None, schema.coerce(value)), broken


@settings(max_examples=300)
@given(text=st.text() | st.text(st.sampled_from("{}[]:,\"' \n01e.-`a\\")), number=NUMBERS)
@example(text='{"n": 1}{', number=0.0)
def test_any_text_is_read(text: str, number: float) -> None:
    """Any text is an answer or none; values that come of it are finite and of the schema's types."""
    for dressed in (text, '{"n": ' + text + "}", f'{{"n": {number}, "free": {text}'):
        found = reader(ANYTHING).read(completion(dressed))
        assert found.status in ("ok", "invalid_output")
        if found.values is not None:
            assert found.values["n"] is None or math.isfinite(found.values["n"])
            assert found.values["i"] is None or type(found.values["i"]) is int


@given(text=TEXT, reason=st.sampled_from(["stop", "length", "content_filter", "tool_calls", "", None]))
def test_reading_is_a_function(text: str, reason: str | None) -> None:
    """The same completion gives the same answer, however often it is read."""
    same = reader()
    once = same.read(completion(text, finish_reason=reason))
    assert once == same.read(completion(text, finish_reason=reason))


FORCED = {"tools": [{"type": "function"}], "tool_choice": {"type": "function", "function": {"name": "rate"}}}


@pytest.mark.parametrize(
    ("choice", "calls", "status", "values"),
    [
        (FORCED["tool_choice"], [("rate", '{"label": "pos"}')], "ok", {"label": "pos"}),
        ({"type": "tool", "name": "rate"}, [("rate", '{"label": "pos"}')], "ok", {"label": "pos"}),
        ("required", [("any", '{"label": "neg"}')], "ok", {"label": "neg"}),
        (FORCED["tool_choice"], [("other", "{}"), ("rate", '{"label": "pos"}')], "ok", {"label": "pos"}),
        (FORCED["tool_choice"], [("rate", '{"label": "pos"}')] * 2, "ok", {"label": "pos"}),
        (FORCED["tool_choice"], [("rate", '{"label": "pos"}'), ("rate", '{"label": "neg"}')], "invalid_output", None),
        (FORCED["tool_choice"], [("rate", '{"label": "fair"}')], "invalid_output", None),
        (FORCED["tool_choice"], [("rate", '{"label": "po')], "invalid_output", None),
        (FORCED["tool_choice"], [("other", '{"label": "pos"}')], "invalid_output", None),
        (FORCED["tool_choice"], [("rate", None)], "invalid_output", None),
        ("auto", [("rate", '{"label": "pos"}')], "invalid_output", None),
        ({"type": "auto"}, [("rate", '{"label": "pos"}')], "invalid_output", None),
        ({"type": "any"}, [("rate", '{"label": "pos"}')], "ok", {"label": "pos"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}, [("rate", '{"label": "pos"}')], "invalid_output", None),
        ({"type": "allowed_tools", "mode": "required"}, [("rate", '{"label": "pos"}')], "ok", {"label": "pos"}),
    ],
)  # fmt: skip
def test_a_forced_tool_s_arguments_are_the_answer(
    choice: Any, calls: list[tuple[str, str | None]], status: str, values: dict[str, Any] | None
) -> None:
    """With a schema, the arguments of a tool that must be called are read as an answer's JSON is."""
    schema = load_schema(
        {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}
    )
    forced = reader(schema, params={**FORCED, "tool_choice": choice})
    made = tuple(ToolCall(f"c{n}", name, arguments) for n, (name, arguments) in enumerate(calls))
    answer = forced.read(completion(None, finish_reason="tool_calls", tool_calls=True, calls=made))
    assert (answer.status, answer.values) == (status, values)


def test_what_stands_beside_an_answer_is_given_where_it_is_written() -> None:
    """Nothing is looked at that no column shows; what is thought within marks is reasoning too."""
    said = completion("<think>Hm.\n</think>\nYes", reasoning=None, system_fingerprint="fp", refusal=None)
    plain = reader(None)
    assert plain.aside(said, plain.read(said)) == {}
    asking = reader(None, columns=["answer", "reasoning", "system_fingerprint"])
    assert asking.aside(said, asking.read(said)) == {"reasoning": "Hm.", "system_fingerprint": "fp"}
    apart = completion("Yes", reasoning="Hm")
    assert asking.aside(apart, asking.read(apart))["reasoning"] == "Hm"
