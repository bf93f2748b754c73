"""The key `since`: of a table that grows, only the rows that are new or have changed are read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from enrich.config.section import MOST_SECONDS, Amount, Section

VERSION = "version"  # of a table of Delta
SNAPSHOT = "snapshot"  # of a table of Iceberg
OF_TABLES = (VERSION, SNAPSHOT)  # in the place of a column


class Since(Section):
    """What tells new rows.

    Attributes:
        column: it grows with every row that is added or changed, such as a moment or a number. Of a table of Delta `version`,
            and of Iceberg `snapshot`, in its place stands for what the table itself knows of changes.
        late: how much below the mark rows may still come: seconds for moments and dates, a number for numbers. They are read
            again, and cost nothing where they are answered.
    """

    column: Annotated[str, Field(min_length=1)]
    late: Annotated[Amount, Field(ge=0, le=MOST_SECONDS)] = 0.0


def _as_mapping(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


SinceConfig = Annotated[Since, BeforeValidator(_as_mapping)]
