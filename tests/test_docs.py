"""The documentation: every command and snippet runs, every configuration is valid, the reference is the code's."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from enrich.cli.app import main
from enrich.config import validate_config
from enrich.records import STATUSES
from tests.helpers.pages import Snippet, snippets
from tools import reference

if TYPE_CHECKING:
    from tests.helpers.warm import Warm

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.parent != reference.FOLDER)
MINIMAL = {"input": "in.csv", "output": "out.parquet", "steps": [{"name": "s", "prompt": "{{ t }}"}]}
README_NOT_RUN = {
    "make demo": "it makes an environment of its own; CI runs it",
    "make test": "it runs these tests",
}
README_ROWS = "review\nSplendid\nArrived late\n"  # what README's configuration reads


class Reader:
    """Somebody who follows a page from top to bottom, in a folder of their own."""

    def __init__(self, folder: Path, warm: Warm) -> None:
        self._folder = folder
        self._warm = warm
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def follow(self, snippet: Snippet) -> None:
        """Do what a block says."""
        if snippet.title is not None:
            path = self._folder / snippet.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(snippet.text, encoding="utf-8")
        elif snippet.language == "console":
            for command in re.findall(r"^\$ (.*)$", snippet.text, re.MULTILINE):
                self._type(command)
        elif snippet.language == "sh":
            for command in snippet.text.splitlines():
                self._type(command)
        elif snippet.language == "python":
            self._execute(snippet.text)
        elif snippet.language == "yaml":
            validate_config({**MINIMAL, **yaml.safe_load(snippet.text)})
        else:
            pytest.fail(
                f"line {snippet.line}: nothing runs a block of {snippet.language}; say why it is not run"
            )

    def _type(self, line: str) -> None:
        """Type a command; a comment may say with which code it exits."""
        command, _, comment = (part.strip() for part in line.partition("  #"))
        if command.startswith("pip install "):
            return  # into the environment of these tests; tests/test_integrations.py installs each extra afresh
        match = re.search(r"exits with (\d+)", comment)
        wanted = int(match[1]) if match else 0
        if command.startswith("beatra-enrich ") and not re.search(r"[|&;<>$]", command):
            ended = self._warm.run(
                self._folder, *shlex.split(command)[1:], env={"BEATRA_BASE_URL": "sandbox"}
            )
            code, said = ended.code, ended.err
        else:
            there = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self._folder,
                env={**os.environ, "PATH": there, "BEATRA_BASE_URL": "sandbox"},
                capture_output=True,
                text=True,
                check=False,
            )
            code, said = done.returncode, done.stderr
        assert code == wanted, f"{command}: {said}"

    def _execute(self, text: str) -> None:
        """Execute Python as a notebook does: names stay, and `await` may stand at the top."""
        code = compile(text, "docs", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()):
            result = eval(code, self._names)  # noqa: S307  # our own pages
            if inspect.iscoroutine(result):
                asyncio.run(result)


@pytest.fixture
def reader(tmp_path: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Follow pages in the test's folder, where nothing asks anybody but the sandbox."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEATRA_BASE_URL", "sandbox")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(
        ROOT / "examples" / "changes",
        tmp_path / "examples" / "changes",
        ignore=shutil.ignore_patterns("out", ".beatra"),
    )
    return Reader(tmp_path, warm)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_can_be_followed_from_top_to_bottom(page: Path, reader: Reader) -> None:
    """Whoever types what a page says, in its order, meets no error."""
    for snippet in snippets(page):
        if snippet.runs:
            reader.follow(snippet)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_yaml_that_is_not_run_is_yaml(page: Path) -> None:
    """Workflows and manifests for other programs can at least be read."""
    for snippet in snippets(page):
        if snippet.language == "yaml":
            assert isinstance(yaml.safe_load(snippet.text), dict), f"line {snippet.line}"


def test_readme_can_be_followed(reader: Reader, tmp_path: Path) -> None:
    """README's commands run and its snippets work, but for those that have a reason not to."""
    (tmp_path / "reviews.csv").write_text(README_ROWS)
    for snippet in snippets(ROOT / "README.md"):
        title = re.match(r"# (\S+\.ya?ml)\n", snippet.text)
        lines = [line for line in snippet.text.splitlines(keepends=True) if not _has_a_reason(line)]
        if snippet.language != "text":
            reader.follow(
                Snippet(
                    snippet.line, snippet.language, title[1] if title else None, "".join(lines), runs=True
                )
            )


def test_readmes_first_screen_shows_what_is_shown(tmp_path: Path, warm: Warm) -> None:
    """The closing line and the rows are those that a terminal of 80 columns has."""
    assert warm.run(tmp_path, "init", "demo").code == 0
    ran = warm.run(tmp_path, "run", "demo/config.yaml")
    table = warm.run(tmp_path, "show", "demo/config.yaml", "-n", "3", env={"COLUMNS": "80"}).out
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table in page
    assert max(map(len, table.splitlines())) <= 80
    assert "8 rows done: 8 requests sent," in page
    assert "8 rows done: 8 requests sent," in ran.err
    assert ran.err.splitlines()[-1] in page  # that it is the sandbox


def _has_a_reason(line: str) -> bool:
    return line.removeprefix("$ ").partition("#")[0].strip() in README_NOT_RUN


def test_commands_named_in_prose_exist() -> None:
    """A command named in the text or a table of README or a page is one of the program's."""
    for page in (ROOT / "README.md", *PAGES):
        names = re.findall(r"`beatra-enrich ([a-z]+)", page.read_text(encoding="utf-8"))
        assert set(names) <= set(main.commands), page


@pytest.mark.parametrize("name", reference.pages())
def test_the_reference_is_the_codes(name: str) -> None:
    """The committed page is what the code says; `python -m tools.reference` makes it so."""
    assert (reference.FOLDER / name).read_text(encoding="utf-8") == reference.pages()[name]


def test_the_references_examples_run(reader: Reader) -> None:
    """The examples in the docstrings give what they show."""
    text = (reference.FOLDER / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for number, block in enumerate(blocks):
        runner.run(parser.get_doctest(block, {}, f"example {number}", "python.md", 0))
    assert blocks
    assert runner.failures == 0


def test_every_status_is_explained() -> None:
    """No row has a status that the page on statuses does not know."""
    text = (DOCS / "concepts" / "statuses.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(STATUSES)


def test_the_site_builds(tmp_path: Path) -> None:
    """Every link holds and every page is in the menu."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install --group docs")
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install --group docs")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    assert not re.search(r"(src|href)=\"https?://(?!127)[^\"]*\.(js|css|woff2?)", page)
