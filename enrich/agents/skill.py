"""The page that teaches an agent the command line, as agents' skills are written: a head of YAML, then Markdown."""

from __future__ import annotations

from importlib import resources


def skill() -> str:
    """Give the page."""
    return resources.files(__package__).joinpath("SKILL.md").read_text(encoding="utf-8")
