"""Small histories of a table that keeps its versions, made by a generator: whatever landed, was staged again or changed
its type, the current version of each key is the row that the staged table shows, and no version of an earlier full
refresh is lost. `make test-histories` tries more of them."""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from platform_tests.histories import histories
from platform_tests.tables import TABLE, MemorySource, batch_of

from data_platform.contracts import Contract, Field, Instant
from data_platform.contracts.quarantine import Selection
from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import replay, stage_table

numbers = itertools.count()


class Line(Contract):
    """A line of an order, of which more than 100 is too much."""

    order_id: int
    line: int
    amount: float = Field(ge=0, le=100)
    changed_at: Instant = Field(nullable=True)


class AnyLine(Line):
    amount: float


class WholeLine(Line):
    amount: int


class NotedLine(AnyLine):
    note: str = Field(nullable=True)


def lines(raw: pl.LazyFrame) -> pl.LazyFrame:
    """The lines of an order: one raw row gives several."""
    amounts = pl.col("amounts").str.split(",")
    return (
        raw.with_columns(amounts.alias("amount"), pl.int_ranges(amounts.list.len()).alias("line"), note=pl.lit("n"))
        .explode("amount", "line")
        .with_columns(pl.col("amount").cast(pl.Float64))
    )


def odd_lines(raw: pl.LazyFrame) -> pl.LazyFrame:
    """The lines without those of amount 2."""
    return lines(raw).filter(pl.col("amount") != 2)


CONTRACTS: dict[str, type[Contract]] = {"any": AnyLine, "integers": WholeLine, "noted": NotedLine, "strict": Line}
ORDERS = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["1", "2", "1,2", "2,500"]),
    st.sampled_from([None, "2020-01-01", "2020-01-02", "2020-01-03"]),
    st.integers(0, 2),
)
LOADED = st.tuples(
    # A full refresh that has again what landed last, and more, is what leaves versions as they are.
    st.sampled_from(["rows", "whole", "again", "again"]),
    st.lists(ORDERS, min_size=1, max_size=2),
    st.sampled_from(["stage", "stage", "stage", "", *CONTRACTS]),
)
DONE = st.tuples(
    st.sampled_from(["stage", "rebuild", "backfill", "backfill", "replay", "widen", "filter", *CONTRACTS]),
    st.integers(1, 5),
    st.integers(1, 5),
)
KEYS = st.sampled_from([("order_id",), ("order_id", "line")])
RULES = st.tuples(st.sampled_from([None, "changed_at", "revision"]), KEYS)


@pytest.fixture(scope="module")
def small_lake(home: Path) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        yield Settings(home, f"{folder}/catalog.sqlite", f"{folder}/data")


