"""Python objects in columns of data frames as text: the same at every run, or refused by the column's name."""

from __future__ import annotations

import json
from typing import Any

from enrich.errors import InputError


def object_text(value: Any, column: str) -> str:
    """Give the text that Python writes for an object; of a set its members in their order.

    Raises:
        InputError: the text would be a place in memory, another one at every run.
    """
    if isinstance(value, set | frozenset):
        return json.dumps(sorted(object_text(member, column) for member in value), ensure_ascii=False)
    kind: Any = type(value)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise InputError(
            f"the column `{column}` holds objects of {kind.__name__}, whose text is a place in memory, another at every run",
            hint="make a column of texts or numbers of it first.",
        )
    return str(value)
