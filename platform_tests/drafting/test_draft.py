"""Types that are drafted from values: such that the values that were seen survive them."""

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_platform.contracts.conform import converted
from data_platform.drafting.draft import draft_column
from data_platform.drafting.profile import Declared
from data_platform.drafting.types import dtype_of


def drafted(texts: list[str], name: str = "number", declared: str | None = None) -> str:
    """The type that is drafted for a column of text, and that every value survives."""
    values = pl.Series(name, texts, pl.String)
    kind = Declared(declared, nullable=False) if declared is not None else None
    column = draft_column(name, name, values, pa.string(), kind, whole=True, blanks=False)
    assert column.private or converted(values, dtype_of(column.annotation)).null_count() == 0
    return column.annotation.replace("Annotated[pl.Decimal, ", "decimal(").replace("]", ")").replace(", ", ",")


@pytest.mark.parametrize(
    ("texts", "type_"),
    [
        (["1745678901234567890", "1745678901234567891"], "int"),
        (["-9223372036854775808", "9223372036854775807"], "int"),
        (["1.5", "0.30000000000000004", "123456.25"], "float"),
        (["1e30", "1.5"], "float"),
        (["12345678901234567.123456789", "1.5"], "decimal(38,9)"),
        (["1234567890123456.7", "1.5"], "decimal(38,1)"),
        (["-1234567890123456789.10", "0.25", "7", "0.000"], "decimal(38,2)"),
        (["0.000000000000000000", "100000000000000000000.0", "1.5"], "decimal(38,1)"),
        (["99999999999999999999", "1"], "decimal(38,0)"),
        (["1" * 30 + "." + "1" * 30], "str"),
        (["0.90", "1.25", "17.00"], "decimal(18,2)"),
        (["007", "12"], "str"),
        (["+49", "12"], "str"),
        (["1,250.00", "3.00"], "str"),
    ],
)
def test_numbers_keep_their_digits(texts: list[str], type_: str) -> None:
    assert drafted(texts) == type_


@pytest.mark.parametrize(
    ("name", "texts", "type_"),
    [
        ("unit_price", ["0.99", "1.5"], "decimal(18,2)"),
        ("price", ["3", "15"], "decimal(18,2)"),
        ("price", ["3.125", "15"], "decimal(18,3)"),
        ("total", ["8.9", "3"], "decimal(18,2)"),
        ("total", ["8", "3"], "int"),
        ("celsius", ["8.9", "3"], "float"),
        ("latitude", ["40.6398", "40.7"], "float"),
        ("zip", ["10001", "94103"], "str"),
        ("postal_code", ["10001", "94103"], "str"),
        ("ean", ["4006381333931"], "str"),
        ("sku", ["12e3", "45e1"], "str"),
        ("product_code", ["12e3", "45e1"], "str"),
        ("order_id", ["10001", "94103"], "int"),
    ],
)
def test_a_name_says_whether_digits_are_money_a_code_or_a_measure(name: str, texts: list[str], type_: str) -> None:
    assert drafted(texts, name) == type_


@pytest.mark.parametrize(
    ("declared", "texts", "type_"),
    [
        ("NUMERIC(10,2)", ["9.5", "1"], "decimal(18,2)"),
        ("DECIMAL(20,4)", ["9.5", "1"], "decimal(38,4)"),
        ("numeric", ["12345678901234567.123456789"], "decimal(38,9)"),
        ("numeric", ["9.5", "19"], "decimal(18,2)"),
        ("numeric(10,2)", ["0.30000000000000004"], "float"),
        ("NUMBER(10)", ["5", "6"], "int"),
        ("REAL", ["9.5", "1"], "float"),
        ("BIGINT", ["1745678901234567890"], "int"),
        ("BOOLEAN", ["0", "1"], "bool"),
        ("VARCHAR(9)", ["12", "13"], "str"),
        ("", ["12", "13"], "int"),
        ("numeric(8,3)", [], "decimal(8,3)"),
        ("bigint", [], "int"),
    ],
)
def test_a_declared_type_is_kept_as_far_as_the_values_do(declared: str, texts: list[str], type_: str) -> None:
    assert drafted(texts, "measure", declared) == type_


@settings(deadline=None)
@given(
    st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=4).map(lambda number: f"{number:f}"), min_size=1)
)
def test_whatever_numbers_there_are_each_survives_the_type_that_is_drafted(texts: list[str]) -> None:
    drafted(texts)


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False).map(repr), min_size=1))
def test_whatever_floats_there_are_each_survives_the_type_that_is_drafted(texts: list[str]) -> None:
    drafted(texts, "measure")


@pytest.mark.parametrize(
    ("texts", "note"),
    [
        (["2026-01-05 08:00:00", "2026-01-06 08:00:00"], "taken as UTC: it names no zone"),
        (["2026-01-05T08:00:00.123456789Z"], "do not survive as an instant"),
        (["05.01.2026", "06.01.2026"], "instant_text in staging.py reads them"),
        (["1.234,50", "99,90"], "number_text in staging.py reads them"),
        ([*map(str, range(40)), "unknown"], "all but 1 values are numbers, not 'unknown'"),
    ],
)
def test_what_is_assumed_or_left_as_text_is_said(texts: list[str], note: str) -> None:
    column = draft_column("x", "x", pl.Series("x", texts), pa.string(), None, whole=True, blanks=False)
    assert note in " ".join(column.notes)


@pytest.mark.parametrize(
    ("name", "kind", "type_", "note"),
    [
        ("price", pa.float64(), "float", "if it is money, cents may be lost there already"),
        ("celsius", pa.float64(), "float", ""),
        ("celsius", pa.float32(), "pl.Float32", ""),
        ("price", pa.decimal128(10, 2), "Annotated[pl.Decimal, 10, 2]", ""),
        ("at", pa.timestamp("us"), "Instant", "taken as UTC: it has no zone"),
        ("at", pa.timestamp("us", "UTC"), "Instant", ""),
        ("opens", pa.time64("us"), "pl.Time", ""),
    ],
)
def test_a_type_of_the_source_is_kept_and_what_it_loses_is_said(
    name: str, kind: pa.DataType, type_: str, note: str
) -> None:
    values = pl.DataFrame(pl.from_arrow(pa.table({name: pa.nulls(1, kind)})))[name]
    column = draft_column(name, name, values, kind, None, whole=True, blanks=False)
    assert (column.annotation, " ".join(column.notes)[-len(note) :] if note else " ".join(column.notes)) == (
        type_,
        note,
    )


def test_words_for_null_are_none_where_the_source_lists_them_as_values() -> None:
    values = pl.Series("plan", ["none", "basic"])
    listed = draft_column(
        "plan", "plan", values, pa.string(), None, whole=True, blanks=False, allowed=("none", "basic")
    )
    assert (listed.labels, listed.nullable) == ((), False)
    assert draft_column("plan", "plan", values, pa.string(), None, whole=True, blanks=False).labels == ("none",)
