"""Names of tables and ranges of cells, held to what they can be; what is wrong is said in words."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

LAST_COLUMN = "XFD"  # of a sheet


def _fits(pattern: str, wanted: str) -> tuple[Any, Any]:
    """Hold a text to a pattern; what it is to be is said in words, and the pattern stands in the JSON Schema."""

    def fit(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r:.60} {wanted}")
        return text

    return Field(json_schema_extra={"pattern": f"^{pattern}$"}), AfterValidator(fit)


def _on_a_sheet(cells: str) -> str:
    for letters in re.findall("[A-Z]+", cells.upper()):
        if len(letters) > len(LAST_COLUMN):
            raise ValueError(f"{cells!r} names the column {letters}; a sheet ends at {LAST_COLUMN}")
    return cells


CellRange = Annotated[
    str,
    *_fits(
        r"\$?[A-Za-z]{1,4}\$?([1-9][0-9]{0,6})?(:\$?[A-Za-z]{1,4}\$?([1-9][0-9]{0,6})?)?",
        "is no range of cells; write for example B3:F200, B:F or B3",
    ),
    AfterValidator(_on_a_sheet),
]
TableName = Annotated[
    str,
    *_fits(r"[^.]+(\.[^.]+)*", "is no table; write its name, or one with its schema, such as main.reviews"),
]
Key = str | Annotated[list[str], Field(min_length=1)]


def quoted(name: str) -> str:
    """Write a name as SQL does."""
    return '"' + name.replace('"', '""') + '"'


def quoted_table(table: str) -> str:
    """Write a table's name, with its schema where it has one."""
    return ".".join(map(quoted, table.split(".")))
