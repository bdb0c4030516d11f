"""The component `Dashboards`: pages as assets after the tables that they show, what its sensor asks for, what a mistake
is said to be, and the pages as `dp` shows them."""

import json
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop, failures, materialized, names_of
from platform_tests.dashboards.declaring import chart, write_page
from typer.testing import CliRunner

from data_platform.cli.app import app
from data_platform.components.dashboards import pages_of, state_of
from data_platform.components.execution import executable_keys, in_runs, select
from data_platform.components.ownership import refusals
from data_platform.components.platform import broken_sources
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.lakehouse.transaction import commit

SALES, FLOW = "dashboards/sales", "dashboards/flow"
SENSOR = "dashboards_sensor"
TOTALS = "select 'no ' || order_id as number, total from staged_shop.orders order by order_id"
LOADS = "type: table\ntitle: Loads\nsql: select table_name, rows_read from platform.loads"


def add_pages(shop: Shop, *blocks: str, folder: str = "pages") -> Path:
    """A folder with the page `sales` of these blocks; its `defs.yaml` is the last file to be written."""
    pages = shop.package / "defs" / folder
    pages.mkdir(exist_ok=True)
    (pages / "__init__.py").touch()
    write_page(pages, *(blocks or [chart("bar", TOTALS, x="total", y="number")]))
    (pages / "defs.yaml").write_text("type: data_platform.components.Dashboards\nattributes: {every: 5s}\n")
    return pages


def reason(shop: Shop) -> str:
    return broken_sources(shop.package)["pages"]


def test_pages_come_after_their_tables_and_are_built_when_those_have_newer_rows(shop: Shop) -> None:
    write_page(add_pages(shop), LOADS, title="Flow", name="flow")
    graph = shop.definitions.resolve_asset_graph()
    assert names_of(sorted(graph.get(dg.AssetKey(SALES.split("/"))).parent_keys)) == ["staged/shop/orders"]
    assert names_of(sorted(graph.get(dg.AssetKey(FLOW.split("/"))).parent_keys)) == []
    assert "latest rows" in str(shop.tick(SENSOR))  # nothing is there to be shown
    assert shop.run(*PRODUCTS).success
    assert names_of(shop.tick(SENSOR).asset_selection) == [FLOW]
    assert shop.run(*ORDERS).success
    request = shop.tick(SENSOR)
    assert sorted(names_of(request.asset_selection)) == [FLOW, SALES]
    said = materialized(shop.follow(request))
    assert said[SALES]["file"] == str(shop.folder / "dashboards" / "sales.html")
    assert said[SALES]["page"] == "http://127.0.0.1:3000/pages/sales.html"
    assert (said[SALES]["rows shown"], said[SALES]["blocks without rows"]) == (3, "none")
    text = (shop.folder / "dashboards" / "sales.html").read_text()
    assert 'href="flow.html"' in text
    assert ">no 3<" in text
    assert f"snapshot {said[SALES]['snapshot']} of the lakehouse" in text
    assert "latest rows" in str(shop.tick(SENSOR))
    shop.execute("insert into products values (?, ?)", [("cup", 3.0)])
    assert shop.run(*PRODUCTS).success
    assert names_of(shop.tick(SENSOR).asset_selection) == [FLOW]  # of the other's tables none has changed
    with open_lakehouse(settings_from_environment()) as lake, lake.reading():
        before = state_of(lake, pages_of(shop.package / "defs" / "pages")[0])
    change = ledger.StageChange("m", 1, "production", datetime.now(UTC), "ann", "why")
    with open_lakehouse(settings_from_environment()) as lake:
        commit(lake, lambda connection: ledger.record_stage(connection, change))
        with lake.reading():
            assert state_of(lake, pages_of(shop.package / "defs" / "pages")[0]) != before


def test_a_page_that_was_changed_is_built_again_and_one_that_fails_says_where(shop: Shop) -> None:
    pages = add_pages(shop, f"type: table\ntitle: Orders\nsql: {TOTALS}")
    defs = pages / "defs.yaml"
    defs.write_text(defs.read_text().replace("{every", "{ui: https://data.example.com/lake/, every"))
    assert shop.run(*ORDERS).success
    said = materialized(shop.follow(shop.tick(SENSOR)))
    assert said[SALES]["page"] == "https://data.example.com/lake/pages/sales.html"
    text = (shop.folder / "dashboards" / "sales.html").read_text()
    assert 'href="https://data.example.com/lake/assets/staged/shop/orders"' in text
    before = (shop.folder / "dashboards" / "sales.html").read_bytes()
    write_page(pages, "type: table\ntitle: Orders\nsql: |\n  select order_id,\n    totl\n  from staged_shop.orders")
    shop.__dict__.pop("definitions")
    failed = failures(shop.follow(shop.tick(SENSOR)))
    assert failed["dashboards__sales"].startswith(f"{pages / 'sales.yaml'}:7: Binder Error")
    assert "staged_shop.orders has: order_id," in failed["dashboards__sales"]
    assert (shop.folder / "dashboards" / "sales.html").read_bytes() == before


