"""Rules that are added to a contract after rows were staged: said until every row is held against them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from platform_tests.tables import RECIPE, TABLE, MemorySource, Order, batch_of, orders

from data_platform.contracts import Contract, Field, Reference
from data_platform.ingestion.load import load_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.rules import RULES, kept, newer_rules, rules_of
from data_platform.staging.step import stage_table

DAY = "2026-01-05T08:00:00Z"


class Stricter(Order):
    """The contract with two rules more."""

    amount: float = Field(ge=1, le=1000)
    status: str = Field(isin=["open", "paid"], str_length={"min_value": 4})


def bring(lake: Lakehouse, number: int, amount: float) -> None:
    source = MemorySource([batch_of(orders((number, amount, "paid", DAY)), {"cursor": str(number)})])
    load_table(lake, "shop", source, "orders", TABLE, run_id="run")


def newer(lake: Lakehouse, contract: type[Contract]) -> list[str]:
    return newer_rules(ledger.head(lake, "staged", "shop", "orders").position, contract)


def test_a_rule_that_is_added_is_said_until_all_rows_were_held_against_it(lake: Lakehouse) -> None:
    bring(lake, 1, 0.5)
    stage_table(lake, RECIPE, run_id="run")
    assert newer(lake, Order) == []
    assert newer(lake, Stricter) == ["amount at least 1", "status length 4 to None"]
    # A step holds its own rows against it, the others stay as they are.
    stricter = replace(RECIPE, contract=Stricter, refuse_above=1.0)
    bring(lake, 2, 5.0)
    stage_table(lake, stricter, run_id="run")
    assert newer(lake, Stricter) == ["amount at least 1", "status length 4 to None"]
    result = stage_table(lake, stricter, run_id="run", rebuild=True)
    assert (result.rows_inserted, result.rows_quarantined) == (1, 1)
    assert newer(lake, Stricter) == []
    # A rule that was lifted for some rows is new to them when it comes back.
    bring(lake, 3, 0.5)
    stage_table(lake, RECIPE, run_id="run")
    assert newer(lake, Stricter) == ["amount at least 1", "status length 4 to None"]


def test_every_kind_of_rule_that_a_row_can_break_is_told_apart() -> None:
    def contract(**columns: object) -> type[Contract]:
        annotations = dict.fromkeys(columns, str)
        return type("C", (Contract,), {"__annotations__": annotations, "__module__": __name__, **columns})

    base = contract(a=Field(nullable=True))
    changed = {
        "a not null": Field(),
        "a unique": Field(nullable=True, unique=True),
        "a matches x": Field(nullable=True, str_matches="x"),
        "a in shop/customers.id": Field(nullable=True, references=Reference("shop/customers", "id", "quarantine")),
    }
    for words, field in changed.items():
        assert newer_rules(kept({}, base, stays=False), contract(a=field)) == [words]
    kept_orphans = Field(nullable=True, references=Reference("shop/customers", "id"))
    assert newer_rules(kept({}, base, stays=False), contract(a=kept_orphans)) == []
    # Lists that look alike in words, as they are shortened, are not alike.
    many = [str(number) for number in range(20)]
    first, second = (contract(a=Field(nullable=True, isin=[*many, last])) for last in ("x", "y"))
    assert newer_rules(kept({}, first, stays=False), second) == ["a one of 0, 1, 2, 3, 4, 5, 6, 7 and 13 more"]


def test_a_set_of_values_is_the_same_rule_in_whatever_order_it_is_written() -> None:
    class Listed(Contract):
        a: str = Field(isin={"x", "y", "z", "w"})

    class Again(Contract):
        a: str = Field(isin={"w", "z", "y", "x"})

    assert newer_rules(kept({}, Listed, stays=False), Again) == []


def test_of_a_table_staged_by_an_earlier_release_the_present_rules_are_taken_for_its_own() -> None:
    assert newer_rules({"load_id": "7"}, Order) == []
    assert kept({"load_id": "7"}, Order, stays=True) == kept({}, Order, stays=False)
    assert rules_of(Order)


@given(st.lists(st.tuples(st.sets(st.integers(1, 5)), st.booleans()), min_size=1, max_size=8))
def test_the_newer_rules_are_those_that_some_rows_were_never_held_against(
    steps: list[tuple[set[int], bool]],
) -> None:
    position: dict[str, str] = {}
    rows: list[set[int]] = []
    for rules, rebuilds in steps:
        contract = type(
            "C",
            (Contract,),
            {
                "__annotations__": {f"c{number}": int for number in range(1, 6)},
                "__module__": __name__,
                **{f"c{number}": Field(nullable=number not in rules) for number in range(1, 6)},
            },
        )
        stays = bool(rows) and not rebuilds
        position = {**position, **kept(position, contract, stays=stays)}
        rows = [*rows, rules] if stays else [rules]
        told = {int(words[1]) for words in newer_rules(position, contract)}
        assert told == {number for number in rules if any(number not in held for held in rows)}
        assert RULES in position
