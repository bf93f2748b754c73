"""Writes llms.txt and llms-full.txt beside the pages when MkDocs builds them: what a model reads of the docs.

The first lists each page under its title with the sentence that it opens with, as https://llmstxt.org describes the file;
the second has all of them, as they were written.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

MOST = 160  # characters of a page's opening sentence
_PARAGRAPH = re.compile(r"^(?![#<>|`!\-*=\d\s])(.+?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)


def on_post_build(config: MkDocsConfig) -> None:
    """Write both files; MkDocs calls it when every page is there."""
    pages = list(_pages(config.nav or []))
    sources = {path: (Path(config.docs_dir) / path).read_text(encoding="utf-8") for _, path, _ in pages}
    site = Path(config.site_dir)
    listed = [f"# {config.site_name}", f"> {config.site_description}"]
    section = None
    for title, path, within in pages:
        if within != section:
            section = within
            listed.append(f"## {section}")
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(sources[path], encoding="utf-8")
        listed.append(f"- [{title}]({path}): {opening(sources[path])}")
    (site / "llms.txt").write_text(_spaced(listed), encoding="utf-8")
    whole = [f"<!-- {path} -->\n\n{text.strip()}" for path, text in sources.items()]
    (site / "llms-full.txt").write_text("\n\n".join(whole) + "\n", encoding="utf-8")


def _pages(nav: list[Any], within: str = "Start") -> Any:
    """Go through the navigation: title, path, and the section that it stands in."""
    for entry in nav:
        for title, place in entry.items():
            if isinstance(place, str):
                yield title, place, within
            else:
                yield from _pages(place, title)


def opening(text: str) -> str:
    """Give the sentence that a page opens with, cut where it is long."""
    found = _PARAGRAPH.search(text)
    sentence = re.split(r"(?<=[.:]) ", " ".join(found.group(1).split()))[0] if found else ""
    return sentence if len(sentence) <= MOST else sentence[: MOST - 1].rsplit(" ", 1)[0] + " …"


def _spaced(lines: list[str]) -> str:
    """Put an empty line before all but the items of a list."""
    text = "\n".join(line if line.startswith("- ") else f"\n{line}\n" for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).lstrip() + "\n"
