"""What all sections of the configuration are: checked, frozen, without unknown keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
)

from enrich.base.location import plain

Format = Literal["csv", "tsv", "jsonl", "parquet", "arrow"]
Location = Annotated[str, AfterValidator(plain)]  # a path, or an object's URL without any credential


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, and so are numbers without an end."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
