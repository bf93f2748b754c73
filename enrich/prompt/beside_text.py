"""Dates, times and moments beside texts in expressions: `{{ day > '2026-11-22' }}` asks the same of every kind of file."""

from __future__ import annotations

import datetime as dt
import operator
from typing import TYPE_CHECKING, Any

from enrich.base.moments import Far, FarTimedelta
from enrich.base.texts import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = (dt.date, dt.time, dt.timedelta, Far)  # of values that compare with their texts


def moment(text: str) -> dt.date | dt.datetime | None:
    """Read a date or a moment as ISO 8601 has it; None of any other text."""
    if len(text) >= len("2026-01-02") and text[4] == "-":
        for read in (dt.date.fromisoformat, dt.datetime.fromisoformat):
            try:
                return read(text)
            except ValueError:
                continue
    return None


def as_moments(value: Any, text: str) -> tuple[Any, Any] | None:
    """Give a date, time or moment and what a text says as two that compare; None where the text says nothing like it.

    A date beside a moment is its midnight. A moment in a zone, beside a text without one, is what the zone's clocks show.
    """
    if isinstance(value, dt.time):
        try:
            return value, dt.time.fromisoformat(text)
        except ValueError:
            return None
    other = moment(text)
    if other is None or not isinstance(value, dt.date | Far) or isinstance(value, FarTimedelta):
        return None
    if isinstance(value, Far) or type(value) is type(other) is dt.date:
        return value, other
    mine, theirs = _midnight(value), _midnight(other)
    return (mine.replace(tzinfo=None), theirs) if theirs.tzinfo is None else (mine, theirs)


def _midnight(value: dt.date) -> dt.datetime:
    return value if isinstance(value, dt.datetime) else dt.datetime(value.year, value.month, value.day)  # noqa: DTZ001  # a wall clock's


class Beside:
    """A date, time, moment or duration in a comparison: with its own kind as Python does it, with texts by what they say."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        theirs = other.value if isinstance(other, Beside) else other
        if isinstance(theirs, str) and not isinstance(theirs, Far):
            text = str(theirs)
            pair = as_moments(self.value, text)
            return text_of(self.value) == text or (pair is not None and bool(pair[0] == pair[1]))
        return bool(self.value == theirs)

    def __hash__(self) -> int:
        return hash(self.value)


def _ordered(operate: Callable[[Any, Any], Any]) -> Callable[[Beside, object], Any]:
    def method(self: Beside, other: object) -> Any:
        theirs = other.value if isinstance(other, Beside) else other
        if not isinstance(theirs, str) or isinstance(theirs, Far):
            return operate(self.value, theirs)
        pair = as_moments(self.value, str(theirs))
        if pair is None:
            raise TypeError(
                f"{str(theirs)[:40]!r} is compared with {text_of(self.value)} and says nothing of its kind; "
                "a date is written as 2026-11-22, a time as 10:30:00"
            )
        return operate(*pair)

    return method


for _name in ("lt", "le", "gt", "ge"):
    setattr(Beside, f"__{_name}__", _ordered(getattr(operator, _name)))


def beside(value: Any) -> Any:
    """Prepare what stands in a comparison."""
    return Beside(value) if isinstance(value, KINDS) else value
