"""What may be spent: by one run, and in windows of time that outlive it."""

from __future__ import annotations

import zoneinfo
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from enrich.config.section import Number, Section

Per = Literal["day", "week", "month", "total"]
UNITS = ("requests", "tokens", "credits", "usd")  # what a budget may be told in
Credits = Annotated[float, Field(gt=0, allow_inf_nan=False), Number]
Count = Annotated[int, Field(gt=0), Number]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False), Number]


def known_zone(name: str) -> str:
    """Hold the name of a time zone to those that this machine knows.

    Raises:
        ValueError: it knows none of this name.
    """
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"no time zone is named {name!r}; give one such as Europe/Berlin (a machine without any needs `pip install tzdata`)"
        ) from None
    return name


class BudgetWindow(Section):
    """What all runs with one tag may spend together in a span of time. The ledger keeps count: runs on one ledger share it.

    Attributes:
        credits: Beatra's charge.
        tokens: of prompts and answers together.
        requests: distinct ones that are sent; a retry is not counted again.
        usd: US dollars, by `prices` where they name the model, else as the endpoint tells them.
        per: `day`, `week` (from Monday on), `month`, or `total`: from the ledger's first run on.
        tag: whose budget it is, such as a team's name. Every configuration that names it on the same ledger spends of it.
        zone: in which days, weeks and months begin.
    """

    credits: Credits | None = None
    tokens: Count | None = None
    requests: Count | None = None
    usd: Credits | None = None
    per: Per
    tag: Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    zone: Annotated[str, AfterValidator(known_zone)] = "UTC"

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if all(getattr(self, unit) is None for unit in UNITS):
            raise ValueError("a window of a budget needs `credits`, `tokens`, `requests` or `usd`")
        return self


class BudgetConfig(Section):
    """What may be spent; reserved before sending, settled on usage.

    Attributes:
        credits: Beatra's charge, of one run.
        tokens: of prompts and answers of one run together.
        requests: distinct ones that one run sends; a retry is not counted again.
        windows: what all runs on this ledger may spend together in a day, a week, a month or in total.
    """

    credits: Credits | None = None
    tokens: Count | None = None
    requests: Count | None = None
    windows: list[BudgetWindow] = []

    @property
    def tags(self) -> list[str]:
        """Give whose budgets it spends of."""
        return sorted({window.tag for window in self.windows if window.tag})


class ModelPrices(Section):
    """What a model costs, in US dollars for a million tokens.

    Attributes:
        input: of prompts.
        output: of answers.
        cached: of prompts, read from a cache; as `input` by default.
    """

    input: Rate
    output: Rate
    cached: Rate | None = None
