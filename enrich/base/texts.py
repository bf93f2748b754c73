"""Values as text: how a prompt writes one, and how JSON does, in prompts and in output files alike."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
import math
import re
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from enrich.base.moments import DAY, Far, FarTimedelta, NanoTimedelta, Unreadable, duration_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


PASSING = (
    Iterator,
    KeysView,
    ValuesView,
    ItemsView,
)  # what goes through values: its own text is a place in memory


def text_of(value: Any) -> str:
    """Write a value as a prompt has it: as Python does, but decimals in digits and nested values as JSON.

    Raises:
        ValueError: the value cannot be had on this machine.
        TypeError: it is no value of a table, such as a function.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Decimal):
        return digits(value)
    if isinstance(value, dt.timedelta):
        return duration_text(nanoseconds(value))
    if isinstance(value, (dict, list, tuple, *PASSING)):
        return json_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("the value is binary, which no prompt can hold")
    if isinstance(value, bool | int | float | dt.date | dt.time | Unreadable):
        return str(value)  # the last raises what it has to say
    raise TypeError(f"{type(value).__name__} is no value that a text can hold")


def digits(number: Decimal) -> str:
    """Write a decimal without an exponent."""
    return format(number, "f")


def nanoseconds(duration: dt.timedelta) -> int:
    """Count a duration's nanoseconds."""
    rest = duration.nanosecond if isinstance(duration, NanoTimedelta) else 0
    return duration.days * DAY + duration.seconds * 10**9 + duration.microseconds * 1000 + rest


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Write a value as JSON on one line, or indented; see `as_json`."""
    return json.dumps(as_json(value), ensure_ascii=False, indent=indent, sort_keys=sort_keys)


def json_bytes(value: Any) -> bytes:
    """Write JSON's own types as JSON; what is no UTF-8 in the name of a file as Python shows it."""
    try:
        return orjson.dumps(value)
    except TypeError:
        text = json.dumps(value, ensure_ascii=False)
        return re.sub("[\ud800-\udfff]", lambda half: f"\\\\u{ord(half[0]):x}", text).encode()


def as_json(value: Any) -> Any:
    """Give a value as JSON's own types.

    Decimals, dates, times and moments are texts (the latter as ISO 8601 has them), durations are seconds, binary is
    base64; NaN and the infinities, which JSON has no word for, are null; keys are texts.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is dict:
        return {key_text(key): as_json(item) for key, item in value.items()}
    if kind is list:
        return [as_json(item) for item in value]
    return express(value)


@functools.singledispatch
def express(value: Any) -> Any:
    """Express what JSON has no type for; further types may be registered. Any other value is its text.

    Raises:
        TypeError: it has none but its place in memory, which is another in every process.
    """
    if callable(value) or object.__repr__(value) == str(value):
        raise TypeError(f"{type(value).__name__} is no value that a text can hold")
    return str(value)


@express.register(Iterator)
@express.register(KeysView)
@express.register(ValuesView)
@express.register(ItemsView)
def _(value: Iterable[Any]) -> Any:
    return [as_json(item) for item in value]


@express.register(dict)
def _(value: dict[Any, Any]) -> Any:
    return {key_text(key): as_json(item) for key, item in value.items()}


@express.register(list)
@express.register(tuple)
def _(value: Sequence[Any]) -> Any:
    return [as_json(item) for item in value]


@express.register(int)
def _(value: int) -> Any:
    return int(value)


@express.register(float)
def _(value: float) -> Any:
    return float(value) if math.isfinite(value) else None


@express.register(dt.date)  # a datetime is one
@express.register(dt.time)
@express.register(Far)
def _(value: dt.date | dt.time | Far) -> Any:
    return value.isoformat()


@express.register(dt.timedelta)
def _(value: dt.timedelta) -> Any:
    return nanoseconds(value) / 10**9


@express.register(FarTimedelta)
def _(value: FarTimedelta) -> Any:
    return value.count / 10**9


@express.register(bytes)
def _(value: bytes) -> Any:
    return base64.b64encode(value).decode("ascii")


express.register(Decimal, digits)


def key_text(key: Any) -> str:
    """Write the key of a mapping."""
    if isinstance(key, str):
        return str(key)
    found = as_json(key)
    return found if isinstance(found, str) else json.dumps(found)
