"""The columns that say where a value stands in the text that it was taken from: start, end, and how exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import pyarrow as pa

from enrich.schema.schema import CATEGORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.config import StepConfig
    from enrich.schema.schema import AnswerSchema

Match = Literal["exact", "normalised", "fuzzy", "none"]
MATCHES: Final[tuple[Match, ...]] = get_args(Match)


def place_columns(field: str) -> tuple[str, str, str]:
    """Give the short names of the columns that say where a field's value stands."""
    return f"{field}_start", f"{field}_end", f"{field}_match"


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
