"""The pages of the example in headless Chromium, as files, with the network cut: light, dark and on a telephone.
`SCREENSHOTS=folder` keeps pictures of all of them; `page` is the README's.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from platform_tests.browser.serving import FLAGS, IN_CHROMIUM, dp, environment

pytestmark = IN_CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Page

PAGES = ("operations", "pipeline", "web")
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
            assert page.get_by_role("img").count() == page.locator(f"svg.{kind}").count() > 0
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert colour == ("rgb(18, 22, 27)" if scheme == "dark" else "rgb(244, 246, 248)")
            if "SCREENSHOTS" in os.environ:
                kept = Path(os.environ["SCREENSHOTS"])
                page.screenshot(path=kept / f"{name}-{screen}.png", full_page=True)
                if (name, screen) == ("operations", "light"):
                    page.screenshot(path=kept / "page.png", clip=TOP)
            assert (said, asked) == ([], [file.as_uri()])
            page.context.close()


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
