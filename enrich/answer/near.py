"""A longer text that stands in another one in nearly these words: a slip of spelling, a word left out; nothing else said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Place = tuple[int, int]

FEWEST_WORDS = 5  # of a shorter text every one counts
_FEWEST_LETTERS = 24
_LITTLE = 3  # letters of words that may be left out or put in: articles, prepositions
_ALIKE = 0.8  # share of two words' letters that agree where one is the other, misspelt
_WORD = re.compile(r"\w+(?:'\w+)*")
_SENSE = re.compile(  # words that turn a sentence round, or bound what it says
    r"hardly|barely|rarely|seldom|almost|nearly|partly|no|not|non|nor|never|none|nothing|nobody|without|cannot|neither|only|except|unless|until|if|but|or|may|all|any|"
    r"\w+n't|nicht|kein\w*|nie|nur|ohne|außer|pas|jamais|sans|sauf|sin|nunca|jamás|sólo|solo|mai|senza|niet|geen|не|нет|ни"
)
_CONTRARY = re.compile(r"(?:un|in|im|il|ir|dis|non-?|mis|de|re|anti-?|under|over|up|down|more|less|pre|post)")


def find_near(wanted: str, text: str, share: float, proper: frozenset[str]) -> Place | None:
    """Find where a text stands nearly as it is, both in their plain spelling.

    At least ``share`` of its letters agree. Beyond that nothing may differ but letters within a word, and what is as
    short as an article: no number, no name, no word that turns the sense round; and nothing is there that is not in
    the text, while of the text a word may be left out.

    Args:
        wanted: the text to find.
        text: to find it in.
        share: of the letters that agree, 0 to 1.
        proper: words that are names, in plain spelling.

    Returns:
        Where it begins and ends, or None.
    """
    if len(wanted) < _FEWEST_LETTERS or len(_WORD.findall(wanted)) < FEWEST_WORDS:
        return None
    from rapidfuzz import fuzz

    found = fuzz.partial_ratio_alignment(wanted, text, score_cutoff=100 * min(share, 0.95) * 0.9)
    if found is None or len(wanted) > len(text) + _FEWEST_LETTERS:
        return None
    place = _best(wanted, text, (found.dest_start, found.dest_end))
    stands = text[slice(*place)]
    if fuzz.ratio(wanted, stands) < 100 * share:
        return None
    return place if stands and _says_the_same(_WORD.findall(wanted), _WORD.findall(stands), proper) else None


def _best(wanted: str, text: str, around: Place) -> Place:
    """Move the edges of a place to those between words where it agrees best."""
    from rapidfuzz import fuzz

    words = [match.span() for match in _WORD.finditer(text)]
    first, last = _WORD.search(wanted), _WORD.findall(wanted)[-1]
    reach = len(wanted) // 6 + len(last) + len(first[0] if first else "")
    starts = [start for start, _ in words if abs(start - around[0]) <= reach] or [around[0]]
    ends = [end for _, end in words if abs(end - around[1]) <= reach] or [around[1]]
    begin = max(starts, key=lambda start: fuzz.ratio(wanted, text[start : around[1]]))
    end = max(
        (end for end in ends if end > begin),
        key=lambda end: fuzz.ratio(wanted, text[begin:end]),
        default=around[1],
    )
    return begin, end


def _says_the_same(wanted: Sequence[str], stands: Sequence[str], proper: frozenset[str]) -> bool:
    edges = (wanted[0], stands[0], str.startswith), (wanted[-1], stands[-1], str.endswith)
    if not all(_is_slip(one, other) or part_of(one, other) for one, other, part_of in edges):
        return False  # what stands beyond the edge is not looked at
    for ours, theirs in _differing(wanted, stands):
        if "".join(ours).replace("-", "") == "".join(theirs).replace("-", ""):
            continue  # one word in two, or parted at the end of a line
        if any(_counts(word, proper) for word in (*ours, *theirs)):
            return False
        if len(ours) == len(theirs):
            fits = all(_is_slip(*pair) for pair in zip(ours, theirs, strict=True))
        else:  # a word may be left out, but for an article none is put in
            fits = not ours or (not theirs and all(len(word) <= _LITTLE for word in ours))
        if not fits:
            return False
    return True


def _differing(wanted: Sequence[str], stands: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Give the runs of words in which two texts differ, those of each."""
    from rapidfuzz.distance import Levenshtein

    ours: list[str] = []
    theirs: list[str] = []
    for edit in Levenshtein.opcodes(wanted, stands):
        if edit.tag != "equal":
            ours += wanted[edit.src_start : edit.src_end]
            theirs += stands[edit.dest_start : edit.dest_end]
        elif ours or theirs:
            yield ours, theirs
            ours, theirs = [], []
    if ours or theirs:
        yield ours, theirs


def _counts(word: str, proper: frozenset[str]) -> bool:
    """Say whether a word may not differ at all: a number, a name, or one that turns the sense round."""
    return any(char.isdigit() for char in word) or word in proper or _SENSE.fullmatch(word) is not None


def _is_slip(one: str, other: str) -> bool:
    """Say whether one word is the other one, misspelt."""
    from rapidfuzz.distance import OSA

    if one == other or (len(one) <= _LITTLE and len(other) <= _LITTLE):
        return True
    shorter, longer = sorted((one, other), key=len)
    front = longer[: len(longer) - len(shorter)]
    if longer.endswith(shorter) and _CONTRARY.fullmatch(front):
        return False
    if one[0] != other[0] or min(len(one), len(other)) <= _LITTLE:
        return False
    return OSA.normalized_similarity(one, other) >= _ALIKE
