"""The columns that tell more of an answer: where its values stand in their source, what the first of several said, who gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import pyarrow as pa

from enrich.schema.schema import CATEGORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.config import StepConfig
    from enrich.schema.schema import AnswerSchema

MODEL_CHANGED: Final = (
    "model_changed"  # whether another model answered than the first one, where the step is pinned
)

Match = Literal["exact", "normalised", "fuzzy", "none"]
MATCHES: Final[tuple[Match, ...]] = get_args(Match)


def place_columns(field: str) -> tuple[str, str, str]:
    """Give the short names of the columns that say where a field's value stands."""
    return f"{field}_start", f"{field}_end", f"{field}_match"


def first_column(field: str | None) -> str:
    """Give the short name of the column with what the first answer said for a field; None is the whole text."""
    return "first" if field is None else f"{field}_first"


def voted_fields(step: StepConfig, schema: AnswerSchema | None) -> tuple[str | None, ...]:
    """Give the fields that are voted on; None stands for a text that is the whole answer."""
    names = [step.vote_on] if isinstance(step.vote_on, str) else step.vote_on
    return tuple(names or (schema.columns if schema is not None else ())) or (None,)


def further_fields(step: StepConfig, schema: AnswerSchema | None) -> Iterator[pa.Field[Any]]:
    """Give the columns that tell more of a step's fields, under their short names."""
    if schema is not None:
        yield from place_fields(step, schema)
    if step.pinned is not None:
        yield pa.field(MODEL_CHANGED, pa.bool_())
    for name in voted_fields(step, schema) if step.ballot is not None else ():
        if schema is None or name is None:
            yield pa.field(first_column(name), pa.string())
        elif name in schema.columns:
            yield pa.field(first_column(name), schema.columns[name].type)


def place_fields(step: StepConfig, schema: AnswerSchema) -> Iterator[pa.Field[Any]]:
    """Give these columns under their short names; of a field that is a list, each holds a list of as many elements."""
    for rule in step.evidences:
        column = schema.columns.get(rule.field)
        start, end, match = place_columns(rule.field)
        if column is not None and pa.types.is_list(column.type):
            places: pa.DataType = pa.list_(pa.int64())
            kinds: pa.DataType = pa.list_(pa.string())
        else:
            places, kinds = pa.int64(), CATEGORY
        yield pa.field(start, places)
        yield pa.field(end, places)
        yield pa.field(match, kinds)
