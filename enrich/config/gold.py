"""The section `gold`: where the values stand that people have given by hand, and which answers they are held to."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from enrich.config.section import Location, Number, Section

Name = Annotated[str, Field(min_length=1)]


class GoldConfig(Section):
    """Values that are known, which answers are scored against; they are sent nowhere, unless a prompt reads their column.

    Attributes:
        columns: by the column of the output, the column with its known values. Alone, this mapping may stand for the
            whole section: `gold: {sentiment_label: label_by_hand}`.
        file: a further table that has them; by default they are columns of the output, as the input's are.
        key: the column, of the output and of that table, by which its rows are found.
        at_least: the accuracy (0 to 1) below which Dagster's check `agrees_with_gold` fails.
    """

    columns: Annotated[dict[Name, Name], Field(min_length=1)]
    file: Location | None = None
    key: Name | None = None
    at_least: Annotated[float, Field(ge=0, le=1), Number] | None = None

    @model_validator(mode="after")
    def _found_by_a_key(self) -> Self:
        if (self.file is None) != (self.key is None):
            raise ValueError(
                "`file` and `key` go together: a further table, and the column that finds its rows"
            )
        return self


def as_gold_mapping(value: Any) -> Any:
    """Write a section that only says which column belongs to which as the whole one."""
    return (
        {"columns": value}
        if isinstance(value, dict) and not isinstance(value.get("columns"), dict)
        else value
    )
