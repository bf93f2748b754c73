"""Where a word, a number, a date or a name ends: whether what was found is the whole of it, or a part of another one."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right

from enrich.answer.plain import DASHES, DROPPED, SINGLE

_HYPHENS = DASHES | {"-"}
_WITHIN_NUMBERS = frozenset(".,/:·\u066b\u066c") | _HYPHENS | SINGLE  # between two digits these join them
_CONTRARY = frozenset({"non", "anti", "ex", "un", "pre", "post", "pro", "quasi", "pseudo"})
_ELISION = 2  # letters behind an apostrophe that are no name's: 's, 're, 'll
# Scripts that put no spaces between words: Thai to Myanmar, Khmer, Han, Kana.
_UNSPACED = (0x0E00, 0x10A0, 0x1780, 0x1800, 0x2E80, 0x3130, 0x3190, 0xA000, 0xF900, 0xFB00, 0x20000, 0x40000)


def is_whole(text: str, start: int, end: int) -> bool:
    """Say whether what stands there is whole: no part of a longer word, number, date or name.

    Args:
        text: that it was found in.
        start: where it begins.
        end: behind its last character.
    """
    return start < end and not _joined_before(text, start) and not _joined_behind(text, start, end)


def _joined_before(text: str, start: int) -> bool:
    first = text[start]
    at = _skip(text, start - 1, -1)
    before, beyond = _at(text, at), _at(text, _skip(text, at - 1, -1))
    if not _is_word(first):
        is_point = first in ".," and before.isdigit() and _at(text, start + 1).isdigit()
        return is_point or bool(unicodedata.combining(first))
    if _is_word(before):
        return _no_break_between(before, first)
    if first.isdigit() and before in _WITHIN_NUMBERS:
        return beyond.isdigit() or (before == "." and not _is_word(beyond))  # .5
    if before in SINGLE:
        return beyond.isupper()  # the Brien of O'Brien
    if before in _HYPHENS and _is_word(beyond):
        word = _word_before(text, at)
        return word[0].isupper() or word[0].isdigit() or word.casefold() in _CONTRARY
    return False


def _joined_behind(text: str, start: int, end: int) -> bool:
    last = text[end - 1]
    at = _skip(text, end, 1)
    behind = _at(text, at)
    if not _is_word(last):
        return bool(behind) and bool(unicodedata.combining(behind))
    if _is_word(behind) or unicodedata.category(behind or " ").startswith("M"):
        return _no_break_between(last, behind)
    beyond = _at(text, _skip(text, at + 1, 1))
    if last.isdigit() and behind in _WITHIN_NUMBERS and beyond.isdigit():
        return True
    if behind in SINGLE:
        return len(_word_behind(text, at)) > _ELISION  # the O of O'Brien
    if behind in _HYPHENS:  # the Smith of Smith-Jones, the --all of --all-files
        return beyond.isupper() or beyond.isdigit() or (text[start] in _HYPHENS and _is_word(beyond))
    return text.startswith(("++", "#"), at)  # the C of C++


def _no_break_between(one: str, other: str) -> bool:
    return not (_is_unspaced(one) or _is_unspaced(other))


def _is_unspaced(char: str) -> bool:
    return bisect_right(_UNSPACED, ord(char)) % 2 == 1


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _at(text: str, place: int) -> str:
    return text[place] if 0 <= place < len(text) else ""


def _skip(text: str, place: int, by: int) -> int:
    """Pass over what nobody sees."""
    while 0 <= place < len(text) and text[place] in DROPPED:
        place += by
    return place


def _word_before(text: str, end: int) -> str:
    start = end
    while start > 0 and _is_word(text[start - 1]):
        start -= 1
    return text[start:end]


def _word_behind(text: str, at: int) -> str:
    end = at + 1
    while end < len(text) and _is_word(text[end]):
        end += 1
    return text[at + 1 : end]