@pytest.mark.parametrize(
    ("block", "line", "said"),
    [
        ("type: table\ntitle: T\nsql: from staged_shop.order", 5, "no table staged_shop.order. Did you mean orders?"),
        ("type: table\ntitle: T\nsql: from staged_shp.orders", 5, "no schema staged_shp. Did you mean staged_shop?"),
        ("type: table\ntitle: T\nsql: from modelled.mart_sales", 5, "There is: nothing."),
        ("type: table\ntitle: T\nsql: select email from staged_shop.orders", 5, "names email, which is private"),
        ("type: table\ntitle: T\nsql: select record from quarantine_shop.orders", 5, "names record, which is private"),
        ("type: chart\ntitle: T\nsql: select 1\nchart: pie\nx: a\ny: b\nalt: c", 6, "chart: must be 'line', 'bar' or"),
        ("type: chart\ntitle: T\nsql: select 1\nchart: bar\nx: a\ny: b", 3, "the key 'alt' is missing (What the chart"),
        ("type: tabel\ntitle: T", 3, "there is no type 'tabel'. Did you mean 'table'?"),
        ("type: table\ntitle: T\nsql: select 1\nrow: 4", 6, "unknown key 'row'. Did you mean 'rows'?"),
    ],
)
def test_a_mistake_in_a_page_is_named_by_file_and_line_when_definitions_load(
    shop: Shop, block: str, line: int, said: str
) -> None:
    file = add_pages(shop, block) / "sales.yaml"
    assert f"{file}:{line}: " in reason(shop)
    assert said in reason(shop)


def test_a_folder_without_a_page_and_a_write_page_an_odd_name_are_refused(shop: Shop) -> None:
    pages = add_pages(shop)
    (pages / "sales.yaml").rename(pages / "Sales 2.yaml")
    with pytest.raises(PlatformError, match=r"'Sales 2' cannot be one: lower case letters"):
        pages_of(pages)
    (pages / "Sales 2.yaml").write_text("")
    with pytest.raises(PlatformError, match=r"Sales 2.yaml: it is empty. It needs `title:` and `blocks:`"):
        pages_of(pages)
    (pages / "Sales 2.yaml").unlink()
    assert "has no page: each is a YAML file beside defs.yaml" in reason(shop)


def test_two_pages_of_one_name_are_refused(shop: Shop) -> None:
    first, second = add_pages(shop), add_pages(shop, folder="panels")
    assert list(refusals(shop.package)) == [second]
    assert str(first / "sales.yaml") in refusals(shop.package)[second]


def test_dp_lists_pages_says_where_one_lies_and_runs_none_by_a_source_s_name(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_page(add_pages(shop), LOADS, title="Shop", name="shop")
    keys = executable_keys(shop.definitions)
    assert "dashboards/shop" not in names_of(select(keys, ["shop"]))
    assert not [name for name in names_of(select(keys, [])) if name.startswith("dashboards")]
    assert in_runs(select(keys, ["dashboards", "shop"]))[-1][0] == "dashboards"
    monkeypatch.setattr("data_platform.components.workspace.platform_package", lambda name=None: shop.package)
    monkeypatch.setenv("DAGSTER_HOME", str(shop.folder / "dagster"))

    def dp(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(arguments))
        return done.exit_code, done.output

    assert dp("dashboards")[1].split("\n")[1].split() == ["sales", "Sales", "never", "not", "built", "yet"]
    assert "was not built yet. Build it: dp run dashboards" in dp("dashboards", "sales")[1]
    assert "There are: sales, shop" in dp("dashboards", "sale")[1]
    file = shop.folder / "dashboards" / "sales.html"
    file.parent.mkdir()
    file.touch()
    assert dp("dashboards", "sales") == (0, f"{file}\n")
    opened = list[str]()

    def launch(url: str) -> int:
        opened.append(url)
        return 0

    monkeypatch.setattr("typer.launch", launch)
    assert dp("dashboards", "--open") == (0, f"{file}\n")
    assert opened == [file.as_uri()]
    found = json.loads(dp("dashboards", "--json")[1])
    assert [(one["page"], one["title"], bool(one["built_at"])) for one in found] == [
        ("sales", "Sales", True),
        ("shop", "Shop", False),
    ]


def test_dp_drafts_a_first_page_that_passes_all_checks_and_writes_nothing_otherwise(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_platform.components.workspace.platform_package", lambda name=None: shop.package)
    monkeypatch.setenv("DAGSTER_HOME", str(shop.folder / "dagster"))
    pages = shop.package / "defs" / "dashboards"

    def add_page(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["add", "page", *arguments])
        return done.exit_code, " ".join(done.output.split())

    assert shop.run(*ORDERS).success
    assert "cannot name a page" in add_page("Sales 2")[1]
    assert (
        "There is no table staged/shop/order. The closest: staged_shop.orders"
        in add_page("sales", "--table", "staged/shop/order")[1]
    )
    assert not pages.exists()
    code, said = add_page("sales", "--table", "staged/shop/orders", "--title", "Sales: all & <more>")
    assert (code, "dp run dashboards/sales" in said) == (0, True), said
    assert add_page("tables")[0] == 0
    before = (pages / "sales.yaml").read_bytes()
    code, said = add_page("sales")
    assert (code, "is the page sales already. Nothing was changed" in said) == (1, True)
    assert (pages / "sales.yaml").read_bytes() == before
    assert b"customer" not in before  # private
    assert b"email" not in before  # masked
    shop.__dict__.pop("definitions", None)
    assert broken_sources(shop.package) == {}
    said_of = materialized(shop.follow(shop.tick(SENSOR)))
    assert set(said_of) == {SALES, "dashboards/tables"}
    assert "Sales: all &amp; &lt;more&gt;" in (shop.folder / "dashboards" / "sales.html").read_text()


def test_a_draft_is_not_written_into_a_folder_of_something_else(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_platform.components.workspace.platform_package", lambda name=None: shop.package)
    monkeypatch.setenv("DAGSTER_HOME", str(shop.folder / "dagster"))
    (shop.package / "defs" / "dashboards").mkdir()
    done = CliRunner().invoke(app, ["add", "page", "tables"])
    assert (done.exit_code, "holds no pages. Nothing was changed" in " ".join(done.output.split())) == (1, True)
    assert list((shop.package / "defs" / "dashboards").iterdir()) == []
