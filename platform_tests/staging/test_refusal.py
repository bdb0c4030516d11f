"""What a newcomer's mistake is answered with, and what is kept of a step of which everything is bad."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from platform_tests.staging.steps import DAY, ON_SQLITE, TOLERANT, load, numbered, quarantined, query, stage, staged
from platform_tests.tables import RECIPE, Order, orders

from data_platform.contracts import Contract, Field
from data_platform.contracts.audit import ContractError
from data_platform.contracts.quarantine import summary
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging import batches as batches_module
from data_platform.staging import passing as passing_module
from data_platform.staging.passing import SAMPLED
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import StagingRefusedError

pytestmark = ON_SQLITE


def refused(lake: Lakehouse, **options: Any) -> str:
    """Stage and be refused; the message."""
    with pytest.raises(StagingRefusedError) as caught:
        stage(lake, **options)
    return str(caught.value)


def test_values_of_the_wrong_type_and_unit_are_told_by_their_three_commonest_reasons(lake: Lakehouse) -> None:
    rows = [(number, "12,50", "open", DAY) for number in range(8)]
    load(lake, orders(*rows, (8, 5000, "lost", DAY), (9, 5000, "open", "soon"), (10, 5000, "open", "later")))
    message = refused(lake)
    first, *reasons = message.splitlines()
    assert first.startswith("shop/orders: 11 of 11 rows break the contract platform_tests.tables.Order; ")
    assert reasons[:7] == [
        "The commonest reasons:",
        "",
        "- amount not a number: 8 rows, such as '12,50'",
        "- amount at most 1000: 3 rows, such as '5000.0'",
        "- changed_at not an instant (ISO 8601): 2 rows, such as 'soon'",
        "- and 1 more",
        "",
    ]
    assert "Nearly every row" not in message
    assert "`dp quarantine show shop/orders`" in message
    assert query(lake, "SELECT reason FROM platform.stagings") == [(message.removeprefix("shop/orders: "),)]


def test_reasons_that_are_equally_frequent_are_in_the_order_of_the_contract(lake: Lakehouse) -> None:
    names = [f"c{number}" for number in range(12)]
    wide: Any = type("Wide", (Contract,), {"__annotations__": dict.fromkeys(["id", *names], int)})
    recipe = Recipe("shop", "orders", ("id",), wide)
    load(lake, pa.table({"id": [1, 2], **{name: ["x", "y" if name != "c11" else "1"] for name in names}}))
    message = refused(lake, recipe=recipe)
    assert [line.split()[1] for line in message.splitlines() if line.startswith("- c")] == ["c0", "c1", "c2"]
    assert [one["column"] for one in summary(lake.connection)] == names
    ((violations,),) = query(lake, "SELECT violations FROM platform.audits")
    assert [one["column"] for one in json.loads(violations)] == names


def test_a_row_with_several_reasons_counts_once(lake: Lakehouse) -> None:
    load(lake, orders((1, "x", "lost", "soon"), (2, "y", "gone", "never"), (3, 1, "open", DAY)))
    assert "2 of 3 rows break" in refused(lake)
    assert query(lake, "SELECT rows_checked, rows_failed FROM platform.audits") == [(3, 2)]


def test_a_rule_that_nearly_every_row_breaks_is_suspected_itself(lake: Lakehouse) -> None:
    load(lake, numbered(*range(20), amount=152_300))
    assert "Nearly every row breaks `amount at most 1000`: then mostly the contract" in refused(lake)


def test_the_wrong_delimiter_is_recognised_by_a_column_that_is_a_whole_line(lake: Lakehouse) -> None:
    load(lake, pa.table({"order_id;amount;status;changed_at": ["1;2;open;2020-01-01"]}))
    with pytest.raises(ContractError, match=r"looks like a whole line: the fields are separated by ';'"):
        stage(lake)


def test_private_values_are_not_shown(lake: Lakehouse) -> None:
    class Private(Order):
        status: str = Field(isin=["open", "paid"], private=True)

    load(lake, orders((1, 1, "top-secret", DAY)))
    message = refused(lake, recipe=replace(RECIPE, contract=Private))
    assert "status one of open, paid: 1 row, such as (private)" in message
    assert "top-secret" not in message
    assert "top-secret" not in str(query(lake, "SELECT reasons FROM quarantine_shop.orders"))


def dividing(raw: pl.LazyFrame) -> pl.LazyFrame:
    share = 1 / 0  # the mistake
    return raw.with_columns(pl.lit(share))


def misspelt(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.col("amonut").cast(pl.Float64).alias("amount"))


def by_row(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.col("amount").map_elements(_read, return_dtype=pl.Float64))


def _read(value: str) -> float:
    return float(value.removeprefix("$"))  # what cannot be read raises


class WordlessError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def wordless(raw: pl.LazyFrame) -> pl.LazyFrame:
    raise WordlessError


def leaving(raw: pl.LazyFrame) -> pl.LazyFrame:
    sys.exit("enough")


def eager(raw: pl.LazyFrame) -> Any:
    return raw.collect()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (dividing, ["dividing failed", "ZeroDivisionError: division by zero", "share = 1 / 0  # the mistake"]),
        (misspelt, ["ColumnNotFoundError", '"amonut"', "in an expression that it returned", "test_refusal.py"]),
        (by_row, ["ValueError: could not convert string to float: 'abc'", 'return float(value.removeprefix("$"))']),
        (wordless, ["wordless failed", "WordlessError", "raise WordlessError"]),
        (leaving, ["leaving failed", "SystemExit: enough", 'sys.exit("enough")']),
        (eager, ["the staging function eager returned DataFrame, not a LazyFrame"]),
    ],
)
def test_a_staging_function_that_fails_is_told_with_its_exception_and_line(
    lake: Lakehouse, function: Any, words: list[str]
) -> None:
    load(lake, orders((1, "abc", "open", DAY)))
    with pytest.raises(ContractError) as caught:
        stage(lake, replace(RECIPE, function=function))
    for word in words:
        assert word in str(caught.value)


def test_what_a_staging_function_raises_is_not_shown_where_it_may_hold_private_values(lake: Lakehouse) -> None:
    class Private(Order):
        status: str = Field(private=True)

    load(lake, orders((1, "top-secret", "open", DAY)))
    with pytest.raises(ContractError) as caught:
        stage(lake, replace(RECIPE, contract=Private, function=by_row))
    assert "ValueError: (not shown: it may hold values of private columns)" in str(caught.value)
    assert "top-secret" not in str(caught.value)
    with pytest.raises(ContractError, match="amonut"):
        stage(lake, replace(RECIPE, contract=Private, function=misspelt))


def test_a_platform_error_of_a_staging_function_stays_as_it_is(lake: Lakehouse) -> None:
    def refusing(raw: pl.LazyFrame) -> pl.LazyFrame:
        raise PlatformError("The exchange rates are not there yet.")

    load(lake, numbered(1))
    with pytest.raises(PlatformError, match=r"^The exchange rates are not there yet\.$"):
        stage(lake, replace(RECIPE, function=refusing))


def test_of_a_refused_step_the_first_rows_of_each_reason_are_kept_however_often_it_is_tried(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "BATCH_ROWS", 2048)
    many = [(number, "abc", "open", DAY) for number in range(6_000)]
    load(lake, orders(*many, (6_000, 1, "lost", DAY), *((number, 1, "open", DAY) for number in range(7_000, 7_100))))
    for _ in range(2):
        assert "6,001 of 6,101 rows" in refused(lake)
    kept = query(lake, 'SELECT load_id, row, reasons[1]."check" FROM quarantine_shop.orders ORDER BY row')
    assert [row for _, row, _ in kept] == [*range(SAMPLED), 6_000]
    assert kept[-1][2] == "one of open, paid"
    assert query(lake, "SELECT rows_quarantined FROM platform.stagings") == [(6_001,)] * 2
    assert not list(settings.spool.glob("*.parquet"))
    assert not list(Path(settings.data).rglob("staged_shop/**/*.parquet"))


def test_a_step_that_is_certain_to_be_refused_ends_before_its_end(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "BATCH_ROWS", 2048)
    monkeypatch.setattr(passing_module, "JUDGED_ROWS", 3_000)
    load(lake, orders(*((number, "12,50", "open", DAY) for number in range(10_000))))
    message = refused(lake)
    assert message.startswith("shop/orders: 4,096 of the first 4,096 rows (of 10,000) break the contract ")
    assert query(lake, "SELECT rows_read, rows_quarantined FROM platform.stagings") == [(4096, 4096)]
    assert len(quarantined(lake)) == SAMPLED


def test_below_the_threshold_every_bad_row_is_kept(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "BATCH_ROWS", 2048)
    bad = [(number, "abc", "lost", DAY) for number in range(5_000)]
    load(lake, orders(*bad, (9_000, 1, "open", DAY)))
    assert stage(lake, TOLERANT).rows_quarantined == 5_000
    assert query(
        lake, "SELECT count(*), count(DISTINCT quarantine_id), min(len(reasons)) FROM quarantine_shop.orders"
    ) == [(5_000, 5_000, 2)]
    assert staged(lake) == [(9_000, 1.0)]


def test_bad_rows_that_only_come_first_do_not_refuse_a_step(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "BATCH_ROWS", 2048)
    load(
        lake, orders(*((n, "abc", "open", DAY) for n in range(200)), *((n, 1, "open", DAY) for n in range(200, 9_000)))
    )
    result = stage(lake)
    assert (result.rows_quarantined, result.rows_inserted) == (200, 8_800)
    assert len(quarantined(lake)) == 200
