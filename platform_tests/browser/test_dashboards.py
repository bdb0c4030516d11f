"""The pages of the example in headless Chromium, as files, with the network cut: light, dark and on a telephone.
`SCREENSHOTS=folder` keeps pictures of all of them; `page` is the README's.
"""

import os
import shutil
from pathlib import Path

import pytest
from platform_tests.browser.serving import FLAGS, IN_CHROMIUM, dp, environment

pytestmark = IN_CHROMIUM

PAGES = ("operations", "pipeline", "web")
SCREENS = {"light": ("light", 1280), "dark": ("dark", 1280), "telephone": ("light", 390)}
TOP = {"x": 0, "y": 0, "width": 1280, "height": 765}
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


def test_pages_are_whole_without_a_network_on_every_screen(folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name in PAGES:
            assert (folder / f"{name}.html").stat().st_size < 150_000
            for screen, (scheme, width) in SCREENS.items():
                context = browser.new_context(
                    viewport={"width": width, "height": 900},
                    color_scheme="dark" if scheme == "dark" else "light",
                    offline=True,
                )
                page = context.new_page()
                said, asked = list[str](), list[str]()
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("pageerror", lambda error, said=said: said.append(str(error)))
                page.on("request", lambda request, asked=asked: asked.append(request.url))
                page.goto((folder / f"{name}.html").as_uri())
                assert asked == [(folder / f"{name}.html").as_uri()]
                assert not page.evaluate(TOO_WIDE), (name, screen)
                assert page.evaluate(CUT_OFF) == [], (name, screen)
                kind = "narrow" if screen == "telephone" else "wide"
                charts = page.get_by_role("img")  # those that are shown have names and descriptions
                assert charts.count() == page.locator(f"svg.{kind}").count() > 0
                colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert colour == ("rgb(18, 22, 27)" if scheme == "dark" else "rgb(244, 246, 248)")
                if "SCREENSHOTS" in os.environ:
                    kept = Path(os.environ["SCREENSHOTS"])
                    kept.mkdir(parents=True, exist_ok=True)
                    page.screenshot(path=kept / f"{name}-{screen}.png", full_page=True)
                    if (name, screen) == ("operations", "light"):
                        page.screenshot(path=kept / "page.png", clip=TOP)
                assert said == []
                context.close()
        # Sorted by the script, which is the page's own.
        page = browser.new_page()
        page.goto((folder / "operations.html").as_uri())
        routes = page.get_by_role("table", name="Routes with the most flights").locator("tbody tr")
        flights = [int(text) for text in routes.locator("td:nth-child(3)").all_inner_texts()]
        assert flights == sorted(flights, reverse=True)
        page.get_by_role("button", name="Flights", exact=True).first.click()
        again = [int(text) for text in routes.locator("td:nth-child(3)").all_inner_texts()]
        assert again == sorted(flights)
        # Without the script the page lacks nothing else.
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto((folder / "operations.html").as_uri())
        assert page.locator("svg.wide").first.is_visible()
        assert page.locator("thead button").count() == 0
        browser.close()
