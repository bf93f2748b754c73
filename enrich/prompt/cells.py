"""What a template works with: a row's values, each of them a function of its own cell."""

from __future__ import annotations

import json
import math
import operator
import re
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from enrich.base.moments import Unreadable
from enrich.base.texts import express, text_of
from enrich.base.values import LINE, WRITTEN, values
from enrich.prompt.beside_text import as_moments, moment
from enrich.prompt.column_types import holds_binary
from enrich.prompt.pandas_values import pandas_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import pyarrow as pa

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_ZERO_TEXT = re.compile(r"[+-]?0*(?:\.0*)?(?:[eE][+-]?\d+)?|[+-]?nan", re.ASCII | re.IGNORECASE)
_FALSE_TEXTS = frozenset({"", "false", "no", "none", "null", "[]", "{}"})


class NullInText(Exception):
    """A null, at any depth, is to become text where nulls are not let through."""


class Withheld(Unreadable):
    """Binary of a cell: no prompt can hold it, a picture can."""

    __slots__ = ("_column", "_place")

    def __init__(self, reason: str, column: pa.Array[Any], place: int) -> None:
        super().__init__(reason, "")
        self._column = column
        self._place = place

    def value(self) -> Any:
        """Give the cell as it is."""
        return self._column[self._place].as_py()


class _Mode(threading.local):
    blank = False


MODE: Final = _Mode()


class Null:
    """Stands for null: empty as text and as a list where nulls are let through, else an error; false, and equal to none."""

    __slots__ = ()

    def __str__(self) -> str:
        if not MODE.blank:
            raise NullInText("a value within it is null")
        return ""

    __repr__ = __str__

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(str(self))

    def __eq__(self, other: object) -> bool:
        return other is None or other is self

    def __hash__(self) -> int:
        return hash(None)


NULL: Final = Null()
express.register(Null, lambda _: None)


def is_null(value: Any) -> bool:
    """Say whether a value counts as null: null itself, and NaN (which is how pandas writes a missing number)."""
    return value is NULL or value is None or (isinstance(value, float) and math.isnan(value))


def text(value: Any) -> str:
    """Write a value as a prompt has it.

    Raises:
        NullInText: it is null, where nulls are not let through.
        TypeError, ValueError: it has no text.
    """
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]  # that is its type
    if kind is int or kind is Cell or (kind is float and not math.isnan(value)):
        return str(value)
    return str(NULL) if is_null(value) else text_of(value)


def is_true(value: Any) -> bool:
    """Judge a value: null, NaN, zero, empty lists and mappings are false, and texts that say so."""
    if isinstance(value, str):
        word = value.strip().lower()
        return word not in _FALSE_TEXTS and not _ZERO_TEXT.fullmatch(word)
    return not is_null(value) and bool(value)


# --- cells of text files --------------------------------------------------------------------------------


class Cell(str):
    """A cell of a text file: the characters that stand there, which count as a number or date where they are one."""

    __slots__ = ()

    def value(self) -> Any:
        """Read it: a number as JSON writes one, true, false, an ISO date or moment; else the text."""
        written = str(self)
        if written.isdecimal() and written.isascii() and written[0] != "0":
            return int(written)
        if _NUMBER.fullmatch(written):
            return int(written) if written.lstrip("-").isdecimal() else float(written)
        if written in ("true", "false"):
            return written == "true"
        return written if (found := moment(written)) is None else found

    def number(self) -> Any:
        """Give it as a number, or a date; raises TypeError for any other text."""
        found = self.value()
        if isinstance(found, str):
            raise TypeError(f"{found[:40]!r} is no number")
        return found

    def lower(self) -> str:
        """Give it in small letters; what is a number stays one, for filters that sort."""
        return str.lower(self) if isinstance(self.value(), str) else self

    def __bool__(self) -> bool:
        found = self.value()
        return bool(found)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            if str.__eq__(self, other):
                return True
            if not isinstance(other, Cell):
                return False
            other = other.value()
        found = self.value()
        return not isinstance(found, str) and bool(found == other)

    __hash__ = str.__hash__

    def __index__(self) -> int:
        return operator.index(self.number())

    def __int__(self) -> int:
        return int(self.number())

    def __float__(self) -> float:
        return float(self.number())

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.number(), digits)

    def __abs__(self) -> Any:
        return abs(self.number())

    def __neg__(self) -> Any:
        return -self.number()

    def __format__(self, how: str) -> str:
        if not how or how[-1] == "s":
            return format(str(self), how)
        return format(self.value(), how)


def _compare(operate: Callable[[Any, Any], bool]) -> Any:
    def method(self: Cell, other: object) -> Any:
        mine = self.value()
        theirs = other.value() if isinstance(other, Cell) else other
        if isinstance(mine, int | float) and isinstance(theirs, int | float | Decimal):
            return operate(mine, theirs)
        if isinstance(other, str):
            pair = None if isinstance(mine, int | float) else as_moments(mine, str(other))
            return operate(*pair) if pair else operate(str(self), str(other))
        return operate(mine, theirs) if type(mine) is type(theirs) else NotImplemented

    return method


