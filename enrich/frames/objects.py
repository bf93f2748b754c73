"""Python objects in columns of data frames as text: that of the same value in a typed column, or refused by the column's name."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from enrich.base.texts import json_text, text_of
from enrich.base.values import values
from enrich.errors import InputError

FOREIGN_TO_ARROW = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError)


def object_text(value: Any, column: str) -> str:
    """Give the text of an object, as a prompt has it.

    What Arrow has a type for is written as in a column of that type, a list or mapping as JSON, of a set its members in
    their order; anything else as Python does.

    Raises:
        InputError: it is binary, or the text would be a place in memory, another one at every run.
    """
    if isinstance(value, str):
        return str(value)
    try:
        return text_of(_plain(value, column))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the column `{column}` holds {type(value).__name__}, which no prompt can hold: {error}",
            hint="make a column of texts or numbers of it first.",
        ) from None


def _plain(value: Any, column: str) -> Any:
    """Give what `text_of` and JSON know for an object."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, set | frozenset):
        return sorted((_plain(member, column) for member in value), key=json_text)
    if isinstance(value, dict):
        return {_plain(key, column): _plain(item, column) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, column) for item in value]
    try:
        return values(pa.array([value], from_pandas=True))[0]
    except FOREIGN_TO_ARROW:
        return _written(value, column)


def _written(value: Any, column: str) -> str:
    kind: Any = type(value)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise InputError(
            f"the column `{column}` holds objects of {kind.__name__}, whose text is a place in memory, another at every run",
            hint="make a column of texts or numbers of it first.",
        )
    return str(value)
