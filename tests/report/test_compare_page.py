"""The page of a comparison, in a real browser: quiet, harmless, searchable, readable by eye, keyboard and screen reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from enrich.measure.comparison import Cell, Comparison, Range, Variant, compared, kinds_of
from enrich.report.compare_page import render_comparison
from tests.helpers.reported import HOSTILE
from tests.report.test_browser import CHROMIUM, DESK, PHONE, browser, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

__all__ = ["browser"]
ROWS = 60
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM"
)


def variant(name: str, every: int) -> Variant:
    """Make a variant that says "neg" of each row of so many, and has no answer for the last row."""
    labels = ["neg" if n % every == 0 else "pos" for n in range(ROWS)]
    notes = [HOSTILE if n == 0 else f"{name} says of {n}: " + "a word " * 40 for n in range(ROWS)]
    columns = {
        "s_label": [Cell(label, label) for label in labels],
        "s_note": [Cell(note, note) for note in notes],
    }
    ok = [True] * (ROWS - 1) + [name != HOSTILE]
    counts = {"s_label": {"pos": labels.count("pos"), "neg": labels.count("neg")}}
    statuses = {"ok": sum(ok), "error": ROWS - sum(ok)}
    price = Range(12.5, 11.0, 14.25)
    return Variant(
        name, name, statuses, ok, columns, counts, 0.6, (600, 300), (80.0, 210.0), ROWS, 0.6, 940, price
    )


def comparison(*, content: bool = True) -> Comparison:
    """Make a comparison of two variants, one of them with a hostile name."""
    variants = (variant("plain", 7), variant(HOSTILE, 5))
    kinds = kinds_of([one.cells for one in variants])
    given = tuple((("review", HOSTILE if n == 0 else f"text {n}"),) for n in range(ROWS))
    pair = compared(*variants, kinds, 0.0)
    rows = tuple(range(1, ROWS + 1))
    return Comparison(
        "abc", "60 of 1,000 rows", rows, given, 1000, 0.0, kinds, variants, (pair,), {"s_label": 0.5}, content
    )


@pytest.fixture(params=["light", "dark", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> Iterator[Page]:  # the fixture
    """The page, open; light, dark and on a phone."""
    (tmp_path / "compare.html").write_text(render_comparison(comparison()), encoding="utf-8")
    look: dict[str, Any] = {
        "viewport": PHONE if request.param == "phone" else DESK,
        "color_scheme": "dark" if request.param == "dark" else "light",
    }
    with opened(browser, (tmp_path / "compare.html").as_uri(), **look) as page:
        yield page


@needs_chromium
def test_it_is_quiet_fits_its_window_and_holds_the_rules(page: Page) -> None:
    """No error, no fetch, nothing sticks out, nothing of a row acts; axe-core finds nothing."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("window.pwned === undefined")
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@needs_chromium
def test_rows_are_searched_and_chosen_by_keyboard(page: Page) -> None:
    """Both answers side by side; those that differ first."""
    shown = page.locator("[data-list=rows] [data-item]").locator("visible=true")
    assert shown.count() == 20
    assert "s_label differs" in shown.first.inner_text() or "s_note differs" in shown.first.inner_text()
    page.get_by_role("combobox", name="Rows by what differs").select_option("answered by some only")
    assert shown.count() == 1
    assert "no usable answer" in shown.first.inner_text()
    page.get_by_role("combobox", name="Rows by what differs").select_option("")
    page.locator("[data-search=rows]").focus()
    page.keyboard.type("plain says of 33:")
    assert shown.count() == 1
    assert shown.first.locator(".pair").last.locator(".text").count() == 2


def test_without_content_nothing_of_a_row_is_there() -> None:
    """Figures alone."""
    html = render_comparison(comparison(content=False))
    assert "says of" not in html
    assert "text 5" not in html
    assert "rows that agree" in html
