"""The Dagster UI as people see it, driven in headless Chromium over a real demo: the graph, an asset's page with its
figures, a sensor that fires, a run, and a check that fails. `SCREENSHOTS=folder` keeps the pictures (the README's).
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_tests.servers import free_port

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        shutil.which("chromium") is None and "DATA_PLATFORM_NO_SKIPS" not in os.environ,
        reason="chromium is not installed: apt-get install chromium",
    ),
]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 90_000
"""Milliseconds that a page may take to show something; two cores are shared with the daemon and its runs."""


def environment(home: Path) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "PYTHONDONTWRITEBYTECODE")
    }
    return {
        **kept,
        "DATA_PLATFORM_HOME": str(home),
        "WEATHER_URL": f"http://127.0.0.1:{free_port()}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def dp(*arguments: str, env: dict[str, str]) -> None:
    done = subprocess.run(["dp", *arguments], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


class Ui:
    """A running UI over a demo of one day, and a page of a browser."""

    def __init__(self, url: str, page: object, home: Path, env: dict[str, str]) -> None:
        self.url, self.page, self.home, self.env = url, page, home, env

    def show(self, path: str, *expected: str, picture: str | None = None) -> None:
        """Open a page and wait until it shows each of the expected texts."""
        page = self.page
        page.goto(self.url + path, wait_until="domcontentloaded")  # type: ignore[attr-defined]
        self.wait_for(*expected)
        self.keep(picture)

    def wait_for(self, *expected: str) -> None:
        for text in expected:
            found = self.page.get_by_text(text).filter(visible=True).first  # type: ignore[attr-defined]
            found.wait_for(timeout=PATIENCE)

    def keep(self, picture: str | None) -> None:
        folder = os.environ.get("SCREENSHOTS")
        if picture is not None and folder is not None:
            self.page.wait_for_timeout(1500)  # type: ignore[attr-defined]
            self.page.screenshot(path=Path(folder) / f"{picture}.png")  # type: ignore[attr-defined]

    def graphql(self, query: str) -> dict[str, object]:
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            return json.load(answer)["data"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    from playwright.sync_api import sync_playwright

    home = tmp_path_factory.mktemp("home")
    env = environment(home)
    dp("demo", "--days", "1", env=env)
    port = free_port()
    with (home / "ui.log").open("w") as log:
        server = subprocess.Popen(["dp", "ui", "--port", str(port)], env=env, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while not answers(url):
            assert server.poll() is None, (home / "ui.log").read_text()
            assert time.monotonic() < until, (home / "ui.log").read_text()
            time.sleep(0.5)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1700, "height": 1050})
            yield Ui(url, page, home, env)
            browser.close()
    finally:
        server.terminate()
        server.wait(60)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5) as answer:  # noqa: S310 - loopback
            return bool(json.load(answer)["dagster_version"])
    except OSError:
        return False


def test_the_graph_leads_from_the_sources_layer_by_layer_to_the_models(ui: Ui) -> None:
    ui.show("/asset-groups", "raw_operations", "staged_operations", "raw_web", "staged_weather", "modelled")
    ui.keep("groups")
    page = ui.page
    page.mouse.click(1600, 950, button="right")  # type: ignore[attr-defined]
    page.get_by_text("Expand all groups").filter(visible=True).first.click()  # type: ignore[attr-defined]
    # What lies outside the window is not drawn.
    ui.wait_for("DuckLake", "Materialized")


def test_a_models_lineage_shows_every_table_that_it_comes_from(ui: Ui) -> None:
    ui.show("/assets/modelled/mart_weather_delay?view=lineage", "mart_weather_delay", "fct_flight", picture="lineage")


def test_an_assets_page_shows_columns_owner_rows_and_check(ui: Ui) -> None:
    ui.show("/assets/staged/operations/flights?view=overview", "scheduled_departure", "load_operations", "Row count")
    ui.keep("asset")


def test_a_check_shows_the_rules_that_were_broken_with_examples(ui: Ui) -> None:
    ui.show("/assets/staged/reference/airports?view=checks", "within tolerance", "quarantined", "consequence")


def test_an_assets_events_show_figures_and_a_sample_without_private_values(ui: Ui) -> None:
    ui.show(
        "/assets/staged/operations/bookings?view=events", "rows inserted", "(private)", "staged_operations.bookings"
    )


def test_a_new_day_is_picked_up_by_the_sensors_and_published(ui: Ui) -> None:
    before = runs(ui)
    dp("demo", "--play", "--days", "1", "--seconds", "0.1", env=ui.env)
    until = time.monotonic() + PATIENCE / 1000
    while not ({"web", "operations", "weather", "modelled"} <= sources(ui, since=before)):
        assert time.monotonic() < until, runs(ui)
        time.sleep(1)
    ui.show("/runs", "modelled_sensor", "web_sensor", "Success")
    ui.keep("runs")
    ui.show("/automation", "operations_sensor", "modelled_sensor", "daily_maintenance")


def test_a_file_that_breaks_its_contract_fails_its_check_and_changes_nothing(ui: Ui) -> None:
    airlines = ui.home / "landing" / "reference" / "airlines.csv"
    good = airlines.read_text()
    spoiled = good.replace("9E,", "endeavour,").replace("AA,", "american,").replace("B6,", "blue,").replace("DL,", "d,")
    partial = airlines.with_suffix(".part")
    partial.write_text(spoiled)
    partial.replace(airlines)
    ui.show("/assets/staged/reference/airlines?view=checks", "Failed", "break the contract", picture="check")
    rows = subprocess.run(
        ["dp", "sql", "select count(*) as n from staged_reference.airlines", "--format", "json"],
        env=ui.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(rows.stdout)[0]["n"] == len(good.splitlines()) - 1


def runs(ui: Ui) -> list[dict[str, object]]:
    data = ui.graphql("{runsOrError(limit: 100) {... on Runs {results {runId status tags {key value}}}}}")
    return data["runsOrError"]["results"]  # type: ignore[index,no-any-return]


def sources(ui: Ui, *, since: list[dict[str, object]]) -> set[str]:
    """The sources, and `modelled`, that had a successful run of a sensor since."""
    old = {run["runId"] for run in since}
    new = [run for run in runs(ui) if run["runId"] not in old and run["status"] == "SUCCESS"]
    return {tag["value"] for run in new for tag in run["tags"] if tag["key"] == "data_platform/source"}  # type: ignore[attr-defined]
