"""The page on how the inside works: every file it names is there, every package is in its picture, and the picture is the tests' own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests import test_layers

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "contributing" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.partition("## Where do I change")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ")
]
GUESSED = [row for row in ROWS if "**" in row[0]]
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
        ("RECORD_COLUMNS", "enrich/schema/choice.py"),
    ):
        assert f"`{name}`" in PAGE
        assert re.search(rf"^(class )?{name}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (
            name
        )


def led_to(words: list[str]) -> list[str]:
    """Give the files that somebody looks into who knows these words and the files' names: those that have most of them."""
    names = [path.relative_to(ROOT).as_posix() for path in (ROOT / "enrich").rglob("*.py")]
    found = {
        name: sum(word in part for word in words for part in name.split("/")[1:])
        for name in names
        if "__" not in name and "vendor" not in name
    }
    most = max(found.values())
    return sorted(name for name, count in found.items() if count == most) if most else []


def test_most_questions_are_guessed() -> None:
    """Names are the docs' own words: there are as many questions that they answer as makes a page worth reading."""
    assert len(GUESSED) >= 30
    assert len(GUESSED) > 3 * (len(ROWS) - len(GUESSED))


@pytest.mark.parametrize("row", GUESSED, ids=lambda row: re.sub(r"[*`|]", "", row[0])[:40])
def test_the_words_of_a_question_lead_to_its_file(row: tuple[str, str]) -> None:
    """Who looks for the words in bold among the files' names finds the right one among five at most."""
    question, answer = row
    words = [word.lower() for word in re.findall(r"\*\*([^*]+)\*\*", question)]
    found = led_to(words)
    assert len(found) <= 5, found
    assert set(found) & set(re.findall(r"`(enrich/[\w./]+)`", answer)), found


LONG = 400  # lines


def test_a_long_file_says_why() -> None:
    """No file of the package, its tests and its tools is longer than a few screens without a reason at its top."""
    silent = []
    for folder in ("enrich", "tests", "tools", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if text.count("\n") > LONG and "It is long because" not in (
                ast.get_docstring(ast.parse(text)) or ""
            ):
                silent.append(path.relative_to(ROOT).as_posix())
    assert silent == []
