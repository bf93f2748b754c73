"""Numbers and dates as people write them in texts: where one of a given value stands."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from enrich.answer.edges import is_whole
from enrich.answer.plain import DASHES, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    Place = tuple[int, int]

_SPACES = " \u00a0\u2009\u202f"  # between thousands
_DIGITS = re.compile(rf"[0-9]+(?:[.,'’/:-]?[{_SPACES}]?[0-9]+)*(?:[eE][+-]?[0-9]+)?")
_EXPONENT = re.compile(r"[eE][+-]?[0-9]+$")
_CURRENCY = re.compile(r"(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|CNY|INR|SEK|NOK|DKK|PLN|US|Rs|R)$")
_TIMES = re.compile(r"(?:k|K|M|Mio|mio|bn|mn|\s?(?:thousand|[mbtr]+illions?|Mio|Mrd|bn|mn))(?![A-Za-z])")
_TIME = re.compile(r"T[0-9]{2}:")  # behind a date
_ISO = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_NUMBER_TEXT = re.compile(r"[-+−]?[0-9]+(?:[.,'’ \u00a0\u2009\u202f][0-9]+)*(?:[eE][+-]?[0-9]+)?")
_MONTHS = (
    "jan(?:uary|uar|vier)?|enero|ene|jänner", "feb(?:ruary|ruar|rero)?|février|févr|fév", "mar(?:ch|s|zo)?|märz|mär",
    "apr(?:il)?|avril|avr|abril|abr", "ma[yi]|mayo", "june?|juni|juin|junio", "july?|juli|juillet|juil|julio",
    "aug(?:ust)?|août|agosto|ago", "sept?(?:ember|embre|iembre)?", "o[ck]t(?:ober|obre|ubre)?", "nov(?:ember|embre|iembre)?",
    "de[cz](?:ember)?|décembre|déc|diciembre|dic",
)  # fmt: skip


def find_number(value: Decimal, text: str) -> tuple[Place, bool] | None:
    """Find a number of this value in a text, whichever way it is written there.

    A comma before three digits parts thousands; a point before three may be either. What is joined by `/` counts by
    itself; of a date, its year.

    Returns:
        Where it stands, and whether it is written there as Python and JSON write it; None where it does not.
    """
    first: Place | None = None
    for place, readings in _numbers(text):
        if value in readings:
            if text[place[0] : place[1]].lstrip("+") in (f"{value:f}", f"{value.normalize():f}"):
                return place, True
            first = first or place
    return (first, False) if first is not None else None


def number_of(text: str) -> Decimal | None:
    """Read a text that is a number and nothing else, in a way that leaves no choice; else None."""
    written = text.strip()
    if not _NUMBER_TEXT.fullmatch(written):
        return None
    readings = [reading for _, found in _numbers(written) for reading in found]
    return readings[0] if len(readings) == 1 else None


def find_date(value: date, text: str) -> Place | None:
    """Find a date in a text: in figures, in either order of day and month, or with the month's name."""
    spelled = plain(text)
    for pattern in _patterns(value):
        for match in pattern.finditer(spelled.text):
            place = spelled.source(*match.span())
            if is_whole(text, *place) or (_TIME.match(text, place[1]) and is_whole(text[: place[1]], *place)):
                return place
    return None


def date_of(text: str) -> date | None:
    """Read a text that is an ISO date and nothing else."""
    match = _ISO.fullmatch(text.strip())
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def _patterns(value: date) -> Iterator[re.Pattern[str]]:
    year, day, month = f"{value.year:04d}", f"0?{value.day}", f"0?{value.month}"
    name = rf"(?:{_MONTHS[value.month - 1]})\.?"
    nth = rf"{day}(?:st|nd|rd|th|\.|er)?"
    yield re.compile(rf"{year}[-./]{month}[-./]{day}|{year}{value.month:02d}{value.day:02d}")
    yield re.compile(rf"{nth}[ -](?:of |de )?{name}(?:,| de| del|-)? ?{year}")
    yield re.compile(rf"{name} ?{nth},? {year}")
    either = rf"(?:{year}|{year[2:]})"
    yield re.compile(rf"{day}([-./]) ?{month}\1 ?{either}")
    yield re.compile(rf"{month}([-/]){day}\1{either}")


