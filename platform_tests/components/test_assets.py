"""What a load and a staging step tell Dagster, whichever way they end."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop, checks, failures, materialized, sample_of

from data_platform.components.keys import CHECK, raw_key, staged_key
from data_platform.components.metadata import bar
from data_platform.components.platform import platform_definitions, source_spec
from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Position, Probe, Reading, Source, TableOptions
from data_platform.lakehouse import transaction
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.lakehouse.transaction import ConcurrentStepError
from data_platform.staging import step


def versions(shop: Shop, key: dg.AssetKey) -> list[str]:
    """The data versions of an asset's materialisations, the latest first."""
    records = shop.instance.fetch_materializations(key, limit=10).records
    return [
        dict(record.asset_materialization.tags or {})["dagster/data_version"]
        for record in records
        if record.asset_materialization
    ]


def test_a_load_and_its_staging_show_figures_schema_sample_and_lineage(shop: Shop) -> None:
    shop.order((4, "Dan", "dan@example.org", -1.0, 1, "2020-01-04T00:00:00Z"))
    result = shop.run(*ORDERS)
    assert result.success
    shown = materialized(result)
    raw, staged = shown["raw/shop/orders"], shown["staged/shop/orders"]
    assert (raw["rows read"], raw["rows landed"], raw["loads"]) == (4, 4, "1")
    assert (raw["dagster/row_count"], raw["dagster/table_name"]) == (4, "raw_shop.orders")
    assert [column.name for column in raw["dagster/column_schema"].columns][:3] == ["order_id", "buyer", "email"]
    assert (staged["rows read"], staged["rows inserted"], staged["rows quarantined"]) == (4, 3, 1)
    assert staged["dagster/row_count"] == 3
    assert checks(result)["raw/shop/orders"] == (True, "All 4 records were read.")
    passed, told = checks(result)["staged/shop/orders"]
    assert passed
    assert told == "1 of 4 rows are in quarantine, within tolerance (50%)."
    lineage = {
        column: sorted(dep.column_name for dep in deps)
        for column, deps in staged["dagster/column_lineage"].deps_by_column.items()
    }
    assert lineage == {
        "order_id": ["order_id"],
        "customer": ["buyer"],
        "total": ["price", "quantity"],
        "changed_at": ["changed_at"],
    }


def test_no_private_value_is_shown_in_any_layer(shop: Shop) -> None:
    result = shop.run(*ORDERS)
    shown = materialized(result)
    raw = sample_of(shown["raw/shop/orders"])
    # `buyer` is private because the contract's `customer` is made of it; `email` because it is masked.
    assert {(row["buyer"], row["email"]) for row in raw} == {("(private)", "(private)")}
    assert {row["customer"] for row in sample_of(shown["staged/shop/orders"])} == {"(private)"}
    assert {row["total"] for row in sample_of(shown["staged/shop/orders"])} == {5.0, 3.0, 4.0}
    told = "".join(str(event) for event in result.all_events)
    assert "Ada" not in told
    assert "ada@example.org" not in told
    masked = [value for (value,) in shop.query("SELECT email FROM raw_shop.orders")]
    assert len(set(masked)) == 3
    assert not any("@example.org" in value for value in masked)


def test_staged_assets_show_contract_owner_freshness_and_recent_loads(shop: Shop) -> None:
    spec = shop.definitions.resolve_asset_graph().get(staged_key("shop", "orders"))
    assert spec.owners == ["team:shop"]
    assert spec.description == "An order of the shop."
    policy = spec.freshness_policy_or_from_metadata
    assert policy == dg.FreshnessPolicy.time_window(timedelta(days=1), timedelta(hours=18))
    columns = {column.name: column for column in spec.metadata["dagster/column_schema"].columns}
    assert columns["total"].description == "what is to be paid [USD]"
    assert columns["total"].constraints.other == ["at least 0"]
    assert "private" in (columns["customer"].tags or {})
    shop.run(*ORDERS)
    shop.order((4, "Dan", "dan@example.org", 1.0, 1, "2020-01-04T00:00:00Z"))
    bars = materialized(shop.run(*ORDERS))["staged/shop/orders"]["recent loads"].splitlines()
    assert [line.split("  ")[1] for line in bars[1:-1]] == ["██████████ 1", "█" * 30 + " 3"]


