"""What the sensors of sources ask for, and when they do not. They only look: the load decides."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan
from dagster._core.snap import snapshot_from_execution_plan
from dagster._core.test_utils import create_run_for_test
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop, failures, names_of

from data_platform.components import sensors
from data_platform.components.sensors import MAX_WAIT, Request, TableState, remaining_wait
from data_platform.ingestion.source import UNKNOWN, Probe

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def fourth_order(shop: Shop, price: float = 1.0) -> None:
    shop.order((4, "Dan", "dan@example.org", price, 1, "2020-01-04T00:00:00Z"))


def under_way(shop: Shop, request: dg.RunRequest) -> dg.DagsterRun:
    """A run for what was asked, as a process left it that is still at it, or was killed."""
    run: dg.DagsterRun = create_run_for_test(
        shop.instance,
        status=dg.DagsterRunStatus.STARTED,
        tags=dict(request.tags),
        asset_selection=frozenset(request.asset_selection or []),
    )
    return run


def test_all_tables_with_news_are_asked_for_in_one_run_and_not_again_once_they_are_in(shop: Shop) -> None:
    request = shop.tick("shop_sensor")
    assert names_of(request.asset_selection) == [*ORDERS, *PRODUCTS]
    assert shop.follow(request).success
    assert shop.tick("shop_sensor") == "Nothing new in orders, products."
    fourth_order(shop)
    assert names_of(shop.tick("shop_sensor").asset_selection) == list(ORDERS)


def test_a_table_is_not_asked_for_while_a_run_of_it_is_under_way_however_far_the_source_moves(shop: Shop) -> None:
    shop.follow(shop.tick("shop_sensor"))
    fourth_order(shop)
    under_way(shop, shop.tick("shop_sensor"))
    assert shop.tick("shop_sensor") == "orders: a run is under way."
    shop.order((5, "Eve", "eve@example.org", 1.0, 1, "2020-01-05T00:00:00Z"))
    shop.execute("insert into products values ('pen', 1.0)")
    assert names_of(shop.tick("shop_sensor").asset_selection) == list(PRODUCTS)


def test_a_run_that_someone_started_by_hand_is_not_doubled(shop: Shop) -> None:
    job = shop.definitions.resolve_job_def("load_shop")
    snapshot = job.get_job_snapshot()
    create_run_for_test(
        shop.instance,
        job_name=job.name,
        status=dg.DagsterRunStatus.STARTED,
        job_snapshot=snapshot,
        execution_plan_snapshot=snapshot_from_execution_plan(create_execution_plan(job), snapshot.snapshot_id),
    )
    assert shop.tick("shop_sensor") == "orders: a run is under way. products: a run is under way."


def test_a_run_without_a_sign_of_life_from_elsewhere_holds_up_its_source_for_an_hour_at_most(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way(shop, shop.tick("shop_sensor"))
    monkeypatch.setattr(sensors, "MAX_WAIT", timedelta(0))
    assert names_of(shop.tick("shop_sensor").asset_selection) == [*ORDERS, *PRODUCTS]


def test_after_a_failure_the_same_is_asked_for_ever_more_slowly_and_at_once_when_the_source_moves(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.follow(shop.tick("shop_sensor"))
    shop.execute("delete from products")
    request = shop.tick("shop_sensor")
    keys = {request.run_key}
    for attempt in (1, 2):
        assert "shrink_limit" in failures(shop.follow(request))["raw__shop__products"]
        assert shop.tick("shop_sensor").startswith(f"products: {attempt} run")
        with monkeypatch.context() as patch:
            patch.setattr(sensors, "MAX_WAIT", timedelta(0))
            request = shop.tick("shop_sensor")
        # Dagster never asks twice under one key: each attempt has its own.
        assert request.run_key not in keys
        keys.add(request.run_key)
    assert shop.tick("shop_sensor").startswith("products: 2 runs")
    shop.execute("insert into products values ('pen', 1.0)")
    assert names_of(shop.tick("shop_sensor").asset_selection) == list(PRODUCTS)


def test_what_a_run_is_about_does_not_clutter_the_list_of_runs(shop: Shop) -> None:
    request = shop.tick("shop_sensor")
    assert {tag for tag in request.tags if not tag.startswith(".dagster/")} == {"source", "dagster/sensor_name"}


def test_a_table_that_fails_does_not_hold_up_the_others_nor_ride_along_with_them(shop: Shop) -> None:
    shop.follow(shop.tick("shop_sensor"))
    shop.execute("delete from products")
    shop.follow(shop.tick("shop_sensor"))
    fourth_order(shop)
    assert names_of(shop.tick("shop_sensor").asset_selection) == list(ORDERS)


@pytest.mark.parametrize(("failed", "wait"), [(0, 0), (1, 10), (2, 20), (5, 160), (12, 3600), (300, 3600)])
def test_the_wait_doubles_with_each_failure_up_to_an_hour(failed: int, wait: int) -> None:
    ended = [NOW - timedelta(days=number) for number in range(failed)]
    assert remaining_wait(ended, timedelta(seconds=5), NOW) == timedelta(seconds=wait)
    assert remaining_wait(ended, timedelta(seconds=5), NOW + MAX_WAIT) <= timedelta(0)


def test_the_times_of_runs_are_in_utc_whatever_the_zone_of_the_machine(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        shop.run(*PRODUCTS)
        (record,) = shop.instance.get_run_records()
        assert record.update_timestamp.utcoffset() == timedelta(0)
        assert abs(record.update_timestamp - datetime.now(UTC)) < timedelta(minutes=5)
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_a_tick_that_is_evaluated_twice_asks_under_one_key_and_a_second_run_lands_nothing(shop: Shop) -> None:
    first, second = shop.tick("shop_sensor"), shop.tick("shop_sensor")
    assert first.run_key == second.run_key
    assert shop.follow(first).success
    # A daemon that lost its memory asks again, late: the ledger decides.
    assert shop.follow(second).success
    assert shop.query("SELECT count(*) FROM raw_shop.orders") == [(3,)]
    assert shop.query("SELECT count(*) FROM raw_shop.products") == [(2,)]


def test_rows_that_were_loaded_and_not_staged_are_staged_without_asking_the_source_again(shop: Shop) -> None:
    shop.run(ORDERS[0], *PRODUCTS)
    request = shop.tick("shop_sensor")
    assert names_of(request.asset_selection) == [ORDERS[1]]
    assert shop.follow(request).success
    assert shop.query("SELECT count(*) FROM staged_shop.orders") == [(3,)]
    assert shop.tick("shop_sensor") == "Nothing new in orders, products."


def test_a_source_that_does_not_answer_fails_its_tick_with_the_reason_and_no_other_sensor(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_URL", "postgresql://reader:s3cret@127.0.0.1:1/shop")
    with pytest.raises(dg.Failure) as failed:
        shop.tick("shop_sensor")
    assert "127.0.0.1" in str(failed.value.description)
    assert "s3cret" not in str(failed.value.description)
    assert names_of(shop.tick("depot_sensor").asset_selection) == ["raw/depot/pallets", "staged/depot/pallets"]


def test_a_missing_variable_fails_the_tick_by_name(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_URL")
    with pytest.raises(dg.Failure, match="SHOP_URL"):
        shop.tick("shop_sensor")


@pytest.mark.parametrize("table", ["orders", "products"])
def test_a_table_that_is_gone_from_the_source_does_not_keep_the_others_from_being_loaded(
    shop: Shop, table: str
) -> None:
    shop.execute(f"drop table {table}")
    expected = PRODUCTS if table == "orders" else ORDERS
    assert names_of(shop.tick("shop_sensor").asset_selection) == list(expected)


def test_a_lakehouse_that_does_not_answer_fails_the_tick(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_CATALOG", "postgresql://keeper:s3cret@127.0.0.1:1/lake")
    with pytest.raises(dg.Failure) as failed:
        shop.tick("shop_sensor")
    assert "127.0.0.1" in str(failed.value.description)
    assert "s3cret" not in str(failed.value.description)


def test_a_lakehouse_that_is_damaged_is_not_taken_for_an_empty_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.package.joinpath("broken.sqlite").write_text("this is no database")
    monkeypatch.setenv("LAKEHOUSE_CATALOG", str(shop.package / "broken.sqlite"))
    with pytest.raises(dg.Failure, match="is damaged"):
        shop.tick("shop_sensor")


def test_on_an_empty_postgresql_catalog_the_first_look_asks_for_everything(
    shop: Shop, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CATALOG", postgres_url)
    assert names_of(shop.tick("shop_sensor").asset_selection) == [*ORDERS, *PRODUCTS]


def test_what_a_probe_may_miss_is_read_again_once_in_a_while_only(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.follow(shop.tick("shop_sensor"))
    later = datetime.now(UTC) + timedelta(minutes=61)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "datetime":  # type: ignore[override]  # one of its two forms is used
            return later

    monkeypatch.setattr(sensors, "datetime", Clock)
    request = shop.tick("shop_sensor")
    # The orders too, for what the highest value of their cursor does not show; the pallets lie in files, which are told
    # apart by themselves.
    assert names_of(request.asset_selection) == [*ORDERS, *PRODUCTS]
    monkeypatch.undo()


def test_a_reading_that_found_nothing_new_counts_as_one(shop: Shop) -> None:
    shop.follow(shop.tick("shop_sensor"))
    before = sensors.last_reads(shop.instance, "shop", ["products", "orders"])
    shop.run(*PRODUCTS)
    after = sensors.last_reads(shop.instance, "shop", ["products", "orders", "never"])
    assert after["products"] > before["products"]
    assert after["orders"] == before["orders"]
    assert "never" not in after
    assert shop.query("SELECT count(*) FROM platform.loads WHERE table_name = 'products'") == [(1,)]


def test_a_table_without_a_probe_is_not_called_unchanged_but_said_when_it_is_read() -> None:
    states = {name: TableState({}, False, NOW) for name in ("orders", "readings")}
    words = sensors._nothing({"orders": Probe(), "readings": UNKNOWN}, states, timedelta(hours=1))
    assert words == (
        "Nothing new in orders. readings: it answers, but nothing tells whether anything is new, short of reading it; "
        "it is read every 1:00:00 (`refresh`), next at 2026-01-01 01:00:00 UTC."
    )
    assert sensors._nothing({"readings": UNKNOWN}, states, timedelta(hours=1)).startswith("readings: it answers")


def test_what_landed_is_staged_though_a_file_cannot_be_read_and_that_is_tried_again_apart(shop: Shop) -> None:
    shop.deliver("pallets-a.csv", "1,pen")
    shop.follow(shop.tick("depot_sensor"))
    shop.deliver("pallets-b.csv", "2,pen")
    (shop.depot / "pallets-broken.csv").write_bytes(b"\x1f\x8b not what it says")
    first = shop.tick("depot_sensor")
    assert "pallets-broken.csv" in failures(shop.follow(first))["raw__depot__pallets"]
    assert shop.query("SELECT pallet FROM staged_depot.pallets ORDER BY ALL") == [(1,), (7,)]
    second = shop.tick("depot_sensor")
    assert names_of(second.asset_selection) == ["staged/depot/pallets"]
    assert shop.follow(second).success
    assert shop.query("SELECT pallet FROM staged_depot.pallets ORDER BY ALL") == [(1,), (2,), (7,)]
    assert "pallets-broken.csv" in failures(shop.follow(shop.tick("depot_sensor")))["raw__depot__pallets"]
    assert shop.tick("depot_sensor").startswith("pallets: 1 run for the same changes did not take them in")
    # A step that refuses what landed does not keep what comes later from being read.
    shop.deliver("pallets-c.csv", "none,pen")
    (shop.depot / "pallets-broken.csv").unlink()
    assert "staged__depot__pallets" in failures(shop.follow(shop.tick("depot_sensor")))
    shop.deliver("pallets-d.csv", "4,pen")
    assert "staged__depot__pallets" in failures(shop.follow(shop.tick("depot_sensor")))
    shop.follow(shop.tick("depot_sensor"))
    assert shop.query("SELECT max(_file) FROM raw_depot.pallets") == [("pallets-d.csv",)]


def test_the_record_of_a_run_about_many_tables_is_read_once_in_a_tick(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    tables = [f"t{number}" for number in range(20)]
    requests = {table: [Request([dg.AssetKey(["raw", "wide", table])], now.isoformat())] for table in tables}
    request = sensors.request_once(shop.instance, "wide", requests, timedelta(seconds=30))
    assert isinstance(request, dg.RunRequest)
    create_run_for_test(shop.instance, status=dg.DagsterRunStatus.FAILURE, tags=dict(request.tags))
    read: list[dg.RunRecord] = []
    get_run_records = dg.DagsterInstance.get_run_records

    def counted(*arguments: Any, **options: Any) -> Any:
        records = get_run_records(*arguments, **options)
        read.extend(records)
        return records

    monkeypatch.setattr(dg.DagsterInstance, "get_run_records", counted)
    again = sensors.request_once(shop.instance, "wide", requests, timedelta(seconds=30))
    assert isinstance(again, dg.SkipReason)
    assert str(again.skip_message).count("1 run for the same changes did not take them in") == len(tables)
    assert len(read) == 1


def write_hours(shop: Shop, now: datetime, begin: timedelta, end: timedelta) -> None:
    """Let the shop be read from one time to another, as they lie from now."""
    file = shop.package / "defs" / "shop" / "defs.yaml"
    hours = f"{now + begin:%H:%M}-{now + end:%H:%M}"
    file.write_text(file.read_text().replace("  every: 5s", f"  every: 5s\n  hours: {hours}\n  budget: {{rows: 1}}"))


def test_outside_of_its_hours_a_source_is_not_even_looked_at_and_says_when_it_is(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    write_hours(shop, now, timedelta(hours=2), timedelta(hours=4))
    monkeypatch.delenv("SHOP_URL")
    said = shop.tick("shop_sensor")
    assert said.startswith("Outside of `hours` (")
    assert f"it is read from {now + timedelta(hours=2):%Y-%m-%d %H:%M} UTC on" in said


def test_what_a_sensor_asked_for_ends_with_the_hours_and_what_a_person_asked_for_does_not(shop: Shop) -> None:
    write_hours(shop, datetime.now(UTC), timedelta(hours=-1), timedelta(hours=1))
    ended = shop.follow(shop.tick("shop_sensor"))
    assert ended.success
    (orders,) = (event for event in ended.asset_materializations_for_node("raw__shop__orders"))
    assert "ended at its `budget` or `hours`" in str(orders.metadata["notes"].value)
    assert shop.query("SELECT count(*) FROM raw_shop.orders") == [(3,)]
