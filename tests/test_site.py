"""The documentation site in a real browser."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The built site, served on loopback."""
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install --group docs")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    subprocess.run(build, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM")
def test_the_copy_button_copies_what_can_be_pasted(site: str) -> None:
    """What a reader gets from a block of commands are the commands: no prompt before them, nothing they print."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.goto(f"{site}/getting-started/")
        block = page.locator(".highlight", has_text="beatra-enrich init demo").first
        block.hover()
        block.locator("[data-clipboard-target], .md-code__button, .md-clipboard").first.click()
        page.get_by_text("Copied to clipboard").first.wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        browser.close()
    assert copied.split("\n") == ["beatra-enrich init demo", "beatra-enrich run demo/config.yaml"]


def read(url: str) -> str:
    """Fetch a page of the site."""
    with urlopen(url) as opened:  # noqa: S310  # on loopback
        return str(opened.read().decode())


def test_a_model_reads_all_of_it(site: str) -> None:
    """llms.txt links every page of the navigation beside it, with what it is about; llms-full.txt holds their text."""
    listed = read(f"{site}/llms.txt")
    whole = read(f"{site}/llms-full.txt")
    links = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): (.*)$", listed, re.MULTILINE)
    assert listed.startswith("# beatra-enrich\n\n> ")
    assert {path for path, _ in links} == {
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    for path, opening in links:
        source = (ROOT / "docs" / path).read_text(encoding="utf-8")
        assert read(f"{site}/{path}") == source
        assert source.strip() in whole
        assert opening, path