def _numbers(text: str) -> Iterator[tuple[Place, set[Decimal]]]:
    """Give every number of a text: where it stands with its sign, and what it may mean."""
    for match in _DIGITS.finditer(text):
        for start, end in _parts(match[0]):
            place = match.start() + start, match.start() + end
            if not _stands_alone(text, *place):
                continue
            readings = _readings(text[slice(*place)])
            sign = _sign(text, place[0])
            if readings and sign:
                yield (place[0] - 1, place[1]), {-value if sign == "-" else value for value in readings}
            elif readings:
                yield place, readings


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Say whether no letters make something else of a number; a unit may follow at once, a currency stand before."""
    before, behind = text[max(0, start - 4) : start], text[end : end + 12]
    if before[-1:] == "." and not before[-2:-1].isalnum():
        return False  # .5
    if before[-1:].isalnum() or before[-1:] == "_":
        return bool(_CURRENCY.search(before)) and not before[:-3].isalnum()
    return not behind[:1].isdigit() and not _TIMES.match(behind)


def _sign(text: str, start: int) -> str:
    """Give the sign before a number; between two words or numbers it is a dash."""
    sign = text[start - 1 : start]
    if sign not in {"-", "+", *DASHES} or not sign:
        return ""
    before = text[start - 2 : start - 1] if start > 1 else ""
    return "" if before.isalnum() or before in tuple(")]") else "+" if sign == "+" else "-"


def _parts(run: str) -> Iterator[Place]:
    """Part digits that are joined into the numbers among them."""
    at = 0
    for piece in re.split(r"([/:])", run) if not _is_dated(run) else [run]:
        if piece not in ("/", ":"):
            yield from ((at + start, at + end) for start, end in _without_dashes(piece))
        at += len(piece)


def _is_dated(run: str) -> bool:
    return len(re.findall(r"[-/.]", run)) > 1 and not re.search(r"[,'’]", run)


def _without_dashes(run: str) -> Iterator[Place]:
    mantissa = _EXPONENT.sub("", run)
    if _is_dated(mantissa):
        pieces = [match.span() for match in re.finditer(r"[0-9]+", mantissa)]
        if re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{3})+", mantissa):
            pieces = [(0, len(run))]
        elif set(re.findall(r"[^0-9]", mantissa)) == {"."} and not re.search(
            r"(?<![0-9])[0-9]{4}(?![0-9])", mantissa
        ):
            return  # a version: no part of it is a number
        yield from ((s, e) for s, e in pieces if e - s == 4 or len(pieces) == 1)  # the year of a date
        return
    at = 0
    for piece in re.split(r"(-)", run) if "e" not in run.lower() else [run]:
        if piece != "-":
            yield from ((at + start, at + end) for start, end in _without_spaces(piece))
        at += len(piece)


def _without_spaces(run: str) -> Iterator[Place]:
    grouped = re.compile(rf"[0-9]{{1,3}}(?:[{_SPACES}][0-9]{{3}})+(?:[.,][0-9]+)?")
    if not re.search(rf"[{_SPACES}]", run) or grouped.fullmatch(run):
        yield 0, len(run)
        return
    for match in re.finditer(rf"[^{_SPACES}]+", run):
        yield match.start(), match.start() + len(match[0].rstrip(".,'’"))


def _readings(run: str) -> set[Decimal]:
    """Say what digits with points, commas and spaces may mean."""
    exponent = _EXPONENT.search(run)
    bare = re.sub(rf"[{_SPACES}'’]", "", run[: exponent.start()] if exponent else run)
    power = run[exponent.start() :] if exponent else ""
    marks = re.findall(r"[.,]", bare)
    found: set[str] = set()
    if not marks:
        found = {bare}
    elif len(set(marks)) == 2 and marks.count(marks[-1]) == 1:  # 1.234,5 and 1,234.5
        whole, _, fraction = bare.rpartition(marks[-1])
        found = {f"{re.sub(r'[.,]', '', whole)}.{fraction}"} if _is_grouped(whole) else set()
    elif len(set(marks)) == 1:
        grouped = _is_grouped(bare)
        if grouped and not bare.startswith("0"):
            found.add(re.sub(r"[.,]", "", bare))
        if len(marks) == 1 and not (grouped and marks[0] == "," and not bare.startswith("0")):
            found.add(bare.replace(",", "."))
    return {value for text in found if (value := _decimal(text + power)) is not None}


def _is_grouped(digits: str) -> bool:
    return re.fullmatch(r"[0-9]{1,3}(?:[.,][0-9]{3})+", digits) is not None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None
