"""Periods and intervals of pandas, which a file holds as numbers and pairs: as the texts that pandas writes for them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from enrich.base.moments import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[pa.Array[Any]], list[str | Unreadable]]

NAME: Final = b"ARROW:extension:name"  # on a field whose extension type is not registered
STATE: Final = b"ARROW:extension:metadata"
NO_TEXT = (
    ValueError,
    OverflowError,
    NotImplementedError,
    pa.ArrowException,
)  # what pandas says of odd values


def pandas_texts(field: pa.Field[Any]) -> Read | None:
    """Give what reads a column of periods or intervals that has no nulls; None of other columns.

    The text is the same from a file and from a data frame: `2026Q1`, `(0, 1]`. What pandas cannot write is `Unreadable`.

    Raises:
        ValueError: it is one, and this version of pandas does not know its frequency or side.
    """
    kind: Any = field.type
    known = isinstance(kind, pa.BaseExtensionType)
    metadata = field.metadata or {}
    name: bytes = kind.extension_name.encode() if known else metadata.get(NAME, b"")
    make = {b"pandas.period": _periods, b"pandas.interval": _intervals}.get(name)
    if make is None:
        return None
    return make(kind.__arrow_ext_serialize__() if known else metadata.get(STATE, b""))


def _periods(state: bytes) -> Read:
    import pandas as pd

    frequency: Any = pd.PeriodDtype(str(_told(state, "freq"))).freq

    def text(ordinal: int) -> str:
        return str(pd.Period(ordinal=ordinal, freq=frequency))

    return lambda array: [_written(text, ordinal) for ordinal in _stored(array).to_pylist()]


def _intervals(state: bytes) -> Read:
    import pandas as pd

    closed: Any = _told(state, "closed")
    if closed not in ("left", "right", "both", "neither"):
        raise ValueError(f"closed on the side {closed!r}")

    def text(left: Any, right: Any, place: int) -> str:
        return str(pd.Interval(left[place], right[place], closed=closed))

    def read(array: pa.Array[Any]) -> list[str | Unreadable]:
        pairs: Any = _stored(array)
        try:
            left, right = (pd.Index(pairs.field(side).to_pandas()) for side in (0, 1))
        except NO_TEXT as error:
            return [_odd(error)] * len(array)
        return [_written(text, left, right, place) for place in range(len(array))]

    return read


def _stored(array: pa.Array[Any]) -> pa.Array[Any]:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _written(text: Callable[..., str], *parts: Any) -> str | Unreadable:
    try:
        return text(*parts)
    except NO_TEXT as error:
        return _odd(error)


def _odd(error: Exception) -> Unreadable:
    return Unreadable(f"is no period or interval that pandas can write: {' '.join(str(error).split())}", "?")


def _told(state: bytes, key: str) -> object:
    """Give what an extension type says of itself."""
    try:
        return json.loads(state)[key]
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"its file does not say its {key}") from None
