"""A source that is read by its log of changes, as a platform has it: `changes: true`, runs, sensor, check, commands."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from platform_tests.components.shop import checks, failures, names_of
from platform_tests.databases import Database, with_mariadb
from platform_tests.servers import running_mariadb
from typer.testing import CliRunner

from data_platform.cli.app import app
from data_platform.components.keys import SOURCE_LOG
from data_platform.components.platform import platform_definitions
from data_platform.components.sql import SqlSourceOptions
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment

CONTRACTS = '''
from data_platform.contracts import Contract, Field


class Order(Contract):
    """An order."""

    id: int = Field(unique=True)
    note: str = Field(nullable=True)
    body: str = Field(nullable=True)


class Line(Contract):
    """A line of an order."""

    id: int = Field(unique=True)
    order_id: int = Field(description="the order")
'''

DEFS = """
type: data_platform.components.SqlSource
attributes:
  url: "{{{{ env.SHOP_URL }}}}"
  every: 5s
  changes: true
  tables:
    orders: {{key: [id], contract: {name}.defs.shop.contracts.Order, history: true}}
    items: {{key: [id], contract: {name}.defs.shop.contracts.Line}}
"""

ALL = ["raw/shop/items", "raw/shop/orders", "staged/shop/items", "staged/shop/orders"]


@dataclass
class Shop:
    """A platform with one source, of which every change is read."""

    folder: Path
    database: Database
    instance: dg.DagsterInstance
    name: str = "changing_shop"

    def definitions(self) -> dg.Definitions:
        return platform_definitions(self.folder / self.name)

    def run(self, *names: str, **config: Any) -> dg.ExecuteInProcessResult:
        given = {"ops": {"raw__shop__changes": {"config": config}}} if config else {}
        return (
            self.definitions()
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, **given},
                instance=self.instance,
                asset_selection=[dg.AssetKey(name.split("/")) for name in names or ALL],
                raise_on_error=False,
            )
        )

    def tick(self) -> Any:
        (sensor,) = (one for one in self.definitions().sensors or () if one.name == "shop_sensor")
        assert isinstance(sensor, dg.SensorDefinition)
        with dg.build_sensor_context(instance=self.instance) as context:
            told = sensor.evaluate_tick(context)
        return names_of(told.run_requests[0].asset_selection) if told.run_requests else told.skip_message

    def query(self, query: str) -> list[tuple[Any, ...]]:
        with open_lakehouse(settings_from_environment()) as lake:
            return lake.connection.execute(query).fetchall()

    def staged(self) -> tuple[list[Any], list[Any]]:
        orders = self.query("SELECT id, note FROM staged_shop.orders ORDER BY id")
        return orders, self.query("SELECT id, order_id FROM staged_shop.items ORDER BY id")


@pytest.fixture(params=["postgresql", pytest.param("mysql", marks=with_mariadb)])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database on a server that keeps a log."""
    if request.param == "postgresql":
        yield request.getfixturevalue("postgres_url")
        return
    server = request.getfixturevalue("mariadb")
    yield f"{server}/shop"


@pytest.fixture(scope="module")
def mariadb(home: Path) -> Iterator[str]:
    with running_mariadb() as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path, home: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    (home / "extensions").mkdir(exist_ok=True)
    (tmp_path / "extensions").symlink_to(home / "extensions")
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("LAKEHOUSE_CATALOG", str(tmp_path / "catalog.sqlite"))
    monkeypatch.setenv("LAKEHOUSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DATA_PLATFORM_STRICT", "1")
    monkeypatch.setenv("SHOP_URL", url)
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda policy, attempt: 0)
    monkeypatch.syspath_prepend(str(tmp_path))
    if mysql := url.startswith("mysql"):
        Database(url.replace("/shop", "/mysql"), settings_from_environment()).run(
            "drop database if exists shop", "create database shop"
        )
    database = Database(url, settings_from_environment())
    database.run(
        f"create table orders (id int primary key, note varchar(100), body {'longtext' if mysql else 'text'})",
        "create table items (id int primary key, order_id int not null)",
        "insert into orders (id, note) values (1, 'one'), (2, 'two')",
        "insert into items values (10, 1), (20, 2)",
    )
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(tmp_path, database, instance, f"changing_{uuid.uuid4().hex[:8]}")
        source = tmp_path / shop.name / "defs" / "shop"
        source.mkdir(parents=True)
        for folder in (source, source.parent, source.parent.parent):
            (folder / "__init__.py").touch()
        (source / "contracts.py").write_text(CONTRACTS)
        (source / "defs.yaml").write_text(DEFS.format(name=shop.name))
        yield shop
    if database.kind == "postgresql":
        database.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active")
    database.close()


def test_every_change_of_all_tables_is_followed_from_the_first_copy_on(shop: Shop) -> None:
    assert sorted(shop.tick()) == ALL
    first = shop.run()
    assert failures(first) == {}
    assert shop.staged() == ([(1, "one"), (2, "two")], [(10, 1), (20, 2)])
    assert shop.tick() == "Nothing new in orders, items."
    shop.database.run(
        "insert into orders (id, note) values (3, 'three')",
        "update orders set note = 'eins' where id = 1",
        "delete from items where order_id = 2",
        "delete from orders where id = 2",
    )
    assert sorted(shop.tick()) == ALL
    assert failures(shop.run()) == {}
    assert shop.staged() == ([(1, "eins"), (3, "three")], [(10, 1)])
    assert shop.query("SELECT _operation, count(*) FROM raw_shop.orders GROUP BY ALL ORDER BY ALL") == [
        ("delete", 1),
        ("insert", 3),
        ("update", 1),
    ]
    history = shop.query("SELECT id, note, is_current FROM staged_shop.orders_history ORDER BY id, valid_from")
    assert history == [(1, "one", False), (1, "eins", True), (2, "two", False), (3, "three", True)]
    assert shop.query("SELECT count(*) FROM raw_shop.orders WHERE _committed_at IS NOT NULL") == [(3,)]


