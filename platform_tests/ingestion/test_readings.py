"""Readings over several tables: what is committed together, what of a table begins anew, and under which name the
position is kept."""

from typing import Any

import pytest
from platform_tests.ingestion.landing import ON_SQLITE, load, numbered, position, rows
from platform_tests.tables import TABLE, MemorySource, batch_of, rejects

from data_platform.errors import PlatformError
from data_platform.ingestion.load import LoadRefusedError, LoadResult, load_tables
from data_platform.ingestion.source import Batch
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse

pytestmark = ON_SQLITE

TABLES = {"orders": TABLE, "items": TABLE}


def read(lake: Lakehouse, *batches: Batch, name: str = "log", **options: Any) -> dict[str, LoadResult]:
    return load_tables(lake, "shop", MemorySource(batches), name, TABLES, run_id="run-1", **options)


def orders(number: int, at: str | None = None, **options: Any) -> Batch:
    return batch_of(numbered(number), None if at is None else {"at": at}, table="orders", **options)


def items(number: int, at: str | None = None, **options: Any) -> Batch:
    return batch_of(numbered(number), None if at is None else {"at": at}, table="items", **options)


def landed(lake: Lakehouse) -> list[Any]:
    return rows(lake, "table_name, load_id, kind, rows_landed", "platform.loads")


def test_the_whole_of_one_table_in_the_middle_of_a_reading_is_a_load_of_its_own(lake: Lakehouse) -> None:
    read(lake, orders(1), items(9, "1"), orders(2, "2", kind="whole"), items(10, "3"))
    assert landed(lake) == [
        ("items", 1, "rows", 1),
        ("items", 2, "rows", 1),
        ("orders", 1, "rows", 1),
        ("orders", 2, "whole", 1),
    ]


def test_the_whole_of_one_table_may_come_while_rows_of_others_wait_for_a_position(lake: Lakehouse) -> None:
    read(lake, items(1, "1"), items(2), orders(3, kind="whole"), orders(4, "2", kind="whole"))
    assert landed(lake) == [("items", 1, "rows", 2), ("orders", 1, "whole", 2)]


@pytest.mark.parametrize(
    ("waiting", "named"),
    [
        ([orders(2)], "shop/orders: the whole table comes after rows of shop/orders that have no position"),
        ([items(2)], "shop/orders: the whole table comes after rows of shop/items that have no position"),
    ],
)
def test_the_whole_of_a_table_may_not_come_after_rows_that_cannot_be_told_from_it(
    lake: Lakehouse, waiting: list[Batch], named: str
) -> None:
    with pytest.raises(PlatformError, match=f"{named} yet.* a mistake in the code of the source"):
        read(lake, orders(1, "1"), *waiting, orders(3, "2", kind="whole"))
    # What came up to the last position is there.
    assert (rows(lake, "order_id, _load_id"), position(lake)) == ([("1", 1)], {"at": "1"})


def test_rows_of_a_table_that_was_not_asked_for_are_an_error_that_names_it(lake: Lakehouse) -> None:
    with pytest.raises(PlatformError, match=r"shop gives rows of a table refunds, .* asked for orders, items.*mistake"):
        read(lake, orders(1, "1"), batch_of(numbered(2), {"at": "2"}, table="refunds"))
    assert position(lake) == {"at": "1"}


def test_what_is_refused_when_a_whole_table_begins_is_refused_once(lake: Lakehouse) -> None:
    bad = rejects(("log", 1, "junk", "no"))
    with pytest.raises(LoadRefusedError, match="shop/items: 1 of 2 records"):
        read(lake, batch_of(numbered(1), {"at": "1"}, bad, table="items"), orders(2, "2", kind="whole"))
    assert rows(lake, "table_name, status", "platform.loads") == [("items", "refused")]
    assert position(lake) == {}


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_reading_may_be_called_like_one_of_its_tables(lake: Lakehouse, full_refresh: bool) -> None:
    for number in (1, 2, 3):
        # In the last one nothing comes for the table that is called like the reading.
        batches = [*([orders(number)] if number < 3 else []), items(number, str(number))]
        results = read(lake, *batches, name="orders", full_refresh=full_refresh)
        assert results["items"].position == {"at": str(number)}
    read(lake, items(4, "4"), orders(5, "5"), orders(6, "6"), name="orders")
    assert position(lake) == {"at": "6"}
    assert ledger.head(lake, "raw", "shop", "orders").number == 4
    assert rows(lake, "order_id, _load_id", "raw_shop.orders") == [("1", 1), ("2", 2), ("5", 4), ("6", 4)]
    assert rows(lake, "order_id, _load_id", "raw_shop.items") == [("1", 1), ("2", 2), ("3", 3), ("4", 4)]


def test_a_table_that_is_read_by_itself_goes_on_from_the_position_of_a_reading_called_like_it(lake: Lakehouse) -> None:
    read(lake, orders(1), items(1, "1"), name="orders")
    assert load(lake, MemorySource([orders(2, "2")])).loads == (2,)
