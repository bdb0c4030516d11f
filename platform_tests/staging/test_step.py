"""From raw rows to the staged table: which rows pass, and what a refused step leaves behind."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from platform_tests.staging.steps import (
    DAY,
    ON_SQLITE,
    TOLERANT,
    figures_add_up,
    load,
    numbered,
    quarantined,
    query,
    stage,
    staged,
)
from platform_tests.tables import RECIPE, Order, orders

from data_platform.contracts import Contract, Field, Instant, Reference
from data_platform.contracts.audit import ContractError
from data_platform.contracts.quarantine import Selection, close_entries, summary
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.transaction import ConcurrentStepError, commit
from data_platform.staging import batches as batches_module
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import StagingRefusedError, replay


def test_rows_are_typed_keyed_and_traceable_to_the_raw_row(lake: Lakehouse) -> None:
    load(lake, numbered(1, 2))
    result = stage(lake)
    assert (result.rows_read, result.rows_inserted, result.load_from, result.load_to) == (2, 2, 1, 1)
    assert staged(lake, "order_id, amount, status, changed_at, _load_id, _row, _staging_id") == [
        (1, 1.0, "open", datetime(2020, 1, 1, tzinfo=UTC), 1, 0, 1),
        (2, 1.0, "open", datetime(2020, 1, 1, tzinfo=UTC), 1, 1, 1),
    ]
    assert query(lake, "SELECT passed, rows_checked, rows_failed, contract FROM platform.audits") == [
        (True, 2, 0, "platform_tests.tables.Order")
    ]


@ON_SQLITE
def test_nothing_landed_is_no_step_at_all(lake: Lakehouse) -> None:
    assert stage(lake).staging_id == 0
    load(lake, numbered(1))
    stage(lake)
    assert stage(lake).rows_read == 0
    assert query(lake, "SELECT count(*) FROM platform.stagings") == [(1,)]


@ON_SQLITE
@pytest.mark.parametrize("whole", [True, False])
def test_a_source_without_rows_makes_a_table_without_rows_once(lake: Lakehouse, whole: bool) -> None:
    load(lake, orders(), whole=whole)
    assert stage(lake).staging_id == 1
    assert staged(lake, "order_id, amount, status, changed_at, _staging_id") == []
    assert query(lake, "SELECT load_from, load_to FROM platform.stagings") == [(1, 1)]
    # A full refresh is a step whenever it lands; additions are one when there are some.
    load(lake, orders(), whole=whole)
    assert stage(lake).staging_id == (2 if whole else 1)
    load(lake, numbered(1), whole=whole)
    assert stage(lake).rows_inserted == 1
    assert figures_add_up(lake)


@ON_SQLITE
def test_a_bad_row_is_quarantined_with_all_its_reasons_and_its_raw_record(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", DAY), (2, "abc", "bogus", "soon")))
    result = stage(lake, TOLERANT)
    assert (result.rows_inserted, result.rows_quarantined) == (1, 1)
    (row,) = quarantined(lake, "quarantine_id, layer, load_id, row, record, reasons, status")
    assert row[:4] == ("1:1", "staged", 1, 1)
    assert '"amount":"abc"' in row[4]
    assert {(reason["column"], reason["check"], reason["value"]) for reason in row[5]} == {
        ("amount", "not a number", "abc"),
        ("status", "one of open, paid", "bogus"),
        ("changed_at", "not an instant (ISO 8601)", "soon"),
    }


def test_bad_rows_above_the_threshold_refuse_the_step_and_are_kept_once_however_often_it_is_tried(
    lake: Lakehouse, settings: Settings
) -> None:
    load(lake, numbered(1))
    stage(lake)
    load(lake, orders((1, 5, "open", DAY), (2, "abc", "open", DAY)))
    for _ in range(3):
        with pytest.raises(
            StagingRefusedError, match=r"(?s)1 of 2 rows break the contract .*tables\.Order.*amount not a"
        ):
            stage(lake)
    assert staged(lake) == [(1, 1.0)]
    assert quarantined(lake) == [("2:1", "open")]
    assert (
        query(lake, "SELECT status, rows_inserted, bytes FROM platform.stagings WHERE staging_id > 1")
        == [("refused", 0, 0)] * 3
    )
    assert stage(lake, TOLERANT).load_from == 2
    assert staged(lake) == [(1, 5.0)]
    files = {str(path) for path in Path(settings.data).rglob("staged_shop/**/*.parquet")}
    assert len([name for name in files if "delete" not in name]) == 2


@ON_SQLITE
def test_a_repaired_contract_lets_quarantined_rows_of_a_refused_step_out(lake: Lakehouse) -> None:
    class Lenient(Order):
        amount: float = Field(ge=0, le=1_000_000)

    load(lake, numbered(1, 2, amount=5000))
    with pytest.raises(StagingRefusedError):
        stage(lake)
    assert stage(lake, replace(RECIPE, contract=Lenient)).rows_inserted == 2
    assert {status for _, status in quarantined(lake)} == {"replayed"}


def test_replaying_lets_in_what_passes_now_and_keeps_the_rest(lake: Lakehouse) -> None:
    load(lake, orders((1, 5000, "open", DAY), (2, "abc", "open", DAY), (3, 1, "open", DAY)))
    stage(lake, TOLERANT)

    class Lenient(Order):
        amount: float = Field(ge=0, le=1_000_000)

    result = replay(lake, replace(RECIPE, contract=Lenient), Selection(), run_id="run-2")
    assert (result.rows_read, result.rows_inserted, result.rows_quarantined) == (2, 1, 1)
    assert staged(lake) == [(1, 5000.0), (3, 1.0)]
    assert quarantined(lake) == [("1:0", "replayed"), ("1:1", "open")]
    assert [entry["value"] for (entries,) in quarantined(lake, "reasons") for entry in entries][-1] == "abc"
    assert replay(lake, RECIPE, Selection(column="status"), run_id="run-2").rows_read == 0
    assert replay(lake, RECIPE, Selection(ids=["1:1"]), run_id="run-2").rows_quarantined == 1


@ON_SQLITE
def test_replaying_a_table_without_a_quarantine_says_which_have_one(lake: Lakehouse) -> None:
    load(lake, numbered(1))
    stage(lake)
    with pytest.raises(PlatformError, match=r"shop/orders has no quarantine\. Tables with one: none"):
        replay(lake, RECIPE, Selection(), run_id="run-1")


@ON_SQLITE
def test_a_discarded_row_stays_discarded_when_the_table_is_rebuilt(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", DAY), (2, "abc", "open", DAY)))
    stage(lake, TOLERANT)
    at = datetime.now(UTC)
    closed = commit(lake, lambda c: close_entries(c, RECIPE.quarantine, "discarded", at, Selection(ids=["1:1"])))
    assert closed == 1
    stage(lake, TOLERANT, rebuild=True)
    assert quarantined(lake) == [("1:1", "discarded")]
    assert summary(lake.connection) == []


def test_an_orphan_waits_in_quarantine_until_its_parent_has_arrived(lake: Lakehouse) -> None:
    class Customer(Contract):
        customer: int

    class Purchase(Contract):
        order_id: int
        customer: int = Field(references=Reference("shop/customers", "customer", orphans="quarantine"))

    recipe = Recipe("shop", "orders", ("order_id",), Purchase, refuse_above=1.0)
    load(lake, pa.table({"order_id": [1, 2], "customer": [10, 11]}))
    assert stage(lake, recipe).rows_quarantined == 2
    load(lake, pa.table({"customer": [11]}), name="customers")
    stage(lake, Recipe("shop", "customers", ("customer",), Customer))
    assert replay(lake, recipe, Selection(), run_id="run-2").rows_inserted == 1
    assert staged(lake, "order_id, customer") == [(2, 11)]
    assert quarantined(lake) == [("1:0", "open"), ("1:1", "replayed")]


@ON_SQLITE
def test_a_kept_orphan_is_staged_and_counted(lake: Lakehouse) -> None:
    class Purchase(Contract):
        order_id: int
        customer: int = Field(references=Reference("shop/customers", "customer"))

    load(lake, pa.table({"order_id": [1], "customer": [10]}))
    result = stage(lake, Recipe("shop", "orders", ("order_id",), Purchase))
    assert result.rows_inserted == 1
    assert [(one.check, one.rows, one.fatal) for one in result.violations] == [
        ("not in shop/customers.customer", 1, False)
    ]


def raising(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.col("amount").str.to_integer(strict=True))


def forgetful(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.select("order_id", "amount", "status", "changed_at")


def lossy(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.drop("amount")


def loading(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.lit(7, pl.Int64).alias("_load_id"))


def numbering(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.filter(pl.col("order_id") != "9").with_columns(pl.col("_row") + 1)


def numbering_in_words(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.format("row {}", "_row").alias("_row"))


@ON_SQLITE
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising, r"(?s)the staging function raising failed .*ComputeError: .*The raw table has: order_id, amount"),
        (forgetful, "dropped the columns _load_id, _row"),
        (lossy, "needs the column amount, which the staged rows do not have"),
        (loading, "the staging function loading overwrites _load_id, which tells which raw row"),
        (numbering, "numbering overwrites _row, which tells which raw row"),
        (numbering_in_words, "numbering_in_words overwrites _row, which tells which raw row"),
    ],
)
def test_a_staging_function_that_fails_changes_nothing_and_is_named(
    lake: Lakehouse, settings: Settings, function: Any, message: str
) -> None:
    load(lake, orders((1, "top-secret", "open", DAY)))
    with pytest.raises(ContractError, match=message) as caught:
        stage(lake, replace(RECIPE, function=function))
    assert "top-secret" not in str(caught.value)
    assert not list(Path(settings.data).rglob("staged_shop/**/*.parquet"))
    assert query(lake, "SELECT count(*) FROM platform.stagings") == [(0,)]


@ON_SQLITE
@pytest.mark.parametrize(
    "function",
    [
        lambda raw: raw.reverse(),
        lambda raw: raw.sort("amount"),
        lambda raw: pl.concat([raw, raw]),
        lambda raw: pl.concat([raw.filter(pl.col("amount") == "1"), raw]),
        lambda raw: raw.with_columns(pl.col("_row").alias("place")).collect().lazy(),
    ],
)
def test_a_staging_function_may_reorder_and_repeat_rows(lake: Lakehouse, function: Any) -> None:
    load(lake, orders((1, 1, "open", DAY), (2, 3, "open", DAY), (3, 2, "open", DAY), (3, 4, "open", DAY)))
    stage(lake, replace(RECIPE, function=function))
    assert staged(lake, "order_id, amount, _row") == [(1, 1.0, 0), (2, 3.0, 1), (3, 4.0, 3)]


@ON_SQLITE
def test_a_staging_function_may_leave_rows_out_and_they_are_counted(lake: Lakehouse) -> None:
    load(lake, numbered(1, 2, 3))
    recipe = replace(RECIPE, function=lambda raw: raw.filter(pl.col("order_id") != "2"))
    result = stage(lake, recipe)
    assert (result.rows_read, result.rows_inserted, result.rows_filtered) == (3, 2, 1)


def test_a_contract_that_changed_a_type_or_needs_a_new_column_wants_a_rebuild(lake: Lakehouse) -> None:
    class Textual(Contract):
        order_id: int
        amount: str
        changed_at: Instant = Field(nullable=True)

    class Priced(Order):
        price: int

    def priced(raw: pl.LazyFrame) -> pl.LazyFrame:
        return raw.with_columns(pl.lit(7).alias("price"))

    load(lake, numbered(1))
    stage(lake)
    load(lake, numbered(2))
    with pytest.raises(ContractError, match=r"amount is DOUBLE.*--rebuild"):
        stage(lake, replace(RECIPE, contract=Textual))
    with pytest.raises(ContractError, match=r"price is not there.*--rebuild"):
        stage(lake, replace(RECIPE, contract=Priced, function=priced))
    assert staged(lake) == [(1, 1.0)]
    stage(lake, replace(RECIPE, contract=Textual), rebuild=True)
    assert staged(lake) == [(1, "1"), (2, "1")]
    stage(lake, replace(RECIPE, contract=Priced, function=priced), rebuild=True)
    assert staged(lake, "order_id, amount, price") == [(1, 1.0, 7), (2, 1.0, 7)]


@ON_SQLITE
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"key": ("order_id", "status")}, {}, "`key` was order_id, status, now it is order_id"),
        ({}, {"key": ("order_id", "status")}, "`key` was order_id, now it is order_id, status"),
        ({"key": ()}, {}, "`key` was not given, now it is order_id; `newest_by` was not given, now it is changed_at"),
        ({}, {"key": ()}, "`key` was order_id, now it is not given"),
        ({}, {"key": ("status",)}, "`key` was order_id, now it is status"),
        ({}, {"newest_by": None}, "`newest_by` was changed_at, now it is not given"),
        ({}, {"newest_by": "amount"}, "`newest_by` was changed_at, now it is amount"),
    ],
)
def test_another_key_or_order_of_versions_wants_a_rebuild(
    lake: Lakehouse, before: dict[str, Any], after: dict[str, Any], words: str
) -> None:
    first, then = replace(TOLERANT, **before), replace(TOLERANT, **after)
    load(lake, orders((1, 9, "open", "2020-01-01"), (1, 2, "paid", "2020-01-02"), (2, "abc", "open", DAY)))
    stage(lake, first)
    load(lake, numbered(3))
    as_it_was = staged(lake)
    steps: list[Callable[[Recipe], Any]] = [
        lambda recipe: stage(lake, recipe),
        lambda recipe: stage(lake, recipe, loads=(1, 1)),
        lambda recipe: replay(lake, recipe, Selection(), run_id="r"),
    ]
    for step in steps:
        with pytest.raises(ContractError) as caught:
            step(then)
        assert words in str(caught.value)
        assert "`dp run staged/shop/orders --rebuild`" in str(caught.value)
    assert staged(lake) == as_it_was
    stage(lake, then, rebuild=True)
    rebuilt = staged(lake)
    assert [amount for order, amount in rebuilt if order == 1] == {
        (): [2.0, 9.0], ("order_id", "status"): [2.0, 9.0], ("status",): [2.0]
    }.get(then.key, [9.0] if then.newest_by == "amount" else [2.0])  # fmt: skip
    for step in steps:
        step(then)
    assert staged(lake) == rebuilt


@ON_SQLITE
def test_the_order_of_the_key_s_columns_and_the_order_of_a_table_without_a_key_do_not_matter(lake: Lakehouse) -> None:
    for recipe, other in (
        (replace(TOLERANT, key=("order_id", "status")), replace(TOLERANT, key=("status", "order_id"))),
        (replace(TOLERANT, key=(), table="log"), replace(TOLERANT, key=(), newest_by=None, table="log")),
    ):
        load(lake, numbered(1), name=recipe.table)
        stage(lake, recipe)
        load(lake, numbered(2), name=recipe.table)
        assert stage(lake, other).rows_inserted == 1


@ON_SQLITE
def test_of_a_table_that_an_earlier_release_staged_the_present_key_is_taken_for_its_own(lake: Lakehouse) -> None:
    load(lake, numbered(1))
    stage(lake)
    lake.connection.execute("DELETE FROM platform.positions WHERE layer = 'staged' AND partition <> 'load_id'")
    for number in (2, 3):
        load(lake, numbered(number))
        assert stage(lake).rows_inserted == 1
    load(lake, numbered(4))
    with pytest.raises(ContractError, match="`key` was order_id, now it is status"):
        stage(lake, replace(RECIPE, key=("status",)))


@ON_SQLITE
def test_a_contract_that_gained_a_column_that_may_be_null_goes_on(lake: Lakehouse) -> None:
    class Noted(Order):
        note: str = Field(nullable=True)

    load(lake, numbered(1))
    stage(lake)
    load(lake, numbered(2))
    stage(lake, replace(RECIPE, contract=Noted))
    assert staged(lake, "order_id, note") == [(1, None), (2, None)]


@ON_SQLITE
@pytest.mark.parametrize("history", [False, True])
def test_a_contract_that_lost_a_column_leaves_it_null_in_new_rows(lake: Lakehouse, history: bool) -> None:
    class Fewer(Contract):
        order_id: int
        amount: float
        changed_at: Instant = Field(nullable=True)

    recipe = replace(RECIPE, history=history)
    load(lake, orders((1, 1, "open", DAY), (2, 2, "paid", DAY)))
    stage(lake, recipe)
    load(lake, orders((3, 3, "open", DAY), (1, 9, "open", DAY)))
    stage(lake, replace(recipe, contract=Fewer))
    assert staged(lake, "order_id, amount, status") == [(1, 9.0, None), (2, 2.0, "paid"), (3, 3.0, None)]
    assert query(lake, "SELECT count(status) FROM staged_shop.orders") == [(1,)]
    assert query(lake, "SELECT order_id FROM staged_shop.orders WHERE status IS NOT NULL") == [(2,)]


def test_two_steps_from_the_same_position_land_once(lake: Lakehouse, settings: Settings) -> None:
    load(lake, numbered(1))
    other = lake.duplicate()

    def slow(raw: pl.LazyFrame) -> pl.LazyFrame:
        stage(other)
        return raw

    with pytest.raises(ConcurrentStepError, match="staged shop/orders stands at step 1, this run started from 0"):
        stage(lake, replace(RECIPE, function=slow))
    assert staged(lake) == [(1, 1.0)]
    assert len(list(Path(settings.data).rglob("staged_shop/**/*.parquet"))) == 1


def test_keys_of_several_columns_and_of_text_are_told_apart(lake: Lakehouse) -> None:
    class Seat(Contract):
        flight: str
        seat: str
        price: int

    recipe = Recipe("shop", "orders", ("flight", "seat"), Seat)
    load(lake, pa.table({"flight": ["a", "a", "b'"], "seat": ["1", "2", "1"], "price": [1, 2, 3]}))
    stage(lake, recipe)
    load(lake, pa.table({"flight": ["b'", "a"], "seat": ["1", "2"], "price": [30, 20]}))
    assert stage(lake, recipe).rows_updated == 2
    assert staged(lake, "flight, seat, price") == [("a", "1", 1), ("a", "2", 20), ("b'", "1", 30)]


@ON_SQLITE
def test_many_batches_are_one_step(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "BATCH_ROWS", 2048)
    load(lake, numbered(*range(5000), *range(100)))
    result = stage(lake)
    assert (result.rows_read, result.rows_inserted, result.rows_superseded) == (5100, 5000, 100)
    assert figures_add_up(lake)