def test_a_full_refresh_copies_all_tables_anew_and_goes_on_from_there(shop: Shop) -> None:
    shop.run()
    shop.database.run("delete from orders where id = 1")
    assert failures(shop.run(full_refresh=True)) == {}
    assert shop.staged()[0] == [(2, "two")]
    shop.database.run("insert into orders (id, note) values (4, 'four')")
    assert failures(shop.run()) == {}
    assert shop.staged()[0] == [(2, "two"), (4, "four")]


def test_the_check_of_what_the_source_keeps_is_on_the_first_table_and_passes(shop: Shop) -> None:
    found = {one.check_name: one for one in shop.run().get_asset_check_evaluations() if one.check_name == SOURCE_LOG}
    assert found[SOURCE_LOG].passed
    assert found[SOURCE_LOG].asset_key == dg.AssetKey(["raw", "shop", "orders"])
    assert "keeps" in str(found[SOURCE_LOG].description)


def test_a_table_that_is_refused_holds_all_of_the_reading_and_nothing_is_lost(shop: Shop) -> None:
    shop.run()
    shop.database.run(
        "alter table orders add column extra int", "insert into orders (id, note, extra) values (5, 'five', 1)"
    )
    source = shop.folder / shop.name / "defs" / "shop" / "defs.yaml"
    before = source.read_text()
    source.write_text(before.replace("history: true", "history: true, drift: refuse"))
    refused = shop.run("raw/shop/orders", "raw/shop/items")
    assert "shop/orders has new column extra" in failures(refused)["raw__shop__changes"]
    assert not checks(refused)["raw/shop/items"][0]
    source.write_text(before)
    assert failures(shop.run()) == {}
    assert shop.staged()[0][-1] == (5, "five")


def test_a_large_value_that_an_update_does_not_repeat_stays_in_the_staged_row(shop: Shop) -> None:
    large = "x" * 100_000
    shop.database.run(
        *(["alter table orders alter body set storage external"] if shop.database.kind == "postgresql" else []),
        f"insert into orders values (7, 'seven', '{large}'), (8, 'eight', '{large}')",
    )
    shop.run()
    shop.database.run(
        "update orders set note = 'sieben' where id = 7",
        "update orders set id = 9 where id = 8",
        "update orders set note = 'neun' where id = 9",
    )
    assert failures(shop.run()) == {}
    assert shop.staged()[0][2:] == [(7, "sieben"), (9, "neun")]
    if shop.database.kind == "postgresql":
        assert shop.query("SELECT count(*) FROM raw_shop.orders WHERE len(_unchanged) > 0")[0][0] > 0
    assert shop.query("SELECT id, len(body) FROM staged_shop.orders WHERE id > 6 ORDER BY id") == [
        (7, len(large)),
        (9, len(large)),
    ]


def test_dp_changes_shows_what_is_kept_and_drops_what_is_ours(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    (shop.folder / "workspace.yaml").write_text(
        f"load_from:\n  - python_module: {{module_name: {shop.name}.definitions, working_directory: .}}\n"
    )
    monkeypatch.setattr("data_platform.components.workspace.platform_of", lambda *_: shop.folder / shop.name)
    shop.run()
    listed = CliRunner().invoke(app, ["changes", "list", "shop"])
    assert listed.exit_code == 0, listed.output
    dropped = CliRunner().invoke(app, ["changes", "drop", "shop", "--yes"])
    assert dropped.exit_code == 0, dropped.output
    if shop.database.kind == "mysql":
        assert "binary log" in listed.output
        assert "The platform made nothing at shop" in dropped.output
        return
    assert "replication slot" in listed.output
    assert "Removed: " in dropped.output
    assert shop.database.rows("select count(*) from pg_replication_slots where slot_name like '%shop%'") == [(0,)]
    shop.database.run("insert into orders (id, note) values (6, 'six')")
    failed = shop.run()
    assert "--full-refresh" in failures(failed)["raw__shop__changes"]
    assert failures(shop.run(full_refresh=True)) == {}
    assert shop.staged()[0][-1] == (6, "six")


@pytest.mark.parametrize(
    ("table", "option"),
    [({"cursor": {"column": "id"}}, "cursor"), ({"newest_by": "id"}, "newest_by")],
)
def test_options_of_another_way_of_reading_are_refused(table: dict[str, Any], option: str) -> None:
    given = {"url": "postgresql://x", "changes": True, "tables": {"orders": {"contract": "c", "key": ["id"], **table}}}
    with pytest.raises(ValueError, match=f"the table orders has `{option}`, and the source is read by its log"):
        SqlSourceOptions.model_validate(given)
    assert SqlSourceOptions.model_validate({**given, "changes": False}).changes is None


def test_a_database_without_a_log_is_refused_when_it_is_opened(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHOP_URL", f"sqlite://{tmp_path}/x.sqlite")
    failed = failures(shop.run())["raw__shop__changes"]
    assert "`changes: true` reads the log of PostgreSQL, MariaDB and MySQL" in failed
