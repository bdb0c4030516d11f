"""The pages of the example in headless Chromium, as files, with the network cut: light, dark and on a telephone.
`SCREENSHOTS=folder` keeps pictures of all of them; `page` is the README's.
"""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from platform_tests.browser.serving import FLAGS, IN_CHROMIUM, dp, environment
from platform_tests.dashboards.declaring import page_of

from data_platform.dashboards.markup import Made, page_html
from data_platform.dashboards.queries import Rows

pytestmark = IN_CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Page

PAGES = ("operations", "pipeline", "web", "models")
WITHOUT_ROWS = ("models",)
"""Pages whose charts have no rows after two days: no model was trained."""

SCREENS: dict[str, tuple[Literal["light", "dark"], int]] = {
    "light": ("light", 1280),
    "dark": ("dark", 1280),
    "telephone": ("light", 390),
}
TOP: "FloatRect" = {"x": 0, "y": 0, "width": 1280, "height": 765}
"""The part of a page that the README shows."""

TOO_WIDE = "document.documentElement.scrollWidth > window.innerWidth"
CUT_OFF = """[...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width).flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(text => {
        const box = text.getBoundingClientRect();
        return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1);
    }).map(text => text.textContent);
})"""
"""Texts of the charts that are shown which reach beyond them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages after two days of flights."""
    home = tmp_path_factory.mktemp("home")
    told = dp("demo", "--days", "2", env=environment(home))
    assert str(home / "dashboards" / "operations.html") in told
    return home / "dashboards"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


def offline(browser: "Browser", scheme: Literal["light", "dark"], width: int) -> tuple["Page", list[str], list[str]]:
    """A window without a network; what its page says to the console, and what it asks for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, said, asked = context.new_page(), list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    return page, said, asked


def test_pages_are_whole_without_a_network_on_every_screen(folder: Path, browser: "Browser") -> None:
    for name in PAGES:
        file = folder / f"{name}.html"
        assert file.stat().st_size < 150_000
        for screen, (scheme, width) in SCREENS.items():
            page, said, asked = offline(browser, scheme, width)
            page.goto(file.as_uri())
            assert not page.evaluate(TOO_WIDE), (name, screen)
            assert page.evaluate(CUT_OFF) == [], (name, screen)
            kind = "narrow" if screen == "telephone" else "wide"
            # Those that are shown are images with names.
            assert page.get_by_role("img").count() == page.locator(f"svg.{kind}").count()
            assert (page.locator(f"svg.{kind}").count() > 0) is (name not in WITHOUT_ROWS)
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert colour == ("rgb(18, 22, 27)" if scheme == "dark" else "rgb(244, 246, 248)")
            if "SCREENSHOTS" in os.environ:
                kept = Path(os.environ["SCREENSHOTS"])
                page.screenshot(path=kept / f"{name}-{screen}.png", full_page=True)
                if (name, screen) == ("operations", "light"):
                    page.screenshot(path=kept / "page.png", clip=TOP)
            assert (said, asked) == ([], [file.as_uri()])
            page.context.close()


def small(folder: Path) -> str:
    """The address of a page with a table whose columns lack values."""
    page = page_of(folder, "type: table\ntitle: Versions\nsql: from modelled.versions")
    rows = [("v10", 2, date(2013, 1, 2)), (None, None, None), ("v2", -1, date(2013, 1, 1)), ("v1", 10**20, None)]
    found = Rows({"name": "VARCHAR", "number": "HUGEINT", "day": "DATE"}, rows)
    now = datetime.now(UTC)
    html = page_html(page, [page], [found], Made(1, now, now), "dashboards/sales", "http://127.0.0.1:3000")
    (folder / "sales.html").write_text(html)
    return (folder / "sales.html").as_uri()


def test_what_has_no_value_is_last_in_either_order_and_numbers_in_names_count(
    browser: "Browser", tmp_path: Path
) -> None:
    page = browser.new_page()
    page.goto(small(tmp_path))
    for column, up, down in (
        (1, ["v1", "v2", "v10", "–"], ["v10", "v2", "v1", "–"]),
        (2, ["-1", "2", f"{10**20:,}", "–"], [f"{10**20:,}", "2", "-1", "–"]),
        (3, ["2013-01-01", "2013-01-02", "–", "–"], ["2013-01-02", "2013-01-01", "–", "–"]),
    ):
        cells = page.locator(f"tbody tr :nth-child({column})")
        for expected in (up, down):
            page.locator(f"thead th:nth-child({column}) button").click()
            assert cells.all_inner_texts() == expected


def test_a_page_is_printed_black_on_white_though_the_screen_is_dark(browser: "Browser", tmp_path: Path) -> None:
    page, _, _ = offline(browser, "dark", 1280)
    page.goto(small(tmp_path))
    ink = "getComputedStyle(document.body).color"
    assert page.evaluate(ink) == "rgb(230, 234, 239)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ink) == "rgb(28, 36, 48)"
    assert not page.locator("nav").is_visible()
    assert page.locator("tbody tr").count() == 4


def test_the_script_sorts_tables_and_nothing_else_needs_it(folder: Path, browser: "Browser") -> None:
    address = (folder / "operations.html").as_uri()
    page = browser.new_page()
    page.goto(address)
    routes = page.get_by_role("table", name="Routes with the most flights")
    flights = routes.locator("tbody tr td:nth-child(3)")
    before = [int(text) for text in flights.all_inner_texts()]
    assert before == sorted(before, reverse=True)
    routes.get_by_role("button", name="Flights").click()
    assert [int(text) for text in flights.all_inner_texts()] == sorted(before)
    assert routes.locator("th[aria-sort=ascending]").inner_text() == "Flights"
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address)
    assert page.locator("svg.wide").first.is_visible()
    assert page.locator("thead button").count() == 0
    assert page.get_by_role("table", name="Routes with the most flights").locator("tbody tr").count() == len(before)
