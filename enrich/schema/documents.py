"""Where the schema of an answer comes from: a mapping, a file, a pydantic model or its import path."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from enrich.config.strict_yaml import parse_yaml, read_text
from enrich.errors import ConfigError, did_you_mean

IMPORT_PATH = re.compile(r"[\w.]+:\w+")


def model_of(spec: Any) -> Any:
    """Import what an import path names; anything else is given back."""
    return _import_model(spec) if isinstance(spec, str) and IMPORT_PATH.fullmatch(spec) else spec


def document_of(spec: Any) -> Any:
    """Give the JSON Schema, as plain JSON; of a model the one that it validates by.

    Raises:
        ConfigError: there is none.
    """
    return _plain(_document(spec), "#")


def _document(spec: Any) -> Any:
    if isinstance(spec, Mapping):
        return spec
    if isinstance(spec, str | Path):
        return _read(Path(spec))
    if not (isinstance(spec, type) and issubclass(spec, BaseModel) and spec is not BaseModel):
        raise ConfigError(
            f"`{spec!r}` is no schema of an answer", hint="give a JSON Schema or a pydantic model."
        )
    try:
        return spec.model_json_schema()
    except PydanticUserError as error:
        raise ConfigError(
            f"the model {spec.__name__} has no JSON Schema: {error.message}",
            hint="use field types that JSON can express.",
        ) from None


def _read(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise ConfigError(
            f"the schema `{path}` is neither a .json or .yaml file nor an import path",
            hint="write schema: answer.json, or schema: package.module:Model.",
        )
    text = read_text(path, "the schema file")
    try:
        return orjson.loads(text) if suffix == ".json" else parse_yaml(text, str(path))
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from None


def _import_model(path: str) -> Any:
    module_name, _, name = path.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # as `python` does; a console script does not
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            f"the schema `{path}` cannot be imported: {error}",
            hint="the module must be installed, or lie in the working directory.",
        ) from None
    if not hasattr(module, name):
        models = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, BaseModel)]
        raise ConfigError(
            f"the module `{module_name}` has no `{name}`", hint=did_you_mean(name, sorted(models))
        )
    return getattr(module, name)


def _plain(value: Any, place: str) -> Any:
    """Copy a schema, making sure that it is plain JSON."""
    if isinstance(value, Mapping):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise ConfigError(f"the schema has the key {wrong!r} at `{place}`", hint="quote it.")
        return {key: _plain(item, f"{place}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}/{i}") for i, item in enumerate(value)]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ConfigError(
        f"the schema holds {value!r} at `{place}`, which is not JSON", hint="quote it, if it is a text."
    )
