"""SQL texts, taken apart as far as is needed to see that they are one query, before a driver takes a part of them."""

from __future__ import annotations

import re

PIECE = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]  # texts and names
    | --[^\n]* | /\*.*?(?:\*/|\Z)                                      # comments
    | ; | .""",
    re.VERBOSE | re.DOTALL,
)
NOTHING = "it holds no statement, only comments"
QUERIES = frozenset({"select", "with", "values"})  # what begins one in SQLite


def statements(sql: str) -> list[str]:
    """Give the statements of a text as SQLite parts them, without comments; empty ones are left out."""
    found = [""]
    for match in PIECE.finditer(sql):
        piece = match[0]
        if piece == ";":
            found.append("")
        elif not piece.startswith(("--", "/*")):
            found[-1] += piece
        else:
            found[-1] += " "
    return [one.strip() for one in found if one.strip()]


def refusal(sql: str) -> str | None:
    """Say why a text is not one query of SQLite; its driver would take the first of several, and anything that it writes."""
    found = statements(sql)
    if not found:
        return NOTHING
    if len(found) > 1:
        return "it holds several statements; only one SELECT is asked"
    word = re.match(r"\w*", found[0])
    kind = word[0] if word else ""
    return (
        None
        if kind.lower() in QUERIES
        else f"it is no SELECT, but begins with {kind.upper() or found[0][:10]}"
    )
