"""A step's request fields: those that are the same for every row, and those that hold templates."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from enrich.errors import ConfigError
from enrich.prompt.template import Expression, RowError, Template, compile_value, is_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from enrich.config import StepConfig

TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")


def split(step: StepConfig, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a step's request fields into those that are the same for every row and those that hold templates.

    Raises:
        ConfigError: a value is not JSON.
    """
    fields = dict(step.params)
    for name in ("temperature", "top_p", *TOKEN_LIMITS):
        value = getattr(step, name)
        if value is not None:
            fields[name] = value
    if step.stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True, **fields.get("stream_options", {})}
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}.params: not JSON: {error}") from None
    per_row: dict[str, Any] = {}
    for name, value in list(fields.items()):
        tree = _compile_tree(value, f"{where}.{name}")
        if any(leaves(tree)):
            per_row[name] = tree
            del fields[name]
        elif name in TOKEN_LIMITS and isinstance(value, str):
            raise ConfigError(f"{where}.{name}: {value!r} is neither a whole number nor a template")
    return fields, per_row


def _compile_tree(value: Any, where: str) -> Any:
    """Compile the templates among a parameter's strings, at any depth."""
    if isinstance(value, str):
        return compile_value(value, where) if is_template(value) else value
    if isinstance(value, dict):
        return {key: _compile_tree(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_compile_tree(item, f"{where}.{i}") for i, item in enumerate(value)]
    return value


def leaves(tree: Any) -> Iterator[Template | Expression]:
    """Give the templates in a field."""
    if isinstance(tree, Template | Expression):
        yield tree
    elif isinstance(tree, dict | list):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(item)


def render(name: str, tree: Any, values: Mapping[str, Any]) -> Any:
    """Give one row's value of a field.

    Raises:
        RowError: a template fails on this row, or a token limit is no whole number from 1.
    """
    value = _rendered(tree, values)
    return _as_count(value, next(leaves(tree)).where) if name in TOKEN_LIMITS else value


def _rendered(tree: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(tree, Expression):
        return tree.value(values)
    if isinstance(tree, Template):
        return tree.render(values)
    if isinstance(tree, dict):
        return {key: _rendered(item, values) for key, item in tree.items()}
    return [_rendered(item, values) for item in tree] if isinstance(tree, list) else tree


def source(tree: Any) -> Any:
    """Give a parameter as it was written."""
    if isinstance(tree, Template | Expression):
        return tree.source
    if isinstance(tree, dict):
        return {key: source(item) for key, item in tree.items()}
    return [source(item) for item in tree] if isinstance(tree, list) else tree


def _as_count(value: Any, where: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise RowError("template_error", f"{where}: {value!r} is no number") from None
    if not math.isfinite(number) or number < 1 or number != int(number):
        raise RowError("template_error", f"{where}: {value!r} is no whole number from 1")
    return int(number)
