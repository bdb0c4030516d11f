"""From raw rows to the staged table: which rows pass, which version wins, and what a refused step leaves behind."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from platform_tests.tables import RECIPE, TABLE, MemorySource, Order, orders

from data_platform.contracts import Contract, Field, Instant, Reference
from data_platform.contracts.audit import ContractError
from data_platform.contracts.quarantine import Selection, close_entries, summary
from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Batch
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.transaction import ConcurrentStepError, commit
from data_platform.staging import batches as batches_module
from data_platform.staging.recipe import Recipe, StagingResult
from data_platform.staging.step import StagingRefusedError, replay, stage_table

DAY = "2020-01-01T00:00:00Z"

ON_SQLITE = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
"""For what becomes of rows before the catalog hears of them: it cannot differ between catalogs."""
TOLERANT = replace(RECIPE, refuse_above=1.0)


def load(lake: Lakehouse, rows: pa.Table, *, whole: bool = False, name: str = "orders", source: str = "shop") -> None:
    found = lake.connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake' AND table_name = 'positions'"
    ).fetchone()
    number = 0
    if found and found[0]:
        row = lake.connection.execute("SELECT count(*) FROM platform.loads").fetchone()
        number = row[0] if row else 0
    batch = Batch(rows, {"cursor": str(number)})
    load_table(lake, source, MemorySource([batch], whole=whole), name, TABLE, run_id="run-1")


def stage(lake: Lakehouse, recipe: Recipe = RECIPE, **options: Any) -> StagingResult:
    return stage_table(lake, recipe, run_id="run-1", **options)


def query(lake: Lakehouse, sql: str) -> list[Any]:
    return lake.connection.execute(sql).fetchall()


def staged(lake: Lakehouse, columns: str = "order_id, amount") -> list[Any]:
    return query(lake, f"SELECT {columns} FROM staged_shop.orders ORDER BY ALL")


def quarantined(lake: Lakehouse, columns: str = "quarantine_id, status") -> list[Any]:
    return query(lake, f"SELECT {columns} FROM quarantine_shop.orders ORDER BY ALL")


def numbered(*numbers: int, amount: object = 1, at: object = DAY) -> pa.Table:
    return orders(*((number, amount, "open", at) for number in numbers))


def figures_add_up(lake: Lakehouse) -> bool:
    """What was staged from is what was inserted, updated, superseded, filtered and quarantined; in every step."""
    return query(
        lake,
        "SELECT count(*) FROM platform.stagings WHERE status = 'staged' AND rows_read <> "
        "rows_inserted + rows_updated + rows_superseded + rows_filtered + rows_quarantined",
    ) == [(0,)]


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
        with pytest.raises(StagingRefusedError, match=r"1 of 2 rows break the contract .*tables\.Order.*amount not a"):
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


def test_the_newest_version_wins_within_a_step_and_between_steps(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", "2020-01-01"), (1, 3, "open", "2020-01-03"), (1, 2, "open", "2020-01-02")))
    assert stage(lake).rows_superseded == 2
    assert staged(lake) == [(1, 3.0)]
    load(lake, orders((1, 4, "open", "2020-01-04")))
    assert stage(lake).rows_updated == 1
    assert staged(lake) == [(1, 4.0)]


@ON_SQLITE
def test_a_late_row_that_is_older_does_not_win(lake: Lakehouse) -> None:
    load(lake, orders((1, 3, "open", "2020-01-03")))
    stage(lake)
    load(lake, orders((1, 1, "open", "2020-01-01"), (2, 1, "open", "2020-01-01")))
    result = stage(lake)
    assert (result.rows_inserted, result.rows_superseded) == (1, 1)
    assert staged(lake) == [(1, 3.0), (2, 1.0)]


@ON_SQLITE
def test_versions_are_compared_as_the_contract_types_them_and_not_as_text(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", "2020-01-01T00:30:00+02:00")))
    stage(lake)
    load(lake, orders((1, 2, "open", "2019-12-31T23:00:00Z")))
    stage(lake)
    assert staged(lake) == [(1, 2.0)]


@ON_SQLITE
def test_an_unknown_version_is_the_oldest_and_of_equal_ones_the_last_to_arrive_wins(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", None), (1, 2, "open", None)))
    stage(lake)
    assert staged(lake) == [(1, 2.0)]
    load(lake, orders((1, 3, "open", DAY)))
    stage(lake)
    load(lake, orders((1, 4, "open", None)))
    stage(lake)
    assert staged(lake) == [(1, 3.0)]
    load(lake, orders((1, 5, "open", DAY)))
    stage(lake)
    assert staged(lake) == [(1, 5.0)]


@ON_SQLITE
def test_a_version_that_the_contract_does_not_have_is_carried_along_in_its_own_type(lake: Lakehouse) -> None:
    class Item(Contract):
        item: int
        price: int

    recipe = Recipe("shop", "orders", ("item",), Item, newest_by="sequence")
    for version, price in ((9, 1), (10, 2), (1, 3)):
        load(lake, pa.table({"item": [1], "price": [price], "sequence": [version]}))
        stage(lake, recipe)
    assert staged(lake, "item, price, _version") == [(1, 2, 10)]


@ON_SQLITE
def test_a_version_column_that_nobody_has_is_an_error_that_lists_the_columns(lake: Lakehouse) -> None:
    load(lake, numbered(1))
    with pytest.raises(ContractError, match=r"names the column nope, .*The raw table has: order_id, amount"):
        stage(lake, replace(RECIPE, newest_by="nope"))


def test_a_full_refresh_removes_what_is_gone_and_closes_what_it_replaces(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", DAY), (2, 2, "open", DAY), (3, "abc", "open", DAY)), whole=True)
    stage(lake, TOLERANT)
    load(lake, orders((2, 5, "open", "2010-01-01"), (4, 4, "open", DAY)), whole=True)
    result = stage(lake, TOLERANT)
    assert (result.rows_deleted, result.rows_inserted) == (2, 2)
    assert staged(lake) == [(2, 5.0), (4, 4.0)]
    assert quarantined(lake) == [("1:2", "superseded")]


@ON_SQLITE
def test_full_refreshes_that_were_never_staged_are_history(lake: Lakehouse) -> None:
    load(lake, numbered(1, 2), whole=True)
    load(lake, numbered(2, 3), whole=True)
    assert stage(lake).load_from == 2
    assert [key for key, _ in staged(lake)] == [2, 3]


@ON_SQLITE
def test_an_emptied_full_refresh_empties_the_staged_table(lake: Lakehouse) -> None:
    load(lake, numbered(1), whole=True)
    stage(lake)
    source = MemorySource([Batch(numbered(), {"cursor": "x"})], whole=True)
    load_table(lake, "shop", source, "orders", TABLE, run_id="run-1", full_refresh=True)
    assert stage(lake).rows_deleted == 1
    assert staged(lake) == []


def test_a_backfill_stages_a_range_again_and_newest_still_wins(lake: Lakehouse) -> None:
    for number, amount, at in ((1, 1, "2020-01-01"), (1, 2, "2020-01-02"), (2, 3, "2020-01-03")):
        load(lake, numbered(number, amount=amount, at=at))
        stage(lake)

    def doubled(raw: pl.LazyFrame) -> pl.LazyFrame:
        return raw.with_columns(pl.col("amount").cast(pl.Float64) * 2)

    recipe = replace(RECIPE, function=doubled)
    assert stage(lake, recipe, loads=(1, 2)).rows_updated == 1
    assert staged(lake) == [(1, 4.0), (2, 3.0)]
    assert stage(lake).rows_read == 0
    with pytest.raises(PlatformError, match="loads 2 to 9 cannot be staged again; loads 1 to 3 have been staged"):
        stage(lake, recipe, loads=(2, 9))


@ON_SQLITE
def test_a_backfill_of_loads_that_a_full_refresh_replaced_is_refused(lake: Lakehouse) -> None:
    load(lake, numbered(1), whole=True)
    load(lake, numbered(2), whole=True)
    stage(lake)
    with pytest.raises(PlatformError, match="loads 1 to 1 were replaced by the full refresh of load 2"):
        stage(lake, loads=(1, 1))


@ON_SQLITE
def test_a_rebuild_gives_what_the_increments_gave(lake: Lakehouse) -> None:
    for i in range(4):
        load(lake, numbered(*range(i, i + 5), amount=i, at=f"2020-01-0{5 - i}"))
        stage(lake)
    before = staged(lake, "* EXCLUDE (_staging_id, _staged_at)")
    result = stage(lake, rebuild=True)
    assert (result.rows_deleted, result.rows_inserted) == (8, 8)
    assert staged(lake, "* EXCLUDE (_staging_id, _staged_at)") == before


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
    assert [(v["check"], v["rows"], v["fatal"]) for v in result.violations] == [
        ("not in shop/customers.customer", 1, False)
    ]


def raising(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.col("amount").str.to_integer(strict=True))


def forgetful(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.select("order_id", "amount", "status", "changed_at")


def lossy(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.drop("amount")


@ON_SQLITE
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising, r"shop/orders: raising failed on the raw rows: .*The raw table has: order_id, amount"),
        (forgetful, "dropped the lineage columns _load_id, _row"),
        (lossy, "needs the column amount, which the staged rows do not have"),
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
def test_a_contract_that_gained_a_column_that_may_be_null_goes_on(lake: Lakehouse) -> None:
    class Noted(Order):
        note: str = Field(nullable=True)

    load(lake, numbered(1))
    stage(lake)
    load(lake, numbered(2))
    stage(lake, replace(RECIPE, contract=Noted))
    assert staged(lake, "order_id, note") == [(1, None), (2, None)]


def test_two_steps_from_the_same_position_land_once(lake: Lakehouse, settings: Settings) -> None:
    load(lake, numbered(1))
    other = lake.cursor()

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


class Thing(Contract):
    key: int
    value: int = Field(ge=0)
    at: Instant = Field(nullable=True)


THINGS = Recipe("shop", "orders", ("key",), Thing, newest_by="at", refuse_above=1.0)
ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-1, 9), st.one_of(st.none(), st.integers(0, 3))), min_size=1, max_size=12
)
LOADS = st.lists(st.tuples(ROWS, st.sampled_from(["load", "load", "stage", "snapshot"])), min_size=1, max_size=5)


def oracle(loads: list[tuple[list[Any], str]]) -> list[tuple[int, int]]:
    """The last full refresh and what came after it: of each key the newest good row, the last of equals."""
    newest: dict[int, tuple[tuple[bool, int], int]] = {}
    for rows, what in loads:
        if what == "snapshot":
            newest = {}
        for key, value, at in rows:
            version = (at is not None, at or 0)
            if value >= 0 and (key not in newest or version >= newest[key][0]):
                newest[key] = (version, value)
    return sorted((key, value) for key, (_, value) in newest.items())


@pytest.fixture(scope="module")
def small_lake(home: Path) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        yield Settings(home, f"{folder}/catalog.sqlite", f"{folder}/data")


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(loads=LOADS)
def test_however_rows_are_split_into_loads_and_steps_the_outcome_is_the_oracles(
    small_lake: Settings, loads: list[tuple[list[Any], str]]
) -> None:
    with open_lakehouse(small_lake) as lake:
        connection = lake.connection
        source = f"s{datetime.now(UTC).timestamp():.6f}".replace(".", "_")
        recipe = replace(THINGS, source=source)
        start = datetime(2020, 1, 1, tzinfo=UTC)
        table = TABLE.model_copy(update={"shrink_limit": 0.0})
        for number, (rows, what) in enumerate(loads):
            batch = pa.table(
                {
                    "key": pa.array([row[0] for row in rows]),
                    "value": pa.array([row[1] for row in rows]),
                    "at": pa.array(
                        [None if row[2] is None else start + timedelta(days=row[2]) for row in rows],
                        pa.timestamp("us", "UTC"),
                    ),
                }
            )
            memory = MemorySource([Batch(batch, {"cursor": str(number)})], whole=what == "snapshot")
            load_table(lake, source, memory, "orders", table, run_id="r")
            if what != "load":
                stage_table(lake, recipe, run_id="r")
        stage_table(lake, recipe, run_id="r")
        found = f"SELECT key, value FROM {recipe.staged.sql} ORDER BY ALL"
        expected = oracle(loads)
        assert connection.execute(found).fetchall() == expected
        stage_table(lake, recipe, run_id="r", rebuild=True)
        assert connection.execute(found).fetchall() == expected
        assert figures_add_up(lake)
