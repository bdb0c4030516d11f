"""Full refreshes that were replaced leave raw, and nothing else does."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from platform_tests.ingestion.landing import data_files, known_files
from platform_tests.staging.steps import DAY, ON_SQLITE, TOLERANT, load, numbered, quarantined, query, stage, staged
from platform_tests.tables import TABLE, MemorySource, batch_of, orders

from data_platform.contracts import Contract
from data_platform.contracts.quarantine import Selection
from data_platform.errors import PlatformError
from data_platform.ingestion import commit as commit_module
from data_platform.ingestion import retention
from data_platform.ingestion.load import load_table
from data_platform.ingestion.retention import Retired, retire_replaced_loads
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.transaction import ConcurrentStepError, commit
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import replay

LATER = timedelta(days=31)


def refresh(lake: Lakehouse, *numbers: int) -> None:
    load(lake, numbered(*numbers), whole=True)
    stage(lake)


def retire(
    lake: Lakehouse, after: timedelta = LATER, keep: Mapping[tuple[str, str], timedelta] | None = None
) -> Retired:
    return retire_replaced_loads(lake, keep or {}, at=datetime.now(UTC) + after)


def raw(lake: Lakehouse) -> list[tuple[int, int]]:
    return query(lake, "SELECT _load_id, count(*) FROM raw_shop.orders GROUP BY 1 ORDER BY 1")


def test_replaced_refreshes_are_deleted_after_their_time_and_the_ledger_says_when(lake: Lakehouse) -> None:
    refresh(lake, 1, 2)
    refresh(lake, 1, 2, 3)
    refresh(lake, 4, 5)
    assert retire(lake, timedelta(days=29)) == Retired()
    assert raw(lake) == [(1, 2), (2, 3), (3, 2)]
    assert retire(lake) == Retired(loads=2, rows=5)
    assert raw(lake) == [(3, 2)]
    assert query(lake, "SELECT load_id, retired_at IS NOT NULL FROM platform.loads ORDER BY 1") == [
        (1, True),
        (2, True),
        (3, False),
    ]
    assert retire(lake) == Retired()
    assert staged(lake, "order_id") == [(4,), (5,)]
    # The table can be rebuilt, and goes on.
    assert stage(lake, rebuild=True).rows_inserted == 2
    refresh(lake, 5, 6)
    assert staged(lake, "order_id") == [(5,), (6,)]


@ON_SQLITE
def test_a_refresh_is_kept_until_its_successor_is_staged(lake: Lakehouse) -> None:
    refresh(lake, 1)
    load(lake, numbered(1, 2), whole=True)
    assert retire(lake) == Retired()
    stage(lake)
    load(lake, numbered(1, 2, 3), whole=True)
    assert retire(lake).loads == 1
    assert raw(lake) == [(2, 2), (3, 3)]


@ON_SQLITE
def test_loads_that_add_rows_are_never_deleted(lake: Lakehouse) -> None:
    load(lake, numbered(1))
    stage(lake)
    refresh(lake, 1, 2)
    load(lake, numbered(3))
    stage(lake)
    refresh(lake, 1, 2, 3)
    assert retire(lake) == Retired(loads=1, rows=2)
    assert raw(lake) == [(1, 1), (3, 1), (4, 3)]


@ON_SQLITE
def test_an_empty_refresh_is_retired_like_any_other(lake: Lakehouse) -> None:
    load(lake, orders(), whole=True)
    stage(lake)
    refresh(lake, 1)
    assert retire(lake) == Retired(loads=1)
    assert raw(lake) == [(2, 1)]


@ON_SQLITE
def test_a_table_may_keep_them_longer_or_shorter_than_the_setting(lake: Lakehouse) -> None:
    refresh(lake, 1)
    refresh(lake, 2)
    assert retire(lake, keep={("shop", "orders"): timedelta(days=365)}) == Retired()
    assert retire(lake, timedelta(hours=1), keep={("shop", "other"): timedelta(0)}) == Retired()
    assert retire(lake, timedelta(hours=1), keep={("shop", "orders"): timedelta(minutes=30)}).loads == 1


@ON_SQLITE
def test_rows_in_quarantine_keep_their_load_until_somebody_decides(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", DAY), (2, "abc", "open", DAY)), whole=True)
    stage(lake, TOLERANT)
    refresh(lake, 1)
    assert quarantined(lake) == [("1:1", "superseded")]
    # As a person might leave it, or an earlier release.
    query(lake, "UPDATE quarantine_shop.orders SET status = 'open'")
    assert retire(lake) == Retired(left_in_quarantine=1)
    assert raw(lake) == [(1, 2), (2, 1)]
    assert replay(lake, TOLERANT, Selection(ids=["1:1"]), run_id="r").rows_quarantined == 1
    query(lake, "UPDATE quarantine_shop.orders SET status = 'discarded'")
    assert retire(lake) == Retired(loads=1, rows=2)
    assert quarantined(lake) == [("1:1", "discarded")]


@ON_SQLITE
def test_a_large_load_is_deleted_in_portions_and_one_that_was_broken_off_is_finished_next_time(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh(lake, *range(5))
    refresh(lake, 1, 2, 3)
    commits = 0

    def breaks_off(*arguments: Any) -> Any:
        nonlocal commits
        commits += 1
        if commits == 2:
            raise PlatformError("the power failed")
        return commit(*arguments)

    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(retention, "commit", breaks_off)
    with pytest.raises(PlatformError, match="the power failed"):
        retire(lake)
    assert raw(lake) == [(1, 3), (2, 3)]
    assert len(ledger.replaced_loads(lake)) == 1
    assert retire(lake) == Retired(loads=1, rows=5)
    assert commits == 4
    assert raw(lake) == [(2, 3)]
    assert ledger.replaced_loads(lake) == []


def widened_load(lake: Lakehouse) -> None:
    """Land a row in wider types: the raw table is written anew."""
    rows = pa.table({"order_id": ["9"], "amount": pa.array([9], pa.decimal128(9, 2))})
    batch = batch_of(rows, {"cursor": "wide"})
    load_table(lake, "shop", MemorySource([batch]), "orders", TABLE, run_id="run-1")


@pytest.fixture
def two_refreshes(lake: Lakehouse) -> Lakehouse:
    """Of three rows each, the first of them replaced."""
    for number in (1, 2):
        amounts = pa.table({"order_id": ["1", "2", "3"], "amount": pa.array([number] * 3, pa.decimal128(4, 2))})
        load(lake, amounts, whole=True)
        stage(lake, Recipe("shop", "orders", ("order_id",), Amount))
    return lake


class Amount(Contract):
    order_id: int
    amount: float


@pytest.mark.parametrize("rows_at_once", [1_000, 1])
def test_rows_that_are_retired_while_a_load_writes_the_table_in_wider_types_do_not_come_back(
    two_refreshes: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    lake, tries = two_refreshes, 0
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", rows_at_once)

    def late(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            with open_lakehouse(settings) as other:
                assert retire(other) == Retired(loads=1, rows=3)
        return commit(*arguments)

    monkeypatch.setattr(commit_module, "commit", late)
    widened_load(lake)
    assert tries == 2
    assert raw(lake) == [(2, 3), (3, 1)]
    assert query(lake, "SELECT DISTINCT typeof(amount) FROM raw_shop.orders") == [("DECIMAL(9,2)",)]
    assert data_files(settings) >= known_files(lake)


@ON_SQLITE
def test_a_load_gives_up_when_rows_go_each_time_it_has_written_the_table_and_changes_nothing(
    two_refreshes: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, before = two_refreshes, data_files(settings)

    def late(*arguments: Any) -> Any:
        delete = "DELETE FROM raw_shop.orders WHERE rowid = (SELECT min(rowid) FROM raw_shop.orders)"
        with open_lakehouse(settings) as other:
            commit(other, lambda connection: connection.execute(delete).fetchall())
        return commit(*arguments)

    monkeypatch.setattr(commit_module, "commit", late)
    with pytest.raises(ConcurrentStepError, match="Rows of shop/orders were deleted from raw again and again while"):
        widened_load(lake)
    assert raw(lake) == [(2, 1)]
    assert {file for file in data_files(settings) - before if "delete" not in file} == set()


def test_retention_goes_on_after_a_load_that_wrote_the_table_anew(
    two_refreshes: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, tries = two_refreshes, 0
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 2)

    def early(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 2:
            with open_lakehouse(settings) as other:
                widened_load(other)
        return commit(*arguments)

    monkeypatch.setattr(retention, "commit", early)
    assert retire(lake) == Retired(loads=1, rows=3)
    assert raw(lake) == [(2, 3), (3, 1)]


@ON_SQLITE
def test_malformed_records_of_a_load_are_closed_with_it(lake: Lakehouse) -> None:
    refresh(lake, 1)
    refresh(lake, 2)
    load(lake, orders((3, "abc", "open", DAY)))
    stage(lake, TOLERANT)
    query(lake, "UPDATE quarantine_shop.orders SET layer = 'raw', load_id = 1 WHERE load_id = 3")
    assert retire(lake).loads == 1
    assert quarantined(lake) == [("3:0", "superseded")]


@ON_SQLITE
def test_to_stage_retired_loads_again_is_refused_with_the_reason(lake: Lakehouse) -> None:
    refresh(lake, 1)
    refresh(lake, 2)
    refresh(lake, 3)
    retire(lake)
    with pytest.raises(PlatformError, match=r"1 to 2 were replaced by .* of load 3\. .*up to load 2 from"):
        stage(lake, loads=(1, 2))
    # A range that reaches the latest refresh is that refresh.
    assert stage(lake, loads=(1, 3)).rows_read == 1


@ON_SQLITE
def test_what_retention_deletes_can_be_read_until_its_version_expires_and_then_frees_the_disk(
    lake: Lakehouse, settings: Settings
) -> None:
    refresh(lake, *range(1000))
    before = query(lake, "SELECT id FROM ducklake_current_snapshot('lake')")[0][0]
    refresh(lake, *range(1000))
    retire(lake)
    assert query(lake, f"SELECT count(*) FROM raw_shop.orders AT (VERSION => {before})") == [(1000,)]
    assert rows_on_disk(settings) == 2000
    # The file is let go when the last version that holds it expires, and deleted by the next maintenance.
    for _ in range(2):
        maintain(lake, keep_snapshots=timedelta(0), keep_files=timedelta(0))
    assert rows_on_disk(settings) == 1000
    assert raw(lake) == [(2, 1000)]


def rows_on_disk(settings: Settings) -> int:
    files = (Path(settings.data) / "raw_shop" / "orders").glob("*.parquet")
    return sum(pq.read_metadata(file).num_rows for file in files if "delete" not in file.name)


def test_how_long_they_are_kept_is_a_setting() -> None:
    assert settings_from_environment({}).keep_replaced == timedelta(days=30)
    assert settings_from_environment({"LAKEHOUSE_KEEP_REPLACED": "1d12h"}).keep_replaced == timedelta(hours=36)
    with pytest.raises(PlatformError, match="LAKEHOUSE_KEEP_REPLACED: 'a while' is no duration: write 30s"):
        settings_from_environment({"LAKEHOUSE_KEEP_REPLACED": "a while"})
