"""The schema of an answer: which Arrow columns it stands for, and whether a value keeps to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import BaseModel

from enrich.errors import ConfigError
from enrich.schema.columns import CATEGORY, Column, Misfit
from enrich.schema.documents import document_of, model_of
from enrich.schema.model import AnswerModel
from enrich.schema.shape import OBJECT_HINT, RecursionFound, top_level
from enrich.schema.words import pointer, shorten, show

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import jsonschema_rs

    from enrich.config import StepConfig

__all__ = ["CATEGORY", "AnswerSchema", "Misfit", "load_schema", "step_schema"]

MAX_ERRORS = 8  # problems of one value that are reported
MAX_NAME = 64  # characters of a response_format's name


@dataclass(frozen=True, slots=True, eq=False)
class AnswerSchema:
    """What an answer must look like.

    Attributes:
        json: the JSON Schema.
        columns: one per top-level property, in the schema's order. Every one may be null.
    """

    json: dict[str, Any]
    columns: dict[str, Column]
    _validator: jsonschema_rs.Validator = field(repr=False)
    _model: AnswerModel | None = None

    @property
    def fields(self) -> tuple[pa.Field[Any], ...]:
        """The Arrow field of each top-level property, named as the property."""
        return tuple(pa.field(name, column.type) for name, column in self.columns.items())

    @property
    def is_code(self) -> bool:
        """Whether a program of the user's has a say in what an answer is: it may change, and the schema stay as it is."""
        return self._model is not None

    def read(self, value: Any) -> tuple[dict[str, Any] | None, list[str]]:
        """Check an answer and turn it into values ready for Arrow.

        Args:
            value: parsed JSON.

        Returns:
            What `coerce` gives and no problems, or None and at most eight lines such as
            ``/score: 3 is greater than the maximum of 1``.
        """
        if self._model is not None:
            value, wrong = self._model.read(value)
            if wrong:
                return None, (self._broken(value) or wrong)[:MAX_ERRORS]
        else:
            wrong = self._broken(value) or self._beside_the_point(value)
            if wrong:
                return None, wrong
        try:
            return self.coerce(value), []
        except Misfit as misfit:
            return None, misfit.errors[:MAX_ERRORS]

    def _broken(self, value: Any) -> list[str]:
        """Say what the JSON Schema finds wrong with a value."""
        try:
            errors = list(islice(self._validator.iter_errors(value), MAX_ERRORS))
        except UnicodeEncodeError:
            return ["/: holds half of a surrogate pair, which is no Unicode text"]
        return [shorten(f"{pointer(error.instance_path) or '/'}: {error.message}") for error in errors]

    def _beside_the_point(self, value: Any) -> list[str]:
        """Find an object that says something, but nothing of what was asked: a wrapper around the answer, for one.

        A schema that requires nothing takes it, and every column would be null.
        """
        if not (isinstance(value, dict) and value) or any(name in value for name in self.columns):
            return []
        if self.json.get("patternProperties") or isinstance(self.json.get("additionalProperties"), dict):
            return []
        wanted, given = (", ".join(list(names)[:MAX_ERRORS]) for names in (self.columns, value))
        return [shorten(f"/: has none of the properties {wanted}; it has {given}")]

    def validate(self, value: Any) -> list[str]:
        """Say what is wrong with an answer, as `read` does: nothing, when its columns can hold it."""
        return self.read(value)[1]

    def coerce(self, value: Any) -> dict[str, Any]:
        """Turn an answer into values ready for Arrow: each property of the schema, None where it is absent.

        Dates are parsed, numbers stay exact, free-form parts become JSON text. Properties that the schema does
        not list are left out.

        Raises:
            Misfit: a value does not fit its column; never for a value that `validate` found nothing wrong with.
        """
        if not isinstance(value, dict):
            raise Misfit(f"/: {show(value)} is not an object")
        values: dict[str, Any] = {}
        errors: list[str] = []
        for name, column in self.columns.items():
            item = value.get(name)
            try:
                values[name] = None if item is None else column.coerce(item)
            except Misfit as misfit:
                errors += misfit.under(name).errors
        if errors:
            raise Misfit(*errors)
        return values

    @property
    def digest(self) -> str:
        """Name the schema by its content."""
        return hashlib.sha256(json.dumps(self.json, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_strict(self) -> bool:
        """Whether every object in it is closed and requires all its properties, as strict servers want it."""
        return all(_is_closed(node) for node in _nodes(self.json))

    def response_format(self, name: str, *, strict: bool = True) -> dict[str, Any]:
        """Give the request field that tells the endpoint of the schema.

        Args:
            name: what to call the schema; letters, digits and underscores, of which 64 are used.
            strict: whether the answer is to be held to it to the letter.
        """
        return {
            "type": "json_schema",
            "json_schema": {"name": name[:MAX_NAME], "schema": self.json, "strict": strict},
        }


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for part in parts:
        yield from _nodes(part)


def _is_closed(node: dict[str, Any]) -> bool:
    properties = node.get("properties")
    if not isinstance(properties, dict) or node.get("type") not in ("object", None):
        return True
    return node.get("additionalProperties") is False and set(node.get("required", ())) >= set(properties)


def step_schema(step: StepConfig) -> AnswerSchema | None:
    """Read the schema of a step's answer; None where it has none.

    Raises:
        ConfigError: it is not a JSON Schema of an object with properties; names the step.
    """
    if step.answer_schema is None:
        return None
    try:
        return load_schema(step.answer_schema)
    except ConfigError as error:
        raise ConfigError(f"steps.{step.name}.schema: {error.message}", hint=error.hint) from None


def load_schema(spec: Mapping[str, Any] | str | Path | type[BaseModel]) -> AnswerSchema:
    """Read the schema of an answer.

    Args:
        spec: a JSON Schema, the path of a .json or .yaml file that holds one, a pydantic model, or the import
            path of a pydantic model (``module:Model``).

    Raises:
        ConfigError: it is not a JSON Schema of an object with properties; names the place.
    """
    try:
        spec = model_of(spec)
        document = document_of(spec)
        if not isinstance(document, dict):
            raise ConfigError(f"the answer's schema is {show(document)}, not a mapping", hint=OBJECT_HINT)
        if "properties" in document:
            document = {"type": "object", **document}
        validator = _validator(document)
        model = AnswerModel(spec) if isinstance(spec, type) and issubclass(spec, BaseModel) else None
        columns = top_level(model.columns_schema if model is not None else document)
    except (RecursionError, RecursionFound):
        raise ConfigError("the answer's schema is nested without end", hint="flatten it.") from None
    return AnswerSchema(json=document, columns=columns, _validator=validator, _model=model)


def _validator(document: dict[str, Any]) -> jsonschema_rs.Validator:
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(document, validate_formats=True, offline=True)
    except jsonschema_rs.ValidationError as error:
        raise ConfigError(
            shorten(f"the schema is not valid at `#{pointer(error.instance_path)}`: {error.message}"),
            hint="see https://json-schema.org/understanding-json-schema/reference.",
        ) from None
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        raise ConfigError(shorten(f"the schema is not valid: {error}")) from None
