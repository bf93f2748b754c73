"""Which columns a JSON Schema stands for, following its references."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from enrich.errors import ConfigError
from enrich.schema.columns import (
    CATEGORY,
    FORMAT_COLUMNS,
    JSON_COLUMN,
    NUMBER_COLUMN,
    SCALAR_COLUMNS,
    STRING_COLUMN,
    Column,
    enum_column,
    format_column,
    list_column,
    struct_column,
)

SHAPE_KEYS = ("type", "enum", "format", "properties", "items", "prefixItems", "anyOf", "oneOf")
OBJECT_HINT = "write {type: object, properties: {answer: …}, required: [answer]}."


class RecursionFound(Exception):  # not an error: a recursive part is kept as JSON text
    """A schema refers to itself."""


def top_level(document: dict[str, Any]) -> dict[str, Column]:
    """Give the column of each property of the answer.

    Raises:
        ConfigError: it is no object with properties.
        RecursionFound: it is nested without end.
    """
    reader = _Reader(document)
    shape, refs = reader.shape(document, "#", frozenset({"#"}))
    properties = shape.get("properties")
    if not properties or (shape.get("type") or {"object"}) != {"object"}:
        raise ConfigError(
            "the answer's schema is not that of an object with properties, so there are no columns to make",
            hint=OBJECT_HINT,
        )
    return {name: reader.column(part, f"#/properties/{name}", refs) for name, part in properties.items()}


class _Reader:
    """Finds the columns of one schema document, following its references."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def column(self, node: Any, place: str, refs: frozenset[str]) -> Column:
        """Choose the column for one part of the schema; what no single type holds is kept as JSON text."""
        try:
            shape, refs = self.shape(node, place, refs)
        except RecursionFound:
            return JSON_COLUMN
        if "enum" in shape:
            return enum_column(shape["enum"])
        types = (shape.get("type") or _implied_types(shape)) - {"null"}
        if types == {"object"} and shape.get("properties"):
            parts = shape["properties"].items()
            return struct_column({n: self.column(p, f"{place}/properties/{n}", refs) for n, p in parts})
        if types == {"array"} and isinstance(shape.get("items"), dict) and "prefixItems" not in shape:
            return list_column(self.column(shape["items"], f"{place}/items", refs))
        if not types:
            return self._union(shape.get("anyOf") or shape.get("oneOf") or [], place, refs)
        by_format = format_column(shape.get("format", "")) if types == {"string"} else None
        return by_format or SCALAR_COLUMNS.get(types, JSON_COLUMN)

    def shape(self, node: Any, place: str, refs: frozenset[str]) -> tuple[dict[str, Any], frozenset[str]]:
        """Gather the keywords that decide on a type from a schema, what it refers to and its ``allOf``.

        Returns:
            The keywords, ``type`` as a set and ``const`` as an ``enum`` of one; and the references followed.
        """
        if not isinstance(node, dict):
            return {}, refs
        shape: dict[str, Any] = {}
        if "$ref" in node:
            target, refs = self._resolve(node["$ref"], place, refs)
            shape, refs = self.shape(target, place, refs)
        for i, part in enumerate(node.get("allOf", [])):
            more, refs = self.shape(part, f"{place}/allOf/{i}", refs)
            shape = _merge(shape, more, place)
        own = {key: node[key] for key in SHAPE_KEYS if key in node}
        if "type" in own:
            own["type"] = frozenset([own["type"]] if isinstance(own["type"], str) else own["type"])
        if "const" in node:
            own["enum"] = [node["const"]]
        return _merge(shape, own, place), refs

    def _resolve(self, ref: str, place: str, refs: frozenset[str]) -> tuple[Any, frozenset[str]]:
        pointer = unquote(ref)
        if pointer in refs:
            raise RecursionFound
        if not pointer.startswith("#/"):
            raise ConfigError(
                f"the schema refers to `{ref}` at `{place}`",
                hint="only references within the schema, such as #/$defs/Name, are followed.",
            )
        target: Any = self._root
        try:
            for step in pointer[2:].split("/"):
                key = step.replace("~1", "/").replace("~0", "~")
                target = target[int(key)] if isinstance(target, list) else target[key]
        except (LookupError, ValueError, TypeError):
            raise ConfigError(f"the schema refers to `{ref}` at `{place}`, which is not there") from None
        return target, refs | {pointer}

    def _union(self, branches: list[Any], place: str, refs: frozenset[str]) -> Column:
        """One column for all branches when they agree on a type (null apart), else JSON text."""
        columns = [self.column(branch, place, refs) for branch in branches if branch != {"type": "null"}]
        if not columns:
            return JSON_COLUMN
        first = columns[0]
        if len(columns) == 1:
            return first
        types = {column.type for column in columns}
        if types == {pa.int64(), pa.float64()}:
            return NUMBER_COLUMN
        if types <= {pa.string(), CATEGORY} and JSON_COLUMN not in columns:
            return STRING_COLUMN
        simple = len(types) == 1 and first in (*SCALAR_COLUMNS.values(), *FORMAT_COLUMNS.values())
        return first if simple else JSON_COLUMN


def _implied_types(shape: dict[str, Any]) -> frozenset[str]:
    """The type that a schema without ``type`` is plainly meant for."""
    if "properties" in shape:
        return frozenset({"object"})
    if "items" in shape:
        return frozenset({"array"})
    return frozenset({"string"}) if shape.get("format") in FORMAT_COLUMNS else frozenset()


def _merge(one: dict[str, Any], other: dict[str, Any], place: str) -> dict[str, Any]:
    """Both schemas at once."""
    merged = {**one, **other}
    for key in one.keys() & other.keys():
        if one[key] != other[key]:
            merged[key] = _both(key, one[key], other[key])
            if not merged[key]:
                raise ConfigError(
                    f"the schema asks for two kinds of `{key}` at once at `{place}`",
                    hint="write the combined schema out instead of allOf.",
                )
    return merged


def _both(key: str, one: Any, other: Any) -> Any:
    """One keyword under two schemas that must both hold; something empty when nothing fits both."""
    if key == "type":
        integer = {"integer"} if "integer" in one | other and "number" in one | other else set()
        return (one & other) | integer
    if key == "enum":
        return [value for value in one if value in other]
    if key == "properties":
        shared = {name: {"allOf": [one[name], other[name]]} for name in one if name in other}
        return {**one, **other, **shared}
    return {"allOf": [one, other]} if key == "items" else None
