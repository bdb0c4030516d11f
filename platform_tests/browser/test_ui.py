"""The Dagster UI as people see it, driven in headless Chromium over a real demo: the graph, an asset's page with its
figures, a sensor that fires by itself, its run, and a contract check that fails. They run in the order in which they
stand: what a later test changes, an earlier one has seen. `SCREENSHOTS=folder` keeps pictures; `graph` and `check` are
the README's.
"""

import json
import os
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from platform_tests.browser.serving import FLAGS, IN_CHROMIUM, PATIENCE, dp, environment, serving, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Locator, Page

pytestmark = IN_CHROMIUM

MARGIN = 8
STILL_WITHIN = 5
"""Seconds."""
TABLES = {
    "operations": ["flights", "aircraft", "bookings"],
    "reference": ["airlines", "airports"],
    "weather": ["observations"],
    "web": ["visits"],
}
MODELS = ["dim_aircraft", "dim_airline", "dim_airport", "fct_flight", "fct_web_visit", "mart_punctuality"]
GROUPS = [f"{layer}_{source}" for layer in ("raw", "staged") for source in TABLES] + ["modelled"]
NARROW = {"dagster-nav-collapsed": "true"}
"""What the UI remembers in the browser when somebody has hidden the navigation."""
EXPANDED = {
    **NARROW,
    "asset-node-facets": json.dumps(["checks", "status"]),
    "asset-graph-open-graph-nodes-global-__GLOBAL__": json.dumps(
        {"expanded": ",".join(f"global@global:{group}" for group in GROUPS)}
    ),
}
"""As well, when the groups were expanded and the assets are to show their names and states alone."""


@dataclass(frozen=True)
class Ui:
    """A running UI over a demo of one day, and a browser."""

    url: str
    browser: "Browser"
    home: Path
    env: Mapping[str, str]

    def show(
        self, path: str, *, width: int = 1000, height: int = 800, remembered: Mapping[str, str] = NARROW
    ) -> "Page":
        """A page of the UI in a fresh browser window, sharp enough for a picture; the window before it is closed."""
        # An open page asks the server for news all the time.
        for before in self.browser.contexts:
            before.close()
        context = self.browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=1.3)
        context.set_default_timeout(PATIENCE * 1000)
        entries = [f"localStorage.setItem({json.dumps(name)}, {json.dumps(to)});" for name, to in remembered.items()]
        context.add_init_script("".join(entries))
        page = context.new_page()
        page.goto(self.url + path, wait_until="domcontentloaded")
        return page

    def graphql(self, query: str) -> Any:
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            return json.load(answer)["data"]

    def dp(self, *arguments: str) -> str:
        """Run a command beside the UI; its output."""
        return dp(*arguments, env=self.env)


def wait_for(page: "Page", *expected: str) -> None:
    """Wait until a page shows each of the texts."""
    for text in expected:
        page.get_by_text(text).filter(visible=True).first.wait_for()


