"""The Arrow columns that answers are kept in, and how a JSON value becomes one of theirs, to the last digit."""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.schema.words import show

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DIGITS = 38  # of a decimal128
DEFAULT_PLACES = 18  # behind the point, where nothing says how many: half of the digits, as Spark has it

CATEGORY = pa.dictionary(pa.int32(), pa.string())
JSON_TEXT = pa.string()


class Misfit(ValueError):
    """A value that its column cannot hold.

    Attributes:
        errors: one line per problem, ``/place: what is wrong``.
    """

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        super().__init__("; ".join(errors))

    def under(self, name: str | int) -> Misfit:
        """Give the same problems, seen from one level further out."""
        step = str(name).replace("~", "~0").replace("/", "~1")
        return Misfit(*(f"/{step}{error}" for error in self.errors))


@dataclass(frozen=True, slots=True)
class Column:
    """How one place of the schema is kept in Arrow.

    Attributes:
        type: the Arrow type.
        coerce: turns a JSON value other than null into one that `pa.array` takes; raises `Misfit`.
        categories: the values of a dictionary column, in the schema's order.
    """

    type: pa.DataType
    coerce: Callable[[Any], Any]
    categories: tuple[str, ...] = ()


def _coerce_string(value: Any) -> str:
    if not isinstance(value, str):
        raise Misfit(f": {show(value)} is not a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Misfit(": holds half of a surrogate pair, which is no Unicode text") from None
    return value


def _coerce_integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or value % 1 != 0:
        raise Misfit(f": {show(value)} is not an integer")
    if isinstance(value, float):
        value = Decimal(repr(value))  # as it was written: `1e18`
    if not -(2**63) <= value < 2**63:
        raise Misfit(f": {show(value)} does not fit a 64-bit integer")
    return int(value)


def _coerce_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Misfit(f": {show(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Misfit(f": {show(value)} is not a finite 64-bit number")
    if number != value and value % 1 == 0:  # of a fraction the nearest is meant, as 0.1 is
        raise Misfit(f": {show(value)} cannot be kept exactly as a 64-bit number")
    return number


def _coerce_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Misfit(f": {show(value)} is not true or false")
    return value


def _coerce_date(value: Any) -> date:
    try:
        return date.fromisoformat(_coerce_string(value))
    except ValueError:
        raise Misfit(f': {show(value)} is not a "date" of the years 1 to 9999') from None


_FINE_FRACTION = re.compile(r"\.\d{6}\d*[1-9]")


def _coerce_datetime(value: Any) -> datetime:
    moment = _read_moment(value)
    if moment is not None and moment.tzinfo is not None:
        with contextlib.suppress(ValueError, OverflowError):
            return moment.astimezone(UTC)
    raise Misfit(f': {show(value)} is not a "date-time" of the years 1 to 9999 with a time zone')


def _coerce_naive_datetime(value: Any) -> datetime:
    moment = _read_moment(value)
    if moment is None or moment.tzinfo is not None:
        raise Misfit(f": {show(value)} is not a date and time of the years 1 to 9999 without a time zone")
    return moment


def _read_moment(value: Any) -> datetime | None:
    """Read a date and time with or without a zone; None where there is none."""
    text = _coerce_string(value)
    if _FINE_FRACTION.search(text):
        raise Misfit(f": {show(value)} is finer than a microsecond")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        return None


def exact_json(value: Any) -> str:
    """Write JSON with every digit of its decimals.

    Raises:
        ValueError: it holds NaN or Infinity.
        RecursionError: it is nested too deeply.
    """
    written: dict[str, str] = {}

    def stand_in(number: Any) -> str:
        if not isinstance(number, Decimal):
            raise TypeError(f"{type(number).__name__} is not JSON")
        token = f"\ue000{len(written)}\ue001"
        written[f'"{token}"'] = str(number)
        return token

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=stand_in)
    for token, number in written.items():
        text = text.replace(token, number, 1)
    return text


def _coerce_json(value: Any) -> str:
    try:
        text = exact_json(value)
        text.encode()
    except RecursionError:
        raise Misfit(": is nested too deeply") from None
    except UnicodeEncodeError:
        raise Misfit(": holds half of a surrogate pair, which is no Unicode text") from None
    except ValueError:
        raise Misfit(": holds NaN or Infinity") from None
    return text


STRING_COLUMN = Column(pa.string(), _coerce_string)
INTEGER_COLUMN = Column(pa.int64(), _coerce_integer)
NUMBER_COLUMN = Column(pa.float64(), _coerce_number)
BOOLEAN_COLUMN = Column(pa.bool_(), _coerce_boolean)
JSON_COLUMN = Column(JSON_TEXT, _coerce_json)
FORMAT_COLUMNS = {
    "date": Column(pa.date32(), _coerce_date),
    "date-time": Column(pa.timestamp("us", tz="UTC"), _coerce_datetime),
}
NAIVE_DATETIME = "x-date-time-without-zone"  # the mark of a model's field in its columns' schema
DECIMAL = re.compile(r"x-decimal\((\d+),(\d+)\)")  # likewise: digits, and of these behind the point
SCALAR_COLUMNS = {
    frozenset({"string"}): STRING_COLUMN,
    frozenset({"integer"}): INTEGER_COLUMN,
    frozenset({"number"}): NUMBER_COLUMN,
    frozenset({"integer", "number"}): NUMBER_COLUMN,
    frozenset({"boolean"}): BOOLEAN_COLUMN,
}


def format_column(name: str) -> Column | None:
    """Give the column of a text's format; None where that makes no difference."""
    if name == NAIVE_DATETIME:
        return Column(pa.timestamp("us"), _coerce_naive_datetime)
    decimal = DECIMAL.fullmatch(name)
    return _decimal_column(int(decimal[1]), int(decimal[2])) if decimal else FORMAT_COLUMNS.get(name)


def _decimal_column(digits: int, places: int) -> Column:
    def coerce(value: Any) -> Decimal:
        try:
            number = Decimal(value)
            fits = number.is_finite() and number.adjusted() < digits - places
            exponent = number.normalize(_WIDE).as_tuple().exponent
        except (ArithmeticError, ValueError, TypeError):
            raise Misfit(f": {show(value)} is not a decimal number") from None
        if not fits or not isinstance(exponent, int) or exponent < -places:
            raise Misfit(
                f": {show(value)} does not fit a decimal of {digits} digits, {places} behind the point"
            )
        return number

    return Column(pa.decimal128(digits, places), coerce)


_WIDE = Context(prec=1000)  # digits; a number of more is no measure of anything


def enum_column(values: list[Any]) -> Column:
    """Give the column of a closed list of values: categories where they are texts."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        return _category_column([value for value in values if value is not None])
    if kinds == {bool}:
        return BOOLEAN_COLUMN
    if kinds == {int}:
        return INTEGER_COLUMN
    return NUMBER_COLUMN if kinds and kinds <= {int, float} else JSON_COLUMN


def _category_column(values: list[str]) -> Column:
    categories = dict.fromkeys(values)

    def coerce(value: Any) -> str:
        if not isinstance(value, str) or value not in categories:
            raise Misfit(f": {show(value)} is not one of {', '.join(map(repr, categories))}")
        return _coerce_string(value)

    return Column(CATEGORY, coerce, tuple(categories))


def struct_column(parts: dict[str, Column]) -> Column:
    """Give the column of an object with these properties."""

    def coerce(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Misfit(f": {show(value)} is not an object")
        values: dict[str, Any] = {}
        for name, part in parts.items():
            item = value.get(name)
            try:
                values[name] = None if item is None else part.coerce(item)
            except Misfit as misfit:
                raise misfit.under(name) from None
        return values

    return Column(pa.struct([pa.field(name, _inner_type(part)) for name, part in parts.items()]), coerce)


def list_column(item: Column) -> Column:
    """Give the column of a list of such items."""

    def coerce(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Misfit(f": {show(value)} is not an array")
        values = []
        for i, element in enumerate(value):
            try:
                values.append(None if element is None else item.coerce(element))
            except Misfit as misfit:
                raise misfit.under(i) from None
        return values

    return Column(pa.list_(_inner_type(item)), coerce)


def _inner_type(column: Column) -> pa.DataType:
    """Categories are texts below the top: pyarrow 26 builds invalid arrays of dictionaries under null structs."""
    return pa.string() if column.categories else column.type
