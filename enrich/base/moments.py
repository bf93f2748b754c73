"""Dates, times, moments and durations as Python values, also where Python's own types end.

Arrow's own way there raises on what Python cannot hold, asks pandas for nanoseconds where that is installed, and takes
microseconds for each moment.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import zoneinfo
from typing import TYPE_CHECKING, Any, Final, Self, cast

import numpy as np
import pyarrow as pa

from enrich.base.flat import numbers, present

if TYPE_CHECKING:
    from collections.abc import Sequence

    Counts = np.ndarray[tuple[int], np.dtype[np.int64]]

DAY: Final = 86_400 * 10**9  # nanoseconds
CYCLE_DAYS: Final = 146_097  # days after which the Gregorian calendar, weekdays included, begins anew
CYCLE_YEARS: Final = 400
EPOCH: Final = dt.date(1970, 1, 1).toordinal()
NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


class Far(str):
    """A date, time or duration beyond what Python's types hold, as text; it compares with those within.

    Attributes:
        count: nanoseconds since the epoch or midnight, or of a duration.
    """

    __slots__ = ("count",)
    count: int  # type: ignore[assignment]  # a text's own method has no use here

    @classmethod
    def of(cls, text: str, count: int) -> Self:
        """Make one."""
        far = cls(text)
        far.count = count
        return far

    def isoformat(self) -> str:
        """Give it as ISO 8601 has it."""
        return self.replace(" ", "T", 1)

    def _beyond(self, other: object) -> int | None:
        """Say on which side of another value this one is: below 0, 0 or above; None of other kinds of values."""
        if isinstance(other, Far):
            return (self.count > other.count) - (self.count < other.count)
        within = isinstance(other, dt.date | dt.time | dt.timedelta)
        return (1 if self.count > 0 else -1) if within else None

    def __lt__(self, other: object) -> bool:
        side = self._beyond(other)
        return NotImplemented if side is None else side < 0

    def __le__(self, other: object) -> bool:
        side = self._beyond(other)
        return NotImplemented if side is None else side <= 0

    def __gt__(self, other: object) -> bool:
        side = self._beyond(other)
        return NotImplemented if side is None else side > 0

    def __ge__(self, other: object) -> bool:
        side = self._beyond(other)
        return NotImplemented if side is None else side >= 0


class FarTimedelta(Far):
    """A duration beyond what Python's type holds."""

    __slots__ = ()


class NanoDatetime(dt.datetime):
    """A moment with a fraction of a microsecond; it compares to the microsecond."""

    nanosecond = 0

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """Give it as ISO 8601 has it, with nine digits of a second."""
        if timespec != "auto":
            return super().isoformat(sep, timespec)
        text = super().isoformat(sep, "microseconds")
        return f"{text[:26]}{self.nanosecond:03}{text[26:]}"

    def __str__(self) -> str:
        return self.isoformat(" ")


class NanoTime(dt.time):
    """A time of day with a fraction of a microsecond; it compares to the microsecond."""

    nanosecond = 0

    def isoformat(self, timespec: str = "auto") -> str:
        """Give it as ISO 8601 has it, with nine digits of a second."""
        if timespec != "auto":
            return super().isoformat(timespec)
        return f"{super().isoformat('microseconds')}{self.nanosecond:03}"

    def __str__(self) -> str:
        return self.isoformat()


class NanoTimedelta(dt.timedelta):
    """A duration with a fraction of a microsecond; it compares to the microsecond."""

    nanosecond = 0


class Unreadable:
    """A value that cannot be had on this machine: whoever uses it gets a ValueError that says why.

    Attributes:
        reason: such as ``holds bytes that are no UTF-8``; follows the column's name.
        text: what can be shown of it.
    """

    __slots__ = ("reason", "text")

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        self.text = text

    def _refuse(self, *_: object) -> Any:
        raise ValueError(f"a value {self.reason}")

    __str__ = __repr__ = __bool__ = __len__ = __iter__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = (
        _refuse
    )