@pytest.mark.parametrize(
    ("rows", "most", "shown"), [(0, 10, ""), (1, 10**9, "▏"), (10, 10, "█" * 30), (5, 10, "█" * 15), (1, 20, "█▌")]
)
def test_a_bar_is_as_long_as_its_share_and_never_nothing_for_something(rows: int, most: int, shown: str) -> None:
    assert bar(rows, most) == shown


def test_a_refused_step_fails_its_check_materialises_nothing_and_tells_why_without_a_traceback(shop: Shop) -> None:
    shop.execute("update orders set price = -1 where order_id < 3")
    result = shop.run(*ORDERS, *PRODUCTS)
    assert not result.success
    passed, told = checks(result)["staged/shop/orders"]
    assert not passed
    assert told.startswith("shop/orders: 2 of 3 rows break the contract")
    assert failures(result) == {"staged__shop__orders": told}
    failed = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    assert failed.error is None or failed.error.cause is None
    # The rows that were loaded stay loaded, and the other table of the same run went its way.
    assert sorted(materialized(result)) == ["raw/shop/orders", "raw/shop/products", "staged/shop/products"]
    assert shop.query("SELECT count(*) FROM quarantine_shop.orders") == [(2,)]


def test_what_is_downstream_of_a_refused_load_is_not_executed_and_other_tables_go_on(shop: Shop) -> None:
    shop.run(*ORDERS, *PRODUCTS)
    shop.execute("delete from products")
    shop.order((4, "Dan", "dan@example.org", 1.0, 1, "2020-01-04T00:00:00Z"))
    result = shop.run(*ORDERS, *PRODUCTS)
    assert "shrink_limit" in failures(result)["raw__shop__products"]
    assert list(failures(result)) == ["raw__shop__products"]
    assert sorted(materialized(result)) == list(ORDERS)
    assert "staged/shop/products" not in checks(result)
    assert shop.query("SELECT count(*) FROM staged_shop.products") == [(2,)]


def test_a_run_with_nothing_new_changes_no_data_version_and_repeats_no_verdict(shop: Shop) -> None:
    shop.run(*ORDERS, *PRODUCTS)
    result = shop.run(*ORDERS, *PRODUCTS)
    assert result.success
    raw, staged = "Nothing new.", "Nothing new was staged: the table is as it was when it last passed."
    assert checks(result) == {name: (True, raw if "raw" in name else staged) for name in (*ORDERS, *PRODUCTS)}
    shown = materialized(result)
    assert shown["staged/shop/products"]["loads"] == "none: nothing new"
    assert shown["staged/shop/products"]["dagster/row_count"] == 2
    for key in (raw_key("shop", "orders"), raw_key("shop", "products"), staged_key("shop", "products")):
        assert len(versions(shop, key)) == 2
        assert len(set(versions(shop, key))) == 1
    assert shop.query("SELECT count(*) FROM platform.stagings WHERE table_name = 'products'") == [(1,)]


def test_an_empty_source_table_is_loaded_and_staged_as_nothing(shop: Shop) -> None:
    shop.execute("delete from orders")
    result = shop.run(*ORDERS)
    assert result.success, failures(result)
    assert materialized(result)["staged/shop/orders"]["dagster/row_count"] == 0


