"""JSON in a model's text, read to the last digit: as a whole, or the complete objects that stand in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from enrich.answer.repair import mended

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_JSON = "the answer is not JSON"
MAX_ENCODED = 2  # times that JSON may stand in a text within JSON
MAX_BRACES = (
    200  # opening braces of one text that are looked at; in more of them nobody can tell what is meant
)

_LONG_NUMBER = re.compile(r"\d[\d.]{14}")  # more digits than a double surely keeps
_KEY = re.compile(r'"\s*:')
_BRACES = re.compile(r'"(?:\\.|[^"\\\n])*"|[{}]')
_IN_ANOTHER = re.compile(r"""["']\s*:\s*\Z""")  # a key stands before it
# What shows, behind a brace, that it closed too early: the next one closes as well, or a further key.
_GOES_ON = re.compile(r"""[^{}]*\}|\s*,?\s*(?:"[^"\n]*"|'[^'\n]*')\s*:""")
_ATTEMPT = re.compile(r"""\{\s*["']""")


class SaidTwiceError(ValueError):
    """An object gives one key two values."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the answer gives `{key}` twice, with values that differ")


@dataclass(frozen=True, slots=True)
class Found:
    """An object in a text.

    Attributes:
        value: what it holds; None where it is broken.
        problem: what is wrong with a broken one.
    """

    value: Any
    problem: str | None = None


def exact(text: str) -> Any:
    """Read JSON and keep every digit: a number that no double holds becomes a `Decimal`.

    JSON that stands as a text in JSON is read for what it is.

    Raises:
        SaidTwiceError: an object gives a key two values that differ.
        ValueError: it is no JSON, holds NaN, Infinity or a number beyond a double, or is nested without end.
    """
    value = _read(text)
    for _ in range(MAX_ENCODED):
        if not (isinstance(value, str) and value.lstrip().startswith(("{", '"'))):
            break
        try:
            value = _read(value)
        except SaidTwiceError:
            raise
        except ValueError:
            break
    return value


def objects(text: str, *, repair: bool) -> Iterator[Found]:
    """Give the outermost objects in a text, in order: whole ones, mended ones, and those that cannot be read.

    Args:
        text: JSON among words, in fences or not.
        repair: whether what is nearly JSON is mended, where that takes nothing away.
    """
    at, closing = 0, _closing_braces(text)
    broken: int | None = None  # where an object begins that does not end
    for _ in range(MAX_BRACES):
        start = text.find("{", at)
        if start < 0:
            return
        found, at = _object_at(text, start, closing.get(start), repair=repair)
        if found is None:
            continue
        if broken is not None and "\n" not in text[broken:start]:
            found = Found(None, NOT_JSON)  # a part of that one
        elif found.problem and start not in closing:
            broken = start
        yield found
    if text.find("{", at) >= 0:
        yield Found(None, NOT_JSON)


def _read(text: str) -> Any:
    value = orjson.loads(text)
    if _LONG_NUMBER.search(text) is None and len(_KEY.findall(text)) <= _keys(value):
        return value
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _keys(value: Any) -> int:
    """Count the keys of all objects, however deep; a text that has more of them says something twice."""
    count, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            count += len(one)
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return count


def _object_at(text: str, start: int, end: int | None, *, repair: bool) -> tuple[Found | None, int]:
    """Read the object that a brace opens; gives where to look on."""
    encoded = start > 0 and text[start - 1] == '"' and text[start + 1 : start + 30].lstrip().startswith("\\")
    try:
        value, behind = _DECODER.raw_decode(text, start - 1 if encoded else start)
        if _IN_ANOTHER.search(text, max(0, start - 80), start) or _GOES_ON.match(text, behind):
            return Found(None, NOT_JSON), behind  # what it is a part of is broken
        return Found(exact(value) if encoded else value), behind
    except SaidTwiceError as error:
        return Found(None, str(error)), start + 1 if end is None else end
    except (ValueError, RecursionError):
        pass
    is_attempt = _ATTEMPT.match(text, start) is not None
    source = text[start:end] if end is not None else ""
    if repair and source:
        value = mended(source)
        if value is not None:
            torn = _GOES_ON.match(text, start + len(source))
            return Found(None, NOT_JSON) if torn else Found(value), start + len(source)
    if not is_attempt:
        return None, start + 1
    return Found(None, NOT_JSON), start + 1 if end is None else end


def _closing_braces(text: str) -> dict[int, int]:
    """Give for each opening brace where its object ends; braces within quotes do not count."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for sign in _BRACES.finditer(text):
        if sign[0] == "{":
            opened.append(sign.start())
        elif sign[0] == "}" and opened:
            ends[opened.pop()] = sign.end()
    return ends


def _number(text: str) -> float | Decimal:
    """Read a number with a fraction or an exponent; one that a double would change is kept as it is written."""
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is beyond a double")
    written = Decimal(text)
    return number if Decimal(repr(number)) == written else written


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        for key, said in pairs:
            if value[key] != said or type(value[key]) is not type(said):
                raise SaidTwiceError(key)
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_no_constant)