# --- moments --------------------------------------------------------------------------------------------


def _counts(array: pa.Array[Any]) -> Counts:
    """Give the integers behind an array; 0 for null."""
    found = numbers(array, f"int{array.type.bit_width}").astype(np.int64)
    return np.where(present(array), found, 0) if array.null_count else found


def dates(array: pa.Array[Any]) -> list[Any]:
    """Give a column's dates; for null any."""
    counts = _counts(array)
    if pa.types.is_date64(array.type):
        counts = counts // 86_400_000
    found = counts.astype("datetime64[D]").tolist()
    for place, value in enumerate(found):
        if not isinstance(value, dt.date):
            found[place] = _far_date(int(counts[place]))
    return found


def timestamps(array: pa.Array[Any]) -> list[Any]:
    """Give a column's moments, as its zone's clocks show them; for null any."""
    kind = cast("pa.TimestampType[Any, Any]", array.type)
    counts, nanos = _parted(_counts(array), kind.unit)
    unit = "us" if kind.unit == "ns" else kind.unit
    size = NANOSECONDS[unit]
    found = counts.view(f"datetime64[{unit}]").tolist()
    pairs = zip(found, counts.tolist(), strict=True)
    if kind.tz is None:
        found = [v if isinstance(v, dt.datetime) else _far_moment(count * size) for v, count in pairs]
    elif (zone := _zone(kind.tz)) is not None:
        found = [_zoned(value, count * size, zone) for value, count in pairs]
    else:
        reason = f"is in the zone {kind.tz!r}, which this machine does not know"
        found = [Unreadable(reason, str(_zoned(value, count * size, dt.UTC))) for value, count in pairs]
    _refine(found, nanos)
    return found


def _parted(counts: Counts, unit: str) -> tuple[Counts, Sequence[int]]:
    """Part nanoseconds into microseconds and the rest; empty where there is no rest."""
    if unit != "ns":
        return counts, ()
    micros, rest = np.divmod(counts, 1000)
    return micros, rest.tolist() if rest.any() else ()


def _refine(found: list[Any], nanos: Sequence[int]) -> None:
    """Give moments their nanoseconds."""
    for place, rest in enumerate(nanos):
        value = found[place]
        if rest and isinstance(value, dt.datetime):
            clock = (value.hour, value.minute, value.second, value.microsecond, value.tzinfo)
            fine = NanoDatetime(value.year, value.month, value.day, *clock, fold=value.fold)
            fine.nanosecond = rest
            found[place] = fine
        elif rest and isinstance(value, dt.time):
            fine_time = NanoTime(value.hour, value.minute, value.second, value.microsecond)
            fine_time.nanosecond = rest
            found[place] = fine_time
        elif rest and isinstance(value, dt.timedelta):
            fine_delta = NanoTimedelta(value.days, value.seconds, value.microseconds)
            fine_delta.nanosecond = rest
            found[place] = fine_delta


@functools.cache
def _zone(name: str) -> dt.tzinfo | None:
    """Find a zone; None of one that this machine does not know."""
    if name[:1] in "+-" and len(name) == 6:
        hours, minutes = int(name[1:3]), int(name[4:6])
        offset = dt.timedelta(hours=hours, minutes=minutes)
        return dt.timezone(-offset if name[0] == "-" else offset)
    if name.upper() == "UTC":
        return dt.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _zoned(value: Any, count: int, zone: dt.tzinfo) -> Any:
    """Give a moment, so many nanoseconds after the epoch, as its zone's clocks show it."""
    if isinstance(value, dt.datetime):
        with contextlib.suppress(OverflowError):
            return value.replace(tzinfo=dt.UTC).astimezone(zone)
    return _far_moment(count, zone)


def times(array: pa.Array[Any]) -> list[Any]:
    """Give a column's times of day; for null any."""
    unit = cast("pa.Time64Type[Any]", array.type).unit
    counts, nanos = _parted(_counts(array), unit)
    size = NANOSECONDS[unit] // 1000 or 1
    found = [_time(count * size) for count in counts.tolist()]
    _refine(found, nanos)
    return found


