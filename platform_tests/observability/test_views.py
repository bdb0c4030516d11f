"""The pipeline's own performance, asked in SQL."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import duckdb
import pytest
from platform_tests.tables import RECIPE, TABLE, MemorySource, batch_of, orders, rejects

from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.ledger.inlining import keep_ledger_rows_in_catalog
from data_platform.lakehouse.transaction import commit
from data_platform.lakehouse.usage import peak_bytes
from data_platform.observability.views import ensure_views, replace_views
from data_platform.staging.step import StagingRefusedError, stage_table

DAY = "2020-01-01T00:00:00Z"


def load(lake: Lakehouse, number: int, *, bad: int = 0) -> None:
    unreadable = rejects(*(("f.csv", line, "?", "no record") for line in range(bad)))
    batch = batch_of(
        orders(*((n, 1, "open", DAY) for n in range(10 * number, 10 * number + 9))), {"c": str(number)}, unreadable
    )
    load_table(
        lake, "shop", MemorySource([batch]), "orders", TABLE.model_copy(update={"refuse_above": 0.2}), run_id="r"
    )


def test_loads_add_up_by_day_with_their_pace_and_what_was_refused(lake: Lakehouse) -> None:
    load(lake, 1)
    load(lake, 2, bad=1)
    with pytest.raises(PlatformError):
        load(lake, 3, bad=9)
    ensure_views(lake)
    told = lake.connection.execute(
        "SELECT source, table_name, loads, loads_refused, rows_read, rows_landed, rows_quarantined, quarantined_share, "
        "seconds > 0, rows_per_second > 0 FROM platform.load_performance"
    ).fetchall()
    assert told == [("shop", "orders", 2, 1, 37, 18, 10, pytest.approx(10 / 37), True, True)]
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):  # in one of them it is another day now
        lake.connection.execute(f"SET TimeZone = '{zone}'")
        days = "SELECT day FROM platform.load_performance UNION ALL SELECT day FROM platform.table_growth"
        at = lake.connection.execute("SELECT started_at FROM platform.loads LIMIT 1").fetchall()[0][0]
        assert set(lake.connection.execute(days).fetchall()) == {(at.astimezone(UTC).date(),)}


def test_freshness_tells_the_time_since_and_the_loads_that_wait(lake: Lakehouse) -> None:
    load(lake, 1)
    ensure_views(lake)
    asked = (
        "SELECT loads_awaiting_staging, staged_at IS NULL, seconds_since_load BETWEEN 0 AND 600 FROM platform.freshness"
    )
    assert lake.connection.execute(asked).fetchall() == [(1, True, True)]
    stage_table(lake, RECIPE, run_id="r")
    assert lake.connection.execute(asked).fetchall() == [(0, False, True)]
    load(lake, 2)
    assert lake.connection.execute(asked).fetchall() == [(1, False, True)]


def test_views_that_are_there_are_left_alone(lake: Lakehouse) -> None:
    load(lake, 1)
    ensure_views(lake)
    before = current_snapshot(lake.connection)
    ensure_views(lake)
    assert current_snapshot(lake.connection) == before


def test_views_of_an_earlier_release_are_made_anew_once(lake: Lakehouse) -> None:
    load(lake, 1)
    ensure_views(lake)
    lake.connection.execute("CREATE OR REPLACE VIEW platform.freshness AS SELECT 1 AS old")
    assert replace_views(lake)
    assert lake.connection.execute("SELECT loads_awaiting_staging FROM platform.freshness").fetchall() == [(1,)]
    before = current_snapshot(lake.connection)
    assert not replace_views(lake)
    assert current_snapshot(lake.connection) == before


def asked(lake: Lakehouse, query: str) -> list[dict[str, Any]]:
    ensure_views(lake)
    rows: list[dict[str, Any]] = lake.connection.execute(query).to_arrow_table().to_pylist()
    return rows


def test_each_step_tells_what_went_in_and_out_how_long_it_took_and_what_it_cost(lake: Lakehouse) -> None:
    load(lake, 1, bad=1)
    stage_table(lake, RECIPE, run_id="s")
    loaded, staged = asked(lake, "SELECT * FROM platform.step_performance ORDER BY ended_at")
    assert (loaded["asset"], loaded["kind"], loaded["outcome"], loaded["run_id"]) == (
        "raw/shop/orders", "load", "landed", "r",
    )  # fmt: skip
    assert (staged["asset"], staged["kind"], staged["outcome"], staged["run_id"]) == (
        "staged/shop/orders", "stage", "staged", "s",
    )  # fmt: skip
    assert [(one["rows_in"], one["rows_out"], one["rows_quarantined"]) for one in (loaded, staged)] == [
        (10, 9, 1),
        (9, 9, 0),
    ]
    assert (loaded["seconds_waited"], staged["seconds_waited"] > 0, loaded["bytes_read"] > 0) == (None, True, True)
    for one in (loaded, staged):
        assert one["seconds"] > 0
        assert one["cpu_seconds"] > 0
        assert one["bytes_written"] > 0
        assert one["rows_per_second"] == pytest.approx(one["rows_in"] / one["seconds"])
        assert 10 * 2**20 < one["peak_bytes"] <= peak_bytes()


def test_a_refused_step_costs_too_and_its_reasons_are_counted(lake: Lakehouse) -> None:
    with pytest.raises(PlatformError):
        load(lake, 1, bad=9)
    batch = batch_of(orders((1, "cheap", "open", DAY), (2, -1, "open", DAY), (3, -2, "lost", DAY)), {"c": "2"})
    load_table(lake, "shop", MemorySource([batch]), "orders", TABLE, run_id="r")
    with pytest.raises(StagingRefusedError):
        stage_table(lake, RECIPE, run_id="r")
    steps = asked(lake, "SELECT outcome, cpu_seconds > 0 AS costs FROM platform.step_performance ORDER BY ended_at")
    assert [tuple(one.values()) for one in steps] == [("refused", True), ("landed", True), ("refused", True)]
    reasons = asked(
        lake, "SELECT column_name, rows, steps FROM platform.quarantine_by_reason ORDER BY rows DESC, column_name"
    )
    assert [tuple(one.values()) for one in reasons] == [
        (None, 9, 1),
        ("amount", 2, 1),
        ("amount", 1, 1),
        ("status", 1, 1),
    ]
    (total,) = asked(lake, "SELECT steps, steps_refused FROM platform.asset_performance WHERE kind = 'load'")
    assert total == {"steps": 2, "steps_refused": 1}


def test_a_table_grows_by_what_is_added_and_taken_away(lake: Lakehouse) -> None:
    for number in (1, 2):
        load(lake, number)
        stage_table(lake, RECIPE, run_id="r")
    whole = MemorySource([batch_of(orders((1, 1, "open", DAY)), {"c": "3"}, kind="whole")], whole=True)
    load_table(lake, "shop", whole, "orders", TABLE, run_id="r", full_refresh=True)
    stage_table(lake, RECIPE, run_id="r")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    commit(lake, lambda connection: ledger.record_retirement(connection, "shop", "orders", 1, tomorrow))
    days = asked(lake, "SELECT asset, rows_added, rows FROM platform.table_growth ORDER BY asset, day")
    assert [tuple(one.values()) for one in days] == [
        ("raw/shop/orders", 19, 19),
        ("raw/shop/orders", -9, 10),
        ("staged/shop/orders", 1, 1),
    ]
    assert lake.connection.execute("SELECT count(*) FROM staged_shop.orders").fetchone() == (1,)


def test_after_random_loads_and_stagings_the_views_say_what_is_there_and_what_was_counted_by_hand(
    lake: Lakehouse,
) -> None:
    chance = random.Random(1)
    table = TABLE.model_copy(update={"refuse_above": 1.0, "shrink_limit": 0.0})
    recipe = replace(RECIPE, refuse_above=1.0)
    kinds = ("load", "load", "whole", "stage", "rebuild")
    loads = read = landed = quarantined = waiting = 0
    for number, what in enumerate(["load", "stage", *chance.choices(kinds, k=6)]):
        if what in ("stage", "rebuild"):
            stage_table(lake, recipe, run_id="r", rebuild=what == "rebuild")
            waiting = 0
        else:
            good = [(chance.randint(1, 6), chance.randint(-1, 9), "open", DAY) for _ in range(chance.randint(1, 5))]
            bad = rejects(*(("f.csv", line, "?", "no record") for line in range(chance.randint(0, 2))))
            source = MemorySource([batch_of(orders(*good), {"c": str(number)}, bad)], whole=what == "whole")
            load_table(lake, "shop", source, "orders", table, run_id="r", full_refresh=what == "whole")
            loads, waiting = loads + 1, waiting + 1
            read, landed, quarantined = read + len(good) + len(bad), landed + len(good), quarantined + len(bad)
        for layer in ("raw", "staged") if number else ():
            there = asked(lake, f"SELECT count(*) AS rows FROM {layer}_shop.orders")
            assert asked(lake, f"SELECT rows FROM platform.table_growth WHERE asset = '{layer}/shop/orders'") == there
    counted = {"loads": loads, "rows_read": read, "rows_landed": landed, "rows_quarantined": quarantined}
    assert asked(lake, f"SELECT {', '.join(counted)} FROM platform.load_performance") == [counted]
    assert asked(lake, "SELECT loads_awaiting_staging FROM platform.freshness") == [{"loads_awaiting_staging": waiting}]
    totals = [
        asked(lake, f"SELECT {steps} AS steps, sum(seconds) AS seconds FROM platform.{view}")[0]
        for view, steps in (("step_performance", "count(*)"), ("asset_performance", "sum(steps)::BIGINT"))
    ]
    assert totals[0] == {"steps": totals[1]["steps"], "seconds": pytest.approx(totals[1]["seconds"])}


def record(runs: Sequence[ledger.Run], connection: duckdb.DuckDBPyConnection) -> None:
    ledger.record_runs(connection, *runs)


def test_a_run_tells_who_asked_for_it_how_long_it_waited_and_what_its_steps_cost(lake: Lakehouse) -> None:
    load(lake, 1)
    stage_table(lake, RECIPE, run_id="r")
    at = datetime(2020, 1, 1, tzinfo=UTC)
    ran = ledger.Run(
        "r",
        "load_shop",
        "success",
        "sensor",
        "shop_sensor",
        at,
        at + timedelta(seconds=3),
        at + timedelta(seconds=10),
        2,
    )
    never = ledger.Run("n", "load_shop", "canceled", "person", None, at, None, at + timedelta(seconds=60))
    for runs in ([ran], [ran, never]):  # what is there already stays as it is
        commit(lake, partial(record, runs))
    first, second = asked(lake, "SELECT * FROM platform.run_performance ORDER BY status DESC")
    assert (first["asked_by"], first["asker"], first["seconds_waited"], first["seconds"]) == (
        "sensor",
        "shop_sensor",
        3,
        7,
    )
    assert (first["steps"], first["steps_failed"], first["rows_landed"]) == (2, 0, 9)
    (cost,) = asked(lake, "SELECT sum(cpu_seconds) AS cpu FROM platform.step_performance")
    assert first["cpu_seconds"] == pytest.approx(cost["cpu"])
    assert (second["seconds_waited"], second["seconds"], second["cpu_seconds"]) == (60, None, None)


def test_the_catalog_of_an_earlier_release_can_be_prepared_though_it_has_views(lake: Lakehouse) -> None:
    ledger.ensure_ledger(lake)
    ensure_views(lake)
    keep_ledger_rows_in_catalog(lake.connection)
    ensure_views(lake)
    assert lake.connection.execute("SELECT count(*) FROM platform.freshness").fetchall() == [(0,)]


def test_the_versions_of_a_model_have_their_stage_metrics_and_gates_in_columns(lake: Lakehouse) -> None:
    load(lake, 1)
    at = datetime(2020, 1, 1, tzinfo=UTC)
    stages: list[tuple[int, ledger.ModelStage, str]] = [
        (1, "production", "training"),
        (2, "candidate", "training"),
        (1, "retired", "ann"),
    ]

    def record_models(connection: duckdb.DuckDBPyConnection) -> None:
        for version, metrics in ((1, {"auc": 0.7, "brier": 1e-05}), (2, {"auc": 0.8}), (3, {})):
            gates = [{"name": "auc at least 0.75", "passed": metrics.get("auc", 0) > 0.75, "reason": "as measured"}]
            ledger.record_model(
                connection,
                ledger.ModelVersion(
                    "m", version, "d", 4, 9, "c", {}, metrics, gates if metrics else [], "lightgbm", "f", "p", "r", at
                ),
            )
        for days, (version, stage, by) in enumerate(stages):
            change = ledger.StageChange("m", version, stage, at + timedelta(days=days), by, f"because {days}")
            ledger.record_stage(connection, change)

    commit(lake, record_models)
    versions = asked(
        lake,
        'SELECT version, stage, "by", reason, promoted_at IS NULL, dataset_rows '
        "FROM platform.model_versions ORDER BY version",
    )
    assert [tuple(one.values()) for one in versions] == [
        (1, "retired", "ann", "because 2", False, None),
        (2, "candidate", "training", "because 1", True, None),
        (3, None, None, None, True, None),
    ]
    metrics = asked(lake, "SELECT version, metric, value FROM platform.model_metrics ORDER BY ALL")
    assert [tuple(one.values()) for one in metrics] == [(1, "auc", 0.7), (1, "brier", 1e-05), (2, "auc", 0.8)]
    gates = asked(lake, "SELECT version, gate, passed, reason FROM platform.model_gates ORDER BY ALL")
    assert [tuple(one.values()) for one in gates] == [
        (1, "auc at least 0.75", False, "as measured"),
        (2, "auc at least 0.75", True, "as measured"),
    ]
