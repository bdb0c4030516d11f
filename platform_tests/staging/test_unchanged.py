"""Values that a log of changes does not repeat (`_unchanged`): they are those that the row had before."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from platform_tests.histories import histories
from platform_tests.staging.steps import ON_SQLITE, load, query, stage, staged

from data_platform.contracts import Contract, Field
from data_platform.contracts.audit import ContractError
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe

pytestmark = ON_SQLITE


class Page(Contract):
    """A page, whose text is long."""

    key: int
    title: str = Field(nullable=True)
    body: str = Field(nullable=True)


PAGES = Recipe("shop", "orders", ("key",), Page, refuse_above=1.0)

Row = tuple[str, int | None, str | None, str | None, int, list[str] | None]
"""Operation, key, title, body, order, and the columns that were left out."""


def pages(*rows: Row) -> pa.Table:
    operation, key, title, body, order, unchanged = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "key": pa.array(key, pa.int64()),
            "title": pa.array(title, pa.string()),
            "body": pa.array(body, pa.string()),
            "_operation": pa.array(operation, pa.string()),
            "_order": pa.array(order, pa.int64()),
            "_unchanged": pa.array(unchanged, pa.list_(pa.string())),
        }
    )


def put(key: int, title: str, body: str | None, order: int, operation: str = "insert") -> Row:
    return (operation, key, title, body, order, None)


def retitled(key: int, title: str, order: int, operation: str = "update") -> Row:
    return (operation, key, title, None, order, ["body"])


def gone(key: int, order: int) -> Row:
    return ("delete", key, None, None, order, None)


def shown(lake: Lakehouse) -> list[Any]:
    return staged(lake, "key, title, body")


def test_the_value_is_that_of_the_last_row_that_has_it_of_an_earlier_load_or_of_the_same(lake: Lakehouse) -> None:
    load(lake, pages(put(1, "a", "one", 1), put(2, "b", None, 2)))
    stage(lake, PAGES)
    load(
        lake,
        pages(
            retitled(1, "a2", 3),
            retitled(2, "b2", 4),
            put(1, "a3", "three", 5, "update"),
            retitled(1, "a4", 6),
            put(3, "c", "new", 7),
            retitled(3, "c2", 8),
        ),
    )
    stage(lake, PAGES)
    assert shown(lake) == [(1, "a4", "three"), (2, "b2", None), (3, "c2", "new")]
    load(lake, pages(retitled(1, "a5", 9)))
    stage(lake, PAGES)
    assert shown(lake)[0] == (1, "a5", "three")
    assert query(lake, "SELECT count(*) FROM raw_shop.orders WHERE body IS NULL AND len(_unchanged) = 1") == [(5,)]


def test_a_row_that_was_deleted_and_made_anew_has_its_own_values(lake: Lakehouse) -> None:
    load(lake, pages(put(1, "a", "one", 1), gone(1, 2), put(1, "b", None, 3), retitled(1, "b2", 4)))
    stage(lake, PAGES)
    assert shown(lake) == [(1, "b2", None)]


def test_a_changed_key_keeps_the_values_through_any_number_of_changes(lake: Lakehouse) -> None:
    load(lake, pages(put(1, "a", "one", 1), put(7, "z", "seven", 2)))
    load(lake, pages(gone(1, 3), retitled(2, "b", 3, "insert"), gone(2, 4), retitled(3, "c", 4, "insert")))
    stage(lake, PAGES)
    assert shown(lake) == [(3, "c", "one"), (7, "z", "seven")]
    load(lake, pages(retitled(3, "d", 5), gone(7, 6), retitled(1, "e", 6, "insert")))
    stage(lake, PAGES)
    assert shown(lake) == [(1, "e", "seven"), (3, "d", "one")]


def test_a_rebuild_and_a_backfill_find_the_same_values(lake: Lakehouse) -> None:
    load(lake, pages(put(1, "a", "one", 1)))
    load(lake, pages(retitled(1, "b", 2)))
    load(lake, pages(retitled(1, "c", 3)))
    stage(lake, PAGES)
    before = shown(lake)
    stage(lake, PAGES, rebuild=True)
    assert shown(lake) == before == [(1, "c", "one")]
    stage(lake, PAGES, loads=(3, 3))
    assert shown(lake) == before


def test_every_version_of_the_history_has_its_value(lake: Lakehouse) -> None:
    load(lake, pages(put(1, "a", "one", 1), retitled(1, "b", 2), put(1, "c", "two", 3, "update"), retitled(1, "d", 4)))
    stage(lake, replace(PAGES, history=True))
    assert query(lake, "SELECT title, body FROM staged_shop.orders_history ORDER BY title") == [
        ("a", "one"),
        ("b", "one"),
        ("c", "two"),
        ("d", "two"),
    ]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (PAGES, "no earlier row of the key 1 has it"),
        (replace(PAGES, key=()), "as it has no key"),
        (replace(PAGES, key=("page",)), r"as the key \(page\) is made in staging"),
    ],
)
def test_a_value_that_cannot_be_found_refuses_the_step_and_says_what_to_do(
    lake: Lakehouse, recipe: Recipe, expected: str
) -> None:
    load(lake, pages(retitled(1, "a", 1)))
    with pytest.raises(ContractError, match=expected + ".*REPLICA IDENTITY FULL.*--full-refresh"):
        stage(lake, recipe)
    assert query(lake, "SELECT count(*) FROM platform.stagings WHERE status = 'staged'") == [(0,)]


def test_a_private_key_is_not_shown(lake: Lakehouse) -> None:
    class Secret(Page):
        title: str = Field(nullable=True, private=True)

    load(lake, pages(retitled(4711, "a", 1)))
    with pytest.raises(ContractError) as raised:
        stage(lake, replace(PAGES, contract=Secret))
    assert "4711" not in str(raised.value)


def test_a_column_that_was_lost_since_is_not_looked_for(lake: Lakehouse) -> None:
    load(lake, pages(put(1, "a", "one", 1), ("update", 1, "b", "two", 2, ["gone"])))
    stage(lake, PAGES)
    assert shown(lake) == [(1, "b", "two")]


STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["put", "retitle", "move", "delete", "load"])), max_size=25
)


@histories(10)
@given(steps=STEPS)
def test_staged_rows_are_those_of_a_source_that_repeats_everything(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    own = Settings(settings.home, str(folder / "catalog.sqlite"), str(folder / "data"))
    there: dict[int, tuple[str, str | None]] = {}
    waiting: list[Row] = []
    with open_lakehouse(own) as lake:
        for order, (key, what) in enumerate([*steps, (0, "load")], 1):
            text = f"text {order}"
            if what == "load":
                if waiting:
                    load(lake, pages(*waiting))
                    stage(lake, PAGES)
                waiting = []
                expected = sorted((k, *values) for k, values in there.items())
                assert not there or shown(lake) == expected
            elif what == "put":
                body = None if order % 5 == 0 else text
                waiting.append(put(key, text, body, order, "update" if key in there else "insert"))
                there[key] = (text, body)
            elif key in there and what == "retitle":
                waiting.append(retitled(key, text, order))
                there[key] = (text, there[key][1])
            elif key in there and what == "move" and key + 1 not in there:
                waiting += [gone(key, order), retitled(key + 1, text, order, "insert")]
                there[key + 1] = (text, there.pop(key)[1])
            elif key in there and what == "delete":
                waiting.append(gone(key, order))
                del there[key]
