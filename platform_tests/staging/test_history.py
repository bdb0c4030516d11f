"""The history of a table: every version with its validity, written along with the staged rows."""

from dataclasses import replace
from typing import Any

import pytest
from platform_tests.staging.steps import DAY, ON_SQLITE, load, numbered, query, stage, staged
from platform_tests.staging.test_changes import ITEMS, Anything, apply, delete, insert, truncate, update
from platform_tests.tables import RECIPE, TABLE, MemorySource, batch_of, orders

from data_platform.contracts.audit import ContractError
from data_platform.contracts.quarantine import Selection
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.step import replay

KEPT = replace(RECIPE, history=True)
LOGGED = replace(ITEMS, history=True)


def history(lake: Lakehouse, columns: str) -> list[Any]:
    return query(lake, f"SELECT {columns} FROM staged_shop.orders_history ORDER BY ALL")


def days(lake: Lakehouse) -> list[Any]:
    """Key, amount, first and last day of each version of the orders, and whether it still holds."""
    return history(lake, "order_id, amount, day(valid_from), day(valid_to), is_current")


def logged(lake: Lakehouse) -> list[Any]:
    """Key and value of each version of the items, the load that ended it, and whether it still holds."""
    loads = "(SELECT min(_load_id) FROM raw_shop.orders WHERE _loaded_at = valid_to)"
    return history(lake, f"key, value, {loads}, is_current")


def test_every_version_is_kept_with_its_validity_by_the_source_s_own_clock(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", "2020-01-01"), (1, 3, "open", "2020-01-03"), (2, 1, "open", "2020-01-01")))
    stage(lake, KEPT)
    load(lake, orders((1, 5, "open", "2020-01-05"), (1, 2, "open", "2020-01-02")))
    stage(lake, KEPT)
    assert staged(lake) == [(1, 5.0), (2, 1.0)]
    assert days(lake) == [
        (1, 1.0, 1, 2, False),
        (1, 2.0, 2, 3, False),
        (1, 3.0, 3, 5, False),
        (1, 5.0, 5, None, True),
        (2, 1.0, 1, None, True),
    ]
    assert query(lake, "SELECT column_name FROM (DESCRIBE staged_shop.orders)")[-4:] == [
        ("_load_id",),
        ("_row",),
        ("_staging_id",),
        ("_staged_at",),
    ]


@ON_SQLITE
def test_deletes_and_truncates_end_versions_and_a_row_may_come_back(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 1), insert(2, 20, 2), insert(3, 30, 3), recipe=LOGGED)
    apply(lake, delete(1, 4), update(2, 21, 5), recipe=LOGGED)
    apply(lake, truncate(6), recipe=LOGGED)
    apply(lake, insert(1, 11, 7), recipe=LOGGED)
    assert logged(lake) == [
        (1, 10, 2, False),
        (1, 11, None, True),
        (2, 20, 2, False),
        (2, 21, 3, False),
        (3, 30, 3, False),
    ]
    assert query(lake, "SELECT _operation, count(*) FROM staged_shop.orders_versions GROUP BY ALL ORDER BY ALL") == [
        ("delete", 1),
        ("insert", 4),
        ("truncate", 1),
        ("update", 1),
    ]
    # What comes late takes its place in the order of the log, and neither it nor the deletes are counted again.
    apply(lake, update(3, 31, 4), recipe=LOGGED)
    assert [row for row in history(lake, "key, value, is_current") if row[0] == 3] == [(3, 30, False), (3, 31, False)]
    assert query(lake, "SELECT count(*) FROM staged_shop.orders_versions") == [(8,)]


@ON_SQLITE
def test_a_log_that_is_read_once_more_changes_neither_the_rows_nor_what_held_at_any_time(lake: Lakehouse) -> None:
    first = [insert(1, 10, 1), update(1, 11, 2), insert(3, 30, 2)]
    second = [delete(1, 3), insert(2, 20, 4), truncate(5), insert(2, 22, 6)]
    for rows in (first, second):
        apply(lake, *rows, recipe=LOGGED)
    held = (
        "SELECT moment, key, value FROM (SELECT DISTINCT _loaded_at AS moment FROM raw_shop.orders WHERE _load_id < 3) "
        "JOIN staged_shop.orders_history ON moment >= valid_from AND moment < coalesce(valid_to, 'infinity') "
        "ORDER BY ALL"
    )
    before = query(lake, held)
    assert [row[1:] for row in before] == [(1, 11), (3, 30), (2, 22)]
    for rows in (first, second, first):
        apply(lake, *rows, recipe=LOGGED)
        assert query(lake, held) == before
        assert staged(lake, "key, value") == [(2, 22)]
    stage(lake, LOGGED, loads=(3, 4))
    assert query(lake, held) == before
    stage(lake, LOGGED, rebuild=True)
    assert query(lake, held) == before