def test_full_refresh_rebuild_and_backfill_are_asked_for_in_the_launchpad(shop: Shop) -> None:
    shop.run(*ORDERS)
    shop.order((4, "Dan", "dan@example.org", 1.0, 1, "2020-01-04T00:00:00Z"))
    shop.run(*ORDERS)
    backfill = shop.run(ORDERS[1], config={"staged__shop__orders": {"first_load": 1, "last_load": 1}})
    assert materialized(backfill)[ORDERS[1]]["loads"] == "1 to 1"
    rebuild = shop.run(ORDERS[1], config={"staged__shop__orders": {"rebuild": True}})
    assert materialized(rebuild)[ORDERS[1]]["rows inserted"] == 4
    full = shop.run(*ORDERS, config={"raw__shop__orders": {"full_refresh": True}})
    assert materialized(full)[ORDERS[0]]["rows landed"] == 4
    assert shop.query("SELECT kind FROM platform.stagings ORDER BY staging_id") == [
        ("rows",),
        ("rows",),
        ("backfill",),
        ("rebuild",),
        ("whole",),
    ]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"first_load": 1}, "loads 1 to 0 cannot be staged again; loads 1 to 1 have been staged"),
        ({"first_load": 1, "last_load": 9}, "loads 1 to 9 cannot be staged again"),
        ({"rebuild": True, "first_load": 1, "last_load": 1}, "either `rebuild` or a range of loads"),
    ],
)
def test_a_backfill_that_makes_no_sense_is_refused_with_the_range_that_would(
    shop: Shop, config: dict[str, object], reason: str
) -> None:
    shop.run(*ORDERS)
    result = shop.run(ORDERS[1], config={"staged__shop__orders": config})
    assert reason in failures(result)["staged__shop__orders"]
    assert not materialized(result)


def test_a_missing_variable_is_named_and_other_sources_go_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_URL")
    result = shop.run(*ORDERS, "raw/depot/pallets", "staged/depot/pallets")
    assert "needs the environment variable SHOP_URL, which is not set" in failures(result)["raw__shop__orders"]
    assert sorted(materialized(result)) == ["raw/depot/pallets", "staged/depot/pallets"]


def test_a_database_that_does_not_answer_is_named_without_its_password(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_URL", "postgresql://reader:s3cret@127.0.0.1:1/shop")
    result = shop.run(*ORDERS)
    told = failures(result)["raw__shop__orders"]
    assert "127.0.0.1" in told
    assert "s3cret" not in "".join(str(event) for event in result.all_events)


def test_a_renamed_column_is_a_warning_that_names_both_and_stops_nothing(shop: Shop) -> None:
    assert shop.run(*PRODUCTS).success
    shop.execute("alter table products rename price to cost")
    result = shop.run(PRODUCTS[0])
    assert result.success
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == CHECK]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (check.description or "").startswith(
        "price was never null up to load 1 and always is since (2 rows), and the column cost came with it: it looks "
        "like a renaming."
    )


