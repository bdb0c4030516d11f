"""A table that was read as plain rows and is now read as a log of changes, and the other way about."""

from datetime import timedelta
from typing import Any, Literal

import pyarrow as pa
import pytest
from platform_tests.ingestion.landing import ON_SQLITE, load, position, rows
from platform_tests.staging.steps import query, stage, staged
from platform_tests.staging.test_changes import ITEMS, changes, delete, insert
from platform_tests.tables import TABLE, MemorySource, batch_of

from data_platform.ingestion.load import LoadRefusedError, LoadResult
from data_platform.ingestion.source import Kind
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.maintenance import maintain
from data_platform.staging.recipe import Recipe

pytestmark = ON_SQLITE

PLAIN = Recipe("shop", "orders", ("key",), ITEMS.contract)


def plain(*keys: int) -> pa.Table:
    return pa.table({"key": [str(key) for key in keys], "value": pa.array([10 * key for key in keys], pa.int64())})


def take(
    lake: Lakehouse,
    number: int,
    *parts: pa.Table,
    kind: Kind = "rows",
    drift: Literal["evolve", "ignore", "refuse"] = "evolve",
    **options: Any,
) -> LoadResult:
    last = len(parts) - 1
    batches = [
        batch_of(part, {"at": str(number)} if place == last else None, kind=kind) for place, part in enumerate(parts)
    ]
    return load(lake, MemorySource(batches), TABLE.model_copy(update={"drift": drift}), **options)


def columns(lake: Lakehouse) -> list[str]:
    return [name for name, *_ in query(lake, "DESCRIBE raw_shop.orders")]


@pytest.mark.parametrize("drift", ["evolve", "ignore", "refuse"])
def test_a_table_may_be_read_as_a_log_once_the_log_begins_with_the_whole_table(
    lake: Lakehouse, drift: Literal["evolve", "ignore", "refuse"]
) -> None:
    take(lake, 1, plain(1, 2))
    stage(lake, PLAIN)
    take(lake, 2, plain(3))
    take(lake, 3, changes(insert(1, 11, 1)), changes(insert(4, 40, 2)), kind="whole", drift=drift)
    take(lake, 4, changes(delete(1, 3), insert(5, 50, 4)), kind="changes", drift=drift)
    stage(lake, ITEMS)
    assert staged(lake, "key, value") == [(4, 40), (5, 50)]
    take(lake, 5, changes(delete(4, 5)), kind="changes", drift=drift)
    stage(lake, ITEMS)
    stage(lake, ITEMS, rebuild=True)
    assert staged(lake, "key, value") == [(5, 50)]


@pytest.mark.parametrize("how", ["full refresh", "whole table"])
@pytest.mark.parametrize("staged_between", [True, False])
def test_a_log_may_be_read_as_plain_rows_once_they_are_the_whole_table(
    lake: Lakehouse, how: str, staged_between: bool
) -> None:
    take(lake, 1, changes(insert(1, 10, 1), insert(2, 20, 2)), kind="changes")
    if staged_between:
        stage(lake, ITEMS)
    take(lake, 2, plain(1), plain(3), kind="whole" if how == "whole table" else "rows", full_refresh=how[0] == "f")
    assert columns(lake) == ["key", "value", "_load_id", "_loaded_at", "_row"]
    take(lake, 3, plain(4))
    stage(lake, PLAIN)
    assert staged(lake, "key, value") == [(1, 10), (3, 30), (4, 40)]
    # What the log said stays in raw, and the table may become a log again.
    assert rows(lake, "key, value", "raw_shop.orders WHERE _load_id = 1") == [("1", 10), ("2", 20)]
    take(lake, 4, changes(insert(7, 70, 1)), kind="whole", full_refresh=True)
    take(lake, 5, changes(insert(8, 80, 2), delete(7, 3)), kind="changes")
    stage(lake, ITEMS)
    assert staged(lake, "key, value") == [(8, 80)]
    assert rows(lake, "_operation", "raw_shop.orders WHERE _load_id < 4") == [None] * 5


