"""How counts and times are written for people, and whether there is anything for them to read."""

from __future__ import annotations

# Marks without width: of joining, of direction, of a text's begin; soft hyphens.
UNSEEN = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\u180e"))


def counted(count: int, noun: str) -> str:
    """Write a count before its noun, in the singular or plural: ``1 row``, ``2,000 rows``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """Write seconds as people do: ``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def is_blank(text: str) -> bool:
    """Say whether nobody could read anything in a text: blanks, and marks that no one sees."""
    first = text[:1]
    if first and not first.isspace() and ord(first) not in UNSEEN:  # as nearly always
        return False
    return not text.translate(UNSEEN).strip()