def test_a_lakehouse_that_does_not_answer_is_a_reason_and_no_traceback(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CATALOG", "postgresql://keeper:s3cret@127.0.0.1:1/lake")
    result = shop.run(*ORDERS)
    told = failures(result)["raw__shop__orders"]
    assert "127.0.0.1" in told
    assert "s3cret" not in "".join(str(event) for event in result.all_events)
    assert checks(result)["raw/shop/orders"][0] is False


def test_a_staging_function_that_cannot_run_without_rows_has_no_lineage_and_does_no_harm(shop: Shop) -> None:
    staging = shop.package / "defs" / "shop" / "staging.py"
    lines = staging.read_text().replace("    total =", '    first = raw.collect()["price"].to_list()[0]\n    total =')
    staging.write_text(lines.replace('"total")', '"total") + 0 * pl.lit(first)').replace("+ 0 * pl.lit(first),", ","))
    result = shop.run(*ORDERS)
    assert result.success, failures(result)
    assert materialized(result)[ORDERS[1]]["dagster/column_lineage"].deps_by_column == {}


@dataclass
class Unsteady:
    """A source whose first readings fail, as one does whose connection breaks."""

    source: Source
    failing: int
    error: type[PlatformError]

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> Mapping[str, Probe]:
        return self.source.probe(tables, after)

    def reading(self, tables: Sequence[str], after: Position) -> AbstractContextManager[Reading]:
        if self.failing:
            self.failing -= 1
            raise self.error("The connection broke.")
        return self.source.reading(tables, after)


def run_unsteadily(shop: Shop, failing: int, error: type[PlatformError]) -> Any:
    """Load and stage the orders from a source that fails at first."""
    spec = source_spec(shop.package, "shop")
    with spec.open() as source:
        given = {"shop": Unsteady(source, failing, error)}
        shop.definitions = platform_definitions(shop.package, sources=given)
        return shop.run(*ORDERS)


def test_a_step_whose_connection_breaks_is_tried_again(shop: Shop) -> None:
    result = run_unsteadily(shop, 2, TransientError)
    assert result.success
    assert checks(result)["raw/shop/orders"][0] is True
    assert len([event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]) == 2


def test_a_mistake_is_not_tried_again(shop: Shop) -> None:
    result = run_unsteadily(shop, 1, PlatformError)
    assert not result.success
    assert checks(result)["raw/shop/orders"] == (False, "The connection broke.")


def test_a_connection_that_stays_broken_fails_the_check_once(shop: Shop) -> None:
    result = run_unsteadily(shop, 99, TransientError)
    assert not result.success
    failed = [one for one in result.get_asset_check_evaluations() if one.asset_key.path[0] == "raw"]
    assert [one.passed for one in failed] == [False]


@dataclass
class Overtaken:
    """A source of orders which another run loads too, and lands first, as often as `times`."""

    source: Source
    shop: Shop
    times: int
    table: TableOptions

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> Mapping[str, Probe]:
        return self.source.probe(tables, after)

    def reading(self, tables: Sequence[str], after: Position) -> AbstractContextManager[Reading]:
        reading = self.source.reading(tables, after)
        if self.times:
            self.times -= 1
            number = 100 + self.times
            self.shop.order((number, "Eve", "eve@example.org", 1.0, 1, f"2020-02-01T00:00:{59 - self.times:02}Z"))
            with open_lakehouse(settings_from_environment()) as lake:
                load_table(lake, "shop", self.source, "orders", self.table, run_id="the other")
        return reading


def run_overtaken(shop: Shop, times: int, **config: object) -> Any:
    spec = source_spec(shop.package, "shop")
    with spec.open() as source:
        given = {"shop": Overtaken(source, shop, times, spec.tables["orders"].table)}
        shop.definitions = platform_definitions(shop.package, sources=given)
        return shop.run(*ORDERS, config={"raw__shop__orders": config} if config else None)


def test_a_load_that_another_run_comes_before_goes_on_from_there_at_once(shop: Shop) -> None:
    result = run_overtaken(shop, 2)
    assert result.success
    assert [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"] == []
    assert shop.query("SELECT count(*), count(DISTINCT order_id) FROM raw_shop.orders") == [(5, 5)]
    assert shop.query("SELECT count(*) FROM staged_shop.orders") == [(5,)]


def test_a_load_that_others_come_before_each_time_is_a_success_that_says_so(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "BEGINNINGS", 1)
    result = run_overtaken(shop, 4)
    assert result.success
    passed, told = checks(result)["raw/shop/orders"]
    assert passed
    assert told.startswith("Nothing new. Other runs of this table landed first, each time that this one was to: raw ")
    assert shop.query("SELECT count(*), count(DISTINCT order_id) FROM raw_shop.orders") == [(7, 7)]


def test_a_full_refresh_that_others_come_before_each_time_has_failed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "BEGINNINGS", 1)
    result = run_overtaken(shop, 9, full_refresh=True)
    assert not result.success
    assert "another run landed first" in checks(result)["raw/shop/orders"][1]


@pytest.mark.parametrize("times", [2, 99])
def test_staging_that_another_run_comes_before_is_no_red_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    left = [times]

    def overtaken(plan: Any, *arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise ConcurrentStepError("staged shop/orders stands at step 1: another run landed first.")
        return landed(plan, *arguments)

    landed = step._land
    monkeypatch.setattr(transaction, "BEGINNINGS", 3)
    monkeypatch.setattr(step, "_land", overtaken)
    result = shop.run(*ORDERS)
    assert result.success
    passed, told = checks(result)["staged/shop/orders"]
    assert passed
    assert ("Other runs of this table landed first" in told) == (times == 99)
    assert [event for event in result.all_events if event.is_step_failure] == []
