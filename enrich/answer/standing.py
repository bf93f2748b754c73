"""Whether a value stands in a text, where, and how exactly: to the letter, in another spelling, or in nearly these words."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from enrich.answer.edges import is_whole
from enrich.answer.near import find_near
from enrich.answer.plain import Plain, plain
from enrich.answer.written import date_of, find_date, find_number, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.schema.places import Match

_AROUND = " '\"."  # what is put around a quotation and is no part of it, in plain spelling
_CAPITAL = re.compile(r"(?<![.!?:;] )(?<!\A)\b[^\W\d_a-z]\w*(?:['’-]\w+)*")

_SMALL = re.compile(r"\b[^\W\d_A-Z]\w*")


class Standing(NamedTuple):
    """Where a value stands in a text.

    Attributes:
        start: its first character, from 0; None where it does not stand there.
        end: behind its last one.
        match: to the letter, in another spelling, in nearly these words, or not at all.
    """

    start: int | None
    end: int | None
    match: Match


NOWHERE: Final = Standing(None, None, "none")


class Text:
    """A text that values are looked for in; its plain spelling is made once, and only where one is not found otherwise."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._plain: Plain | None = None

    def find(self, value: Any, *, fuzzy: float) -> Standing:
        """Find a value.

        Args:
            value: a text, a number or a date.
            fuzzy: the share of a longer text's letters that must agree; see `enrich.answer.near`.
        """
        if isinstance(value, date):
            return self._dated(value)
        if isinstance(value, str):
            return self._worded(value, fuzzy)
        return self._counted(Decimal(repr(value)) if isinstance(value, float) else Decimal(value))

    def _counted(self, value: Decimal) -> Standing:
        found = find_number(value, self.text)
        return Standing(*found[0], "exact" if found[1] else "normalised") if found is not None else NOWHERE

    def _dated(self, value: date) -> Standing:
        found = self._to_the_letter(value.isoformat())
        place = None if found.match == "exact" else find_date(value, self.text)
        return Standing(*place, "normalised") if place is not None else found

    def _worded(self, value: str, fuzzy: float) -> Standing:
        wanted = value.strip()
        found = self._to_the_letter(wanted)
        if found is not NOWHERE:
            return found
        if (number := number_of(wanted)) is not None:
            return self._counted(number)
        if (day := date_of(wanted)) is not None:
            return self._dated(day)
        spelled = plain(wanted).text
        for candidate in dict.fromkeys((spelled, spelled.strip(_AROUND))):
            place = self._plainly(candidate)
            if place is not None:
                return Standing(*place, "normalised")
        return self._nearly(spelled.strip(_AROUND), wanted, fuzzy)

    def _to_the_letter(self, wanted: str) -> Standing:
        for start in _places(wanted, self.text):
            if is_whole(self.text, start, start + len(wanted)):
                return Standing(start, start + len(wanted), "exact")
        return NOWHERE

    def _plainly(self, wanted: str) -> tuple[int, int] | None:
        for start in _places(wanted, self._spelled.text):
            place = self._spelled.source(start, start + len(wanted))
            if is_whole(self.text, *place):
                return place
        return None

    def _nearly(self, wanted: str, written: str, fuzzy: float) -> Standing:
        if fuzzy >= 1:
            return NOWHERE
        names = _names(written) | _names(self.text)
        small = frozenset(_SMALL.findall(self.text))  # what is written small elsewhere only began a sentence
        place = find_near(wanted, self._spelled.text, fuzzy, names - small)
        return Standing(*self._spelled.source(*place), "fuzzy") if place is not None else NOWHERE

    @property
    def _spelled(self) -> Plain:
        if self._plain is None:
            self._plain = plain(self.text)
        return self._plain


def _places(wanted: str, text: str) -> Iterator[int]:
    """Give every place where a text stands in another one."""
    start = text.find(wanted) if wanted else -1
    while start >= 0:
        yield start
        start = text.find(wanted, start + 1)


def _names(text: str) -> frozenset[str]:
    """Give the words that are written as names are: with a capital, and not at the beginning of a sentence."""
    return frozenset(plain(match[0]).text for match in _CAPITAL.finditer(text))
