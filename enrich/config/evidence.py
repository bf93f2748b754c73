"""The key `evidence` of a step: which values must stand in the text that they were taken from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from enrich.config.section import Number, Section


class Evidence(Section):
    """One value that must stand in the text that it was taken from.

    Attributes:
        field: a property of the step's schema: a text, a number, a date, or a list of those.
        from_: the column that it must stand in (`from` in the file), of the input or of an earlier step.
        fuzzy: the share of a longer text that must agree where it stands there in nearly these words; 1 wants them all.
    """

    field: Annotated[str, Field(min_length=1)]
    from_: Annotated[str, Field(min_length=1, alias="from")]
    fuzzy: Annotated[float, Field(ge=0.5, le=1.0, allow_inf_nan=False), Number] = 0.9
