r"""CSV with an escape character becomes CSV in which that character means the same wherever it stands.

Spark, MySQL, R and others write ``"say \"hi\""`` and leave a backslash alone that escapes nothing (``C:\temp``). Arrow
and Python's csv module take every one away. So those that stand for themselves are doubled before either reads the text.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from enrich.files.csv_quotes import are_beside, escapes_of, quotes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARACTERS_AT_ONCE = 1 << 20  # characters taken at once


class EscapedText(io.RawIOBase):
    """The text of a file as UTF-8 bytes, every escape character either before what it escapes or doubled.

    Within quotes it escapes the quote, itself and line ends; outside them nothing. Where nothing is quoted it escapes
    delimiters too, everywhere. A doubled quote stays one.

    Args:
        text: the file's, with its line ends as they are.
        escape: one character.
        quote: one character, or an empty text.
        delimiter: one character.
        chunk: characters taken at once.
    """

    def __init__(
        self,
        text: io.TextIOWrapper[Any],
        *,
        escape: str,
        quote: str,
        delimiter: str,
        chunk: int = CHARACTERS_AT_ONCE,
    ) -> None:
        self._text = text
        self._chunks = _Escapes(escape, quote, delimiter).doubled(text, chunk)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Close the file too."""
        self._text.close()
        super().close()


class _Escapes:
    """Goes through a text and doubles the escape characters that escape nothing.

    Whole rows at a time by their bytes, as long as every quote opens, closes or is part of a quoted field; from the first
    row on of which that is not true, field by field, ten times as slow.
    """

    def __init__(self, escape: str, quote: str, delimiter: str) -> None:
        self._escape, self._quote, self._delimiter = escape, quote, delimiter
        self._escaped = f"{escape}\r\n{quote or delimiter}"
        self._escaped_bytes = np.frombuffer(self._escaped.encode(), np.uint8)
        mark, quoted = re.escape(escape), re.escape(quote)
        plain = f"[^{quoted}{mark}]*"
        field = rf"{quoted}{plain}(?:(?:{quoted}{quoted}|{mark}.){plain})*(?:{quoted}(?!{quoted})|{mark}?\Z)"
        self._begins = f"\r\n\ufeff{delimiter}"  # what a quoted field stands behind
        begins = f"(?<=[{re.escape(self._begins)}])"
        self._outside = re.compile(rf"{begins}{field}|{mark}" if quote else rf"{mark}(?:.|\Z)", re.DOTALL)
        self._inside = re.compile(rf"{mark}(?:.|\Z)", re.DOTALL)
        self._rest = ""

    def doubled(self, text: io.TextIOWrapper[Any], size: int) -> Iterator[bytes]:
        """Give the text in pieces, as UTF-8."""
        rest = b""
        if self._quote and (self._escape + self._quote + self._delimiter).isascii():
            while chunk := text.read(max(size, len(rest))):
                rest += chunk.encode()
                if (found := self._whole_rows(rest)) is None:
                    break
                rows, doubled = found
                yield doubled
                rest = rest[rows:]
        yield from (piece.encode() for piece in self._doubled_fields(rest.decode(), text, size))

    # --- by bytes ---------------------------------------------------------------------------------------

    def _whole_rows(self, data: bytes) -> tuple[int, bytes] | None:
        """Say how many bytes from a row's begin on are whole rows, and give these; None where their quotes are not sound."""
        found = np.frombuffer(data, np.uint8)
        escapes, escaped = escapes_of(found, self._escape)
        quotes = quotes_of(found, self._quote, escapes)
        ends = np.flatnonzero(found == ord("\n"))
        whole = ends[np.searchsorted(quotes, ends) % 2 == 0]
        rows = int(whole[-1]) + 1 if len(whole) else 0
        mark = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
        inner = quotes[quotes < rows] - mark
        if not are_beside(found[mark:rows], inner, self._delimiter, inside=False, before=b"\n"):
            return None
        behind = np.append(found, np.uint8(0))[escapes + 1]
        stray = (np.searchsorted(quotes, escapes) % 2 == 0) | ~np.isin(behind, self._escaped_bytes)
        outside = np.searchsorted(quotes, escaped) % 2 == 0
        doubled = np.concatenate([escapes[stray], escaped[outside]])
        inserted = np.insert(found[:rows], doubled[doubled < rows], ord(self._escape))
        return rows, inserted.tobytes()

    # --- by fields --------------------------------------------------------------------------------------

    def _doubled_fields(self, begin: str, text: io.TextIOWrapper[Any], size: int) -> Iterator[str]:
        """Give what follows on a row's begin; what is not whole at the end of a piece comes with the next."""
        before = "\n"
        chunk = begin or text.read(size)
        while chunk:
            data = before + self._rest + chunk
            self._rest = ""
            yield self._outside.sub(self._kept, data)[1:]
            last = data[len(data) - len(self._rest) - 1]
            before = last if last in self._begins else "x"
            chunk = text.read(max(size, len(self._rest)))
        yield self._inside.sub(self._within, self._rest)

    def _kept(self, found: re.Match[str]) -> str:
        """Give what becomes of a quoted field, or of an escape character outside of one; keep what may go on."""
        text = found[0]
        if not self._quote and text != self._escape:
            return self._within(found)
        if self._quote and text == self._escape:
            return text * 2
        if found.end() == len(found.string):
            self._rest = text
            return ""
        return self._inside.sub(self._within, text) if self._escape in text else text

    def _within(self, found: re.Match[str]) -> str:
        """Give what becomes of an escape character and the one behind it."""
        text = found[0]
        return text if text[1:] and text[1:] in self._escaped else self._escape + text
