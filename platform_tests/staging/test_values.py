"""Values that do not survive their cast, from the load to quarantine: with what was there, beside rows that pass."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from platform_tests.staging.steps import figures_add_up, query
from platform_tests.tables import MemorySource, batch_of

from data_platform.contracts import Contract, Field
from data_platform.drafting.profile import slug
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import TableOptions
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

MONEY = pl.Decimal(18, 2)
INSTANT = pl.Datetime("us", "UTC")
FAR = pa.timestamp("us", "UTC")

Values = Any
"""Python values, or an Arrow array of them."""

CASES: list[tuple[str, Values, Any, dict[str, Any], list[Any], list[str | None]]] = [
    ("decimals of too many digits", ["19.999", "0.005", "1.10", "1.100"], MONEY, {},
     [Decimal("1.10"), Decimal("1.10")], ["19.999", "0.005"]),
    ("decimals of a double", [19.999, 0.005, 1.10], MONEY, {}, [Decimal("1.10")], ["19.999", "0.005"]),
    ("a double too large for a decimal", [1e15, 2.5], pl.Decimal(18, 4), {}, [Decimal("2.5")], ["1000000000000000.0"]),
    ("dates of two digits", ["24-01-05", "99-12-31", "-2013-01-02", "2013-01-02"], pl.Date, {},
     [date(2013, 1, 2)], ["24-01-05", "99-12-31", "-2013-01-02"]),
    ("infinity as text", ["1e999", "Infinity", "inf", "nan", "1.5"], float, {"ge": 0}, [1.5],
     ["1e999", "Infinity", "inf", "nan"]),
    ("infinity as a double", [float("inf"), float("-inf"), float("nan"), 1.5], float, {}, [1.5],
     ["inf", "-inf", "NaN"]),
    ("infinity that the contract allows", [float("inf"), float("nan"), 1.5], float, {"infinite": True},
     [1.5, float("inf")], ["NaN"]),
    ("numbers as booleans", [2, -1, 0, 1], bool, {}, [False, True], ["2", "-1"]),
    ("floats as booleans", [0.5, 1.0], bool, {}, [True], ["0.5"]),
    ("times of day as dates", [datetime(2024, 5, 1, 13, 5), datetime(2024, 5, 1)], pl.Date, {},
     [date(2024, 5, 1)], ["2024-05-01 13:05:00.000000"]),
    ("integers that a float does not hold", [2**53 + 1, 2**53], float, {}, [float(2**53)], [str(2**53 + 1)]),
    ("ids of 19 digits", ["1745678901234567890", "1745678901234567891"], int, {},
     [1745678901234567890, 1745678901234567891], []),
    ("text beyond a float of 32 bits", ["1e39", "0.5"], pl.Float32, {}, [0.5], ["1e39"]),
    ("times as text", ["17:30", "24:00:00", "25:00", "17:30:00.1234567"], pl.Time, {},
     [datetime(1, 1, 1, 17, 30).time()], ["24:00:00", "25:00", "17:30:00.1234567"]),
    ("nanoseconds", ["2013-01-02T00:00:00.000000001Z", "2013-01-02T00:00:00.5Z"], INSTANT, {},
     [datetime(2013, 1, 2, 0, 0, 0, 500_000, UTC)], ["2013-01-02T00:00:00.000000001Z"]),
    ("bytes that are no text", [b"\xff\x00", b"caf\xc3\xa9"], str, {}, ["café"], ["\\xff00"]),
    ("a pattern in the middle", ["xxUSDxx", "USD", "USD\n", "EURUSD"], str, {"str_matches": "EUR|USD"}, ["USD"],
     ["xxUSDxx", "USD\n", "EURUSD"]),
    ("a pattern of the beginning", ["ABCDEF9", "ABC"], str, {"str_matches": "[A-Z]{3}"}, ["ABC"], ["ABCDEF9"]),
    ("dates beyond the calendar", pa.array([2**31 - 1, -(2**31) + 1, 2_932_897, 15_000], pa.date32()), pl.Date, {},
     [date(2011, 1, 26)], ["infinity", "-infinity", "10000-01-01"]),
    ("instants beyond the calendar", pa.array([2**63 - 1, -(2**63) + 1, 0], FAR), INSTANT, {"le": datetime.now(UTC)},
     [datetime(1970, 1, 1, tzinfo=UTC)], ["infinity", "-infinity"]),
    ("dates beyond the calendar as instants", pa.array([2**31 - 1, 0], pa.date32()), INSTANT, {},
     [datetime(1970, 1, 1, tzinfo=UTC)], ["infinity"]),
    ("lists", [["1", "x"], ["2"]], pl.List(pl.Int64), {}, [[2]], ['["1","x"]']),
    ("lists as text", [["1", None], []], str, {}, ['["1",null]', "[]"], []),
    ("structs", [{"a": "1"}, {"a": "x"}], pl.Struct({"a": pl.Int64}), {}, [{"a": 1}], ['{"a":"x"}']),
    ("a list as a number", [["1"]], int, {}, [], ['["1"]']),
]  # fmt: skip


@pytest.fixture(scope="module")
def lake(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    """One for all cases, each with a table of its own: what becomes of a value cannot differ between catalogs."""
    folder = tmp_path_factory.mktemp("values")
    with open_lakehouse(Settings(home, str(folder / "catalog.sqlite"), str(folder / "data"))) as lake:
        yield lake


def land_and_stage(lake: Lakehouse, table: str, values: Values, kind: Any, rules: dict[str, Any]) -> None:
    column = values if isinstance(values, pa.Array) else pa.array(values)
    body = {"id": Field(), "value": Field(nullable=True, **rules)}
    annotations = {"id": int, "value": kind}
    contract = type(
        "Any", (Contract,), {"__annotations__": annotations, "__module__": __name__, "__doc__": "Any.", **body}
    )
    raw = pa.table(
        {"id": pa.array(range(len(column)), pa.int64()), "value": column, "bytes": [b"\x00\xff"] * len(column)}
    )
    load_table(
        lake,
        "shop",
        MemorySource([batch_of(raw, {"c": "1"})]),
        table,
        TableOptions(key=["id"], contract="x"),
        run_id="r",
    )
    stage_table(lake, Recipe("shop", table, ("id",), contract, refuse_above=1.0), run_id="r")


@pytest.mark.parametrize(("name", "values", "kind", "rules", "staged", "refused"), CASES, ids=[one[0] for one in CASES])
def test_a_value_is_staged_as_it_was_or_is_in_quarantine_as_it_was(
    lake: Lakehouse, name: str, values: Values, kind: Any, rules: dict[str, Any], staged: list[Any], refused: list[Any]
) -> None:
    table = slug(name)
    land_and_stage(lake, table, values, kind, rules)
    found = [value for (value,) in query(lake, f"SELECT value FROM staged_shop.{table} ORDER BY id")]
    assert sorted(found, key=str) == sorted(staged, key=str), name
    if not refused:
        return
    entries = query(lake, f"SELECT record, reasons FROM quarantine_shop.{table} ORDER BY row")
    shown = [reason["value"] for _, reasons in entries for reason in reasons]
    assert shown == refused, name
    assert all(json.loads(record)["bytes"] == "\\x00ff" for record, _ in entries)
    assert figures_add_up(lake)
