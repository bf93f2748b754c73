"""The page on how the inside works: every file it names is there, every package is in its picture, and the picture is the tests' own."""

from __future__ import annotations

import re
from pathlib import Path

from tests import test_layers

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "contributing" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PICTURE = PAGE.partition("```text\n")[2].partition("```")[0]


def test_every_file_that_is_named_is_there() -> None:
    """A newcomer who follows the page arrives."""
    named = set(re.findall(r"`((?:enrich|tests|tools|docs)/[\w./-]*)`", PAGE + CONTRIBUTING))
    assert len(named) > 40
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_picture_holds_every_package_at_its_height() -> None:
    """Each line of the picture is a layer of the imports, from the ground up."""
    lines = [re.split(r"\s{3,}", line.strip())[0] for line in PICTURE.splitlines()]
    drawn = [frozenset(re.findall(r"\w+", re.sub(r" [A-Z].*", "", line))) for line in lines]
    assert drawn == [frozenset(layer) for layer in test_layers.LAYERS[:-1]]


def test_names_in_the_steps_are_in_the_code() -> None:
    """What "how to add" tells to change can be found where it says."""
    for name, file in (
        ("Format", "enrich/config/section.py"),
        ("RowStatus", "enrich/records.py"),
        ("STATUSES", "enrich/records.py"),
        ("FAILED", "enrich/records.py"),
        ("Outcome", "enrich/records.py"),
        ("RECORD_COLUMNS", "enrich/answer/columns.py"),
    ):
        assert f"`{name}`" in PAGE
        assert re.search(rf"^(class )?{name}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (
            name
        )
