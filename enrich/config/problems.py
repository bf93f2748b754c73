"""What is wrong with a configuration, in words: a line for each place."""

from __future__ import annotations

import re
from typing import Any, get_origin

from pydantic import (
    BaseModel,
    ValidationError,
)

from enrich.config.api_key import KEY_VARIABLE
from enrich.errors import did_you_mean, shortened

PROBLEMS_SHOWN = 20  # places that are told of


def problems(error: ValidationError, document: Any, model: type[BaseModel]) -> str:
    """Write what is wrong with a document, a line each.

    A place has one line: a value that may be of two kinds is wrong in two ways.

    Args:
        error: what the models say.
        document: what they were given.
        model: what the document is, or each item of it; for the keys that are known.
    """
    said: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=True):
        said.setdefault(_place(item, document), _problem(item, model))
    lines = [f"  {shortened(place, 100)}: {shortened(text, 300)}" for place, text in said.items()]
    more = [f"  … and {len(lines) - PROBLEMS_SHOWN:,} more"] if len(lines) > PROBLEMS_SHOWN else []
    return "\n".join([*lines[:PROBLEMS_SHOWN], *more])


def _place(item: Any, document: Any) -> str:
    """Give the path to a problem as one types it after `--set`; steps go by their names."""
    parts: list[str] = []
    value = document
    for part in item["loc"]:
        if isinstance(value, dict) and part in value:
            value = value[part]
            parts.append(str(part))
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
            name = value.get("name") if isinstance(value, dict) else None
            parts.append(name if isinstance(name, str) and name else str(part))
    if item["type"] == "missing":
        parts.append(str(item["loc"][-1]))
    return ".".join(parts) or "the file"


def _problem(item: Any, model: type[BaseModel]) -> str:
    kind, value = item["type"], item.get("input")
    if kind == "extra_forbidden":
        return _unknown_key(item["loc"], model)
    if kind == "value_error":
        return str(item["ctx"]["error"])
    text = _PROBLEMS.get(kind) or re.sub(r"^\w+ should ", "must ", item["msg"])
    if kind.endswith(("_parsing", "_from_float")):
        text = text.partition(",")[0]
    secret = item["loc"][:1] in {
        ("endpoint",),
        ("ledger",),
    }  # what stands there may be a key in the wrong place
    shown = kind != "missing" and not secret and isinstance(value, str | int | float | bool | None)
    return f"{text} (it is {value!r})" if shown else text


_PROBLEMS = {
    "missing": "this key is required",
    "string_pattern_mismatch": "must be one word of letters, digits and _, not beginning with a digit",
    "model_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "list_type": "must be a list",
    "too_short": "must have at least one item",
}
_SECRETS = frozenset({"api_key", "apikey", "key", "password", "secret", "token"})


def _unknown_key(loc: tuple[Any, ...], model: type[BaseModel]) -> str:
    name = str(loc[-1])
    if name.lower() in _SECRETS:
        return f"a key does not belong in this file; export {KEY_VARIABLE}=…, or name a file with `endpoint.api_key_file`"
    return f"unknown key; {did_you_mean(name, _keys_at(loc[:-1], model))}"


def _keys_at(loc: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """Walk the models along a location and give the keys that are known there."""
    for part in loc:
        if isinstance(part, int):
            continue
        info = model.model_fields.get(part)
        inner = model_in(info.annotation) if info is not None else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Give the model within an annotation, such as the one of a list's items; None without one."""
    if get_origin(annotation) is type:  # a class as a value is no section
        return None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = model_in(argument)
        if found is not None:
            return found
    return None
