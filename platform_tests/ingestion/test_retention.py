"""Full refreshes that were replaced leave raw, and nothing else does."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from platform_tests.staging.steps import DAY, ON_SQLITE, TOLERANT, load, numbered, quarantined, query, stage, staged
from platform_tests.tables import orders

from data_platform.contracts.quarantine import Selection
from data_platform.errors import PlatformError
from data_platform.ingestion import retention
from data_platform.ingestion.retention import Retired, retire_replaced_loads
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.transaction import commit
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