def _compute(operate: Callable[[Any, Any], Any], name: str, *, swapped: bool) -> Any:
    as_text = getattr(str, name, None)

    def method(self: Cell, other: object) -> Any:
        mine = self.value()
        theirs = other.value() if isinstance(other, Cell) else other
        if not isinstance(mine, str) and not isinstance(theirs, str | list | tuple):
            return operate(theirs, mine) if swapped else operate(mine, theirs)
        return as_text(str(self), other) if as_text is not None else NotImplemented

    return method


for _name in ("lt", "le", "gt", "ge"):
    setattr(Cell, f"__{_name}__", _compare(getattr(operator, _name)))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Cell, f"__{_name}__", _compute(getattr(operator, _name), f"__{_name}__", swapped=False))
    setattr(Cell, f"__r{_name}__", _compute(getattr(operator, _name), f"__r{_name}__", swapped=True))


class JsonNumber(Cell):
    """A number of a JSON file that is not written as Python would write it, such as 1.50."""

    __slots__ = ()


@express.register(Cell)
def _(cell: Cell) -> Any:
    """Give a cell to JSON as a number or truth value where it is written as JSON itself would write that."""
    found = cell.value()
    if isinstance(found, bool):
        return found
    same = isinstance(found, int | float) and json.dumps(found) == str(cell)
    return found if same else str(cell)


@express.register(JsonNumber)
def _(cell: JsonNumber) -> Any:
    found = cell.value()
    return found if math.isfinite(found) else None


def _json_number(written: str) -> Any:
    number = float(written)
    return number if repr(number) == written else JsonNumber(written)


def _from_json(value: Any) -> Any:
    """Put what a template works with in the place of what JSON gave."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return Cell("true" if value else "false")
    if isinstance(value, dict):
        return {key: _from_json(item) for key, item in value.items()}
    return [_from_json(item) for item in value] if isinstance(value, list) else value


def given(value: Any) -> Any:
    """Put what a template works with in the place of a value of an earlier step."""
    if value is None or isinstance(value, float):
        return NULL if is_null(value) else value
    if isinstance(value, dict):
        return {key: given(item) for key, item in value.items()}
    return [given(item) for item in value] if isinstance(value, list) else value


# --- rows -----------------------------------------------------------------------------------------------


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Give a batch's rows as templates work with them; what stands in a text file takes the place of what was typed."""
    names = batch.schema.names
    plain = [name for name in names if not name.startswith(WRITTEN)]
    if LINE in names:
        folders = {name: _cells(batch.column(WRITTEN + name)) for name in plain if WRITTEN + name in names}
        for place, line in enumerate(batch.column(LINE).to_pylist()):
            found = json.loads(line or b"{}", parse_float=_json_number)
            yield {
                name: folders[name][place] if name in folders else _from_json(found.get(name))
                for name in plain
            }
        return
    columns = [
        _cells(batch.column(WRITTEN + name))
        if WRITTEN + name in names
        else _typed_cells(batch.schema.field(name), batch.column(name))
        for name in plain
    ]
    rows = zip(*columns, strict=True) if columns else iter([()] * batch.num_rows)
    for row in rows:
        yield dict(zip(plain, row, strict=True))


def _cells(texts: pa.Array[Any]) -> list[Any]:
    return [NULL if found is None else Cell(found) for found in texts.to_pylist()]


def _typed_cells(field: pa.Field[Any], column: pa.Array[Any]) -> list[Any]:
    if holds_binary(field.type):
        reason = f"of column `{field.name}` has binary in it, which no prompt can hold"
        return [
            Withheld(reason, column, place) if there else NULL
            for place, there in enumerate(column.is_valid().to_pylist())
        ]
    try:
        read = pandas_texts(field)
    except ValueError as error:  # reached by templates that may use any column; one that is named was refused
        return _withheld(column, f"of column `{field.name}` is one of pandas that it cannot read: {error}")
    if read is None:
        return values(column, null=NULL)
    texts = iter(read(column.drop_null()))
    return [next(texts) if there else NULL for there in column.is_valid().to_pylist()]


def _withheld(column: pa.Array[Any], reason: str) -> list[Any]:
    """Fill a column that only a template has which may use any, and which refuses one that it names."""
    found = Unreadable(reason, "")
    return [found if there else NULL for there in column.is_valid().to_pylist()]


def typed_rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Give a batch's rows as `prompt_text: 1` spells them: by the types of whole columns."""
    names = [name for name in batch.schema.names if not name.startswith(WRITTEN)]
    columns = [_typed(batch.column(name)) for name in names]
    rows = zip(*columns, strict=True) if columns else iter([()] * batch.num_rows)
    return (dict(zip(names, row, strict=True)) for row in rows)


def _typed(column: pa.Array[Any]) -> list[Any]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return values(column)


def spellings(batch: pa.RecordBatch, wanted: Collection[int]) -> Iterator[dict[int, dict[str, Any]]]:
    """Give a batch's rows in each of the spellings that are wanted, see `prompt_text`."""
    read = {1: typed_rows_of, 2: rows_of}
    order = sorted(wanted)
    for rows in zip(*(read[spelling](batch) for spelling in order), strict=True):
        yield dict(zip(order, rows, strict=True))