class History:
    """A table under a history of steps."""

    def __init__(self, lake: Lakehouse, newest_by: str | None, key: tuple[str, ...]) -> None:
        source = f"s{next(numbers)}"
        self.lake, self.digits, self.landed, self.last = lake, 4, 0, list[Any]()
        self.recipe = Recipe(source, "orders", key, Line, lines, newest_by, refuse_above=1.0, history=True)

    def load(self, kind: str, rows: list[Any]) -> None:
        self.last = [*self.last, *rows] if kind == "again" else rows
        ids, amounts, at, revisions = zip(*self.last, strict=True)
        table = pa.table(
            {
                "order_id": pa.array([str(one) for one in ids]),
                "amounts": pa.array(amounts),
                "changed_at": pa.array(at, pa.string()),
                "revision": pa.array([Decimal(one) for one in revisions], pa.decimal128(self.digits, 2)),
            }
        )
        self.landed += 1
        source = MemorySource([batch_of(table, {"cursor": str(self.landed)})], whole=kind != "rows")
        options = TABLE.model_copy(update={"shrink_limit": 0.0, "key": ["order_id"]})
        load_table(self.lake, self.recipe.source, source, "orders", options, run_id="r")

    def do(self, what: str, one: int, other: int) -> None:
        if what == "widen":
            self.digits += 4
        elif what == "filter":
            self.recipe = replace(self.recipe, function=lines if self.recipe.function is odd_lines else odd_lines)
        elif what in CONTRACTS:
            self.recipe = replace(self.recipe, contract=CONTRACTS[what])
            stage_table(self.lake, self.recipe, run_id="r", rebuild=one % 2 == 1)
        elif what == "replay":
            replay(self.lake, self.recipe, Selection(), run_id="r")
        elif what == "backfill":
            stage_table(self.lake, self.recipe, run_id="r", loads=(min(one, other), max(one, other)))
        else:
            stage_table(self.lake, self.recipe, run_id="r", rebuild=what == "rebuild")

    def query(self, sql: str) -> list[Any]:
        return self.lake.connection.execute(sql).fetchall()

    def is_staged(self) -> bool:
        found = "SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' AND (schema_name, table_name) = (?, ?)"
        place = [self.recipe.staged.schema, self.recipe.staged.name]
        return bool(self.lake.connection.execute(found, place).fetchall())

    def staged(self) -> list[Any]:
        return self.query(f"SELECT order_id, line, amount, changed_at FROM {self.recipe.staged.sql} ORDER BY ALL")

    def current(self) -> list[Any]:
        view = self.recipe.history_view.sql
        return self.query(f"SELECT order_id, line, amount, changed_at FROM {view} WHERE is_current ORDER BY ALL")

    def versions(self) -> set[Any]:
        columns = "_full_refresh, order_id, line, amount, changed_at, _load_id, _row, _operation"
        return set(self.query(f"SELECT {columns} FROM {self.recipe.versions.sql}"))

    def overlaps(self) -> list[Any]:
        """Versions of one key that held at the same time, or that ended before they began."""
        keys = ", ".join(self.recipe.key)
        following = f"lead(valid_from) OVER (PARTITION BY {keys} ORDER BY valid_from, valid_to NULLS LAST)"
        return self.query(
            f"SELECT * FROM (SELECT *, {following} AS following FROM {self.recipe.history_view.sql}) "
            "WHERE valid_to < valid_from OR coalesce(valid_to, 'infinity') > following"
        )


@histories(4)
@example(
    rule=("revision", ("order_id",)),
    steps=[
        ("whole", [(0, "1", None, 2), (1, "1", None, 2)], "stage"),
        ("again", [(1, "2,500", None, 2)], "stage"),
        ("rows", [(0, "2", None, 1)], "stage"),  # late: the row that the full refresh left as it was is newer
        ("any", 2, 0),
        ("replay", 1, 1),
        ("backfill", 2, 3),
    ],
)
@example(
    rule=(None, ("order_id", "line")),
    steps=[
        ("whole", [(0, "2,500", None, 0)], "stage"),
        ("again", [(1, "1", None, 0)], "stage"),
        ("widen", 1, 1),
        ("any", 2, 0),
        ("replay", 1, 1),  # what passed of the raw row passes once more
    ],
)
@given(rule=RULES, steps=st.lists(st.one_of(LOADED, DONE), min_size=4, max_size=8))
def test_the_current_version_is_the_staged_row_and_no_earlier_one_is_lost(
    small_lake: Settings, rule: Any, steps: list[Any]
) -> None:
    with open_lakehouse(small_lake) as lake:
        history = History(lake, *rule)
        before: set[Any] = set()
        for step in steps:
            try:
                if isinstance(step[1], list):
                    history.load(step[0], step[1])
                    if step[2]:
                        history.do(step[2], 0, 0)
                else:
                    history.do(*step)
            except PlatformError:
                pass  # refused: then everything is as it was
            if not history.is_staged():
                continue
            assert history.current() == history.staged()
            assert history.overlaps() == []
            after = history.versions()
            last = max((version[0] for version in after), default=0)
            assert {version for version in before if version[0] < last} <= after
            before = after
