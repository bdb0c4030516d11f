"""A log of changes over forty tables, read as one: transactions land whole, whatever is killed and whenever, and the
source is told of nothing that is not committed."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from platform_tests import workers
from platform_tests.ingestion.landing import ON_SQLITE, data_files, known_files, numbered, rows
from platform_tests.ingestion.log_source import (
    COPIED,
    NAMES,
    READING,
    STRIDE,
    TABLES,
    Change,
    LogSource,
    acknowledged,
    read_log,
    write_log,
)
from platform_tests.kills import KILLS
from platform_tests.tables import TABLE, MemorySource, batch_of, rejects

from data_platform.contracts import Contract, Field
from data_platform.errors import PlatformError
from data_platform.ingestion import load as load_module
from data_platform.ingestion.load import LoadRefusedError, LoadResult, load_tables
from data_platform.ingestion.source import Budget
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

TRANSACTIONS = 400


def follow(lake: Lakehouse, folder: Path, **options: Any) -> dict[str, LoadResult]:
    return load_tables(lake, "shop", LogSource(folder), READING, TABLES, run_id="run-1", **options)


def reached(lake: Lakehouse) -> int:
    return int(ledger.head(lake, "raw", "shop", READING).position["transaction"])


def landed(lake: Lakehouse, at: str = "") -> list[tuple[str, int]]:
    """Table and order of every raw row, as of a snapshot."""
    tables = {
        table
        for (table,) in lake.connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = 'raw_shop'"
        ).fetchall()
    }
    if not tables:
        return []
    parts = (f"SELECT '{table}', _order FROM raw_shop.{table}{at}" for table in sorted(tables))
    return lake.connection.execute(" UNION ALL ".join(parts)).fetchall()


def expected(log: list[list[Change]], upto: int) -> list[tuple[str, int]]:
    return [(change.table, change.order) for transaction in log[: upto + 1] for change in transaction]


def check_every_snapshot(lake: Lakehouse, log: list[list[Change]], at_most: int) -> int:
    """At each snapshot, raw holds exactly the transactions up to the position that was committed with it."""
    snapshots = [
        version
        for (version,) in lake.connection.execute(
            "SELECT snapshot_id FROM ducklake_snapshots('lake') ORDER BY 1"
        ).fetchall()
    ]
    chosen = snapshots if len(snapshots) <= at_most else random.Random(1).sample(snapshots, at_most)
    seen = 0
    for version in chosen:
        at = f" AT (VERSION => {version})"
        try:
            position = lake.connection.execute(
                f"SELECT value FROM platform.positions{at} WHERE table_name = '{READING}' AND partition = 'transaction'"
            ).fetchall()
        except duckdb.CatalogException:  # there was no ledger yet
            continue
        if position:
            assert Counter(landed(lake, at)) == Counter(expected(log, int(position[0][0]))), version
            seen += 1
    return seen


def check_values(lake: Lakehouse, log: list[list[Change]]) -> None:
    """Every raw row has the values that the source gave it, whatever became of its columns' types."""
    for table in NAMES:
        columns = [row[0] for row in lake.connection.execute(f"DESCRIBE raw_shop.{table}").fetchall()]
        note = "note" if "note" in columns else "NULL"
        rows = lake.connection.execute(
            f"SELECT _order, _operation, id, v::VARCHAR, r, d, {note} FROM raw_shop.{table} ORDER BY _load_id, _row"
        ).fetchall()
        changes = [change for transaction in log for change in transaction if change.table == table]
        assert [row[0] for row in rows] == [change.order for change in changes]
        for row, change in zip(rows, changes, strict=True):
            values = change.values()
            v, d = values.get("v"), values.get("d")
            assert row[1:4] == (change.operation, change.id, None if v is None else str(v))
            assert row[4:] == (values.get("r"), None if d is None else Decimal(d), values.get("note"))


class Row(Contract):
    """A row of a table of the log, in the column that all versions of it have."""

    id: int
    r: float = Field(nullable=True)


def check_staged(lake: Lakehouse, log: list[list[Change]], tables: Sequence[str]) -> None:
    """Each staged table holds what the log's changes make of it, one after the other."""
    for table in tables:
        stage_table(lake, Recipe("shop", table, ("id",), Row), run_id="run-1")
        rows: dict[int | None, float] = {}
        for change in (change for transaction in log for change in transaction if change.table == table):
            if change.operation == "truncate":
                rows.clear()
            elif change.operation == "delete":
                rows.pop(change.id)
            else:
                rows[change.id] = change.values()["r"]
        found = lake.connection.execute(f"SELECT id, r FROM staged_shop.{table}").fetchall()
        assert sorted(found) == sorted(rows.items()), table


def test_a_log_lands_whole_in_one_load_through_every_change_of_its_columns(
    lake: Lakehouse, tmp_path: Path, settings: Settings
) -> None:
    write_log(tmp_path, 60, "one load")
    results = follow(lake, tmp_path)
    log = read_log(tmp_path)
    assert Counter(landed(lake)) == Counter(expected(log, 60))
    check_values(lake, log)
    assert (reached(lake), acknowledged(tmp_path)) == (60, 60)
    assert sum(result.rows_landed for result in results.values()) == len(expected(log, 60))
    assert any(result.drift.widened for result in results.values())
    assert data_files(settings) >= known_files(lake)
    assert all(not result.loads for result in follow(lake, tmp_path).values())


