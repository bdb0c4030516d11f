"""A ledger of an earlier release is brought up to date, whoever comes first and whatever happens meanwhile; one of a
later release is left alone."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from platform_tests.lakehouse.ledger.release_1 import contents, make_ledger_of_version_1, unpack_release_1
from platform_tests.lakehouse.ledger.shop import GenerousOrder, Order, Product
from platform_tests.tables import RECIPE, TABLE, MemorySource, batch_of, orders

from data_platform.contracts.quarantine import Selection
from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.load import load_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.transaction import ConcurrentStepError, commit
from data_platform.observability.views import ensure_views
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import replay, stage_table

ROOT = Path(__file__).parents[3]
ORDERS = Recipe("shop", "orders", ("order_id",), Order, newest_by="changed_at", refuse_above=0.5)
PRICES = Recipe("shop", "prices", ("sku",), Product)
STATEMENTS = 17
"""What the migration to version 2 executes."""


@pytest.fixture
def release_1(tmp_path: Path, home: Path) -> Settings:
    return unpack_release_1(tmp_path, home)


def load(lake: Lakehouse, *rows: tuple[object, object, str]) -> None:
    number = ledger.head(lake, "raw", "shop", "orders").number + 1
    table = orders(*((key, amount, "open", at) for key, amount, at in rows)).drop_columns("status")
    source = MemorySource([batch_of(table, {"cursor": str(number)})])
    load_table(lake, "shop", source, "orders", TABLE, run_id="release-2")


def migrating(settings: Settings, **environment: str) -> "subprocess.Popen[str]":
    names = {
        "DATA_PLATFORM_HOME": str(settings.home),
        "LAKEHOUSE_CATALOG": settings.catalog,
        "LAKEHOUSE_DATA": settings.data,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "platform_tests.lakehouse.ledger.migrating"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "platform"), **names, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def make_newer(lake: Lakehouse) -> None:
    ledger.ensure_ledger(lake)
    lake.connection.execute("INSERT INTO lake.platform.schema_version VALUES (99, now())")


def test_a_lakehouse_of_release_1_keeps_what_it_knew(release_1: Settings) -> None:
    with open_lakehouse(release_1) as lake:
        ledger.ensure_ledger(lake)
        assert {source: sum(states.values()) for source, states in awaiting(lake).items()} == {"shop": 3}
        assert awaiting(lake)["shop"] == {"orders": 2, "prices": 1}
        head = ledger.head(lake, "raw", "depot", "stock")
        assert (head.number, head.position["stock-1.csv"][:23]) == (2, "23:1577836803000000000:")
        assert {len(value.split(":")[2]) for value in head.position.values()} == {64}
        assert [
            (load.load_id, load.kind, load.status) for load in ledger.recent_loads(lake, "shop", "products", 9)
        ] == [(4, "whole", "landed"), (3, "whole", "refused"), (2, "whole", "landed"), (1, "whole", "landed")]
        assert ledger.landed_bounds(lake, "shop", "orders") == ledger.LandedBounds(last=9)
        assert ledger.landed_without_rows(lake, "shop", "empty") == 1
        published = ledger.published(lake)["totals"]
        assert (published.publication_id, published.built_from) == (2, {"shop/orders": 6})
        assert len(ledger.pinned_snapshots(lake)) == 1
        kinds = "SELECT kind, count(*) FROM platform.audits GROUP BY kind ORDER BY kind"
        assert lake.connection.execute(kinds).fetchall() == [("build", 2), ("full", 1), ("step", 16)]
        verdicts = {one.table: one.passed for one in ledger.last_verdicts(lake) if one.source in (None, "shop")}
        assert verdicts == {"orders": False, "products": True, "prices": True, "empty": True, "totals": True}
        assert lake.connection.execute("SELECT * FROM modelled.totals").fetchall() == [(8, 2033.5)]
        ensure_views(lake)
        freshness = "SELECT table_name, loads_awaiting_staging FROM platform.freshness WHERE source = 'shop' ORDER BY 1"
        assert lake.connection.execute(freshness).fetchall() == [
            ("empty", 0), ("orders", 2), ("prices", 1), ("products", 0),
        ]  # fmt: skip


def awaiting(lake: Lakehouse) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (source, table), loads in ledger.loads_awaiting_staging(lake).items():
        found.setdefault(source, {})[table] = loads
    return found


def test_loads_stagings_and_replays_go_on_from_release_1(release_1: Settings) -> None:
    with open_lakehouse(release_1) as lake:
        load(lake, (16, 16, "2020-01-09T00:00:00Z"), (4, 4, "2020-01-09T00:00:00Z"))
        step = stage_table(lake, ORDERS, run_id="release-2")
        assert (step.staging_id, step.load_from, step.load_to, step.rows_read) == (9, 8, 10, 6)
        staged = "SELECT order_id FROM staged_shop.orders ORDER BY order_id"
        assert [row[0] for row in lake.connection.execute(staged).fetchall()] == [*range(1, 12), 14, 15, 16]
        # Order 4, which was not a number in release 1, has passed in a later version; 12 is still none.
        closed = {"2:0": "superseded", "3:0": "superseded", "5:0": "replayed", "8:1": "discarded"}
        assert entries(lake) == {**closed, "8:0": "open"}
        assert replay(lake, ORDERS, Selection(ids=["8:0"]), run_id="release-2").rows_quarantined == 1
        again = stage_table(lake, replace(ORDERS, contract=GenerousOrder), run_id="release-2", rebuild=True)
        assert again.rows_inserted == 14
        assert stage_table(lake, PRICES, run_id="release-2").rows_deleted == 2


def test_files_that_release_1_loaded_are_known_and_new_ones_land(release_1: Settings) -> None:
    depot = Path(release_1.data).parent / "depot"
    tables = {
        name: FileTable.model_validate(
            {
                "key": ["pallet"],
                "contract": "platform_tests.lakehouse.ledger.shop.Pallet",
                "path": f"{name}-*.csv",
                "format": {"type": "csv"},
                "refuse_above": 1,
                **({"deliveries": "snapshot"} if name == "stock" else {}),
            }
        )
        for name in ("pallets", "stock")
    }
    source = Files(depot, tables)

    def landed(lake: Lakehouse, name: str) -> int:
        return load_table(lake, "depot", source, name, tables[name], run_id="release-2").rows_landed

    with open_lakehouse(release_1) as lake:
        ledger.ensure_ledger(lake)
        positions = {name: state.position for name, state in ledger.table_states(lake, "depot").items()}
        assert {name: one.changes for name, one in source.probe(list(tables), positions).items()} == {
            "pallets": {},
            "stock": {},
        }
        assert (landed(lake, "pallets"), landed(lake, "stock")) == (0, 0)
        # Known by content, whatever its time.
        (depot / "pallets-1.csv").touch()
        assert landed(lake, "pallets") == 0
        (depot / "pallets-4.csv").write_text("pallet,sku\n7,cup\n")
        assert landed(lake, "pallets") == 1
        assert sorted(ledger.head(lake, "raw", "depot", "pallets").position) == [
            f"pallets-{number}.csv" for number in (1, 2, 3, 4)
        ]


def entries(lake: Lakehouse) -> dict[str, str]:
    query = "SELECT quarantine_id, status FROM quarantine_shop.orders WHERE layer = 'staged'"
    return dict(lake.connection.execute(query).fetchall())


def test_a_ledger_of_version_1_becomes_one_of_today_on_either_catalog(lake: Lakehouse) -> None:
    make_ledger_of_version_1(lake)
    head = ledger.head(lake, "raw", "shop", "orders")
    assert (head.number, head.position) == (2, {"cursor": "2020-01-02"})
    # A path that ends like the entries of contents did is a path all the same.
    assert ledger.head(lake, "raw", "depot", "pallets").position == {"a.csv": "10:100:aa", "odd#sha256": "20:200:bb"}
    assert ledger.loads_awaiting_staging(lake) == {("shop", "orders"): 1}
    assert ledger.landed_bounds(lake, "shop", "orders") == ledger.LandedBounds(last=2, whole=1)
    assert {(one.source, one.table, one.passed) for one in ledger.last_verdicts(lake)} == {
        ("shop", "orders", True),
        (None, "totals", False),
    }
    assert lake.connection.execute("SELECT kind FROM platform.stagings").fetchall() == [("whole",)]
    assert sorted(contents(lake.connection)) == sorted(ledger.schema.TABLES)
    assert lake.connection.execute("SELECT version FROM platform.schema_version").fetchall() == [(ledger.VERSION,)]


def test_a_migrated_ledger_has_the_columns_of_a_new_one(lake: Lakehouse, tmp_path: Path, home: Path) -> None:
    make_ledger_of_version_1(lake)
    ledger.ensure_ledger(lake)
    with open_lakehouse(Settings(home, str(tmp_path / "new.sqlite"), str(tmp_path / "new"))) as new:
        ledger.ensure_ledger(new)
        assert columns(lake) == columns(new)


def columns(lake: Lakehouse) -> set[tuple[str, str, str]]:
    query = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = 'lake'"
    return set(lake.connection.execute(query).fetchall())


@pytest.mark.parametrize("statements", [1, 9, STATEMENTS])
def test_a_process_killed_in_the_migration_leaves_the_ledger_as_it_was(
    lake: Lakehouse, settings: Settings, statements: int
) -> None:
    make_ledger_of_version_1(lake)
    before = contents(lake.connection)
    process = migrating(settings, STATEMENTS=str(statements))
    assert process.wait(60) == -signal.SIGKILL, process.stderr
    assert contents(lake.connection) == before
    ledger.ensure_ledger(lake)
    assert ledger.head(lake, "raw", "shop", "orders").number == 2


def test_all_statements_of_the_migration_are_counted(lake: Lakehouse, settings: Settings) -> None:
    make_ledger_of_version_1(lake)
    process = migrating(settings, STATEMENTS=str(STATEMENTS + 1))
    assert process.wait(60) == 0, process.communicate()[1]


def test_of_two_processes_that_migrate_at_once_one_does(lake: Lakehouse, settings: Settings, tmp_path: Path) -> None:
    make_ledger_of_version_1(lake)
    processes = [migrating(settings, GO=str(tmp_path / "go")) for _ in range(2)]
    (tmp_path / "go").touch()
    for process in processes:
        assert process.wait(120) == 0, process.communicate()[1]
    assert lake.connection.execute("SELECT version FROM platform.schema_version").fetchall() == [(ledger.VERSION,)]
    assert ledger.head(lake, "raw", "shop", "orders").number == 2


def test_an_older_ledger_that_may_only_be_read_says_what_to_do(release_1: Settings) -> None:
    with open_lakehouse(release_1, read_only=True) as lake:
        with pytest.raises(PlatformError, match=r"earlier release: its ledger has version 1.*`dp run`"):
            ledger.loads_awaiting_staging(lake)
        assert lake.connection.execute("SELECT count(*) FROM platform.loads").fetchone() == (20,)


def test_who_reads_an_older_ledger_at_an_earlier_snapshot_is_told_to_try_again(lake: Lakehouse) -> None:
    make_ledger_of_version_1(lake)
    with lake.reading():
        lake.connection.execute("SELECT count(*) FROM platform.loads").fetchall()
        with pytest.raises(TransientError, match="just brought up to date"):
            ledger.loads_awaiting_staging(lake)
    assert ledger.loads_awaiting_staging(lake) == {("shop", "orders"): 1}


def test_a_newer_ledger_is_neither_read_nor_written(lake: Lakehouse) -> None:
    make_newer(lake)
    before = contents(lake.connection)
    for use in (
        lambda: load(lake, (1, 1, "2020-01-01T00:00:00Z")),
        lambda: stage_table(lake, RECIPE, run_id="r"),
        lambda: ledger.table_states(lake, "shop"),
        lambda: ledger.ensure_ledger(lake),
    ):
        with pytest.raises(PlatformError, match="newer release: its ledger has version 99"):
            use()
    assert contents(lake.connection) == before


def test_a_step_that_began_before_the_ledger_became_newer_commits_nothing(lake: Lakehouse) -> None:
    head = ledger.head(lake, "raw", "shop", "orders")
    first = commit(lake, lambda connection: ledger.advance(connection, head, {"cursor": "1"}, datetime.now(UTC)))
    make_newer(lake)
    before = contents(lake.connection)
    for start in (first, ledger.Head("raw", "shop", "other", 0, {})):
        with pytest.raises(ConcurrentStepError, match="brought up to a newer release"):
            commit(lake, partial(ledger.advance, head=start, position={"c": "2"}, at=datetime.now(UTC)))
    assert contents(lake.connection) == before
