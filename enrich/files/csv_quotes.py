"""Whether the quotes of a CSV file can be told apart from its text: a closing one is followed by a delimiter or nothing."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
    Places = np.ndarray[tuple[int], np.dtype[np.int64]]
    Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]

CHUNK = 1 << 20  # bytes looked at once


def quotes_are_sound(stream: pa.NativeFile, *, quote: str, delimiter: str, escape: str | None = None) -> bool:
    """Say whether every quote opens a field, closes one, or is doubled or escaped within one.

    A file of which this is not true may still be sound: a quote inside a field that is not quoted is text, and makes
    this miscount. It takes about a second for 2 GB.

    Args:
        stream: bytes in which ASCII stands for itself.
        quote: an ASCII character.
        delimiter: an ASCII character.
        escape: an ASCII character that takes the meaning from the one behind it.
    """
    held = (quote + (escape or "")).encode()
    inside = False
    last = b"\n"
    while chunk := stream.read(CHUNK):
        chunk = chunk.removeprefix(codecs.BOM_UTF8)
        if not chunk:
            continue
        while chunk[-1:] in (held[:1], held[1:] or None) and (more := stream.read(1)):
            chunk += more
        data = np.frombuffer(chunk, dtype=np.uint8)
        quotes = quotes_of(data, quote, escapes_of(data, escape)[0] if escape else None)
        if not are_beside(data, quotes, delimiter, inside=inside, before=last):
            return False
        inside ^= bool(len(quotes) % 2)
        last = chunk[-1:]
    return True


def escapes_of(data: Bytes, escape: str) -> tuple[Places, Places]:
    """Give the places of the escape characters that escape what is behind them, and of those that are escaped."""
    places = np.flatnonzero(data == ord(escape))
    begins = np.ones(len(places), dtype=bool)
    begins[1:] = np.diff(places) > 1
    first = np.maximum.accumulate(np.where(begins, np.arange(len(places)), 0))
    escapes = (np.arange(len(places)) - first) % 2 == 0
    return places[escapes], places[~escapes]


def quotes_of(data: Bytes, quote: str, escapes: Places | None) -> Places:
    """Give the places of the quotes, those that are escaped left out."""
    found = np.flatnonzero(data == ord(quote))
    if escapes is None or not len(escapes):
        return found
    escaped: Flags = np.zeros(len(data) + 1, dtype=bool)
    escaped[escapes + 1] = True
    return found[~escaped[found]]


def are_beside(data: Bytes, quotes: Places, delimiter: str, *, inside: bool, before: bytes) -> bool:
    """Say whether each quote that opens follows a delimiter or a line's end, and each that closes precedes one.

    One that closes directly before one that opens stands for a quote within its field.

    Args:
        data: the bytes.
        quotes: their places.
        delimiter: an ASCII character.
        inside: whether the data begin within quotes.
        before: the byte that stands before the data.
    """
    beside: Flags = np.zeros(256, dtype=bool)
    beside[[ord(sign) for sign in delimiter + "\r\n"]] = True
    framed = np.concatenate([np.frombuffer(before, np.uint8), data, np.frombuffer(b"\n", np.uint8)])
    closes = (np.arange(len(quotes)) + inside) % 2 == 1
    neighbours: Any = framed[np.where(closes, quotes + 2, quotes)]
    sound = beside[neighbours]
    doubled = np.flatnonzero((np.diff(quotes) == 1) & closes[:-1])
    sound[doubled] = sound[doubled + 1] = True
    return bool(sound.all())
