"""Maintenance beside writers and readers: nobody waits for it, nothing is lost, doubled or brought back, and every
version stays what it was.

`POLLING_SECONDS` makes the test of the readers as long as one likes; by default it is short.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

import pytest
from platform_tests import workers
from platform_tests.kills import KILLS
from platform_tests.lakehouse import polling

from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse import compaction
from data_platform.lakehouse.connect import METADATA, Lakehouse, open_lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.maintenance import Maintained, delete_replaced_files, maintain
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import Table
from data_platform.lakehouse.transaction import copy_to, new_path
from data_platform.staging.step import stage_table

POLLING_SECONDS = float(os.environ.get("POLLING_SECONDS", "6"))
SECOND = 1.0
SLOW = 4.0
"""Seconds by which a batch of files takes longer: a writer that waited for it would take as long."""

Write = Callable[..., Any]


def run(lake: Lakehouse, sql: str) -> list[Any]:
    return lake.connection.execute(sql).fetchall()


def fill(lake: Lakehouse, table: str = "t", files: int = 4, rows: int = 1_000) -> None:
    """A table `table` of several files with the numbers from 0."""
    run(lake, f"CREATE TABLE lake.main.{table} (a BIGINT, b VARCHAR)")
    for number in range(files):
        numbers = f"range({number * rows}, {(number + 1) * rows})"
        run(lake, f"INSERT INTO lake.main.{table} SELECT range, 'x' || range FROM {numbers}")


def files_of(lake: Lakehouse, table: str = "t") -> int:
    return len(run(lake, f"FROM ducklake_list_files('lake', '{table}', schema => 'main')"))


def content(lake: Lakehouse, at: int | None = None, table: str = "t") -> list[Any]:
    return run(lake, f"SELECT rowid, * FROM lake.main.{table} {f'AT (VERSION => {at})' if at else ''} ORDER BY ALL")


def unknown_files(lake: Lakehouse, settings: Settings) -> list[Path]:
    """Data files that neither a table nor the list of what is to be deleted names."""
    named = {
        path.rsplit("/", 1)[-1]
        for table in ("data_file", "delete_file", "files_scheduled_for_deletion")
        for (path,) in run(lake, f"SELECT path FROM {METADATA}.ducklake_{table}")
    }
    return [path for path in Path(settings.data).rglob("*.parquet") if path.name not in named]


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> Iterator[None]:
    """Do something after files were written and before they are shown: `act` is given how often that was."""
    real, times = compaction.write_replacements, [0]

    def write(*arguments: Any) -> Any:
        written = real(*arguments)
        times[0] += 1
        act(times[0])
        return written

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "write_replacements", write)
        yield


@pytest.mark.crash
def test_commits_beside_a_slow_merge_take_less_than_a_second(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    polling.create(settings)
    done: list[Maintained] = []
    with open_lakehouse(settings) as lake:
        for version in range(1, 9):
            polling.replace(lake, version)
        versions = range(current_snapshot(lake.connection) - 5, current_snapshot(lake.connection) + 1)

        def figures(version: int) -> list[Any]:
            return run(lake, f"SELECT {polling.FIGURES}, sum(version) FROM {polling.ITEMS} AT (VERSION => {version})")

        before = [figures(version) for version in versions]
        writer = polling.start(settings, "write", tmp_path)
        polling.wait_for(polling.begun(tmp_path, "write").exists)
        with meanwhile(monkeypatch, lambda count: time.sleep(SLOW * (count < 3))), open_lakehouse(settings) as second:
            maintenance = Thread(target=lambda: done.append(maintain(second)))
            maintenance.start()
            maintenance.join()
        (tmp_path / "stop").touch()
        seen = polling.outcome(writer)
        assert done[0].files_merged + done[0].files_left > 0
        assert len(seen["commits"]) >= 5
        assert median(seen["commits"]) < SECOND
        assert max(seen["commits"]) < SLOW - SECOND
        assert [figures(version) for version in versions] == before
        assert run(lake, f"SELECT {polling.FIGURES} FROM {polling.ITEMS}") == [polling.RIGHT]


def test_rows_that_come_while_files_are_merged_stay(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    fill(lake, "other")
    before, version = content(lake), current_snapshot(lake.connection)
    with open_lakehouse(settings) as second:

        def add(time: int) -> None:
            run(second, f"INSERT INTO t SELECT range, 'new' FROM range({9_000 + time * 100}, {9_100 + time * 100})")
            run(second, f"INSERT INTO other VALUES ({time}, 'few')")

        with meanwhile(monkeypatch, add):
            done = maintain(lake)
    assert (done.files_merged, done.files_left) == (8, 0)
    assert files_of(lake) == 3
    assert content(lake, version) == before
    rows = content(lake)
    assert len(rows) == len({row[0] for row in rows}) == 4_200
    assert [row for row in rows if row[1] < 9_000] == before
    assert len(content(lake, table="other")) == 4_002
    assert unknown_files(lake, settings) == []


@pytest.mark.parametrize(
    "condition", ["a % 100 = 7", "a = 1234"], ids=["into a file of deletions", "into the catalog, for there are few"]
)
@pytest.mark.parametrize("deleted_before", [True, False], ids=["rewritten", "merged"])
def test_a_row_deleted_while_its_file_is_replaced_does_not_come_back(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch, condition: str, deleted_before: bool
) -> None:
    fill(lake)
    if deleted_before:
        run(lake, "DELETE FROM t WHERE a % 50 = 3")
    before, version = content(lake), current_snapshot(lake.connection)
    with open_lakehouse(settings) as second:

        def delete(time: int) -> None:
            if time == 1:
                run(second, f"DELETE FROM t WHERE {condition}")

        with meanwhile(monkeypatch, delete):
            maintain(lake)
        expected = run(second, f"SELECT rowid, * FROM t AT (VERSION => {version}) WHERE NOT ({condition}) ORDER BY ALL")
    assert len(expected) < len(before)
    assert content(lake) == expected
    assert content(lake, version) == before
    assert maintain(lake).files_left == 0
    assert content(lake) == expected
    assert files_of(lake) == 1
    assert unknown_files(lake, settings) == []


@pytest.mark.parametrize("deleted_before", [True, False], ids=["rewritten", "merged"])
def test_a_file_of_which_nothing_is_left_meanwhile_stays_for_the_versions_that_had_it(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch, deleted_before: bool
) -> None:
    fill(lake)
    if deleted_before:
        run(lake, "DELETE FROM t WHERE a % 50 = 3")
    before, version = content(lake), current_snapshot(lake.connection)
    with open_lakehouse(settings) as second:

        def delete(time: int) -> None:
            if time == 1:
                run(second, "DELETE FROM t WHERE a < 1000")

        with meanwhile(monkeypatch, delete):
            assert maintain(lake).files_left == 0
    assert content(lake) == [row for row in before if row[1] >= 1000]
    assert content(lake, version) == before
    assert files_of(lake) == 1
    assert unknown_files(lake, settings) == []


def test_files_that_are_deleted_from_all_the_time_are_left_for_the_next_time(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    with open_lakehouse(settings) as second:
        with meanwhile(monkeypatch, lambda time: run(second, f"DELETE FROM t WHERE a IN ({time}, {time + 1000})")):
            done = maintain(lake)
        assert (done.files_merged, done.files_left) == (0, 4)
        assert files_of(lake) == 4
        assert unknown_files(lake, settings) == []
        expected = content(second)
    assert maintain(lake).files_left == 0
    assert content(lake) == expected


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE t",
        "ALTER TABLE t ADD COLUMN c INTEGER DEFAULT 7",
        "ALTER TABLE t RENAME COLUMN b TO c",
        "ALTER TABLE t RENAME TO renamed",
        "DELETE FROM t",
    ],
)
def test_a_table_that_changes_while_its_files_are_merged_becomes_what_the_change_says(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    fill(lake)
    before, version = content(lake), current_snapshot(lake.connection)
    expected: list[Any] = []
    after = f"SELECT rowid, * FROM lake.main.{'renamed' if 'RENAME TO' in change else 't'} ORDER BY ALL"
    with open_lakehouse(settings) as second:

        def alter(time: int) -> None:
            if time == 1:
                run(second, change)
                if "DROP" not in change:
                    expected.extend(run(second, after))

        with meanwhile(monkeypatch, alter):
            maintain(lake)
    if "DROP" in change:
        assert run(lake, "SELECT 1 FROM duckdb_tables() WHERE table_name = 't'") == []
    else:
        assert run(lake, after) == expected
    assert content(lake, version) == before
    assert unknown_files(lake, settings) == []


def test_what_was_inserted_since_a_version_is_the_same_after_files_were_replaced(lake: Lakehouse) -> None:
    fill(lake)
    since = current_snapshot(lake.connection)
    run(lake, "INSERT INTO t SELECT range, 'late' FROM range(5000, 5100)")
    run(lake, "DELETE FROM t WHERE a % 3 = 0")
    upto = current_snapshot(lake.connection)
    inserted = (
        "SELECT snapshot_id, rowid, a "
        f"FROM ducklake_table_insertions('lake', 'main', 't', {since + 1}, {upto}) ORDER BY ALL"
    )
    before = run(lake, inserted)
    assert len(before) == 100
    assert maintain(lake).files_merged == 5
    assert run(lake, inserted) == before


def test_the_least_and_the_most_of_a_column_are_those_of_the_rows_that_are_left(lake: Lakehouse) -> None:
    fill(lake)
    run(lake, "DELETE FROM t WHERE a < 500 OR a >= 3500")
    figures = "SELECT count(*), min(a), max(a), min(b), max(b) FROM t"
    scanned = "SELECT count(*), min(a + 0), max(a + 0), min(b || ''), max(b || '') FROM t"
    for more in ("SELECT 1", "INSERT INTO t SELECT range, 'z' FROM range(9000, 9050)", "DELETE FROM t WHERE a > 9000"):
        run(lake, more)
        maintain(lake)
        assert run(lake, figures) == run(lake, scanned)
        assert run(lake, "SELECT count(*) FROM t WHERE a = 2000") == [(1,)]


def test_tables_of_every_type_partitioned_ones_and_those_that_grew_columns_are_merged_without_a_loss(
    lake: Lakehouse,
) -> None:
    run(
        lake,
        "CREATE TABLE wide (k INTEGER, s STRUCT(x INTEGER, y VARCHAR[]), m MAP(VARCHAR, DECIMAL(18, 3)), "
        "d DOUBLE, t TIMESTAMPTZ, u UUID, j JSON, bits BLOB, day DATE, flag BOOLEAN)",
    )
    values = (
        "SELECT range % 3, {{'x': range, 'y': [range::VARCHAR, NULL]}}, MAP {{'a': range / 7}}, "
        "CASE range % 4 WHEN 0 THEN 'nan'::DOUBLE WHEN 1 THEN NULL ELSE range / 3 END, "
        "TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(range), uuid(), '{{\"a\": 1}}', 'ab'::BLOB, "
        "DATE '2026-01-01' + range::INTEGER, range % 2 = 0 FROM range({0}, {1})"
    )
    run(lake, f"INSERT INTO wide {values.format(0, 50)}")
    run(lake, f"INSERT INTO wide {values.format(50, 90)}")
    run(lake, "ALTER TABLE wide ADD COLUMN extra VARCHAR DEFAULT 'none'")
    run(lake, "ALTER TABLE wide ALTER COLUMN k TYPE BIGINT")
    for first in (100, 200):
        run(lake, f"INSERT INTO wide SELECT *, 'more' FROM ({values.format(first, first + 60)})")
    run(lake, "ALTER TABLE wide SET PARTITIONED BY (k)")
    for first in (300, 400):
        run(lake, f"INSERT INTO wide SELECT *, 'most' FROM ({values.format(first, first + 60)})")
    run(lake, "DELETE FROM wide WHERE day > DATE '2027-02-01' AND k = 1")
    version = current_snapshot(lake.connection)
    before = content(lake, table="wide")
    assert len(before) == 50 + 40 + 4 * 60 - 20
    count = files_of(lake, "wide")
    assert maintain(lake).files_merged >= 8
    assert files_of(lake, "wide") < count
    assert repr(content(lake, table="wide")) == repr(before)
    assert repr(content(lake, version, table="wide")) == repr(before)
    assert run(lake, "SELECT count(*) FROM wide WHERE k = 2 AND extra = 'most'") == [(40,)]


def test_an_interrupted_replacement_leaves_the_table_as_it_was_and_no_file(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    before = content(lake)

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "_carry_over", interrupt)
        with pytest.raises(KeyboardInterrupt):
            maintain(lake)
    assert content(lake) == before
    assert unknown_files(lake, settings) == []
    assert list(settings.spool.glob("replacement-*")) == []
    assert maintain(lake).files_merged == 4
    assert content(lake) == before


def test_a_replaced_file_stays_until_its_time_has_come_whatever_the_hour(lake: Lakehouse) -> None:
    fill(lake)
    assert maintain(lake).files_merged == 4
    before = datetime.now(UTC).replace(hour=12) - timedelta(days=1)
    scheduled = f"{METADATA}.ducklake_files_scheduled_for_deletion"
    numbers = [number for (number,) in run(lake, f"SELECT data_file_id FROM {scheduled} ORDER BY data_file_id")]
    assert len(numbers) == 4
    for number, hours in zip(numbers, (-26, -3, 3, 18), strict=True):
        moment = (before + timedelta(hours=hours)).isoformat(sep=" ")
        run(lake, f"UPDATE {scheduled} SET schedule_start = '{moment}' WHERE data_file_id = {number}")
    assert delete_replaced_files(lake, before) == 2
    assert run(lake, f"SELECT data_file_id FROM {scheduled} ORDER BY data_file_id") == [(n,) for n in numbers[2:]]


@pytest.mark.crash
def test_no_reader_sees_a_row_missing_or_doubled_while_files_are_replaced(settings: Settings, tmp_path: Path) -> None:
    polling.create(settings)
    with open_lakehouse(settings) as lake:
        maintain(lake)
    running = {task: polling.start(settings, task, tmp_path) for task in polling.TASKS}
    polling.wait_for(lambda: all(polling.begun(tmp_path, task).exists() for task in running))
    time.sleep(POLLING_SECONDS)
    (tmp_path / "stop").touch()
    seen = {task: polling.outcome(process) for task, process in running.items()}
    assert {task: seen[task]["wrong"] for task in polling.READERS} == {task: [] for task in polling.READERS}
    assert all(seen[task]["polled"] > 0 for task in polling.READERS)
    assert seen["write"]["commits"]
    assert seen["maintain"]["runs"] > 0


@pytest.mark.crash
def test_steps_and_their_readers_go_on_while_maintenance_runs(settings: Settings, tmp_path: Path) -> None:
    with open_lakehouse(settings) as lake:
        maintain(lake)
    steps = workers.start(settings, "work")
    others = [workers.start(settings, "read", tmp_path), polling.start(settings, "maintain", tmp_path)]
    polling.wait_for(polling.begun(tmp_path, "maintain").exists)
    time.sleep(POLLING_SECONDS)
    with open_lakehouse(settings, read_only=True) as lake:
        published = "SELECT count(*) >= 3 FROM platform.publications"
        polling.wait_for(lambda: steps.poll() is not None or run(lake, published) == [(True,)])
    assert steps.poll() is None, "a step failed"
    steps.kill()
    steps.wait()
    (tmp_path / "stop").touch()
    seen, maintained = (polling.outcome(process) for process in others)
    assert seen["wrong"] == []
    assert maintained["runs"] > 0
    with open_lakehouse(settings) as lake:
        load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="last")
        stage_table(lake, workers.RECIPE, run_id="last")
        upto = run(lake, "SELECT max(number) + 1 FROM raw_growing.entries")[0][0]
        assert run(lake, "SELECT count(*), count(DISTINCT (number, side)) FROM raw_growing.entries") == [
            (2 * upto,) * 2
        ]
        staged = run(lake, "SELECT key, side, number FROM staged_growing.entries ORDER BY ALL")
        assert staged == workers.expected_staged(upto)


@pytest.mark.crash
def test_after_maintenance_was_killed_at_any_instant_every_row_is_there_once(
    settings: Settings, tmp_path: Path
) -> None:
    instants = random.Random(f"kill {settings.catalog_is_sqlite}")
    polling.create(settings)
    figures = f"SELECT {polling.FIGURES} FROM {polling.ITEMS}"
    begun = polling.begun(tmp_path, "maintain")
    with open_lakehouse(settings) as lake:
        maintain(lake)
        writer = polling.start(settings, "write", tmp_path)
        for _ in range(KILLS):
            maintenance = polling.start(settings, "maintain", tmp_path)
            polling.wait_for(begun.exists)
            begun.unlink()
            time.sleep(instants.uniform(0, 3))
            assert maintenance.poll() is None, "maintenance failed by itself"
            maintenance.kill()
            maintenance.wait()
            assert run(lake, figures) == [polling.RIGHT]
        (tmp_path / "stop").touch()
        assert polling.outcome(writer)["commits"]
        before = run(lake, f"SELECT key, version FROM {polling.ITEMS} ORDER BY ALL")
        assert maintain(lake).files_left == 0
        assert run(lake, f"SELECT key, version FROM {polling.ITEMS} ORDER BY ALL") == before
        assert run(lake, figures) == [polling.RIGHT]


def test_files_of_a_catalog_of_another_version_of_ducklake_are_left_alone(lake: Lakehouse) -> None:
    lake.connection.execute("CREATE TABLE t AS SELECT 0 AS a FROM range(20)")
    for number in range(3):
        lake.connection.execute(f"INSERT INTO t SELECT {number} FROM range(20)")
    lake.connection.execute(f"UPDATE {METADATA}.ducklake_metadata SET value = '9.9' WHERE key = 'version'")
    with pytest.raises(PlatformError, match=r"The catalog is of DuckLake 9\.9; how to replace files is known of 1\.0"):
        maintain(lake)
    assert lake.connection.execute("SELECT count(*) FROM t").fetchone() == (80,)


def test_a_column_that_some_file_lacks_is_known_to_hold_nulls_after_maintenance(lake: Lakehouse) -> None:
    """Also why every file that is registered has all columns: once the first of these fails, it need not."""
    run(lake, "CREATE SCHEMA early")
    run(lake, "CREATE TABLE early.people (id BIGINT, country VARCHAR)")
    paths = [new_path(lake, Table("early", "people")) for _ in range(2)]
    for path, columns in zip(paths, ("range AS id, 'FR' AS country", "range AS id"), strict=True):
        copy_to(lake, f"SELECT {columns} FROM range(3)", path)
        where = "schema => 'early', allow_missing => true"
        run(lake, f"CALL ducklake_add_data_files('lake', 'people', ['{path}'], {where})")
    found = "SELECT count(country), (SELECT count(*) FROM early.people WHERE country IS NOT NULL) FROM early.people"
    assert run(lake, found) == [(6, 6)]
    maintain(lake)
    with open_lakehouse(lake.settings, read_only=True) as again:
        assert run(again, found) == [(3, 3)]
