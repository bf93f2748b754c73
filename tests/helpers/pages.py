"""The fenced blocks of a page of the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\n\n\Z")  # what readers need not know
SHOWN = {"text"}  # languages that show something and do nothing


@dataclass(frozen=True)
class Snippet:
    """One fenced block of a page."""

    line: int
    language: str
    title: str | None
    text: str
    runs: bool


def snippets(page: Path) -> list[Snippet]:
    """Give a page's fenced blocks in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        language, title, content = match.groups()
        runs = language not in SHOWN and not NOT_RUN.search(text[: match.start()])
        found.append(Snippet(text.count("\n", 0, match.start()) + 1, language, title, content, runs=runs))
    return found


def files_of(page: Path) -> dict[str, str]:
    """Give the blocks that are files, by their names."""
    return {snippet.title: snippet.text for snippet in snippets(page) if snippet.title is not None}
