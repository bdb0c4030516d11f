"""`dp status --performance`: what a person sees of what takes long, grows and waits."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from platform_tests.cli.conftest import GOOD, Dp

from data_platform.cli.performance import duration, size
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.transaction import commit


def test_before_anything_was_loaded_it_says_how_to_begin(dp: Dp) -> None:
    assert "dp run" in dp("status", "--performance").stdout


def test_the_slowest_the_growing_and_the_waiting_tables_are_shown(dp: Dp, looking: Path) -> None:
    found = json.loads(dp("status", "--performance", "--json").stdout)
    slow = {one["asset"]: one for one in found["slowest"]}
    assert (slow["staged/shop/orders"]["steps"], slow["staged/shop/refunds"]["steps_refused"]) == (1, 1)
    assert sum(one["share"] for one in found["slowest"]) == pytest.approx(1)
    assert found["slowest"][0]["seconds"] == max(one["seconds"] for one in found["slowest"])
    grown = {one["asset"]: (one["rows"], one["rows_added"]) for one in found["growing"]}
    assert grown["raw/shop/orders"] == (GOOD + 2, GOOD + 2)
    assert "staged/shop/refunds" not in grown
    assert [(one["table"], one["loads"]) for one in found["waiting"]] == [("refunds", 1)]
    shown = dp("status", "--performance").stdout
    for word in ("slowest", "growing", "waiting to be staged", "shop/refunds", "staged/shop/orders", "new"):
        assert word in shown


def test_runs_show_what_failed_and_waited_and_what_is_long_ago_is_left_out(dp: Dp, changing: Settings) -> None:
    now = datetime.now(UTC)

    def run(number: int, ago: timedelta, status: ledger.RunStatus, waited: int) -> ledger.Run:
        asked = now - ago
        began = asked + timedelta(seconds=waited)
        return ledger.Run(
            str(number), "load_shop", status, "sensor", "shop_sensor", asked, began, began + timedelta(seconds=60), 2
        )

    hour, month = timedelta(hours=1), timedelta(days=30)
    runs = [run(1, hour, "success", 2), run(2, hour, "failure", 6), run(3, month, "failure", 900)]
    with open_lakehouse(changing) as lake:
        commit(lake, lambda connection: ledger.record_runs(connection, *runs))
    (job,) = json.loads(dp("status", "--performance", "--json").stdout)["runs"]
    assert job == {"job": "load_shop", "runs": 2, "runs_failed": 1, "seconds_waited": 4, "seconds": 60}
    assert "load_shop" in dp("status", "--performance").stdout


def test_durations_and_sizes_are_as_a_person_says_them() -> None:
    assert [duration(one) for one in (None, 0.0249, 3.44, 720, 18_720)] == ["", "25 ms", "3.4 s", "12 min", "5.2 h"]
    assert [size(one) for one in (512, 43_000, 1_300_000, 3_650_000_000)] == ["512 B", "42 KiB", "1.2 MiB", "3.4 GiB"]
