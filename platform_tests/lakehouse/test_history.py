"""Tables as they were, publications that stand still, and maintenance that loses neither."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from platform_tests import workers

from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse import ledger, maintenance
from data_platform.lakehouse.connect import METADATA, Lakehouse, open_lakehouse
from data_platform.lakehouse.frames import lazy_frame
from data_platform.lakehouse.history import current_snapshot, find_table, read_table, run_query, snapshots
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import Table
from data_platform.lakehouse.transaction import commit, copy_to, new_path
from data_platform.staging.step import stage_table

NOW = timedelta(0)
LATER = timedelta(days=1)


def step(lake: Lakehouse) -> int:
    """Load 20 bookings, stage them, and return the version after it."""
    load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="r")
    stage_table(lake, workers.RECIPE, run_id="r")
    return current_snapshot(lake.connection)


def count(lake: Lakehouse, name: str, at: str | None = None) -> int:
    row = read_table(lake, name, at).aggregate("count(*)").fetchone()
    assert row is not None
    return int(row[0])


def files(settings: Settings) -> set[Path]:
    return set(Path(settings.data).rglob("*.parquet"))


def test_a_table_is_read_as_it_was_at_a_version_or_a_time(lake: Lakehouse) -> None:
    first = step(lake)
    between = datetime.now(UTC)
    step(lake)
    assert count(lake, "raw/growing/entries") == 80
    assert count(lake, "raw_growing.entries", str(first)) == 40
    assert count(lake, "raw/growing/entries", between.isoformat()) == 40
    assert count(lake, "staged/growing/entries", str(first)) < count(lake, "staged/growing/entries")
    listed = snapshots(lake)
    assert [s.snapshot_id for s in listed] == sorted((s.snapshot_id for s in listed), reverse=True)
    assert listed[0].snapshot_id == current_snapshot(lake.connection)


def test_a_time_means_the_last_version_committed_by_then_also_of_several_at_once_or_after_a_clock_was_set_back(
    lake: Lakehouse,
) -> None:
    first = step(lake)
    second = step(lake)
    times = f"UPDATE {METADATA}.ducklake_snapshot SET snapshot_time = ? WHERE snapshot_id {{}}"
    moment = datetime.now(UTC) - timedelta(hours=1)
    lake.connection.execute(times.format(f"<= {second}"), [moment.isoformat()])
    assert count(lake, "raw/growing/entries", moment.isoformat()) == 80
    step(lake)
    # The first two were committed by a clock that went ahead.
    lake.connection.execute(times.format(f"> {second}"), [(moment - timedelta(minutes=5)).isoformat()])
    assert count(lake, "raw/growing/entries", (moment - timedelta(minutes=1)).isoformat()) == 120
    assert count(lake, "raw/growing/entries", str(first)) == 40


def test_a_version_that_has_expired_is_refused_never_shown_as_an_older_one(lake: Lakehouse) -> None:
    first = step(lake)
    commit(lake, lambda c: ledger.record_publication(c, ledger.Publication(1, "m", first, "r", datetime.now(UTC), 0)))
    step(lake)
    second = datetime.now(UTC)
    third = step(lake)
    maintain(lake, keep_snapshots=NOW, keep_files=NOW)
    last = current_snapshot(lake.connection)
    assert count(lake, "raw/growing/entries", str(first)) == 40
    with pytest.raises(PlatformError, match=rf"at {third}: .* of those around it, {first} and {last} are kept"):
        count(lake, "raw/growing/entries", str(third))
    # DuckLake itself would show the first version.
    with pytest.raises(PlatformError, match=rf"has expired\. .* {first} and {last} are kept"):
        count(lake, "raw/growing/entries", second.isoformat())
    with pytest.raises(PlatformError, match=rf"at {last + 1}: there is no such version yet, the latest is {last}\."):
        count(lake, "raw/growing/entries", str(last + 1))
    with pytest.raises(PlatformError, match=rf"the first that is kept is {first}, of "):
        count(lake, "raw/growing/entries", "2020-01-01")
    assert count(lake, "raw/growing/entries", datetime.now(UTC).isoformat()) == 120


def test_reading_what_is_not_there_says_what_is(lake: Lakehouse) -> None:
    with pytest.raises(PlatformError, match=r"There is no table raw/growing/x\. The closest: none: the lakehouse is"):
        find_table(lake, "raw/growing/x")
    version = step(lake)
    with pytest.raises(PlatformError, match=r"There is no table raw/growing/entry\. The closest: raw_growing\.entries"):
        read_table(lake, "raw/growing/entry")
    with pytest.raises(PlatformError, match=r"raw_growing\.entries cannot be read at 0"):
        read_table(lake, "raw/growing/entries", "0")
    with pytest.raises(PlatformError, match=rf"cannot be read at {version + 99}"):
        read_table(lake, "raw/growing/entries", str(version + 99))
    with pytest.raises(PlatformError, match="'yesterday' is neither a version nor a time"):
        read_table(lake, "raw/growing/entries", "yesterday")
    with pytest.raises(PlatformError, match="'²' is neither"):
        read_table(lake, "raw/growing/entries", "²")
    with pytest.raises(PlatformError, match="nonsense"):
        run_query(lake, "nonsense")


def test_reading_needs_a_lakehouse(settings: Settings) -> None:
    message = "There is no lakehouse" if settings.catalog_is_sqlite else "Cannot open the lakehouse"
    with pytest.raises(PlatformError, match=message), open_lakehouse(settings, read_only=True):
        pass


def test_maintenance_merges_small_files_and_loses_no_row_and_no_version(lake: Lakehouse, settings: Settings) -> None:
    versions = [step(lake) for _ in range(4)]
    before = {name: count(lake, name) for name in ("raw/growing/entries", "staged/growing/entries")}
    past = [count(lake, "raw/growing/entries", str(version)) for version in versions]
    done = maintain(lake, keep_files=NOW)
    assert done.files_merged >= 6
    assert done.files_deleted >= 6
    for table in ("raw_growing", "staged_growing"):
        listed = lake.connection.execute(f"FROM ducklake_list_files('lake', 'entries', schema => '{table}')").fetchall()
        assert len(listed) == 1
    assert {name: count(lake, name) for name in before} == before
    assert [count(lake, "raw/growing/entries", str(version)) for version in versions] == past
    step(lake)
    upto = 100
    found = lake.connection.execute("SELECT key, side, number FROM staged_growing.entries ORDER BY ALL").fetchall()
    assert found == workers.expected_staged(upto)


def test_a_query_that_began_before_the_merge_reads_to_its_end(lake: Lakehouse, settings: Settings) -> None:
    for _ in range(3):
        step(lake)
    reader = lake.duplicate().connection
    rows = reader.execute("SELECT number FROM lake.raw_growing.entries")
    assert maintain(lake).files_merged > 0
    assert len(rows.fetchall()) == 120


def test_a_step_reads_on_while_maintenance_replaces_its_files(lake: Lakehouse, settings: Settings) -> None:
    step(lake)
    load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="r")
    merged = []

    def slow(raw: pl.LazyFrame) -> pl.LazyFrame:
        with open_lakehouse(settings) as other:
            merged.append(maintain(other, keep_snapshots=NOW).files_merged)
        return raw

    stage_table(lake, replace(workers.RECIPE, function=slow), run_id="r")
    assert merged[0] > 0
    found = lake.connection.execute("SELECT key, side, number FROM staged_growing.entries ORDER BY ALL").fetchall()
    assert found == workers.expected_staged(40)


def test_expired_versions_are_gone_with_a_clear_error_and_the_present_stays(lake: Lakehouse) -> None:
    first = step(lake)
    frame = lazy_frame(lake, f"FROM lake.raw_growing.entries AT (VERSION => {first})")
    step(lake)
    assert maintain(lake, keep_snapshots=NOW, keep_files=NOW).snapshots_expired > 0
    with pytest.raises(PlatformError, match="That version has expired since: read the table anew"):
        frame.collect()
    assert count(lake, "raw/growing/entries") == 80
    with pytest.raises(PlatformError, match=rf"raw_growing\.entries cannot be read at {first}"):
        read_table(lake, "raw/growing/entries", str(first))


def test_what_models_were_computed_from_and_pinned_versions_outlive_their_time(lake: Lakehouse) -> None:
    step(lake)
    query = "SELECT count(*) AS rows FROM raw_growing.entries AT (VERSION => {})"
    used = workers.publish_query(lake, "totals", query, {"growing/entries": 1}, run_id="r")
    pinned = step(lake)
    pin = [pinned, datetime.now(UTC)]
    commit(lake, lambda c: c.execute("INSERT INTO platform.pins VALUES ('training', ?, 'model 1', ?)", pin))
    doomed = step(lake)
    step(lake)
    maintain(lake, keep_snapshots=NOW, keep_files=NOW)
    assert lake.connection.execute("SELECT * FROM modelled.totals").fetchall() == [(40,)]
    assert count(lake, "raw/growing/entries", str(used)) == 40
    assert count(lake, "raw/growing/entries", str(pinned)) == 80
    with pytest.raises(PlatformError, match="cannot be read"):
        read_table(lake, "raw/growing/entries", str(doomed))


def test_a_view_that_an_earlier_release_published_outlives_its_version_s_time(lake: Lakehouse) -> None:
    published = step(lake)
    statement = f"CREATE VIEW modelled.totals AS SELECT * FROM raw_growing.entries AT (VERSION => {published})"
    commit(lake, lambda c: [c.execute(sql) for sql in ("CREATE SCHEMA modelled", statement)])
    publication = ledger.Publication(1, "totals", published, "r", datetime.now(UTC), 40)
    commit(lake, lambda c: ledger.record_publication(c, publication))
    step(lake)
    maintain(lake, keep_snapshots=NOW, keep_files=NOW)
    assert count(lake, "modelled.totals") == 40


def test_a_file_of_a_step_under_way_survives_and_an_old_orphan_does_not(lake: Lakehouse, settings: Settings) -> None:
    step(lake)
    table = Table("raw_growing", "entries")
    under_way, *forgotten = (new_path(lake, table) for _ in range(4))
    foreign = [str(Path(under_way).parent / name) for name in ("ducklake-1.parquet", "0123456789ab-1.parquet")]
    for path in (under_way, *forgotten, *foreign):
        copy_to(lake, "SELECT 1 AS a", path)
    old = time.time() - timedelta(days=2).total_seconds()
    for path in (*forgotten, *foreign):
        os.utime(path, (old, old))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintenance, "AT_ONCE", 2)
        done = maintain(lake)
    # What it is not known to have written itself is not the lakehouse's to delete.
    assert (done.orphans_deleted, done.files_unknown) == (3, 2)
    assert all(Path(path).exists() for path in (under_way, *foreign))
    assert not any(Path(path).exists() for path in forgotten)
    assert count(lake, "raw/growing/entries") == 40


def test_maintenance_of_an_empty_lakehouse_does_nothing(lake: Lakehouse) -> None:
    done = maintain(lake, keep_snapshots=LATER)
    assert (done.files_merged, done.snapshots_expired, done.files_deleted, done.orphans_deleted) == (0, 0, 0, 0)
