"""`dp quarantine`."""

import json
from pathlib import Path
from typing import Any

import pytest
from platform_tests.cli.conftest import AT, GOOD, Dp
from platform_tests.tables import RECIPE, TABLE, MemorySource, Order, batch_of, orders

from data_platform.components.spec import SourceSpec, TableSpec
from data_platform.ingestion.load import load_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.staging.step import StagingRefusedError, stage_table

BAD_AMOUNT, BAD_STATUS = "1:60", "1:61"


def test_the_list_counts_by_reason(dp: Dp, looking: Path) -> None:
    found = json.loads(dp("quarantine", "list", "--json").stdout)
    assert {(one["source"], one["table"], one["layer"], one["column"], one["rows"]) for one in found} == {
        ("shop", "orders", "raw", "", 1),
        ("shop", "orders", "staged", "amount", 1),
        ("shop", "orders", "staged", "status", 1),
        ("shop", "refunds", "staged", "status", 1),
    }
    assert "shop/orders" in dp("quarantine", "list").stdout


def test_entries_are_shown_with_reason_row_and_place(dp: Dp, looking: Path) -> None:
    shown = dp("quarantine", "show", "shop/orders").stdout
    assert "amount: at least 0, but it is '-5.0'" in shown
    assert '"order_id":"101"' in shown
    assert "orders.csv, line 7" in shown
    assert "3 of 3 open entries" in shown


def test_entries_are_chosen_by_column(dp: Dp, looking: Path) -> None:
    found = json.loads(dp("quarantine", "show", "shop/orders", "--column", "status", "--json").stdout)
    assert [entry["id"] for entry in found] == [BAD_STATUS]
    assert found[0]["reasons"] == [{"column": "status", "check": "one of open, paid", "value": "lost"}]


NAMES = ["shop/orders", "staged/shop/orders", "raw/shop/orders", "quarantine/shop/orders", "staged_shop.orders", "shop"]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_the_names_that_run_takes(dp: Dp, changing: Settings, name: str) -> None:
    tables = {"shop/orders", "shop/refunds"} if name == "shop" else {"shop/orders"}
    listed = json.loads(dp("quarantine", "list", name, "--json").stdout)
    assert {f"{one['source']}/{one['table']}" for one in listed} == tables
    shown = json.loads(dp("quarantine", "show", name, "--json").stdout)
    assert {one["table"] for one in shown} == tables
    assert len(shown) == 2 + len(tables)
    done = dp("quarantine", "discard", name, "--column", "status", "--yes")
    assert f"{len(tables)} entries of {', '.join(sorted(tables))} are discarded." in done.stdout
    assert len(json.loads(dp("quarantine", "show", "shop", "--json").stdout)) == 4 - len(tables)


def test_the_list_says_how_many_rows_there_are_each_counted_once(dp: Dp, looking: Path) -> None:
    assert "4 rows in all: shop/orders 3, shop/refunds 1." in dp("quarantine", "list").stdout
    assert "1 row in all: shop/refunds 1." in dp("quarantine", "list", "shop/refunds").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "shop/order"], "Tables with one: shop/orders, shop/refunds"),
        (["show", "orders"], "Nothing of orders is in quarantine. Tables with one: shop/orders, shop/refunds"),
        (["show", "shop", "--id", BAD_AMOUNT], "An id is one of a table, and shop has several: shop/orders, shop/ref"),
        (["show", "shop", "--column", "order_id"], "No open entry of shop/orders failed because of the column order_"),
        (["show", "shop/orders", "--id", "9:9"], f"Open are 3: {BAD_AMOUNT}, {BAD_STATUS}"),
        (
            ["show", "shop/orders", "--column", "order_id"],
            "They failed because of: (the row as a whole), amount, status",
        ),
        (["discard", "shop/orders"], "--id ID"),
        (["discard", "shop/orders", "--all", "--id", BAD_AMOUNT], "--id ID"),
    ],
)
def test_what_is_not_there_is_answered_by_what_is(dp: Dp, looking: Path, arguments: list[str], words: str) -> None:
    done = dp("quarantine", *arguments)
    assert done.exit_code == 1
    assert words in done.stderr


def test_nothing_is_discarded_unless_it_is_confirmed(dp: Dp, changing: Settings) -> None:
    assert dp("quarantine", "discard", "shop/orders", "--all", text="n\n").exit_code == 1
    assert dp("quarantine", "discard", "shop/orders", "--all", text="").exit_code == 1
    assert "3 of 3" in dp("quarantine", "show", "shop/orders").stdout


