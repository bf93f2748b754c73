"""A JSON file that is one array of objects becomes JSON Lines, element by element: no more of it is held than one."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING

from enrich.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

READ_BYTES = 1 << 20  # bytes read at once
MAX_DEPTH = 64  # levels of nesting; Arrow's parser does not survive some thousands
ELEMENT_MOST = 64 << 20  # characters of one element
CUT_OFF = 64  # characters before the end within which an element may be cut, not wrong
SPACE = re.compile(r"[ \t\r\n]*")


def is_array(start: bytes) -> bool:
    """Say whether a file that begins so is an array."""
    return start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def array_lines(stream: pa.NativeFile, path: str) -> Iterator[bytes]:
    """Give each element of the array as one line.

    Args:
        stream: the file's bytes from the start.
        path: for messages.

    Raises:
        InputError: naming the element that is no JSON object, what follows the array, or bytes that are not UTF-8.
    """
    text = _Text(stream, path)
    text.skip_space()
    text.take("[")
    text.skip_space()
    number = 0
    while not text.take("]"):
        number += 1
        yield _element(text, f"{path} element {number}").encode() + b"\n"
        text.skip_space()
        if text.take(","):
            text.skip_space()
            if text.looks_at("]"):
                raise InputError(
                    f"{path}: after the comma behind element {number} stands no object", hint=_HINT
                )
        elif not text.looks_at("]"):
            raise InputError(f"{path}: after element {number} stands neither a comma nor the end", hint=_HINT)
    text.skip_space()
    if text.more():
        raise InputError(f"{path}: text follows the end of the array", hint=_HINT)


_HINT = "a JSON file must be one array of objects, or have one object a line."
_decoder = json.JSONDecoder()


def _element(text: _Text, where: str) -> str:
    if not text.looks_at("{"):
        raise InputError(f"{where} is no object", hint=_HINT)
    while True:
        try:
            _, end = _decoder.raw_decode(text.data, text.at)
        except json.JSONDecodeError as error:
            cut = error.pos > len(text.data) - CUT_OFF or error.msg.startswith("Unterminated string")
            if not (cut and len(text.data) - text.at < ELEMENT_MOST and text.read()):
                raise InputError(f"{where} is no JSON: {error.msg}", hint=_HINT) from None
        except RecursionError:
            raise InputError(
                f"{where}: nested deeper than {MAX_DEPTH} levels", hint="write the inner values as texts."
            ) from None
        else:
            found, text.at = text.data[text.at : end], end
            return found.replace("\n", " ").replace("\r", " ")


class _Text:
    """The text of a stream from some place on.

    Attributes:
        data: what is held.
        at: how much of that is done with.
    """

    def __init__(self, stream: pa.NativeFile, path: str) -> None:
        self._stream = stream
        self._path = path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._ended = False
        self.data = ""
        self.at = 0

    def read(self) -> bool:
        """Hold more of it, as much again as there is; False at its end."""
        if self._ended:
            return False
        chunk = self._stream.read(max(READ_BYTES, len(self.data) - self.at))
        self._ended = not chunk
        try:
            self.data, self.at = self.data[self.at :] + self._decode(chunk, final=self._ended), 0
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self._path}: {error.object[error.start : error.end]!r} is not UTF-8, as JSON must be",
                hint=f"convert it, for example with iconv -f latin1 -t utf-8 {self._path}",
            ) from None
        return not self._ended

    def more(self) -> bool:
        """Say whether there is a further character."""
        return self.at < len(self.data) or (self.read() and self.more())

    def looks_at(self, sign: str) -> bool:
        """Say whether the next character is this one."""
        return self.more() and self.data[self.at] == sign

    def take(self, sign: str) -> bool:
        """Go past the next character where it is this one."""
        found = self.looks_at(sign)
        self.at += found
        return found

    def skip_space(self) -> None:
        """Go past space, also where further text has to be read for that."""
        while self.more():
            found = SPACE.match(self.data, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.data):
                return
