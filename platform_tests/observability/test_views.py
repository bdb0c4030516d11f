"""The pipeline's own performance, asked in SQL."""

import pytest
from platform_tests.tables import RECIPE, TABLE, MemorySource, batch_of, orders, rejects

from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.observability.views import ensure_views
from data_platform.staging.step import stage_table

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
