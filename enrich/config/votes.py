"""The key `votes` of a step: how many answers a row may have, and when it has more than one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from enrich.config.section import Number, Section

MOST_VOTES = 15  # of a row: keys have room for so many


class Votes(Section):
    """Several answers to one question, of which the majority counts.

    Attributes:
        most: answers at most; asking stops as soon as the majority is certain.
        when: an expression over the first answer's columns, such as `s_confidence < 0.8`: only rows for which it is true,
            or whose first answer does not fit, are asked further.
        models: models to ask in turn, in place of the step's one.
    """

    most: Annotated[int, Field(ge=1, le=MOST_VOTES), Number]
    when: Annotated[str, Field(min_length=1)] | None = None
    models: list[Annotated[str, Field(min_length=1)]] = []
