"""Violations: added up over batches, worded with an example, most frequent first."""

import pytest

from data_platform.contracts.hints import likely_cause
from data_platform.contracts.violations import (
    PRIVATE,
    Violation,
    as_records,
    commonest,
    counted,
    fatal,
    reason_text,
    summed,
)


@pytest.mark.parametrize(
    ("violation", "words"),
    [
        (Violation("amount", "not a number", 12, "abc"), "amount not a number: 12 rows, such as 'abc'"),
        (Violation("amount", "missing", 1), "amount missing: 1 row"),
        (Violation("", "children have no grade b", 1_000), "row children have no grade b: 1,000 rows"),
        (Violation("code", "matches ^A$", 2, ""), "code matches ^A$: 2 rows, which are empty"),
        (Violation("mail", "contains @", 3, PRIVATE), "mail contains @: 3 rows, such as (private)"),
    ],
)
def test_a_violation_says_column_rule_rows_and_an_example(violation: Violation, words: str) -> None:
    assert str(violation) == words


def test_violations_of_batches_are_added_up_by_rule_and_the_first_example_stays() -> None:
    kept = Violation("town", "not in geo/towns.name", 1, "Ulm", fatal=False)
    found = [
        Violation("amount", "at least 0", 1, "-1"),
        Violation("status", "one of a, b", 3, "c"),
        kept,
        Violation("amount", "at least 0", 4, "-2"),
        Violation("town", "not in geo/towns.name", 2, "Bonn"),
    ]
    assert summed(found, ["amount", "status", "town"]) == (
        Violation("amount", "at least 0", 5, "-1"),
        Violation("status", "one of a, b", 3, "c"),
        Violation("town", "not in geo/towns.name", 2, "Bonn"),
        kept,
    )
    assert summed([], []) == ()
    assert kept not in fatal(found)


def test_the_three_commonest_fatal_ones_are_given_and_the_rest_counted() -> None:
    found = [Violation(f"column_{rows}", "missing", rows) for rows in (1, 5, 2, 4, 3)]
    found.append(Violation("town", "not in geo/towns.name", 100, fatal=False))
    assert commonest(found) == [
        "column_5 missing: 5 rows",
        "column_4 missing: 4 rows",
        "column_3 missing: 3 rows",
        "and 2 more",
    ]
    assert commonest([]) == []


def test_the_ledger_stores_plain_values() -> None:
    assert as_records([Violation("amount", "at least 0", 1, "-1")]) == [
        {"column": "amount", "check": "at least 0", "rows": 1, "value": "-1", "fatal": True}
    ]


def test_one_row_s_reason_is_worded_for_itself() -> None:
    assert reason_text({"column": "age", "check": "at least 0", "value": "-1"}) == "age: at least 0, but it is '-1'"
    assert reason_text({"column": "", "check": "odd", "value": None}) == "the row: odd"
    assert [counted(rows) for rows in (0, 1, 1_000)] == ["0 rows", "1 row", "1,000 rows"]


@pytest.mark.parametrize(
    ("needed", "there", "words"),
    [
        (["order_id", "amount"], ["order_id;amount;status"], "separated by ';'. Set `delimiter`"),
        (["order_id", "amount"], ["Order_ID\tAmount\tStatus"], "separated by a tab"),
        (["amount"], ["order_id", "Amount "], "Probably meant: Amount  for amount."),
        (["changed_at"], ["order_id", "changedAt"], "Probably meant: changedAt for changed_at."),
        (["name", "town", "street"], ["temperature", "humidity"], "is it the contract of another table?"),
        (["amount"], ["order_id", "status", "when"], "Was it renamed or dropped in the source?"),
    ],
)
def test_columns_that_are_missing_are_traced_to_the_likely_mistake(
    needed: list[str], there: list[str], words: str
) -> None:
    assert words in likely_cause(needed, there)
