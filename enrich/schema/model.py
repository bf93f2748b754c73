"""A pydantic model as the schema of an answer: it validates itself, and its fields say which columns they need."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from enrich.errors import ConfigError
from enrich.schema.columns import DEFAULT_PLACES, MAX_DIGITS, NAIVE_DATETIME
from enrich.schema.words import pointer, shorten

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema


class _Columns(GenerateJsonSchema):
    """Marks the types that JSON writes as texts but Arrow keeps as what they are."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        places = schema.get("decimal_places")
        digits = schema.get("max_digits") if places is not None else None
        places = DEFAULT_PLACES if places is None else max(places, 0)
        digits = max(digits or MAX_DIGITS, places)
        if digits > MAX_DIGITS:
            return {"type": "string"}
        return {"type": "string", "format": f"x-decimal({digits},{places})"}

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:
        """Refuse a serializer that does not say what it gives: no column could be made for that, before it is paid for."""
        if schema["type"] in ("function-plain", "function-wrap") and "return_schema" not in schema:
            name = getattr(schema["function"], "__qualname__", "a function")
            raise ConfigError(
                f"the model's serializer `{name}` does not say what type it gives",
                hint="give it a return type (`-> str`), or `return_type=str` where it is handed over.",
            )
        return super().ser_schema(schema)

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        if schema.get("tz_constraint") == "naive":
            return {"type": "string", "format": NAIVE_DATETIME}
        return super().datetime_schema(schema)


class AnswerModel:
    """Reads answers by a model: its validators run, its defaults and aliases hold, strict as it says.

    Attributes:
        columns_schema: the JSON Schema of what the model gives, which says what the columns are.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        self.columns_schema = self._columns_schema()

    def _columns_schema(self) -> dict[str, Any]:
        try:
            return self._model.model_json_schema(mode="serialization", schema_generator=_Columns)
        except PydanticUserError:  # a serializer that says nothing of what it gives: what is taken must do
            return self._model.model_json_schema(schema_generator=_Columns)

    def read(self, value: Any) -> tuple[Any, list[str]]:
        """Have the model validate a JSON value.

        Returns:
            What it makes of it, as JSON values, and no problems; or the value itself and what is wrong with it.
        """
        try:
            answer = self._model.model_validate_json(json.dumps(value, default=_digits))
            return answer.model_dump(mode="json", by_alias=True), []
        except ValidationError as error:
            told = error.errors(include_url=False, include_context=False, include_input=False)
            return value, [shorten(f"{pointer(list(one['loc'])) or '/'}: {one['msg']}") for one in told]
        except Exception as error:  # noqa: BLE001  # a validator is the user's code: whatever it raises refuses this answer
            return value, [shorten(f"/: a validator failed with {type(error).__name__}: {error}")]


def _digits(number: Any) -> str:
    """Write a decimal as a text, which a model's numbers take: as a number it would lose digits on the way."""
    if isinstance(number, Decimal):
        return str(number)
    raise TypeError(f"{type(number).__name__} is not JSON")
