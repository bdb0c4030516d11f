"""Rows from a log of changes: inserts, updates, deletes and truncates in the order of the log, however they arrive."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from platform_tests.histories import histories
from platform_tests.staging.steps import ON_SQLITE, figures_add_up, load, quarantined, query, stage, staged
from platform_tests.tables import TABLE, MemorySource, batch_of

from data_platform.contracts import Contract, Field
from data_platform.contracts.audit import ContractError
from data_platform.contracts.quarantine import Selection
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import replay, stage_table


class Item(Contract):
    """A thing with a value that may not be negative."""

    key: int
    value: int = Field(ge=0)


ITEMS = Recipe("shop", "orders", ("key",), Item, refuse_above=1.0)

Change = tuple[str, int | None, int | None, int]
"""Operation, key, value, order."""


def changes(*rows: Change) -> pa.Table:
    return pa.table(
        {
            "key": pa.array([None if key is None else str(key) for _, key, _, _ in rows], pa.string()),
            "value": pa.array([value for _, _, value, _ in rows], pa.int64()),
            "_operation": pa.array([operation for operation, _, _, _ in rows], pa.string()),
            "_order": pa.array([order for _, _, _, order in rows], pa.int64()),
        }
    )


def insert(key: int, value: int, order: int) -> Change:
    return ("insert", key, value, order)


def update(key: int, value: int, order: int) -> Change:
    return ("update", key, value, order)


def delete(key: int | None, order: int) -> Change:
    return ("delete", key, None, order)


def truncate(order: int) -> Change:
    return ("truncate", None, None, order)


def apply(lake: Lakehouse, *rows: Change, recipe: Recipe = ITEMS) -> Any:
    """Load changes and stage them."""
    load(lake, changes(*rows))
    return stage(lake, recipe)


def items(lake: Lakehouse) -> list[Any]:
    return staged(lake, "key, value")


def test_a_deleted_row_leaves_the_table_and_one_that_comes_back_is_there(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 1), insert(2, 20, 2))
    result = apply(lake, delete(1, 3))
    assert (result.rows_read, result.rows_removals, result.rows_deleted, result.rows_inserted) == (1, 1, 1, 0)
    assert items(lake) == [(2, 20)]
    assert apply(lake, insert(1, 11, 4)).rows_inserted == 1
    assert items(lake) == [(1, 11), (2, 20)]
    assert query(lake, "SELECT key, _operation FROM raw_shop.orders ORDER BY _order") == [
        ("1", "insert"),
        ("2", "insert"),
        ("1", "delete"),
        ("1", "insert"),
    ]
    assert figures_add_up(lake)


@ON_SQLITE
def test_a_delete_of_an_unknown_key_does_nothing(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 1))
    result = apply(lake, delete(7, 2))
    assert (result.rows_removals, result.rows_deleted) == (1, 0)
    assert items(lake) == [(1, 10)]


@ON_SQLITE
def test_changes_of_one_key_in_one_step_are_resolved_by_their_order_and_then_by_delivery(lake: Lakehouse) -> None:
    apply(
        lake,
        delete(1, 3),
        update(1, 12, 2),
        insert(1, 10, 1),
        insert(2, 20, 5),
        delete(2, 5),
        delete(3, 6),
        insert(3, 30, 6),
    )
    assert items(lake) == [(3, 30)]
    result = apply(lake, delete(3, 8), update(3, 31, 9), update(3, 99, 7))
    assert items(lake) == [(3, 31)]
    assert (result.rows_updated, result.rows_superseded, result.rows_removals, result.rows_deleted) == (1, 1, 1, 0)
    assert figures_add_up(lake)


@ON_SQLITE
def test_an_older_change_that_arrives_late_neither_wins_nor_deletes_nor_brings_a_row_back(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 5), insert(2, 20, 6), delete(2, 9))
    assert apply(lake, delete(1, 4)).rows_deleted == 0
    assert apply(lake, update(1, 9, 3)).rows_superseded == 1
    late = apply(lake, update(2, 19, 7))
    assert (late.rows_read, late.rows_superseded, late.rows_removals) == (1, 1, 0)
    assert items(lake) == [(1, 10)]


def test_a_truncate_takes_out_what_came_before_it_in_the_step_and_in_the_table(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 1), insert(2, 20, 9))
    result = apply(lake, insert(3, 30, 4), truncate(5), insert(4, 40, 6), insert(1, 11, 7))
    assert items(lake) == [(1, 11), (2, 20), (4, 40)]
    assert (result.rows_deleted, result.rows_inserted, result.rows_superseded, result.rows_removals) == (1, 2, 1, 1)
    assert apply(lake, insert(3, 31, 3)).rows_inserted == 0
    assert apply(lake, truncate(20)).rows_deleted == 3
    assert items(lake) == []
    assert figures_add_up(lake)


@ON_SQLITE
def test_a_bad_update_leaves_the_older_version_in_place_until_a_later_delete_closes_both(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 1), insert(2, 20, 2))
    apply(lake, update(1, -1, 3), update(2, -2, 4))
    assert items(lake) == [(1, 10), (2, 20)]
    assert quarantined(lake, "key, version, status") == [(["1"], "3", "open"), (["2"], "4", "open")]
    apply(lake, delete(1, 5))
    assert items(lake) == [(2, 20)]
    assert quarantined(lake, "key, status") == [(["1"], "superseded"), (["2"], "open")]
    apply(lake, truncate(6))
    assert {status for (status,) in quarantined(lake, "status")} == {"superseded"}


@ON_SQLITE
def test_a_replayed_row_that_was_deleted_meanwhile_does_not_come_back(lake: Lakehouse) -> None:
    lenient = replace(ITEMS, contract=Anything)
    apply(lake, insert(1, -1, 1), insert(2, -2, 2))
    load(lake, changes(delete(1, 5)))
    # The delete has landed and is not staged yet.
    assert replay(lake, lenient, Selection(), run_id="r").rows_inserted == 2
    stage(lake, lenient)
    assert items(lake) == [(2, -2)]
    apply(lake, insert(3, -3, 6), delete(3, 7))
    assert quarantined(lake, "key, status")[-1] == (["3"], "superseded")


class Anything(Contract):
    key: int
    value: int


@ON_SQLITE
def test_a_delete_without_a_readable_key_is_quarantined(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 1))
    result = apply(lake, delete(None, 2))
    assert (result.rows_quarantined, result.rows_removals) == (1, 0)
    assert items(lake) == [(1, 10)]
    assert [reason["check"] for (reasons,) in quarantined(lake, "reasons") for reason in reasons] == ["missing"]
    assert figures_add_up(lake)


@ON_SQLITE
def test_the_staging_function_makes_the_key_of_a_delete_as_it_makes_every_other(lake: Lakehouse) -> None:
    class Tag(Contract):
        tag: str
        value: int

    def tagged(raw: pl.LazyFrame) -> pl.LazyFrame:
        return raw.with_columns(pl.format("item-{}", "key").alias("tag"))

    recipe = Recipe("shop", "orders", ("tag",), Tag, tagged)
    apply(lake, insert(1, 10, 1), insert(2, 20, 2), recipe=recipe)
    apply(lake, delete(1, 3), recipe=recipe)
    assert staged(lake, "tag, value") == [("item-2", 20)]


@ON_SQLITE
def test_a_staging_function_that_leaves_out_rows_with_nulls_loses_no_delete(lake: Lakehouse) -> None:
    recipe = replace(ITEMS, function=lambda raw: raw.filter(pl.col("value") < 100))
    apply(lake, insert(1, 10, 1), insert(2, 20, 2), insert(3, 300, 3), recipe=recipe)
    result = apply(lake, delete(1, 4), recipe=recipe)
    assert (result.rows_deleted, result.rows_filtered) == (1, 0)
    assert items(lake) == [(2, 20)]


@ON_SQLITE
def test_an_operation_that_is_none_is_an_error(lake: Lakehouse) -> None:
    with pytest.raises(ContractError, match=r"operations 'merge'\. Changes are insert, update, delete or truncate"):
        apply(lake, ("merge", 1, 1, 1))


@ON_SQLITE
def test_a_log_of_a_table_without_a_key_may_only_add_and_truncate(lake: Lakehouse) -> None:
    keyless = replace(ITEMS, key=())
    apply(lake, insert(1, 10, 1), insert(1, 10, 2), recipe=keyless)
    assert items(lake) == [(1, 10), (1, 10)]
    apply(lake, truncate(3), insert(1, 11, 4), recipe=keyless)
    assert items(lake) == [(1, 11)]
    with pytest.raises(ContractError, match="has no key to tell which"):
        apply(lake, delete(1, 5), recipe=keyless)
    assert figures_add_up(lake)


@ON_SQLITE
def test_a_full_copy_makes_the_deletes_before_it_history(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 1), delete(1, 50))
    load(lake, changes(insert(1, 11, 20), insert(2, 20, 20)), whole=True)
    stage(lake, ITEMS)
    assert items(lake) == [(1, 11), (2, 20)]
    apply(lake, update(1, 12, 30))
    assert items(lake) == [(1, 12), (2, 20)]


KEYS, ORDERS = st.integers(0, 3), st.integers(0, 12)
CHANGES = st.one_of(
    st.tuples(st.sampled_from(["insert", "update"]), KEYS, st.integers(-1, 9), ORDERS),
    st.tuples(st.just("delete"), KEYS, st.none(), ORDERS),
    st.tuples(st.just("truncate"), st.none(), st.none(), ORDERS),
)
STEPS = st.lists(
    st.tuples(
        st.lists(CHANGES, min_size=1, max_size=8),
        st.sampled_from(["load", "stage", "stage", "stage", "whole", "backfill", "rebuild"]),
    ),
    min_size=1,
    max_size=6,
)


def model(steps: list[tuple[list[Change], str]]) -> list[tuple[int, int]]:
    """All changes since the last full copy, applied in the order of the log; of equals, in the order of delivery."""
    log: list[Change] = []
    for rows, what in steps:
        log = [*([] if what == "whole" else log), *rows]
    table: dict[int, int] = {}
    for operation, key, value, _ in sorted(log, key=lambda change: change[3]):
        if operation == "truncate":
            table = {}
        elif operation == "delete":
            table.pop(key or 0, None)
        elif value is not None and value >= 0:
            table[key or 0] = value
    return sorted(table.items())


@pytest.fixture(scope="module")
def small_lake(home: Path) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        yield Settings(home, f"{folder}/catalog.sqlite", f"{folder}/data")


@histories(4)
@given(steps=STEPS)
@example(steps=[([truncate(10)], "load"), ([insert(3, 0, 10)], "load"), ([truncate(10)], "stage")])
def test_however_changes_are_split_into_loads_and_steps_the_table_is_the_models(
    small_lake: Settings, steps: list[tuple[list[Change], str]]
) -> None:
    with open_lakehouse(small_lake) as lake:
        source = f"s{datetime.now(UTC).timestamp():.6f}".replace(".", "_")
        recipe = replace(ITEMS, source=source, history=True)
        table = TABLE.model_copy(update={"shrink_limit": 0.0})
        tables = (recipe.staged.sql, f"(FROM {recipe.history_view.sql} WHERE is_current)")

        def found() -> list[Any]:
            """The rows of the staged table, which are those that the history calls current."""
            both = [lake.connection.execute(f"SELECT key, value FROM {one} ORDER BY ALL").fetchall() for one in tables]
            assert both[0] == both[1]
            return both[0]

        whole = 1
        for number, (rows, what) in enumerate(steps, 1):
            memory = MemorySource(
                [batch_of(changes(*rows), {"cursor": str(number)}, kind="changes")], whole=what == "whole"
            )
            load_table(lake, source, memory, "orders", table, run_id="r")
            whole = number if what == "whole" else whole
            if what != "load":
                stage_table(lake, recipe, run_id="r", rebuild=what == "rebuild")
                assert found() == model(steps[:number])
            if what == "backfill":
                stage_table(lake, recipe, run_id="r", loads=(whole, max(whole, number - 1)))
                assert found() == model(steps[:number])
        stage_table(lake, recipe, run_id="r")
        assert found() == model(steps)
        stage_table(lake, recipe, run_id="r", rebuild=True)
        assert found() == model(steps)
        twice = (
            f"FROM {recipe.history_view.sql} AS a JOIN {recipe.history_view.sql} AS b ON a.key = b.key "
            "AND (a._load_id, a._row) < (b._load_id, b._row) AND greatest(a.valid_from, b.valid_from) "
            "< least(coalesce(a.valid_to, 'infinity'), coalesce(b.valid_to, 'infinity'))"
        )
        assert not query(lake, twice), "two versions of a row held at one time"
        assert figures_add_up(lake)


@ON_SQLITE
def test_rows_deleted_and_updated_in_files_that_are_replaced_stay_so(lake: Lakehouse) -> None:
    model = {key: key for key in range(100)}
    apply(lake, *(insert(key, key, key + 1) for key in range(100)))
    order = 200
    for turn in range(6):
        rows = []
        for key in ((turn * 7 + step * 3) % 100 for step in range(5)):
            order += 1
            if key in model and (key + turn) % 2:
                rows.append(delete(key, order))
                del model[key]
            else:
                rows.append(update(key, order, order) if key in model else insert(key, order, order))
                model[key] = order
        apply(lake, *rows)
        if turn % 3 == 2:
            maintain(lake, keep_snapshots=timedelta(0))
        assert items(lake) == sorted(model.items())
        # What a scan finds, and what the files are said to hold.
        assert query(lake, "SELECT count(*) FROM staged_shop.orders") == [(len(model),)]


@ON_SQLITE
def test_a_delete_is_not_lost_though_the_snapshots_since_the_step_began_expired(
    lake: Lakehouse, settings: Settings
) -> None:
    apply(lake, insert(1, 1, 1), insert(2, 2, 2))
    apply(lake, insert(3, 3, 3))
    load(lake, changes(delete(1, 4)))

    def slow(raw: pl.LazyFrame) -> pl.LazyFrame:
        with open_lakehouse(settings) as other:
            maintain(other, keep_snapshots=timedelta(0))
            other.connection.execute("CREATE TABLE IF NOT EXISTS staged_shop.unrelated (id INTEGER)")
            maintain(other, keep_snapshots=timedelta(0))
        return raw

    stage(lake, replace(ITEMS, function=slow))
    assert items(lake) == [(2, 2), (3, 3)]


@ON_SQLITE
def test_a_version_holds_since_its_transaction_was_committed_if_the_log_says_when(lake: Lakehouse) -> None:
    at = [None, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)]
    rows = changes(insert(1, 10, 1), update(1, 11, 2), delete(1, 3))
    load(lake, rows.append_column("_committed_at", pa.array(at, pa.timestamp("us", "UTC"))))
    stage(lake, replace(ITEMS, history=True))
    loaded_at = query(lake, "SELECT DISTINCT _loaded_at FROM raw_shop.orders")[0][0]
    assert query(lake, "SELECT value, valid_from, valid_to FROM staged_shop.orders_history ORDER BY value") == [
        (10, min(loaded_at, at[1]), at[1]),
        (11, at[1], at[2]),
    ]
