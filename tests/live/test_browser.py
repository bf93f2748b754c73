"""The live page in a real browser, during a real run: quiet, harmless, by eye and keyboard, and Stop stops."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.csv
import pytest
import yaml

from tests.helpers.endpoint import KEY, BookedEndpoint, envelope
from tests.helpers.reported import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.helpers.endpoint import Raw, Seen

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM"
)
LOOKS: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
ROWS = 40
HOLD = 30  # answers after which the endpoint waits


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def running(
    tmp_path: Path, endpoint: BookedEndpoint, *options: str
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a job with hostile rows until the endpoint holds its answers back; gives its process and configuration."""
    held = threading.Event()

    def script(seen: Seen) -> Raw | None:
        if seen.method != "POST":
            return None
        if b"row 3 " in seen.raw:
            return envelope("invalid_request", 400, message=HOSTILE)
        if len(endpoint.charges) >= HOLD and not held.is_set():
            held.set()
            endpoint.pause()
        return None

    endpoint.script = script
    endpoint.answer = lambda body: f"{HOSTILE} said of {body['messages'][-1]['content']}"
    pyarrow.csv.write_csv(
        pa.table({"text": [f"row {n} {HOSTILE}" for n in range(ROWS)]}), tmp_path / "in.csv"
    )
    document = {
        "input": "in.csv",
        "output": "out.parquet",
        "endpoint": {"base_url": endpoint.base_url},
        "steps": [{"name": "mood", "prompt": "{{ text }}"}],
        "limits": {"concurrency": 4},
        "budget": {"credits": 1000},
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "enrich.cli", "run", str(config), "--no-progress", *options]
    environment = {**os.environ, "BEATRA_API_KEY": KEY}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process, config
        finally:
            endpoint.resume()
            process.kill()


@contextlib.contextmanager
def opened(browser: Browser, url: str, **look: Any) -> Iterator[Page]:
    """Open the page; on the way out, nothing was said on the console, and nothing fetched but from it."""
    said: list[str] = []
    fetched: list[str] = []
    with browser.new_context(**look) as context:
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(url)
        yield page
        assert page.evaluate("window.pwned") is None
    assert [text for text in said if "ERR_CONNECTION_REFUSED" not in text] == []  # the run has ended
    host = urlsplit(url).netloc
    assert {urlsplit(one).netloc for one in fetched if not one.startswith("data:")} == {host}


def url_told(process: subprocess.Popen[str]) -> str:
    """Read where the page is."""
    assert process.stderr is not None
    return process.stderr.readline().split("live page: ")[1].strip()


@pytest.mark.parametrize("look", LOOKS)
def test_during_a_run(browser: Browser, tmp_path: Path, endpoint: BookedEndpoint, look: str) -> None:
    """Figures move, rows come, hostile texts stay texts, search finds, axe is content, and Stop ends with 130."""
    with (
        running(tmp_path, endpoint, "--ui") as (process, _),
        opened(browser, url_told(process), **LOOKS[look]) as page,
    ):
        page.locator("#list .sample").nth(29).wait_for()
        assert page.title() == "out.parquet: live"
        assert page.inner_text("#standing") == "running"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tiles = page.inner_text("#tiles")
        assert "of 40" in tiles
        assert "Credits" in tiles
        assert "Bound by" in page.inner_text("#pace")
        assert "credits" in page.inner_text("#pace")  # what is left of the budget
        assert "ok" in page.inner_text("#statuses")
        assert "invalid_request" in page.inner_text("#causes")
        assert "onerror" in page.inner_text("#list")  # as text
        assert page.locator("#list img, #list script").count() == 0
        from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types

        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        # by keyboard alone: skip link, Stop, search, choice
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "stop"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.type("row 7 ")
        assert page.locator("#list .sample").count() == 1
        page.wait_for_timeout(1_500)  # the page draws anew, and takes nothing from who types
        assert page.evaluate("document.activeElement.id") == "search"
        assert "1 of " in page.inner_text("#found")
        page.fill("#search", "")
        page.select_option("#kind", "failed")
        assert page.locator("#list .sample").count() == 1
        assert "invalid_request" in page.inner_text("#list .sample")
        page.focus("#stop")
        page.keyboard.press("Enter")
        page.locator("#standing", has_text="stopping").wait_for()
        endpoint.resume()
        page.locator("#standing", has_text="ended").wait_for()
        assert "interrupted" in page.inner_text("#said")
        assert process.wait(60) == 130


def test_beside_a_run_that_was_started_elsewhere(
    browser: Browser, tmp_path: Path, endpoint: BookedEndpoint
) -> None:
    """`watch` shows the same by the ledger, offers no Stop, and sees the end."""
    with running(tmp_path, endpoint) as (process, config):
        assert endpoint.arrived.wait(30)
        command = [sys.executable, "-m", "enrich.cli", "watch", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            try:
                assert watching.stdout is not None
                with opened(browser, watching.stdout.readline().strip(), **LOOKS["desk"]) as page:
                    page.locator("#list .sample").nth(29).wait_for()
                    page.locator("#standing", has_text="running").wait_for()
                    assert not page.is_visible("#stop")
                    assert "Started elsewhere" in page.inner_text("#stop-said")
                    endpoint.resume()
                    page.locator("#standing", has_text="ended").wait_for()
                    assert "rows done" in page.inner_text("#said")
                    assert process.wait(60) == 3
            finally:
                watching.kill()