@ON_SQLITE
def test_a_rebuild_makes_the_history_again_from_raw(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 1), insert(2, 20, 2), recipe=LOGGED)
    apply(lake, delete(1, 4), update(2, 21, 5), truncate(6), insert(4, 40, 7), recipe=LOGGED)
    before = logged(lake)
    stage(lake, LOGGED, rebuild=True)
    assert logged(lake) == before
    stage(lake, LOGGED, loads=(1, 1))
    assert logged(lake) == before
    assert query(lake, "SELECT count(*) FROM staged_shop.orders_versions") == [(6,)]


def test_of_a_full_refresh_only_what_differs_is_a_version_and_what_is_gone_is_deleted(lake: Lakehouse) -> None:
    for rows in ([(1, 1), (2, 2), (3, 3)], [(1, 1), (2, 5)], [(1, 1), (2, 5), (3, 3)]):
        load(lake, orders(*((number, amount, "open", DAY) for number, amount in rows)), whole=True)
        stage(lake, KEPT)
    versions = "SELECT order_id, amount, _operation, _load_id FROM staged_shop.orders_versions ORDER BY _load_id, 1"
    expected = [
        (1, 1.0, "upsert", 1),
        (2, 2.0, "upsert", 1),
        (3, 3.0, "upsert", 1),
        (2, 5.0, "upsert", 2),
        (3, None, "delete", 2),
        (3, 3.0, "upsert", 3),
    ]
    assert query(lake, versions) == expected
    stage(lake, KEPT, rebuild=True)
    assert query(lake, versions) == expected


@ON_SQLITE
def test_an_emptied_full_refresh_ends_every_version(lake: Lakehouse) -> None:
    load(lake, numbered(1, 2), whole=True)
    stage(lake, KEPT)
    source = MemorySource([batch_of(numbered(), {"cursor": "x"})], whole=True)
    load_table(lake, "shop", source, "orders", TABLE, run_id="run-1", full_refresh=True)
    stage(lake, KEPT)
    assert history(lake, "order_id, is_current") == [(1, False), (2, False)]


@ON_SQLITE
def test_a_row_that_is_let_in_later_takes_its_place(lake: Lakehouse) -> None:
    tolerant = replace(LOGGED, refuse_above=1.0)
    apply(lake, insert(1, 10, 1), update(1, -1, 2), recipe=tolerant)
    assert logged(lake) == [(1, 10, None, True)]
    replay(lake, replace(tolerant, contract=Anything), Selection(), run_id="r")
    assert history(lake, "key, value, is_current") == [(1, -1, True), (1, 10, False)]


@ON_SQLITE
def test_a_history_that_is_switched_on_later_wants_a_rebuild_and_switched_off_it_is_gone(lake: Lakehouse) -> None:
    load(lake, numbered(1))
    stage(lake)
    load(lake, numbered(1, amount=2))
    with pytest.raises(ContractError, match=r"`history` was switched on .*--rebuild"):
        stage(lake, KEPT)
    stage(lake, KEPT, rebuild=True)
    assert history(lake, "amount, is_current") == [(1.0, False), (2.0, True)]
    load(lake, numbered(1, amount=3))
    stage(lake)
    assert query(lake, "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'staged_shop'") == [("orders",)]
    assert query(lake, "SELECT view_name FROM duckdb_views() WHERE schema_name = 'staged_shop'") == []


@ON_SQLITE
def test_a_table_that_happens_to_be_called_so_is_left_alone(lake: Lakehouse) -> None:
    load(lake, numbered(1), name="orders_versions")
    stage(lake, replace(RECIPE, table="orders_versions"))
    load(lake, numbered(1))
    stage(lake)
    assert query(lake, "SELECT order_id FROM staged_shop.orders_versions") == [(1,)]
    with pytest.raises(ContractError, match="a table of another kind"):
        stage(lake, KEPT, rebuild=True)


@ON_SQLITE
def test_an_increment_adds_its_own_versions_only(lake: Lakehouse) -> None:
    load(lake, numbered(*range(1000)))
    stage(lake, KEPT)
    load(lake, numbered(5, amount=7))
    stage(lake, KEPT)
    files = "SELECT _staging_id, count(*) FROM staged_shop.orders_versions GROUP BY ALL ORDER BY ALL"
    assert query(lake, files) == [(1, 1000), (2, 1)]
