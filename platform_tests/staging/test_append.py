"""Tables without a key: every good row is added, none is replaced."""

from dataclasses import replace

from platform_tests.staging.steps import (
    DAY,
    ON_SQLITE,
    TOLERANT,
    figures_add_up,
    load,
    numbered,
    quarantined,
    stage,
    staged,
)
from platform_tests.tables import Order, orders

from data_platform.contracts import Field
from data_platform.contracts.quarantine import Selection
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.step import replay

APPENDED = replace(TOLERANT, key=(), newest_by=None)

pytestmark = ON_SQLITE


class Generous(Order):
    amount: float = Field(ge=0, le=1_000_000)


def test_equal_rows_are_all_there(lake: Lakehouse) -> None:
    load(lake, numbered(1, 1))
    stage(lake, APPENDED)
    load(lake, numbered(1, 2))
    result = stage(lake, APPENDED)
    assert (result.rows_inserted, result.rows_updated, result.rows_superseded) == (2, 0, 0)
    assert staged(lake) == [(1, 1.0), (1, 1.0), (1, 1.0), (2, 1.0)]
    assert figures_add_up(lake)


def test_a_backfill_replaces_the_rows_of_its_loads_and_a_rebuild_all(lake: Lakehouse) -> None:
    for amount in (1, 2, 3):
        load(lake, numbered(1, amount=amount))
        stage(lake, APPENDED)
    result = stage(lake, APPENDED, loads=(1, 2))
    assert (result.rows_inserted, result.rows_deleted) == (2, 2)
    assert staged(lake) == [(1, 1.0), (1, 2.0), (1, 3.0)]
    stage(lake, APPENDED, rebuild=True)
    assert staged(lake) == [(1, 1.0), (1, 2.0), (1, 3.0)]
    assert figures_add_up(lake)


def test_a_full_refresh_replaces_everything(lake: Lakehouse) -> None:
    load(lake, numbered(1, 2), whole=True)
    stage(lake, APPENDED)
    load(lake, numbered(2, 2), whole=True)
    assert stage(lake, APPENDED).rows_deleted == 2
    assert staged(lake) == [(2, 1.0), (2, 1.0)]


def test_a_bad_row_is_quarantined_without_a_key_and_closed_only_by_passing_itself(lake: Lakehouse) -> None:
    load(lake, orders((1, 5000, "open", DAY), (2, 1, "open", DAY)))
    stage(lake, APPENDED)
    assert quarantined(lake, "quarantine_id, key, status") == [("1:0", None, "open")]
    load(lake, numbered(1))
    stage(lake, APPENDED)
    assert quarantined(lake) == [("1:0", "open")]
    assert replay(lake, replace(APPENDED, contract=Generous), Selection(), run_id="r").rows_inserted == 1
    assert staged(lake) == [(1, 1.0), (1, 5000.0), (2, 1.0)]
    assert quarantined(lake) == [("1:0", "replayed")]