@ON_SQLITE
def test_a_load_commits_as_it_goes_and_a_budget_ends_it_at_the_end_of_a_transaction(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 50)
    write_log(tmp_path, 30, "budget")
    log = read_log(tmp_path)
    reaches = []
    while (before := acknowledged(tmp_path)) < 30:
        follow(lake, tmp_path, budget=Budget(rows=140))
        reaches.append(reached(lake))
        assert acknowledged(tmp_path) == reached(lake) > before
    assert len(reaches) > 1
    assert check_every_snapshot(lake, log, 100) > len(reaches)
    check_values(lake, log)


@ON_SQLITE
def test_what_the_source_has_forgotten_is_an_error_that_says_what_to_do(lake: Lakehouse, tmp_path: Path) -> None:
    write_log(tmp_path, 20, "gone")
    follow(lake, tmp_path, budget=Budget(rows=len(NAMES) * COPIED + 5))
    (tmp_path / "acknowledged").write_text("15")
    with pytest.raises(PlatformError, match="Copy the tables anew with --full-refresh"):
        follow(lake, tmp_path)
    follow(lake, tmp_path, full_refresh=True)
    assert reached(lake) == 20


@ON_SQLITE
def test_a_source_that_cannot_be_told_keeps_nothing_from_landing_and_offers_nothing_twice(
    lake: Lakehouse, tmp_path: Path
) -> None:
    write_log(tmp_path, 20, "deaf")
    (tmp_path / "deaf").touch()
    with pytest.raises(PlatformError, match="is committed, but the source did not acknowledge it: it does not answer"):
        follow(lake, tmp_path)
    (tmp_path / "deaf").unlink()
    log = read_log(tmp_path)
    assert Counter(landed(lake)) == Counter(expected(log, reached(lake)))
    follow(lake, tmp_path)
    assert Counter(landed(lake)) == Counter(expected(log, 20))


@ON_SQLITE
def test_one_table_that_is_refused_holds_up_the_others_of_its_reading_and_is_named(
    lake: Lakehouse, tmp_path: Path
) -> None:
    write_log(tmp_path, 40, "refused")
    log = read_log(tmp_path)
    first = next(change for transaction in log for change in transaction if change.version == 2)
    table = TABLES[first.table].model_copy(update={"drift": "refuse"})
    with pytest.raises(LoadRefusedError, match=f"shop/{first.table} has new column note, and its drift policy is to"):
        load_tables(lake, "shop", LogSource(tmp_path), READING, {**TABLES, first.table: table}, run_id="run-1")
    # What came before it is whole, and landed.
    assert reached(lake) == first.transaction - 1
    assert Counter(landed(lake)) == Counter(expected(log, first.transaction - 1))
    follow(lake, tmp_path)
    assert Counter(landed(lake)) == Counter(expected(log, 40))


@ON_SQLITE
def test_unreadable_records_of_one_table_refuse_the_whole_reading_and_say_so(lake: Lakehouse) -> None:
    bad = rejects(*(("log", line, "junk", "no") for line in range(9)))
    batches = [
        batch_of(numbered(1), None, table="orders"),
        batch_of(numbered(2), {"at": "1"}, bad, table="refunds"),
    ]
    tables = {"orders": TABLE, "refunds": TABLE}
    with pytest.raises(LoadRefusedError, match=r"shop/refunds: 9 of 10 .* The other tables of the same .*\(orders\)"):
        load_tables(lake, "shop", MemorySource(batches), "both", tables, run_id="run-1")
    assert not lake.connection.execute("SELECT 1 FROM duckdb_tables() WHERE schema_name = 'raw_shop'").fetchall()
    assert ledger.head(lake, "raw", "shop", "both").position == {}
    assert rows(lake, "table_name, status", "platform.loads") == [("refunds", "refused")]
    assert len(rows(lake, "file", "quarantine_shop.refunds")) == 9


@pytest.mark.crash
def test_after_any_number_of_kills_every_transaction_is_there_once_and_whole(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    write_log(folder, TRANSACTIONS, "kills")
    log = read_log(folder)
    instants = random.Random(f"log {settings.catalog_is_sqlite}")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    for _ in range(KILLS):
        worker = workers.start(settings, "follow", folder)
        before = acknowledged(folder)
        until = time.monotonic() + 60
        while acknowledged(folder) == before < TRANSACTIONS and worker.poll() is None:
            assert time.monotonic() < until, "the worker committed nothing"
            time.sleep(0.005)
        time.sleep(instants.uniform(0, 0.5))
        worker.kill()
        worker.wait()
        with open_lakehouse(settings) as lake:
            # What was acknowledged is committed: nothing is lost.
            assert acknowledged(folder) <= reached(lake)
            assert Counter(landed(lake)) == Counter(expected(log, reached(lake)))
    with open_lakehouse(settings) as lake:
        follow(lake, folder)
        assert reached(lake) == acknowledged(folder) == TRANSACTIONS
        assert Counter(landed(lake)) == Counter(expected(log, TRANSACTIONS))
        check_values(lake, log)
        check_staged(lake, log, NAMES)
        assert check_every_snapshot(lake, log, 150) > KILLS
        loads = lake.connection.execute(
            "SELECT table_name, count(*), max(load_id), sum(rows_landed)::BIGINT FROM platform.loads GROUP BY ALL"
        ).fetchall()
        counts = Counter(table for table, _ in expected(log, TRANSACTIONS))
        assert {table: count for table, _, _, count in loads} == dict(counts)
        assert all(count == last for _, count, last, _ in loads)
        assert all(order // STRIDE <= TRANSACTIONS for _, order in landed(lake))