@pytest.mark.parametrize(
    ("before", "after", "kind", "said"),
    [
        (plain(1), changes(insert(2, 20, 1)), "changes", "gave plain rows so far and now gives changes of a log"),
        (plain(1), changes(insert(2, 20, 1)), "rows", "gave plain rows so far and now gives changes of a log"),
        (changes(insert(1, 10, 1)), plain(2), "rows", "gave changes of a log so far and now gives plain rows"),
    ],
)
def test_without_the_whole_table_it_is_refused_with_what_to_do(
    lake: Lakehouse, before: pa.Table, after: pa.Table, kind: Kind, said: str
) -> None:
    take(lake, 1, before)
    held = columns(lake)
    with pytest.raises(LoadRefusedError, match=f"shop/orders {said}.* Nothing was loaded.* shop/orders --full-refresh"):
        take(lake, 2, after, kind=kind)
    assert (position(lake), columns(lake), len(rows(lake, "key"))) == ({"at": "1"}, held, 1)
    take(lake, 2, after, full_refresh=True)
    stage(lake, ITEMS)
    assert staged(lake, "key, value") == [(2, 20)]


@pytest.mark.parametrize("options", [{}, {"kind": "whole"}, {"full_refresh": True}])
@pytest.mark.parametrize("parts", [(plain(1), changes(insert(2, 20, 1))), (changes(insert(2, 20, 1)), plain(1))])
def test_one_load_may_not_hold_both(lake: Lakehouse, parts: tuple[pa.Table, ...], options: dict[str, Any]) -> None:
    with pytest.raises(LoadRefusedError, match="it is unknown which earlier rows they replace"):
        take(lake, 1, *parts, **options)
    assert position(lake) == {}


@pytest.mark.parametrize("empty", [plain(), changes()])
def test_a_table_without_rows_may_become_either(lake: Lakehouse, empty: pa.Table) -> None:
    take(lake, 1, empty, kind="whole")
    take(lake, 2, changes(insert(1, 10, 1)) if "_order" not in empty.column_names else plain(1))
    stage(lake, ITEMS)
    assert staged(lake, "key, value") == [(1, 10)]


def test_maintenance_between_brings_no_column_of_the_log_back(lake: Lakehouse) -> None:
    deliveries = [changes(insert(1, 10, 1)), plain(1), plain(2), changes(insert(1, 10, 1))]
    for number, (rows_, full) in enumerate(zip(deliveries, [False, True, False, True], strict=True), 1):
        take(lake, number, rows_, full_refresh=full)
        maintain(lake, keep_snapshots=timedelta(0))
    operations = rows(lake, "_load_id, _operation", "raw_shop.orders")
    assert operations == [(1, None), (2, None), (3, None), (4, "insert")]
    stage(lake, ITEMS)
    assert staged(lake, "key, value") == [(1, 10)]


@pytest.mark.parametrize("value", [pa.array(["x"]), pa.array([1], pa.decimal128(22, 2))])
def test_a_log_that_becomes_plain_rows_of_other_types_loses_its_columns_too(lake: Lakehouse, value: pa.Array) -> None:
    take(lake, 1, changes(insert(1, 10, 1)))
    take(lake, 2, pa.table({"key": ["1"], "value": value}), full_refresh=True)
    assert columns(lake) == ["key", "value", "_load_id", "_loaded_at", "_row"]


def test_a_whole_table_that_fails_midway_leaves_a_log_as_it_is(lake: Lakehouse) -> None:
    take(lake, 1, changes(insert(1, 10, 1)))
    nothing = batch_of(pa.table({}), {"at": "2"})
    source = MemorySource([nothing, batch_of(plain(5), None, kind="whole")], fails=LoadRefusedError("gone"))
    with pytest.raises(LoadRefusedError, match="gone"):
        load(lake, source)
    take(lake, 3, changes(delete(1, 2)))
    stage(lake, ITEMS)
    assert staged(lake, "key") == []
