"""The daily care of the lakehouse and of Dagster's own storage."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop, failures, materialized

from data_platform.components.keys import raw_key
from data_platform.components.maintenance import kept_replaced, old_runs

LATER = timedelta(days=1)


def test_maintenance_runs_and_changes_no_row(shop: Shop) -> None:
    shop.run(*ORDERS)
    before = shop.query("SELECT * EXCLUDE (_staged_at) FROM staged_shop.orders ORDER BY ALL")
    result = shop.run("platform/lakehouse_maintenance", "platform/run_history")
    assert result.success, failures(result)
    shown = materialized(result)
    assert shown["platform/run_history"]["runs deleted"] == 0
    assert shown["platform/lakehouse_maintenance"]["snapshots expired"] == 0
    assert shop.query("SELECT * EXCLUDE (_staged_at) FROM staged_shop.orders ORDER BY ALL") == before


def test_full_refreshes_that_were_replaced_leave_raw_when_the_table_or_the_setting_says(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted() -> int:
        result = shop.run("platform/lakehouse_maintenance")
        assert result.success, failures(result)
        return int(materialized(result)["platform/lakehouse_maintenance"]["replaced loads deleted"])

    for price in (2.0, 3.0):
        shop.execute(f"update products set price = {price}")
        shop.run(*PRODUCTS)
    assert deleted() == 0
    monkeypatch.setenv("LAKEHOUSE_KEEP_REPLACED", "0s")
    assert deleted() == 1
    assert shop.query("SELECT DISTINCT _load_id FROM raw_shop.products") == [(2,)]


def test_how_long_a_table_keeps_refreshes_is_in_its_defs(shop: Shop) -> None:
    assert kept_replaced([shop.definitions]) == {}
    defs = shop.package / "defs" / "shop" / "defs.yaml"
    defs.write_text(defs.read_text().replace("      key: [sku]\n", "      key: [sku]\n      keep_replaced: 0s\n"))
    del shop.definitions  # read again
    assert kept_replaced([shop.definitions]) == {("shop", "products"): timedelta(0)}
    for price in (2.0, 3.0):
        shop.execute(f"update products set price = {price}")
        shop.run(*PRODUCTS)
    result = shop.run("platform/lakehouse_maintenance")
    assert materialized(result)["platform/lakehouse_maintenance"]["rows of replaced loads deleted"] == 2


def test_only_runs_that_ended_long_ago_are_deleted_and_never_the_last_word_on_an_asset(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = shop.run(*ORDERS).run_id, shop.run(*ORDERS).run_id
    going = create_run_for_test(shop.instance, status=dg.DagsterRunStatus.STARTED).run_id
    failed = create_run_for_test(shop.instance, status=dg.DagsterRunStatus.FAILURE).run_id
    assert old_runs(shop.instance, datetime.now(UTC) - LATER) == []
    assert set(old_runs(shop.instance, datetime.now(UTC) + LATER)) == {first, failed}
    event = shop.instance.get_latest_materialization_event(raw_key("shop", "orders"))
    assert event is not None
    assert event.run_id == last
    # The sensor that brings runs into the ledger was off: they are there all the same before they are deleted.
    monkeypatch.setattr("data_platform.components.run_records.PAGE", 1)
    monkeypatch.setattr("data_platform.components.maintenance.KEEP_RUNS", -LATER)
    result = shop.run("platform/run_history")
    assert materialized(result)["platform/run_history"]["runs deleted"] == 2
    assert set(shop.instance.get_run_ids()) == {last, going, result.run_id}
    kept = shop.query("SELECT run_id, status, steps FROM platform.run_performance ORDER BY status DESC")
    assert kept == [(first, "success", 2), (failed, "failure", 0)]
