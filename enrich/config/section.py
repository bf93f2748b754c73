"""What all sections of the configuration are: checked, frozen, without unknown keys."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic_core import PydanticCustomError

from enrich.base.location import is_url, plain

Format = Literal["csv", "tsv", "jsonl", "parquet", "arrow", "excel", "delta", "iceberg"]
MOST_NAME = 255  # bytes of a file's name, as nearly all file systems have it
MOST_PATH = 4_096  # bytes of a path, as Linux has it (PATH_MAX)
MOST_SECONDS = 1e8  # seconds: three years
_DECIMAL = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)


def _number(value: Any) -> Any:
    """Hold what stands for a number to what people call one; a text may come from a variable.

    Raises:
        PydanticCustomError: it is a yes or no, or written in a way that only Python reads.
    """
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number")
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise PydanticCustomError("number", "must be a valid number")
    if isinstance(value, float) and 0 < abs(value) < sys.float_info.min:
        raise PydanticCustomError("number", "must be a number that arithmetic can work with")
    return value


def sound_path(path: str) -> str:
    """Hold a path to what a file system can have.

    Raises:
        ValueError: it cannot; its text is one line.
    """
    if not path.strip():
        raise ValueError("names no file")
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which no file's name can") from None
    if b"\0" in raw:
        raise ValueError("holds a NUL, which no file's name can")
    if len(raw) > MOST_PATH:
        raise ValueError(f"has {len(raw):,} bytes; a path has at most {MOST_PATH:,}")
    if not is_url(path) and (longest := max(map(len, raw.split(b"/")))) > MOST_NAME:
        raise ValueError(f"has a name of {longest:,} bytes; a file's name has at most {MOST_NAME}")
    return path


def named(location: str) -> str:
    """Hold the place of something that is written to one that has a name.

    Raises:
        ValueError: it has none, as `/` has.
    """
    if not is_url(location) and not Path(location).name:
        raise ValueError(f"{location} is a folder; name a file in it")
    return location


def _sound(path: Path) -> Path:
    return Path(sound_path(str(path)))


Number = BeforeValidator(_number)
Count = Annotated[int, Number]
Amount = Annotated[float, Number, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0.001, le=MOST_SECONDS, allow_inf_nan=False), Number]
PerMinute = Annotated[float, Field(ge=0.001, le=1e9, allow_inf_nan=False), Number]
# A path, or an object's URL without any credential.
Location = Annotated[str, AfterValidator(sound_path), AfterValidator(plain)]
Target = Annotated[
    Location, AfterValidator(named)
]  # what is written there is one file, or one folder's files
FilePath = Annotated[Path, AfterValidator(_sound)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, and so are numbers without an end."""

    # Built when it is used first, and within the section that holds it: else each would be built for itself as well.
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False, defer_build=True
    )