def _time(micros: int) -> Any:
    if not 0 <= micros < DAY // 1000:
        return Far.of(clock_text(micros * 1000), micros * 1000)
    seconds, rest = divmod(micros, 10**6)
    return dt.time(seconds // 3600, seconds // 60 % 60, seconds % 60, rest)


def durations(array: pa.Array[Any]) -> list[Any]:
    """Give a column's durations; for null any."""
    unit = cast("pa.DurationType[Any]", array.type).unit
    counts, nanos = _parted(_counts(array), unit)
    found = counts.view(f"timedelta64[{'us' if unit == 'ns' else unit}]").tolist()
    size = NANOSECONDS["us" if unit == "ns" else unit]
    for place, value in enumerate(found):
        if not isinstance(value, dt.timedelta):
            length = int(counts[place]) * size
            found[place] = FarTimedelta.of(duration_text(length), length)
    _refine(found, nanos)
    return found


def _far_date(days: int) -> Far:
    """Write a date that Python has none for; the ends of the range are what DuckDB and PostgreSQL call infinite."""
    if abs(days) >= 2**31 - 1:
        return Far.of("infinity" if days > 0 else "-infinity", days * DAY)
    return Far.of(_date_text(days), days * DAY)


def _date_text(days: int) -> str:
    cycles, ordinal = divmod(days + EPOCH - 1, CYCLE_DAYS)
    day = dt.date.fromordinal(ordinal + 1)
    year = day.year + cycles * CYCLE_YEARS
    return f"{'-' if year < 0 else ''}{abs(year):04}-{day:%m-%d}"


def _far_moment(count: int, zone: dt.tzinfo | None = None) -> Far:
    """Write a moment that Python has none for, so many nanoseconds after the epoch."""
    if count // 1000 in _INFINITE or count in _INFINITE:
        return Far.of("infinity" if count > 0 else "-infinity", count)
    local, suffix = count, ""
    if zone is not None:
        offset = _offset(count, zone)
        local += int(offset.total_seconds()) * 10**9
        suffix = dt.datetime(2000, 1, 1, tzinfo=dt.timezone(offset)).isoformat()[19:]
    days, rest = divmod(local, DAY)
    return Far.of(f"{_date_text(days)} {clock_text(rest)}{suffix}", count)


_INFINITE: Final = frozenset({2**63 - 1, -(2**63) + 1, -(2**63)})


def _offset(count: int, zone: dt.tzinfo) -> dt.timedelta:
    """Give a zone's offset at a far moment: that of the same day some cycles of the calendar nearer."""
    days, rest = divmod(count, DAY)
    low, high = dt.date(2400, 1, 1).toordinal() - EPOCH, dt.date(100, 1, 1).toordinal() - EPOCH
    near = low + (days - low) % CYCLE_DAYS if days > 0 else high + (days - high) % CYCLE_DAYS
    moment = dt.datetime.fromordinal(near + EPOCH) + dt.timedelta(microseconds=rest // 1000)
    return moment.replace(tzinfo=dt.UTC).astimezone(zone).utcoffset() or dt.timedelta()


def clock_text(nanos: int) -> str:
    """Write a time of day, so many nanoseconds after midnight, as Python writes it."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    seconds, rest = divmod(nanos, 10**9)
    text = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return text + _fraction(rest)


def _fraction(nanos: int) -> str:
    if not nanos:
        return ""
    return f".{nanos:09}" if nanos % 1000 else f".{nanos // 1000:06}"


def duration_text(nanos: int) -> str:
    """Write a duration of so many nanoseconds: ``2 days, 3:04:05.5``; a negative one with a sign in front."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    days, rest = divmod(nanos, DAY)
    seconds, fraction = divmod(rest, 10**9)
    clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}{_fraction(fraction)}"
    return f"{sign}{days} day{'s' if days != 1 else ''}, {clock}" if days else f"{sign}{clock}"
