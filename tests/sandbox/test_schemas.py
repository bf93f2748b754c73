"""Made-up values conform to their schema."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.sandbox.schemas import conform
from tests.helpers.sandbox import (
    LABELS,
    Caller,
    ask,
    with_schema,
)


async def test_a_schema_is_followed_wherever_it_stands(caller: Caller) -> None:
    """A schema in response_format, or on a line of a system message, gives JSON that conforms to it."""
    system = f"Answer with JSON only, as this schema says:\n{orjson.dumps(LABELS).decode()}\nNothing else."
    prompted = {
        "model": "auto",
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": "x"}],
    }
    for body in (with_schema(LABELS), prompted):
        jsonschema_rs.validate(LABELS, orjson.loads((await caller.chat(body)).text))
    plain = await caller.chat(ask(response_format={"type": "json_object"}))
    assert "[sandbox]" in orjson.loads(plain.text)["answer"]


async def test_labels_vary_over_rows(caller: Caller) -> None:
    """Different prompts get different values of an enum."""
    texts = [(await caller.chat(with_schema(LABELS, f"row {n}"))).text for n in range(40)]
    assert {orjson.loads(text)["label"] for text in texts} == {"pos", "neg", "neutral"}


PATTERNS = ["^[A-Z]{2}[0-9]{4}$", r"^\d{3}-\d{2}$", "(foo|bar)+", "^a.c?$", r"^\w+@x\.org$"]
FORMATS = ["date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"]
TYPES = ["string", "integer", "number", "boolean", "null"]
SCALARS = st.one_of(st.text(), st.integers(-9, 9), st.booleans(), st.none())


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Give schemas of every kind that the sandbox follows."""
    leaves = st.one_of(
        st.sampled_from(TYPES).map(lambda name: {"type": name}),
        st.lists(st.sampled_from(TYPES), min_size=1, unique=True).map(lambda names: {"type": names}),
        st.lists(SCALARS, min_size=1).map(lambda values: {"enum": values}),
        st.one_of(SCALARS, st.lists(SCALARS)).map(lambda value: {"const": value}),
        st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name}),
        st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
        st.builds(_lengths, st.integers(0, 60), st.integers(0, 60)),
        _numbers(),
    )
    return st.recursive(leaves, _nested, max_leaves=8)


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    further = {"properties": {"further": LABELS}, "required": ["further"]}
    objects = st.builds(
        _object,
        st.dictionaries(st.text("abcdefg", min_size=1), inner, max_size=4),
        st.booleans(),
        st.booleans(),
    )
    arrays = st.builds(
        lambda items, low, width: {"type": "array", "items": items, "minItems": low, "maxItems": low + width},
        inner,
        st.integers(0, 3),
        st.integers(0, 3),
    )
    return st.one_of(
        objects,
        arrays,
        objects.map(lambda schema: {"allOf": [schema, further]}),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
    )


def _object(properties: dict[str, Any], required: bool, typed: bool) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties) if required else []}
    return {**schema, "additionalProperties": {"type": "object"}} if typed else schema


def _lengths(low: int, width: int) -> dict[str, Any]:
    return {"type": "string", "minLength": low, "maxLength": low + width}


@st.composite
def _numbers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["integer", "number"]))
    low, width = draw(st.integers(-(10**6), 10**6)), draw(st.integers(2, 10**6))
    step = draw(st.integers(1, 7))
    bounds: list[dict[str, Any]] = [
        {},
        {"minimum": low},
        {"maximum": low},
        {"minimum": low, "maximum": low + (0 if kind == "integer" else width)},
        {"exclusiveMinimum": low, "exclusiveMaximum": low + width},
        {"minimum": low, "maximum": low + width + step, "multipleOf": step},
    ]
    return {"type": kind, **draw(st.sampled_from(bounds))}


@given(schema=schemas(), seed=st.binary(min_size=1, max_size=32))
def test_made_up_values_conform_to_their_schema(schema: dict[str, Any], seed: bytes) -> None:
    """Whatever is made conforms, survives JSON, and is made again from the same seed."""
    value = conform(schema, seed)
    assert orjson.loads(orjson.dumps(value)) == value
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(value)
    assert conform(schema, seed) == value


@pytest.mark.parametrize(
    "schema",
    [
        {
            "$ref": "#/$defs/tree",
            "$defs": {"tree": {"properties": {"kids": {"items": {"$ref": "#/$defs/tree"}}}}},
        },
        {
            "$defs": {
                "link": {
                    "type": "object",
                    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/link"}, {"type": "null"}]}},
                    "required": ["next"],
                }
            },
            "$ref": "#/$defs/link",
        },
        {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
        {
            "type": "array",
            "prefixItems": [{"const": "a"}, {"type": "integer"}],
            "items": False,
            "minItems": 2,
        },
        {"type": "object", "required": ["x"], "minProperties": 3},
        {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "required": ["b"], "maxProperties": 1},
        {"type": "number", "multipleOf": 0.01, "minimum": 0, "exclusiveMaximum": 0.02},
        {"type": "integer", "minimum": 1e30},
        {
            "oneOf": [{"const": 1}, {"type": "object", "properties": {"a/b": {"$ref": "#/$defs/~1"}}}],
            "$defs": {"/": {}},
        },
        {"properties": {"x": {"minimum": 3}, "y": {"items": {"type": "null"}}}, "required": ["x", "y"]},
    ],
)
def test_schemas_with_a_catch_are_followed_too(schema: dict[str, Any]) -> None:
    """Recursion, uniqueness, tuples, counts of properties and odd bounds are met."""
    for number in range(30):
        jsonschema_rs.validate(schema, conform(schema, bytes([number])))


@pytest.mark.parametrize("pattern", [r"\p{L}+", "(?<=a)b{900}", "["])
def test_a_pattern_out_of_reach_still_gives_a_text(pattern: str) -> None:
    """A pattern that cannot be met within the length gets marked text instead of an error."""
    assert conform({"type": "string", "pattern": pattern, "maxLength": 50}, b"x").startswith("[sandbox]")


def test_a_schema_that_requires_itself_without_end_comes_to_an_end() -> None:
    """No value conforms to it, and making one stops all the same."""
    node = {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a"]}
    assert "a" in conform(node, b"x")
    assert conform({"allOf": [{"$ref": "#"}]}, b"x") is not None