def keep(page: "Page", picture: str, around: str | None = None) -> None:
    """Keep a picture of a page, or of its part around the elements of a CSS selector, if SCREENSHOTS names a folder:
    as soon as it stands still, and as it is where a clock in it never does."""
    if "SCREENSHOTS" not in os.environ:
        return
    # Over anything else the mouse would bring up its tooltip.
    page.mouse.move(0, 0)
    before, shot = b"", b"none yet"
    until = time.monotonic() + STILL_WITHIN
    while shot != before and time.monotonic() < until:
        clip = bounds(page, around) if around is not None else None
        before, shot = shot, page.screenshot(animations="disabled", clip=clip)
    folder = Path(os.environ["SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{picture}.png").write_bytes(shot)


def bounds(page: "Page", selector: str) -> "FloatRect":
    """The smallest rectangle that holds all elements of a CSS selector, and a margin."""
    boxes = [box for one in page.locator(selector).all() if (box := one.bounding_box()) is not None]
    left, top = min(box["x"] for box in boxes) - MARGIN, min(box["y"] for box in boxes) - MARGIN
    right = max(box["x"] + box["width"] for box in boxes) + MARGIN
    bottom = max(box["y"] + box["height"] for box in boxes) + MARGIN
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    from playwright.sync_api import sync_playwright

    home = tmp_path_factory.mktemp("home")
    env = environment(home)
    dp("demo", "--days", "1", env=env)
    with serving(home, env) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield Ui(url, browser, home, env)
        browser.close()


def drawn(page: "Page", name: str) -> "Locator":
    """What the graph shows by a name. Its sidebar, which lists the groups too, is no part of it."""
    return page.locator("foreignObject").filter(has_text=re.compile(rf"^\W*{name}"))


def test_the_graph_shows_every_group_and_leads_from_raw_to_staged_to_the_models(ui: Ui) -> None:
    page = ui.show("/asset-groups", width=1400, height=760)
    for group in [*GROUPS, "platform"]:
        drawn(page, group).first.wait_for()
    keep(page, "groups")


def test_the_expanded_graph_shows_every_table_of_every_layer(ui: Ui) -> None:
    from playwright.sync_api import expect

    # What lies outside the window is not drawn: as tall as the graph.
    page = ui.show("/asset-groups", width=1270, height=1500, remembered=EXPANDED)
    for group in [*GROUPS, "platform"]:
        drawn(page, group).first.wait_for()
    for table in [table for tables in TABLES.values() for table in tables]:
        expect(drawn(page, table)).to_have_count(2, timeout=PATIENCE * 1000)
    for model in MODELS:
        expect(drawn(page, model)).to_have_count(1, timeout=PATIENCE * 1000)
    keep(page, "graph", "foreignObject")


def test_a_models_lineage_shows_the_tables_that_it_is_built_from(ui: Ui) -> None:
    page = ui.show("/assets/modelled/mart_weather_delay?view=lineage")
    for name in ("mart_weather_delay", "fct_flight", "observations"):
        drawn(page, name).first.wait_for()
    keep(page, "lineage")


def test_an_assets_page_shows_rows_columns_with_their_rules_owner_and_check(ui: Ui) -> None:
    page = ui.show("/assets/staged/operations/flights?view=overview", width=1400, height=900)
    wait_for(
        page, "Row count", "Latest check results", "One scheduled flight", "IATA code of the airline", "non-nullable"
    )
    wait_for(
        page, "team:operations" if page.get_by_text("team:operations").count() else "operations", "operations_sensor"
    )
    keep(page, "asset")


def test_an_assets_events_show_figures_and_a_sample_without_private_values(ui: Ui) -> None:
    page = ui.show("/assets/staged/operations/bookings?view=events", width=1400, height=1000)
    wait_for(page, "rows inserted", "rows quarantined", "staged_operations.bookings", "(private)")
    keep(page, "events")


def test_a_check_that_passed_shows_the_rules_that_rows_in_quarantine_broke(ui: Ui) -> None:
    page = ui.show("/assets/staged/reference/airports?view=checks")
    wait_for(page, "Passed", "within tolerance", "rows quarantined", "at most 90", "consequence")
    keep(page, "tolerated")


def launched(ui: Ui) -> dict[str, dict[str, Any]]:
    """The runs that sensors of the running UI asked for, by their ids."""
    data = ui.graphql("{runsOrError(limit: 100) {... on Runs {results {runId status tags {key value}}}}}")
    runs = {
        run["runId"]: {**run, **{tag["key"]: tag["value"] for tag in run["tags"]}}
        for run in data["runsOrError"]["results"]
    }
    return {run_id: run for run_id, run in runs.items() if "dagster/sensor_name" in run and "dagster/tick" in run}


def succeeded(ui: Ui) -> dict[str, str]:
    """The latest successful run of each sensor."""
    runs = [run for run in launched(ui).values() if run["status"] == "SUCCESS"]
    return {run["dagster/sensor_name"]: run["runId"] for run in reversed(runs)}


def test_a_sensor_fires_by_itself_when_a_day_has_passed_and_the_models_follow(ui: Ui) -> None:
    assert launched(ui) == {}
    ui.dp("demo", "--play", "--days", "1", "--seconds", "0")
    sensors = {"web_sensor", "operations_sensor", "weather_sensor", "modelled_sensor"}
    wait_until(lambda: sensors <= set(succeeded(ui)), lambda: launched(ui))
    page = ui.show("/automation")
    wait_for(page, *sensors, "daily_maintenance")
    # How long ago the run began that each sensor asked for last.
    page.wait_for_function(f"() => document.body.innerText.split(' ago').length > {len(sensors)}")
    keep(page, "automation")
    page = ui.show("/locations/nyc_flights/sensors/web_sensor", height=1200)
    wait_for(page, "1 run requested", "0 runs requested")
    keep(page, "sensor")


def test_the_run_that_the_sensor_asked_for_shows_what_it_did(ui: Ui) -> None:
    page = ui.show("/runs", width=1400)
    wait_for(page, "web_sensor", "modelled_sensor", "Success")
    keep(page, "runs")
    page = ui.show(f"/runs/{succeeded(ui)['web_sensor']}", width=1400)
    wait_for(page, "Success", "staged__web__visits", "web_sensor")
    keep(page, "run")


def test_a_delivery_that_breaks_its_contract_fails_its_check_and_the_table_is_served_as_it_was(ui: Ui) -> None:
    served = airlines(ui)
    assert len(served) == 16
    spoil(ui.home / "landing" / "reference" / "airlines.csv")
    page = ui.show("/assets/staged/reference/airlines?view=checks", width=1200, height=740)
    wait_for(page, "Failed", "5 of 16 rows break the contract", "allows 20%", "The staged table is as it was")
    wait_for(page, "3 rows, such as 'ENDEAVOR'", "violations", "consequence", "length 1 to 100")
    keep(page, "check")
    assert airlines(ui) == served
    page = ui.show("/assets/staged/reference/airlines?view=overview", width=1400)
    wait_for(page, "Latest materialization", "ago", "Latest check results", "Row count", "16", "reference_sensor")
    keep(page, "refused")


def airlines(ui: Ui) -> list[dict[str, str]]:
    """The airlines as readers see them, staged and published."""
    columns = {"staged_reference.airlines": "carrier, name", "modelled.dim_airline": "carrier, airline_name AS name"}
    queries = [f"SELECT {chosen} FROM {table} ORDER BY ALL" for table, chosen in columns.items()]
    staged, published = (json.loads(ui.dp("sql", query, "--format", "json")) for query in queries)
    assert staged == published
    rows: list[dict[str, str]] = staged
    return rows


def spoil(delivery: Path) -> None:
    """Deliver the airlines anew: three carriers spelled out, two without a name."""
    text = delivery.read_text().replace("9E,", "ENDEAVOR,").replace("AA,", "AMERICAN,").replace("B6,", "JETBLUE,")
    partial = delivery.with_suffix(".part")
    partial.write_text(re.sub(r"(?m)^(UA|VX),.*$", r"\1,", text))
    partial.replace(delivery)


def test_the_demos_runs_are_on_the_timeline_and_under_their_jobs_by_name(ui: Ui) -> None:
    jobs = ("load_operations", "load_reference", "load_weather", "load_web", "build_models")
    page = ui.show("/overview/timeline", width=1200)
    wait_for(page, "nyc_flights", *jobs)
    assert page.get_by_text("No runs").count() == 0
    keep(page, "timeline")
    page = ui.show("/jobs", width=1200)
    wait_for(page, *jobs, "full_audit", "maintenance")
    page.wait_for_function("() => document.body.innerText.split(' ago').length > 5")
    keep(page, "jobs")
    page = ui.show("/locations/nyc_flights/jobs/load_web/runs", width=1200)
    wait_for(page, "Success")
    keep(page, "job")


def test_the_launchpad_has_the_options_of_the_steps_and_nothing_internal(ui: Ui) -> None:
    page = ui.show("/locations/nyc_flights/jobs/load_web/playground", width=1200)
    wait_for(page, "full_refresh", "rebuild", "No errors")
    assert page.get_by_text("memory").count() == 0
    keep(page, "launchpad")


def test_quarantined_rows_and_their_reasons_are_in_the_checks_page(ui: Ui) -> None:
    page = ui.show("/assets/staged/operations/bookings?view=checks", width=1500, height=1200)
    wait_for(page, "in quarantine, the latest", "dp quarantine replay operations/bookings", "not a number")
    text = page.inner_text("body")
    assert '"passenger_name":"(private)"' in text.replace(" ", "")
    keep(page, "quarantine")


def test_a_raw_tables_columns_say_what_becomes_of_them_and_a_model_has_no_sql(ui: Ui) -> None:
    page = ui.show("/assets/raw/operations/bookings?view=overview", width=1400, height=1100)
    wait_for(page, "hashed before the first", "Staged as", "sales", "load_operations")
    keep(page, "raw")
    page = ui.show("/assets/modelled/fct_flight?view=overview", width=1400)
    wait_for(page, "Flights, one row for each scheduled leg", "analytics", "build_models")
    assert page.get_by_text("Raw SQL").count() == 0
    keep(page, "model")


def test_a_source_that_is_gone_shows_on_its_tables_and_is_over_when_it_is_back(ui: Ui) -> None:
    database, away = ui.home / "operations.sqlite", ui.home / "away.sqlite"
    database.rename(away)
    try:
        page = ui.show("/assets/raw/operations/flights?view=checks&checkDetail=reachable", width=1200)
        wait_for(page, "The source has not answered since", "It fails if that lasts", "does not exist")
        keep(page, "unreachable")
    finally:
        away.rename(database)
    wait_for(page, "The source answers.")


def test_the_terminal_stays_quiet_whatever_runs(ui: Ui) -> None:
    (line,) = (ui.home / "ui.log").read_text().splitlines()
    assert line.startswith(ui.url)
    assert "RUN_SUCCESS" in (ui.home / "dagster" / "ui.log").read_text()
