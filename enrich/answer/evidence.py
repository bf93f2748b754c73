"""What a step's answer must prove: that its values stand in the text that they were taken from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.answer.standing import Text
from enrich.errors import ConfigError, did_you_mean
from enrich.records import frozen
from enrich.schema.places import place_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enrich.config import Evidence, StepConfig
    from enrich.schema.schema import AnswerSchema

MOST_SHOWN = 80  # characters of a value in what is said of it


@frozen
class Proof:
    """What was found for a row's values.

    Attributes:
        places: by the short names of the step's further columns: start, end and kind of match of each value.
        problems: what does not stand where it should, for people and for a re-ask.
    """

    places: dict[str, Any]
    problems: tuple[str, ...]


class EvidenceCheck:
    """Looks the values of a step's answers up in the texts that they were taken from.

    Args:
        step: its configuration.
        schema: of its answers.

    Raises:
        ConfigError: there is no such property, or it is one of a kind that stands in no text.
    """

    def __init__(self, step: StepConfig, schema: AnswerSchema | None) -> None:
        self._rules = step.evidences
        for rule in self._rules:
            _check_field(rule, step, schema)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def prove(self, values: dict[str, Any], sources: Sequence[str | None]) -> Proof:
        """Look a row's values up.

        Args:
            values: its answer's.
            sources: the text of each rule's column, in the rules' order; None where the row has none.
        """
        places: dict[str, Any] = {}
        problems: list[str] = []
        texts = {source: Text(source or "") for source in sources}
        for rule, source in zip(self._rules, sources, strict=True):
            value = values.get(rule.field)
            if isinstance(value, list):
                found = [_look(item, texts[source], rule) for item in value]
                told: list[Any] = [list(column) for column in zip(*found, strict=True)] or [[], [], []]
                missing = [item for item, (_, _, match) in zip(value, found, strict=True) if match == "none"]
            else:
                told = list(_look(value, texts[source], rule))
                missing = [value] if told[2] == "none" else []
            places.update(zip(place_columns(rule.field), told, strict=True))
            problems += [f"{rule.field}: {_shown(item)} does not stand in {rule.from_}" for item in missing]
        return Proof(places, tuple(problems))


def _look(value: Any, text: Text, rule: Evidence) -> tuple[int | None, int | None, str | None]:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None, None, None  # nothing is said, so there is nothing to prove
    return text.find(value, fuzzy=rule.fuzzy)


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return f"“{text}”" if len(text) <= MOST_SHOWN else f"“{text[: MOST_SHOWN - 1]}…”"


def _check_field(rule: Evidence, step: StepConfig, schema: AnswerSchema | None) -> None:
    where = f"steps.{step.name}.evidence"
    if schema is None:
        raise ConfigError(
            f"{where}: the step has no schema, so its answer has no field `{rule.field}`",
            hint="give it a `schema` with that property.",
        )
    if rule.field not in schema.columns:
        raise ConfigError(
            f"{where}: the step's schema has no property `{rule.field}`",
            hint=did_you_mean(rule.field, schema.columns),
        )
    kind: Any = schema.columns[rule.field].type
    kind = kind.value_type if pa.types.is_list(kind) else kind
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_kind(kind) for is_kind in _IN_TEXTS):
        raise ConfigError(
            f"{where}: `{rule.field}` is {kind}, which stands in no text as it is",
            hint="name a property that is a text, a number, a date, or a list of those.",
        )


_IN_TEXTS = (
    pa.types.is_string,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_date,
)
