"""Schemas of answers that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.bad_input.case import (
    LEGAL,
    REFUSED,
    STEP,
    Case,
    Named,
    config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def schemas() -> Iterator[Named]:
    """Schemas of answers that are none."""
    inner: dict[str, Any] = {
        "empty enum": {"enum": []},
        "enum of all kinds": {"enum": [1, "a", None, [], {}]},
        "enum twice": {"enum": ["a", "a"]},
        "enum no list": {"enum": "a"},
        "const list": {"const": [1]},
        "const null": {"const": None},
        "no such type": {"type": "objekt"},
        "empty type list": {"type": []},
        "type of all": {"type": ["string", "null", "array", "object", "number", "integer", "boolean"]},
        "type number": {"type": 1},
        "no such format": {"type": "string", "format": "x"},
        "pattern that is none": {"type": "string", "pattern": "("},
        "pattern endless": {"type": "string", "pattern": "(a+)+$"},
        "pattern of Perl": {"type": "string", "pattern": "(?<=a)b\\1"},
        "minimum in words": {"type": "number", "minimum": "a"},
        "minimum above maximum": {"type": "number", "minimum": 5, "maximum": 1},
        "minLength negative": {"type": "string", "minLength": -1},
        "minLength huge": {"type": "string", "minLength": 10**30},
        "multipleOf zero": {"type": "number", "multipleOf": 0},
        "multipleOf huge": {"type": "integer", "multipleOf": 10**400},
        "items a text": {"type": "array", "items": "x"},
        "items false": {"type": "array", "items": False},
        "items list": {"type": "array", "items": [{"type": "string"}]},
        "properties a list": {"type": "object", "properties": []},
        "required a text": {"type": "object", "properties": {"a": {}}, "required": "a"},
        "ref to itself": {"$ref": "#"},
        "ref to nowhere": {"$ref": "#/x"},
        "ref remote": {"$ref": "http://localhost:9/x.json"},
        "ref to a file": {"$ref": "file:///etc/passwd"},
        "ref to a number": {"$ref": 1},
        "anyOf empty": {"anyOf": []},
        "anyOf text": {"anyOf": "x"},
        "allOf of opposites": {"allOf": [{"type": "string"}, {"type": "number"}]},
        "not anything": {"not": {}},
        "if": {"if": {"type": "string"}, "then": False, "else": False},
        "deep": None,
        "true": True,
        "false": False,
        "a text": "x",
        "a number": 1,
        "null": None,
        "a list": [],
        "no properties": {"type": "object"},
        "nested objects": {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}},
        "$schema unknown": {"$schema": "http://x/y", "type": "string"},
        "$id odd": {"$id": "\0", "type": "string"},
        "unevaluated": {"unevaluatedProperties": False},
        "additional": {"type": "object", "additionalProperties": {"type": "nothing"}},
        "default of another type": {"type": "string", "default": 1},
        "nan": {"type": "number", "minimum": float("nan")},
        "inf": {"type": "number", "maximum": float("inf")},
    }
    deep: Any = {"type": "string"}
    for _ in range(12):
        deep = {"type": "object", "properties": {"a": deep}}
    inner["deep"] = deep
    for name, schema in inner.items():
        document = config(*STEP, "schema", value={"type": "object", "properties": {"a": schema}})
        yield f"schema: a property: {name}", Case(document, codes=LEGAL)
        yield f"schema: {name}", Case(config(*STEP, "schema", value=schema), codes=LEGAL)
    for name in ("", " ", "status", "error", "a b", "é", "\0", "a\nb", "x" * 5_000, "model", "1", "\ud800"):
        document = config(*STEP, "schema", value={"type": "object", "properties": {name: {"type": "string"}}})
        yield f"schema: a property named {name!r:.20}", Case(document, codes=LEGAL)
    many = {f"p{i}": {"type": "string"} for i in range(3_000)}
    yield (
        "schema: 3,000 properties",
        Case(config(*STEP, "schema", value={"type": "object", "properties": many}), codes=LEGAL),
    )
    for depth in (50, 500, 50_000):
        text = '{"type":"object","properties":{"a":' * depth + "{}" + "}}" * depth
        yield (
            f"schema: a file {depth} deep",
            Case(config(*STEP, "schema", value="a.json"), {"a.json": text.encode()}, codes=LEGAL),
        )
    for name, raw in {
        "empty": b"",
        "a list": b"[]",
        "broken": b"{",
        "NaN": b'{"type": NaN}',
        "not UTF-8": b'{"type": "\xff"}',
        "two documents": b"{}{}",
        "a number": b"1",
        "a NUL": b"\0",
        "null": b"null",
        "digits": b"9" * 10_000,
        "keys twice": b'{"type": "object", "type": "string", "properties": {}}',
        "UTF-16": '{"type": "object"}'.encode("utf-16"),
    }.items():
        for suffix in ("json", "yaml"):
            yield (
                f"schema: a {suffix} file: {name}",
                Case(config(*STEP, "schema", value=f"a.{suffix}"), {f"a.{suffix}": raw}, codes=REFUSED),
            )
    for place in (
        "os:getcwd",
        "nomodule:X",
        "json:loads",
        "math:pi",
        "a:b:c",
        "pydantic:BaseModel",
        "sys:exit",
        "this:s",
        "enrich:run",
        ":x",
        "x:",
    ):
        yield f"schema: {place}", Case(config(*STEP, "schema", value=place), codes=REFUSED)
