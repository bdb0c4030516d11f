"""Each way in which a row can break its contract, and what the audit says of it."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_platform.contracts import Contract, Field, Instant, Reference
from data_platform.contracts.audit import REASONS, Audited, ContractError, audit
from data_platform.contracts.violations import Violation
from data_platform.lakehouse.tables import ROW_ID


class Person(Contract):
    """Somebody, with every kind of rule that Pandera has."""

    number: int = Field(unique=True)
    age: int = Field(ge=0, le=150)
    score: float = Field(gt=0, lt=1, nullable=True)
    grade: str = Field(isin=["a", "b"])
    nickname: str = Field(notin=["admin"], nullable=True)
    code: str = Field(str_matches=r"^[A-Z]{2}\d$")
    note: str = Field(str_length={"min_value": 2, "max_value": 4}, nullable=True)
    height: float = Field(in_range={"min_value": 1, "max_value": 3}, nullable=True)
    badge: str = Field(unique=True, nullable=True)
    town: str = Field(nullable=True)
    street: str = Field(nullable=True)
    mail: str = Field(private=True, str_contains="@", nullable=True)
    born: date = Field(nullable=True)
    seen: Instant = Field(nullable=True)
    active: bool = Field(nullable=True)

    class Config:
        unique = ("town", "street")

    @pa.check("nickname", error="is not a palindrome")
    @classmethod
    def palindrome(cls, data: pa.PolarsData) -> pl.LazyFrame:
        column = pl.col(data.key or "")
        return data.lazyframe.select(column == column.str.reverse())

    @pa.dataframe_check
    @classmethod
    def children_have_no_grade_b(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select((pl.col("age") > 17) | (pl.col("grade") != "b"))


GOOD: dict[str, Any] = {
    "number": 1,
    "age": 30,
    "score": 0.5,
    "grade": "a",
    "nickname": "anna",
    "code": "AB1",
    "note": "abc",
    "height": 1.8,
    "badge": None,
    "town": None,
    "street": None,
    "mail": "a@b.c",
    "born": "2000-02-29",
    "seen": "2020-01-01T00:00:00Z",
    "active": "yes",
}


def audited(*rows: dict[str, Any], key: tuple[str, ...] = ("number",), contract: type[Contract] = Person) -> Audited:
    numbered = [{**GOOD, "_load_id": 1, "_row": i, **row} for i, row in enumerate(rows)]
    return audit(pl.DataFrame(numbered, infer_schema_length=None), contract, ROW_ID, key)


def reasons(result: Audited, row: int = 0) -> set[tuple[str, str, str | None]]:
    bad = result.bad.filter(pl.col("_row") == row)
    return {(r["column"], r["check"], r["value"]) for r in bad["reasons"].explode().to_list()} if len(bad) else set()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"age": -1}, ("age", "at least 0", "-1")),
        ({"age": 151}, ("age", "at most 150", "151")),
        ({"age": None}, ("age", "missing", None)),
        ({"age": "old"}, ("age", "not a whole number", "old")),
        ({"age": "30.5"}, ("age", "not a whole number", "30.5")),
        ({"age": "99999999999999999999"}, ("age", "not a whole number", "99999999999999999999")),
        ({"age": 3e300}, ("age", "not a whole number", "3e+300")),
        ({"score": 0.0}, ("score", "more than 0", "0.0")),
        ({"score": 1.0}, ("score", "less than 1", "1.0")),
        ({"score": "half"}, ("score", "not a number", "half")),
        ({"grade": "c"}, ("grade", "one of a, b", "c")),
        ({"nickname": "admin"}, ("nickname", "none of admin", "admin")),
        ({"nickname": "ab"}, ("nickname", "is not a palindrome", "ab")),
        ({"code": "ab1"}, ("code", r"matches ^[A-Z]{2}\d$", "ab1")),
        ({"note": "x"}, ("note", "length 2 to 4", "x")),
        ({"height": 3.5}, ("height", "from 1 to 3", "3.5")),
        ({"born": "2001-02-29"}, ("born", "not a date (YYYY-MM-DD)", "2001-02-29")),
        ({"seen": "yesterday"}, ("seen", "not an instant (ISO 8601)", "yesterday")),
        ({"active": "perhaps"}, ("active", "not true or false", "perhaps")),
        ({"age": 10, "grade": "b"}, ("", "children have no grade b", None)),
        ({"mail": "nobody"}, ("mail", "contains @", "(private)")),
        ({"number": None}, ("number", "missing", None)),
    ],
)
def test_a_row_that_breaks_one_rule_is_bad_and_says_which(
    row: dict[str, Any], reason: tuple[str, str, str | None]
) -> None:
    result = audited(row, {"number": 2})
    assert reason in reasons(result)
    assert len(result.bad) == 1
    assert result.good["_row"].to_list() == [1]


def test_a_row_has_all_its_reasons_and_a_failed_cast_is_one_of_them_not_two() -> None:
    result = audited({"age": "x", "score": 2.0, "code": "?"})
    assert reasons(result) == {
        ("age", "not a whole number", "x"),
        ("score", "less than 1", "2.0"),
        ("code", r"matches ^[A-Z]{2}\d$", "?"),
    }


@pytest.mark.parametrize("column", ["score", "height"])
@pytest.mark.parametrize("value", [float("nan"), "NaN"])
def test_not_a_number_is_no_number_though_it_is_above_every_bound(column: str, value: object) -> None:
    result = audited({**GOOD, column: value})
    assert reasons(result) == {(column, "not a number", "NaN")}


def test_not_a_number_is_told_where_no_rule_bounds_the_column() -> None:
    class Free(Contract):
        number: int
        share: float = Field(nullable=True, infinite=True)

    rows: list[dict[str, Any]] = [
        {"number": 1, "share": float("nan")},
        {"number": 2, "share": float("inf")},
        {"number": 3, "share": None},
    ]
    result = audited(*rows, contract=Free)
    assert reasons(result) == {("share", "not a number", "NaN")}
    assert result.good["number"].to_list() == [2, 3]


def test_a_value_that_is_to_be_unique_makes_every_row_that_shares_it_bad() -> None:
    result = audited({"number": 1, "badge": "x"}, {"number": 2, "badge": "x"}, {"number": 3, "badge": "y"})
    assert reasons(result, 0) == reasons(result, 1) == {("badge", "not unique", "x")}
    assert result.good["number"].to_list() == [3]


def test_several_columns_that_are_unique_together_are_judged_together() -> None:
    rows = [("A", "x"), ("A", "y"), ("A", "x"), (None, "x"), (None, "x")]
    result = audited(*({"number": i, "town": town, "street": street} for i, (town, street) in enumerate(rows)))
    assert reasons(result, 0) == reasons(result, 2) == {("", "not unique: town, street", None)}
    assert result.good["number"].to_list() == [1, 3, 4]


def test_versions_of_one_row_repeat_neither_its_key_nor_what_is_unique_to_it() -> None:
    result = audited({"number": 1, "badge": "x", "age": 1}, {"number": 1, "badge": "x", "age": 2})
    assert result.bad.is_empty()


def test_without_a_key_every_repetition_of_a_unique_value_is_bad() -> None:
    assert len(audited({"number": 1}, {"number": 1}, key=()).bad) == 2


def test_a_null_key_is_bad_even_if_the_contract_lets_it_pass() -> None:
    result = audited({"town": None}, {"number": 2, "town": "A"}, key=("town",))
    assert reasons(result) == {("town", "missing", None)}


def test_private_values_are_in_no_reason_and_no_violation() -> None:
    secret = "secret-value"

    class Secretive(Contract):
        name: str = Field(private=True, str_length={"max_value": 3}, unique=True)
        born: date = Field(private=True)
        town: str = Field(private=True, references=Reference("geo/towns", "name"))
        area: str = Field(private=True, references=Reference("geo/areas", "name", orphans="quarantine"))

        @pa.dataframe_check
        @classmethod
        def never(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("name") == "x")

    row = {"name": secret, "born": secret, "town": secret, "area": secret, "_load_id": 1, "_row": 1}
    frame = pl.DataFrame([row, {**row, "_row": 2}])
    result = audit(frame, Secretive, ROW_ID, (), known=lambda column, values: values.clear())
    assert len(result.bad) == 2
    assert {one.column for one in result.violations} == {"", "name", "born", "town", "area"}
    assert secret not in str(result.bad.to_dicts())
    assert secret not in str(result.violations)


def test_violations_count_rows_by_rule_with_an_example() -> None:
    result = audited({"age": -1}, {"number": 2, "age": -2}, {"number": 3, "grade": "z"})
    assert result.violations == (
        Violation("age", "at least 0", 2, "-1", fatal=True),
        Violation("grade", "one of a, b", 1, "z", fatal=True),
    )


def test_a_kept_orphan_is_counted_and_passes_while_a_quarantined_one_is_bad() -> None:
    class Visit(Contract):
        airport: str = Field(references=Reference("reference/airports", "airport"), nullable=True)
        carrier: str = Field(references=Reference("reference/carriers", "carrier", orphans="quarantine"))

    rows = [("JFK", "AA"), ("XXX", "AA"), ("JFK", "??"), (None, "AA")]
    frame = pl.DataFrame({"airport": [a for a, _ in rows], "carrier": [c for _, c in rows]})
    frame = frame.with_columns(pl.lit(1).alias("_load_id"), pl.int_range(4).alias("_row"))
    result = audit(frame, Visit, ROW_ID, (), known=lambda column, values: values.filter(values.is_in(["JFK", "AA"])))
    assert result.good["_row"].to_list() == [0, 1, 3]
    assert reasons(result, 2) == {("carrier", "not in reference/carriers.carrier", "??")}
    kept = [one for one in result.violations if not one.fatal]
    assert [(one.column, one.rows, one.value) for one in kept] == [("airport", 1, "XXX")]


def test_a_missing_column_that_is_needed_is_an_error_that_lists_what_is_there() -> None:
    frame = pl.DataFrame([{**GOOD, "_load_id": 1, "_row": 1}]).drop("age")
    with pytest.raises(ContractError, match=r"Person needs the column age, .*They have: number, score"):
        audit(frame, Person, ROW_ID)


def test_a_missing_column_that_may_be_null_is_null() -> None:
    frame = pl.DataFrame([{**GOOD, "_load_id": 1, "_row": 1}]).drop("seen", "town")
    good = audit(frame, Person, ROW_ID).good
    assert good.row(0, named=True)["seen"] is None
    assert good.schema["seen"] == pl.Datetime("us", "UTC")


def test_dropped_lineage_is_an_error_that_says_what_to_use_instead() -> None:
    with pytest.raises(ContractError, match=r"dropped the column _row, .*with_columns"):
        audit(pl.DataFrame([{**GOOD, "_load_id": 1}]), Person, ROW_ID)


def test_a_rule_for_the_table_as_a_whole_that_fails_is_an_error() -> None:
    class Few(Contract):
        number: int

        @pa.dataframe_check
        @classmethod
        def only_one(cls, data: pa.PolarsData) -> bool:
            return bool(data.lazyframe.select(pl.len()).collect().item() == 1)

    with pytest.raises(ContractError, match="only_one"):
        audited({"number": 1}, {"number": 2}, contract=Few)


def test_a_rule_that_raises_is_an_error_and_not_a_pass() -> None:
    class Wrong(Contract):
        number: int

        @pa.check("number")
        @classmethod
        def broken(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("no_such_column") > 1)

    with pytest.raises(ContractError, match="no_such_column"):
        audited({"number": 1}, contract=Wrong)


def test_a_strict_contract_does_not_mind_the_lineage() -> None:
    class Strict(Contract):
        number: int

        class Config:
            strict = True

    assert len(audited({"number": 1}, contract=Strict).good) == 1


def test_an_empty_frame_passes_with_the_contracts_columns_and_types() -> None:
    frame = pl.DataFrame([{**GOOD, "_load_id": 1, "_row": 1}]).clear()
    result = audit(frame, Person, ROW_ID, ("number",))
    assert result.good.columns == [*GOOD, *ROW_ID]
    assert result.good.schema["seen"] == pl.Datetime("us", "UTC")
    assert result.bad.is_empty()
    assert result.violations == ()


@pytest.mark.parametrize(
    ("given_", "typed"),
    [
        ({"age": " 30 "}, ("age", 30)),
        ({"age": "30.0"}, ("age", 30)),
        ({"age": 30.0}, ("age", 30)),
        ({"score": "0.25"}, ("score", 0.25)),
        ({"score": Decimal("0.25")}, ("score", 0.25)),
        ({"active": "T"}, ("active", True)),
        ({"active": "0"}, ("active", False)),
        ({"born": "2000-02-29"}, ("born", date(2000, 2, 29))),
        ({"seen": "2020-01-01T01:00:00+01:00"}, ("seen", datetime(2020, 1, 1, tzinfo=UTC))),
        ({"seen": datetime(2020, 1, 1)}, ("seen", datetime(2020, 1, 1, tzinfo=UTC))),
        ({"seen": date(2020, 1, 1)}, ("seen", datetime(2020, 1, 1, tzinfo=UTC))),
    ],
)
def test_values_are_cast_to_the_contracts_types(given_: dict[str, Any], typed: tuple[str, object]) -> None:
    result = audited(given_)
    assert result.bad.is_empty()
    assert result.good[typed[0]][0] == typed[1]


def test_whole_numbers_as_text_are_never_rounded() -> None:
    result = audited({"number": "9007199254740993"}, {"number": "9007199254740993.0"})
    assert result.good["number"].to_list() == [9007199254740993]
    assert reasons(result, 1) == {("number", "not a whole number", "9007199254740993.0")}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 5), st.sampled_from(["a", "b", "c", None]), st.integers(0, 3)), max_size=30))
def test_good_and_bad_rows_are_those_of_a_plain_reading_of_the_contract(
    rows: list[tuple[int, str | None, int]],
) -> None:
    class Small(Contract):
        number: int
        age: int = Field(ge=0)
        grade: str = Field(isin=["a", "b"])

    frame = pl.DataFrame(
        [{"number": n, "age": age, "grade": grade, "_load_id": 1, "_row": i} for i, (age, grade, n) in enumerate(rows)],
        schema={"number": pl.Int64, "age": pl.Int64, "grade": pl.String, "_load_id": pl.Int64, "_row": pl.Int64},
    )
    result = audit(frame, Small, ROW_ID, ("number",))
    good = [i for i, (age, grade, _) in enumerate(rows) if age >= 0 and grade in ("a", "b")]
    assert result.good["_row"].to_list() == good
    assert sorted(result.bad["_row"].to_list()) == sorted(set(range(len(rows))) - set(good))


class Priced(Contract):
    """A price whose columns are called as the platform calls its own."""

    index: int
    reasons: str = Field(nullable=True)
    value: str = Field(str_matches="EUR|USD")


@pytest.mark.parametrize("value", ["xxUSDxx", "USDx", "EURUSD", "xEUR", "EUR\n"])
def test_a_pattern_is_for_the_whole_value(value: str) -> None:
    frame = pl.DataFrame({"index": [1, 2], "value": ["USD", value], "_load_id": [1, 1], "_row": [0, 1]})
    result = audit(frame, Priced, ROW_ID, ("index",))
    assert result.good["value"].to_list() == ["USD"]
    assert [one.check for one in result.violations] == ["matches EUR|USD"]


def test_columns_may_be_called_as_the_audit_calls_its_own() -> None:
    frame = pl.DataFrame({"index": ["1", "x"], "reasons": ["a", "b"], "value": ["USD", "?"], "_load_id": 1, "_row": 0})
    result = audit(frame, Priced, ROW_ID, ("index", "reasons"))
    assert result.good["index"].to_list() == [1]
    [bad] = result.bad_frames(["_row"])
    assert bad["reasons"].to_list() == ["b"]
    assert [reason["column"] for reason in bad[REASONS][0]] == ["index", "value"]
    assert result.sample(5, ["_row"])[REASONS].list.len().to_list() == [2]
