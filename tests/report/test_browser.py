"""The report in a real browser: quiet, harmless, searchable, readable by eye, keyboard and screen reader."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.helpers.reported import HOSTILE, SCHEMA, page_of, reported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from enrich.config import Config
    from enrich.records import Summary

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM"
)
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESK, "color_scheme": "light"},
    "dark": {"viewport": DESK, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Summary]:
    """A run with failures of every kind, and a hostile first row; its page is written."""
    folder = tmp_path_factory.mktemp("report")
    reviews = [HOSTILE, *(f"number {number} is a secret-{number}" for number in range(1, 60))]
    by_hand = [HOSTILE, *("pos", "neg", "neutral") * 19, "pos", "neg"]
    pyarrow.csv.write_csv(pa.table({"review": reviews, "by_hand": by_hand}), folder / "gold.csv")
    gold = {"file": str(folder / "gold.csv"), "key": "review", "columns": {"s_label": "by_hand"}}
    step = {"name": "s", "prompt": "Classify: {{ review }}", "schema": SCHEMA, "reask": 0, "pin": "mark"}
    config, summary = reported(folder, gold=gold, steps=[step])
    out = pq.read_table(config.output.path)  # as if another model had answered the later half
    place = out.schema.get_field_index("s_model_changed")
    changed = pa.array([number >= out.num_rows // 2 for number in range(out.num_rows)])
    made = out.set_column(place, out.schema.field(place), changed)
    kept = pq.read_metadata(config.output.path).metadata or {}  # with the manifest
    pq.write_table(
        made.replace_schema_metadata({k: v for k, v in kept.items() if k != b"ARROW:schema"}),
        config.output.path,
    )
    page_of(config)
    return config, summary


@pytest.fixture(scope="module")
def url(made: tuple[Config, Summary]) -> str:
    """Where the page is."""
    return (Path(made[0].output.path).parent / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=LOOKS)
def page(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[Page]:
    """The report, open; light, dark and on a phone."""
    with opened(browser, url, **LOOKS[request.param]) as page:
        yield page


@pytest.fixture
def desk(browser: Browser, url: str) -> Iterator[Page]:
    """The report, open in a window that may use the clipboard."""
    with opened(browser, url, viewport=DESK, permissions=["clipboard-read", "clipboard-write"]) as page:
        yield page


@contextlib.contextmanager
def opened(browser: Browser, url: str, **look: Any) -> Iterator[Page]:
    """Open the report; on the way out, nothing may have been said on the console or fetched."""
    said: list[str] = []
    fetched: list[str] = []
    with browser.new_context(**look) as context:
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(url)
        yield page
    assert said == []
    assert fetched == [url]


def test_the_page_opens_in_silence_and_fits_its_window(page: Page) -> None:
    """No error, no fetch, nothing sticks out to the side."""
    assert page.title() == "out.parquet: report"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_another_model_is_told_of(page: Page) -> None:
    """Labels before and after, beside each other."""
    assert page.locator("#change table tbody tr").count() == 3
    assert page.locator("nav a[href='#change']").count() == 1


def test_every_chart_is_drawn(page: Page) -> None:
    """Each chart's canvas has ink on it."""
    inked = """() => [...document.querySelectorAll("[data-chart] canvas")].map((canvas) =>
        canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value))"""
    assert page.evaluate(inked) == [True, True, True, True]