def test_one_entry_is_discarded_and_the_others_stay(dp: Dp, changing: Settings) -> None:
    done = dp("quarantine", "discard", "shop/orders", "--id", BAD_AMOUNT, "--yes", "--json")
    assert json.loads(done.stdout) == {"discarded": 1}
    left = json.loads(dp("quarantine", "show", "shop/orders", "--json").stdout)
    assert BAD_AMOUNT not in {entry["id"] for entry in left}
    assert len(left) == 2
    with open_lakehouse(changing, read_only=True) as lake:
        kept = lake.connection.execute(
            "SELECT status, resolved_at IS NOT NULL FROM quarantine_shop.orders WHERE quarantine_id = ?", [BAD_AMOUNT]
        ).fetchall()
    assert kept == [("discarded", True)]


def test_an_entry_that_was_discarded_cannot_be_discarded_again(dp: Dp, changing: Settings) -> None:
    dp("quarantine", "discard", "shop/refunds", "--all", "--yes")
    done = dp("quarantine", "discard", "shop/refunds", "--all", "--yes")
    assert done.exit_code == 1
    assert "no open entry" in done.stderr


class Lenient(Order):
    """Orders of any amount."""

    amount: float


@pytest.fixture
def contract_allows_any_amount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The platform's shop has a contract that lets negative amounts in."""
    from datetime import timedelta

    table = TableSpec("orders", TABLE.model_copy(update={"newest_by": "changed_at"}), Lenient, None, "changed_at")

    def spec(package: Path, source: str) -> SourceSpec:
        half_a_minute = timedelta(seconds=30)
        never: Any = None  # replaying opens no source
        return SourceSpec(
            source,
            "file",
            package,
            "shop",
            half_a_minute,
            half_a_minute,
            "",
            {"orders": table},
            never,
            settings_from_environment(),
        )

    monkeypatch.setattr("data_platform.components.workspace.platform_of", lambda source, name=None: tmp_path)
    monkeypatch.setattr("data_platform.components.platform.source_spec", spec)


@pytest.mark.usefixtures("contract_allows_any_amount")
def test_replay_says_which_rows_pass_and_which_still_fail(dp: Dp, changing: Settings) -> None:
    done = json.loads(dp("quarantine", "replay", "shop/orders", "--json").stdout)
    assert (done["passed"], done["failing"]) == ([BAD_AMOUNT], [BAD_STATUS])
    assert len(done["unreadable"]) == 1
    assert [violation["column"] for violation in done["violations"]] == ["status"]
    with open_lakehouse(changing, read_only=True) as lake:
        rows = lake.connection.execute("SELECT count(*), min(amount) FROM staged_shop.orders").fetchall()
    assert rows == [(GOOD + 1, -5.0)]


@pytest.mark.usefixtures("contract_allows_any_amount")
def test_replay_in_words(dp: Dp, changing: Settings) -> None:
    shown = dp("quarantine", "replay", "shop/orders").stdout
    assert f"1 rows pass and are staged: {BAD_AMOUNT}" in shown
    assert "status one of open, paid: 1 row, such as 'lost'" in shown
    assert "1 records could not be read at all" in shown


@pytest.mark.usefixtures("contract_allows_any_amount")
def test_rows_of_a_load_that_was_refused_are_not_replayed(dp: Dp, changing: Settings) -> None:
    with open_lakehouse(changing) as lake:
        batch = batch_of(orders((103, -7, "paid", AT)), {"cursor": "2"})
        load_table(lake, "shop", MemorySource([batch]), "orders", TABLE, run_id="run-4")
        with pytest.raises(StagingRefusedError):
            stage_table(lake, RECIPE, run_id="run-4")
    for _ in range(2):
        assert json.loads(dp("quarantine", "replay", "shop/orders", "--json").stdout)["refused"] == ["2:0"]
    shown = dp("quarantine", "replay", "shop/orders", "--id", "2:0").stdout
    assert "1 rows are of loads whose staging was refused: `dp run staged/shop/orders` stages all rows" in shown


@pytest.mark.usefixtures("contract_allows_any_amount")
def test_what_is_another_platforms_is_not_replayed(dp: Dp, changing: Settings) -> None:
    with open_lakehouse(changing) as lake:
        ledger.claim(lake, "bolts", "source", ["shop"])
    done = dp("quarantine", "replay", "shop/orders")
    assert done.exit_code == 1
    assert "belongs to the platform bolts" in done.stderr
    with open_lakehouse(changing, read_only=True) as lake:
        assert lake.connection.execute("SELECT count(*) FROM staged_shop.orders").fetchall() == [(GOOD,)]


@pytest.mark.usefixtures("contract_allows_any_amount")
def test_a_table_that_left_the_platform_cannot_be_replayed(dp: Dp, changing: Settings) -> None:
    done = dp("quarantine", "replay", "shop/refunds")
    assert done.exit_code == 1
    assert "has no table refunds any more. It has: orders" in done.stderr


def test_with_nothing_in_quarantine_the_list_says_so(dp: Dp, tmp_path: Path) -> None:
    from data_platform.lakehouse.settings import settings_from_environment

    with open_lakehouse(settings_from_environment()):
        pass
    assert dp("quarantine", "list").stdout == "Nothing is in quarantine.\n"
