"""Runs that have ended, brought from Dagster's storage into the ledger."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from platform_tests.components.shop import ORDERS, Shop

from data_platform.components import run_records
from data_platform.components.run_records import SENSOR, asked_by_whom, run_of
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.settings import settings_from_environment

RUNS = "SELECT job, status, asked_by, asker, steps, steps_failed FROM platform.run_performance ORDER BY asked_at"


def version() -> int:
    with open_lakehouse(settings_from_environment()) as lake:
        return current_snapshot(lake.connection)


def test_runs_are_in_the_ledger_once_with_their_end_and_who_asked_for_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Nothing was loaded yet" in str(shop.tick(SENSOR))
    shop.execute("alter table orders rename to lost")
    assert not shop.run("raw/shop/orders").success
    shop.execute("alter table lost rename to orders")
    assert shop.run(*ORDERS, tags={"dagster/sensor_name": "shop_sensor"}).success
    monkeypatch.setattr(run_records, "PAGE", 1)
    for _ in range(2):  # a page at a time, beginning anew each time
        shop.tick(SENSOR)
    assert shop.query(RUNS) == [
        ("__ASSET_JOB", "failure", "person", None, 1, 1),
        ("__ASSET_JOB", "success", "sensor", "shop_sensor", 2, 0),
    ]
    ran = shop.query(
        "SELECT seconds > 0, seconds_waited >= 0, rows_landed, cpu_seconds > 0 FROM platform.run_performance"
    )
    assert (True, True, 3, True) in ran
    before = version()
    assert "are in the ledger" in str(shop.tick(SENSOR))
    assert version() == before


def test_a_tick_goes_on_from_where_the_last_one_came_to(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.run(*ORDERS)
    sensor = next(one for one in shop.definitions.sensors or () if one.name == SENSOR)
    assert isinstance(sensor, dg.SensorDefinition)
    with dg.build_sensor_context(instance=shop.instance) as context:
        cursor = sensor.evaluate_tick(context).cursor
    (ended,) = shop.query("SELECT max(ended_at) FROM platform.runs")[0]
    assert abs(datetime.fromisoformat(cursor or "") - ended) < timedelta(seconds=5)
    shop.change("DELETE FROM platform.runs")
    monkeypatch.setattr(run_records, "OVERLAP", timedelta(0))
    now = datetime.now(UTC).isoformat()
    with dg.build_sensor_context(instance=shop.instance, cursor=now) as context:
        assert sensor.evaluate_tick(context).cursor == now
    assert shop.query(RUNS) == []
    # The clock was set back since: what ends now lies behind the cursor.
    monkeypatch.setattr(run_records, "OVERLAP", timedelta(minutes=1))
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    with dg.build_sensor_context(instance=shop.instance, cursor=later) as context:
        assert sensor.evaluate_tick(context).cursor == cursor
    assert len(shop.query(RUNS)) == 1


def test_a_run_that_was_queued_was_asked_for_when_it_joined_the_queue_to_the_microsecond(
    tmp_path: Path,
) -> None:
    at = datetime(2020, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        run = create_run_for_test(instance, status=dg.DagsterRunStatus.CANCELED)
        queued = dg.DagsterEvent(dg.DagsterEventType.RUN_ENQUEUED.value, run.job_name)
        entry = dg.EventLogEntry(  # type: ignore[no-untyped-call]
            None, "debug", "", run.run_id, at.timestamp(), dagster_event=queued
        )
        instance.event_log_storage.store_event(entry)
        record = instance.get_run_record_by_id(run.run_id)
        assert record is not None
        assert run_of(instance, record).asked_at == at


def test_who_asked_is_what_the_tags_say() -> None:
    assert asked_by_whom({"dagster/schedule_name": "daily"}) == ("schedule", "daily")
    assert asked_by_whom({"dagster/backfill": "b"}) == ("backfill", "b")
    assert asked_by_whom({"source": "shop"}) == ("person", None)
    again = {"dagster/sensor_name": "shop_sensor", "dagster/parent_run_id": "r"}
    assert asked_by_whom(again) == ("person", None)
    assert asked_by_whom(again | {"dagster/retry_number": "1"}) == ("sensor", "shop_sensor")
    assert asked_by_whom(again | {"dagster/backfill": "b"}) == ("backfill", "b")


def test_the_ledger_forgets_runs_of_long_ago_and_makes_no_version_for_nothing(shop: Shop) -> None:
    shop.run(*ORDERS)
    shop.tick(SENSOR)
    with open_lakehouse(settings_from_environment()) as lake:
        before = current_snapshot(lake.connection)
        assert ledger.forget_runs(lake, datetime.now(UTC) - timedelta(days=1)) == 0
        assert current_snapshot(lake.connection) == before
        assert ledger.forget_runs(lake, datetime.now(UTC)) == 1
        assert lake.connection.execute("SELECT count(*) FROM platform.loads").fetchone() == (1,)
