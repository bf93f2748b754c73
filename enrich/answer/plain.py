"""Texts without what differs between two spellings of the same words, and the way back to where a place of them came from."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

DASHES = frozenset("‐‑‒–—―−﹘﹣－⸺⸻")  # noqa: RUF001  # told apart by nobody who quotes
SINGLE = frozenset("'‘’‚‛′`´ʼ＇")  # noqa: RUF001  # see above
DOUBLE = frozenset('"“”„‟«»″＂')  # noqa: RUF001  # see above
DROPPED = frozenset("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff")  # marks that nobody sees
_ONE = {**dict.fromkeys(DROPPED, ""), **dict.fromkeys(DASHES, "-"), **dict.fromkeys(SINGLE, "'")}
# A character with what joins it: combining marks, and the later letters of a Hangul syllable.
_CLUSTER = re.compile(r"(?s).[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
                      r"\u093c\u1160-\u11ff\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe20-\ufe2f]*")  # fmt: skip
_RAISED = ("<super>", "<sub>", "<fraction>")  # behind a digit these are no digits of the same number


class Plain(NamedTuple):
    """A text in its plain spelling: white space, quotes, dashes, case and compatible characters make no difference.

    Attributes:
        text: the plain one.
        starts: for each of its characters, where the piece that it stands for begins in the text that it was made of.
        ends: likewise, where that piece ends.
    """

    text: str
    starts: list[int]
    ends: list[int]

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Give the place in the text that it was made of."""
        return self.starts[start], self.ends[end - 1]


def plain(text: str) -> Plain:
    """Make the plain spelling of a text."""
    made: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for match in _CLUSTER.finditer(text):
        piece, (start, end) = match[0], match.span()
        last = made[-1] if made else ""
        for char in _spelled(piece, last):
            if char == " " and (not made or made[-1] == " "):
                if made:
                    ends[-1] = end
                continue
            if char == "'" and made and made[-1] == "'":  # '' is a double quote in some texts
                ends[-1] = end
                continue
            made.append(char)
            starts.append(start)
            ends.append(end)
    while made and made[-1] == " ":
        made.pop()
        starts.pop()
        ends.pop()
    return Plain("".join(made), starts, ends)


def _spelled(piece: str, last: str) -> str:
    """Spell a character plainly, with what joins it.

    Args:
        piece: the character.
        last: the plain one before it.
    """
    if piece in _ONE:
        return _ONE[piece]
    if piece in DOUBLE:  # behind a digit it may be inches, or seconds
        return '"' if last.isdigit() else "'"
    if piece.isascii():
        return piece.lower() if piece.isprintable() else " "
    if last.isdigit() and unicodedata.decomposition(piece[0]).startswith(_RAISED):
        return piece
    spelled = unicodedata.normalize("NFKC", piece)
    return " " if spelled.isspace() else unicodedata.normalize("NFC", spelled.casefold())