def test_axe_finds_nothing(page: Page) -> None:
    """Contrast, names, roles, order: the rules of axe-core hold."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types

    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_a_hostile_row_does_nothing(desk: Page) -> None:
    """Markup in a prompt or an answer is text: no script ran, no element came of it."""
    assert desk.evaluate("window.pwned") is None
    assert desk.locator("img").count() == 0
    assert desk.locator("script").count() == 3
    assert "</script><script>window.pwned = 1</script>" in (
        desk.locator("article").first.text_content() or ""
    )


def test_what_is_not_ours_cannot_run(browser: Browser, url: str) -> None:
    """Even a handler that got onto the page would be refused by its policy, and so would any fetch."""
    with browser.new_context() as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(url)
        page.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned = 1\">')"
        )
        with page.expect_console_message():
            page.evaluate("fetch('https://example.com').catch(() => console.log('refused'))")
        assert page.evaluate("window.pwned") is None
        assert any("Content Security Policy" in text and "img-src" in text for text in said)
        assert any("Content Security Policy" in text and "connect-src" in text for text in said)


def test_search_narrows_failures_and_samples(desk: Page) -> None:
    """Typing keeps what matches, says how many, and clearing brings the first ones back."""
    rows = desk.locator("[data-list=failures] [data-item]")
    shown = rows.locator("visible=true")
    assert shown.count() == 20
    desk.get_by_role("searchbox", name="Search the failures").fill("REFUSAL")
    assert 0 < shown.count() == rows.filter(has_text="refusal").count()
    assert f"{shown.count()} of {rows.count()} match" in desk.locator("[data-told=failures]").inner_text()
    desk.get_by_role("searchbox", name="Search the failures").fill("")
    assert shown.count() == 20
    samples = desk.locator("[data-list=samples] [data-item]").locator("visible=true")
    desk.get_by_role("searchbox", name="Search the samples").fill("secret-150")
    assert samples.count() == 1
    assert "number 150 is a secret-150" in samples.inner_text()


def test_failures_are_chosen_by_cause_and_downloaded(desk: Page) -> None:
    """One cause alone, with what was asked and answered; the file holds those rows, for a spreadsheet."""
    rows = desk.locator("[data-list=failures] [data-item]")
    shown = rows.locator("visible=true")
    desk.get_by_role("combobox", name="Failures by cause").select_option("refusal")
    count = shown.count()
    assert 0 < count < rows.count()
    assert all("refusal" in text for text in shown.all_inner_texts())
    first = shown.first
    first.locator("summary").click()
    assert "Classify: " in first.locator("[data-field=prompt]").inner_text()
    with desk.expect_download() as download:
        desk.get_by_role("button", name="Download as CSV").click()
    assert download.value.suggested_filename == "failures.csv"
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == count
    assert {line["code"] for line in lines} == {"refusal"}
    assert all(line["prompt"].startswith("user: Classify: ") for line in lines)
    assert lines[0]["request_id"] == first.locator(".id").inner_text()
    assert lines[0]["row"].isdecimal()


def test_samples_are_chosen_by_answer(desk: Page) -> None:
    """The rows with one label alone, each with its own columns; nothing is an empty box."""
    shown = desk.locator("[data-list=samples] [data-item]").locator("visible=true")
    desk.get_by_role("combobox", name="Samples by status or answer").select_option("s_label: neutral")
    assert shown.count() > 2
    assert all("s_label\nneutral" in text for text in shown.all_inner_texts())
    assert all("review" in text for text in shown.locator(".own").all_inner_texts())
    assert all(text.strip("– ") for text in desk.locator(".text").all_text_contents())


def test_show_all_shows_all(desk: Page) -> None:
    """What is folded at first comes with one click."""
    rows = desk.locator("[data-list=failures] [data-item]")
    desk.get_by_role("button", name="Show all").first.click()
    assert rows.locator("visible=true").count() == rows.count() > 20


def test_request_ids_are_copied(desk: Page) -> None:
    """One id by its button, all that match the search by another."""
    desk.get_by_role("searchbox", name="Search the failures").fill("refusal")
    first = desk.locator("[data-list=failures] [data-item]").locator("visible=true").first
    first.get_by_role("button").click()
    assert desk.evaluate("navigator.clipboard.readText()") == first.locator(".id").inner_text()
    desk.get_by_role("button", name="Copy all request ids").click()
    copied = desk.evaluate("navigator.clipboard.readText()").split("\n")
    assert len(copied) == desk.locator("[data-list=failures] [data-item]").locator("visible=true").count()
    assert f"{len(copied)} request ids copied" in desk.locator("#said").inner_text()


def test_everything_can_be_reached_and_used_by_keyboard(desk: Page) -> None:
    """Tab goes through links, regions, fields and buttons in the page's order, each with a visible focus."""
    seen: list[str] = []
    desk.keyboard.press("Tab")
    while not (name := desk.evaluate("document.activeElement.outerHTML.slice(0, 90)")).startswith("<body"):
        assert desk.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", name
        seen.append(name)
        desk.keyboard.press("Tab")
    usable = desk.locator("a[href], button, input, select, summary, [tabindex]").locator("visible=true")
    assert len(seen) == usable.count()
    assert seen[0].startswith('<a class="skip"')
    assert any('data-search="failures"' in name for name in seen)
    assert any('role="region"' in name for name in seen)
    desk.locator("[data-search=samples]").focus()
    desk.keyboard.type("secret-150")
    assert desk.locator("[data-list=samples] [data-item]").locator("visible=true").count() == 1


def test_it_prints_dark_on_light(browser: Browser, url: str) -> None:
    """On paper there are no buttons, and the ink is dark even for a reader of the dark page."""
    with opened(browser, url, viewport=DESK, color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 29, 33)"
        assert page.locator("button").locator("visible=true").count() == 0
        assert len(page.pdf()) > 10_000


def test_it_can_be_read_without_scripts(browser: Browser, url: str) -> None:
    """Every failure and sample is on the page itself."""
    with opened(browser, url, viewport=DESK, java_script_enabled=False) as page:
        samples = page.locator("[data-list=samples] [data-item]")
        assert samples.locator("visible=true").count() == samples.count() >= 100
