"""Adding tables to a source, drafting them again, testing and removing: what people wrote by hand is changed by nothing
that they were not asked about."""

import sqlite3
from pathlib import Path

import polars as pl
import pytest
from platform_tests.cli.conftest import Dp
from platform_tests.cli.test_add import run
from platform_tests.ingestion.http.server import Answer, running_api

from data_platform.cli.asking import understood
from data_platform.components.platform import source_spec
from data_platform.contracts.contract import contract_columns
from data_platform.ingestion.sql.source import SqlTable
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A database with a table for each way to go wrong, and some that go right."""
    file = tmp_path / "shop.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript(
            """
            create table customers (id integer primary key, city text);
            create table orders (id integer primary key, customer integer references customers, "Total Due" numeric);
            create table "Order" (id integer primary key, n integer);
            create table reserved (id integer primary key, _load_id integer);
            create table log (message text);
            insert into customers values (1, 'Rome'), (2, null);
            insert into orders values (10, 1, 9.5), (11, 2, 0.25);
            insert into "Order" values (1, 1);
            insert into reserved values (1, 1);
            insert into log values ('a'), ('a');
            """
        )
    return file


@pytest.fixture
def source(dp: Dp, package: Path, shop: Path) -> Path:
    """The folder of the source, with one table and a word of somebody's own in each file."""
    assert dp("add", "source", "shop", "--url", str(shop), "--table", "customers").exit_code == 0
    folder = package / "defs" / "shop"
    for name in ("defs.yaml", "contracts.py"):
        (folder / name).write_text((folder / name).read_text() + "# a word of my own\n")
    return folder


def test_all_tables_are_taken_and_one_that_fails_stops_no_other(dp: Dp, package: Path, shop: Path) -> None:
    done = dp("add", "source", "shop", "--url", str(shop), "--all")
    assert done.exit_code == 1
    assert "NOT DRAFTED: reserved. " in done.stdout
    assert "_load_id, a name that the platform uses itself" in done.stdout
    text = (package / "defs" / "shop" / "defs.yaml").read_text()
    assert "# Not drafted: reserved." in text
    spec = source_spec(package, "shop")
    assert {name: table.contract.__name__ for name, table in spec.tables.items()} == {
        "customers": "Customer",
        "log": "Log",
        "order": "Order",
        "orders": "Orders",
    }
    results, _ = run(package, "shop")
    assert {name: result.rows_inserted for name, result in results.items()} == {
        "customers": 2,
        "log": 2,
        "order": 1,
        "orders": 2,
    }


def test_if_no_table_can_be_drafted_nothing_is_written(dp: Dp, package: Path, shop: Path) -> None:
    done = dp("add", "source", "shop", "--url", str(shop), "--table", "reserved")
    assert done.exit_code == 1
    assert "_load_id" in done.stderr
    assert not (package / "defs" / "shop").exists()


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("1", ["a"]),
        ("3,1", ["a", "c"]),
        ("2-3", ["b", "c"]),
        ("1 , c", ["a", "c"]),
        ("all", ["a", "b", "c"]),
        ("0", []),
        ("4", []),
        ("3-2", []),
        ("1,x", []),
        ("", []),
    ],
)
def test_a_choice_is_numbers_ranges_names_or_all(answer: str, chosen: list[str]) -> None:
    assert understood(answer, ["a", "b", "c"]) == chosen


def test_a_person_picks_tables_from_a_list(dp: Dp, package: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_platform.cli.asking.is_terminal", lambda: True)
    done = dp("add", "source", "shop", "--url", str(shop), text="nonsense\n2,4\n")
    assert done.exit_code == 0, done.stderr
    assert "   2  customers" in done.stdout
    assert "Write numbers from 1 to 5." in done.stdout
    assert list(source_spec(package, "shop").tables) == ["customers", "orders"]


def test_a_table_is_added_and_refers_to_those_that_are_there(dp: Dp, package: Path, source: Path) -> None:
    before = {path: path.read_text() for path in source.glob("*.*")}
    done = dp("add", "table", "shop", "orders", "log")
    assert done.exit_code == 0, done.stderr
    for path, text in before.items():
        lines = path.read_text().splitlines()
        assert all(line in lines or line.startswith("from data_platform") for line in text.splitlines())
    spec = source_spec(package, "shop")
    assert list(spec.tables) == ["customers", "orders", "log"]
    columns = {column.name: column for column in contract_columns(spec.tables["orders"].contract)}
    reference = columns["customer"].references
    assert reference is not None
    assert (reference.table, reference.column) == ("shop/customers", "id")
    results, frames = run(package, "shop")
    assert {name: result.rows_inserted for name, result in results.items()} == {"customers": 2, "orders": 2, "log": 2}
    assert "total_due" in frames["orders"].columns


def test_a_table_that_is_there_is_drafted_again_only_when_told_to_and_the_change_is_shown(
    dp: Dp, package: Path, source: Path
) -> None:
    contracts = source / "contracts.py"
    contracts.write_text(contracts.read_text().replace('description="City."', 'description="Where they live."'))
    before = {path: path.read_bytes() for path in source.glob("*.*")}
    refused = dp("add", "table", "shop", "customers")
    assert refused.exit_code == 1
    assert '-    city: str = Field(nullable=True, description="Where they live.")' in refused.stdout
    assert "dp add table shop customers --force" in refused.stderr
    assert {path: path.read_bytes() for path in source.glob("*.*")} == before
    done = dp("add", "table", "shop", "customers", "--force")
    assert done.exit_code == 0, done.stderr
    assert 'description="City."' in contracts.read_text()
    assert contracts.read_text().endswith("# a word of my own\n")
    same = dp("add", "table", "shop", "customers")
    assert (same.exit_code, same.stdout) == (0, "customers: a new draft is the same. Nothing was changed.\n")


def test_options_that_were_set_by_hand_outlive_a_new_draft(dp: Dp, package: Path, source: Path, shop: Path) -> None:
    file = source / "defs.yaml"
    table = """\
    customers:
      # how we read them
      key: [city, id]   # ours
      refuse_above: 7%  # by hand
      cursor:
        column: id
        lag: 5
      contract: acme.defs.shop.contracts.Customer
      mask: [city]
      fresh_within: 2h
      description: >-
        Who buys,
        and where.
      reconcile: {every: weekly, compare: rows}
"""
    text = file.read_text()
    file.write_text(f"{text[: text.index('    customers:')]}{table}# a word of my own\n")
    with sqlite3.connect(shop) as connection:
        connection.execute("alter table customers add column email text")
        connection.execute("update customers set email = 'x@example.org', city = coalesce(city, 'Ulm')")
    done = dp("add", "table", "shop", "customers", "--force")
    assert done.exit_code == 0, done.output
    after = file.read_text()
    expected = table.replace("mask: [city]", "mask: [city, email]").replace("      # how we read them\n", "")
    assert after.endswith(f"{expected}# a word of my own\n"), after
    spec = source_spec(package, "shop").tables["customers"]
    assert [column.private for column in contract_columns(spec.contract)] == [False, True, True]
    same = dp("add", "table", "shop", "customers")
    assert (same.exit_code, same.stdout) == (0, "customers: a new draft is the same. Nothing was changed.\n")
    assert dp("add", "table", "shop", "customers", "--key", "id", "--force").exit_code == 0
    assert source_spec(package, "shop").tables["customers"].table.key == ["id"]


def test_of_a_table_of_some_columns_a_new_draft_takes_no_others(
    dp: Dp, package: Path, source: Path, shop: Path
) -> None:
    file = source / "defs.yaml"
    file.write_text(file.read_text().replace("      key: [id]", "      columns: [id]\n      key: [id]"))
    assert dp("add", "table", "shop", "customers", "--force").exit_code == 0
    (contract,) = [one.contract for one in source_spec(package, "shop").tables.values()]
    assert [column.name for column in contract_columns(contract)] == ["id"]


def test_a_person_who_says_no_changes_nothing(dp: Dp, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_platform.cli.asking.is_terminal", lambda: True)
    contracts = source / "contracts.py"
    contracts.write_text(contracts.read_text().replace('description="City."', 'description="Where they live."'))
    before = {path: path.read_bytes() for path in source.glob("*.*")}
    assert dp("add", "table", "shop", "customers", "--force", text="n\n").exit_code == 1
    assert {path: path.read_bytes() for path in source.glob("*.*")} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "orders"], "There is no source nothing. There are: acme: acme_example, modelled, shop."),
        (["shop", "ordrs"], "Did you mean orders?"),
        (["shop", "orders", "--key", "nr"], "no column nr for a key"),
        (["shop", "orders", "--owner", "me"], "'me' is no owner"),
        (["acme_example", "orders"], "acme_example has orders already"),
    ],
)
def test_what_cannot_be_added_is_said_and_nothing_is_changed(
    dp: Dp, package: Path, source: Path, arguments: list[str], words: str
) -> None:
    before = {path: path.read_bytes() for path in package.rglob("*.*") if path.is_file() and path.suffix != ".pyc"}
    done = dp("add", "table", *arguments)
    assert done.exit_code == 1
    assert words in " ".join(done.stderr.split())
    assert {
        path: path.read_bytes() for path in package.rglob("*.*") if path.is_file() and path.suffix != ".pyc"
    } == before


def test_a_table_of_an_api_is_added_by_its_name_or_path(dp: Dp, package: Path) -> None:
    with running_api(lambda asked: Answer([{"id": 1, "v": "a"}, {"id": 2, "v": "b"}])) as api:
        assert dp("add", "source", "things", "--url", f"{api.url}/v1/cats").exit_code == 0
        done = dp("add", "table", "things", "dogs", "/v2/birds")
        assert done.exit_code == 0, done.stderr
        spec = source_spec(package, "things")
        assert [getattr(table.table, "path", None) for table in spec.tables.values()] == [
            "/v1/cats",
            "/v1/dogs",
            "/v2/birds",
        ]


def test_a_key_that_is_not_unique_fails_the_draft_which_is_written_with_the_reason(dp: Dp, package: Path) -> None:
    folder = settings_from_environment().landing / "films"
    folder.mkdir(parents=True)
    lines = [f'{{"Title": "Film {number % 3177}", "Year": {number}}}' for number in range(3201)]
    (folder / "films.jsonl").write_text("\n".join(lines) + "\n")
    done = dp("add", "source", "films", "--folder", "films", "--key", "Title")
    assert done.exit_code == 1
    assert "the key title is not unique: 24 rows would give way" in " ".join(done.stdout.split())
    text = (package / "defs" / "films" / "defs.yaml").read_text()
    assert "# FAILED its trial: the key title is not unique: 24 rows" in text
    assert "3,201 rows" in text
    assert source_spec(package, "films").tables["films"].table.key == ["title"]


def test_records_that_cannot_be_read_fail_the_draft(dp: Dp, package: Path) -> None:
    folder = settings_from_environment().landing / "odd"
    folder.mkdir(parents=True)
    (folder / "odd.csv").write_text('id,a,b\n1,2,3\n2,1"x, y",2\n3,4\n5,6,7\n')
    done = dp("add", "source", "odd", "--folder", "odd")
    assert done.exit_code == 1
    assert "2 records cannot be read" in done.stdout
    assert "odd.csv:3" in (package / "defs" / "odd" / "defs.yaml").read_text()


def test_files_of_every_day_are_due_within_twice_their_distance(dp: Dp, package: Path) -> None:
    folder = settings_from_environment().landing / "sales"
    folder.mkdir(parents=True)
    for day in (1, 2, 4):
        (folder / f"sales_2026-01-{day:02d}.csv").write_text(f"id,v\n{day},a\n")
    assert dp("add", "source", "sales", "--folder", "sales", "--owner", "team:sales").exit_code == 0
    text = (package / "defs" / "sales" / "defs.yaml").read_text()
    assert "fresh_within: 4d" in text
    assert 'metadata = {"owner": "team:sales"}' in (package / "defs" / "sales" / "contracts.py").read_text()


def test_a_source_is_tested_by_connecting_alone(dp: Dp, source: Path, shop: Path) -> None:
    done = dp("test", "shop")
    assert (done.exit_code, done.stdout) == (0, "shop answers: customers.\n")
    assert dp("test", "shop/customers").exit_code == 0
    assert not (settings_from_environment().home / "lakehouse").exists()
    with sqlite3.connect(shop) as connection:
        connection.execute("drop table customers")
    gone = dp("test", "shop")
    assert gone.exit_code == 1
    assert "customers" in gone.stderr
    shop.unlink()
    missing = dp("test", "shop")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.startswith("Error: shop cannot be reached: ")
    assert "does not exist" in missing.stderr


def test_a_table_and_a_source_are_removed_and_their_data_only_when_told_to(
    dp: Dp, package: Path, source: Path, shop: Path
) -> None:
    assert dp("add", "table", "shop", "orders").exit_code == 0
    run(package, "shop")
    assert dp("remove", "shop/orders", text="n\n").exit_code == 1
    assert "orders" in (source / "defs.yaml").read_text()
    done = dp("remove", "shop/orders", "--yes")
    assert done.exit_code == 0, done.stderr
    assert "What was loaded stays: raw_shop.orders (2 rows), staged_shop.orders (2 rows)." in done.stdout
    assert "dp remove shop/orders --data" in done.stdout
    assert "class Order(" not in (source / "contracts.py").read_text()
    assert "def orders" not in (source / "staging.py").read_text()
    assert (source / "contracts.py").read_text().count("# a word of my own") == 1
    assert list(source_spec(package, "shop").tables) == ["customers"]
    assert "Dropped: raw_shop.orders" in dp("remove", "shop/orders", "--data", "--yes").stdout
    assert dp("sql", "from raw_shop.orders").exit_code == 1
    # What is added again is loaded from the beginning.
    assert dp("add", "table", "shop", "orders").exit_code == 0
    assert run(package, "shop")[0]["orders"].rows_inserted == 2
    everything = dp("remove", "shop", "--data", "--yes")
    assert everything.exit_code == 0, everything.stderr
    assert not source.exists()
    nothing = dp("remove", "shop", "--yes")
    assert (nothing.exit_code, "nothing was loaded of it" in nothing.stderr) == (1, True)


def test_what_a_platform_of_another_project_loaded_is_not_dropped(dp: Dp, package: Path, source: Path) -> None:
    run(package, "shop")
    with open_lakehouse(settings_from_environment()) as lake:
        ledger.claim(lake, "bolts", "source", ["shop"])
    done = dp("remove", "shop", "--data", "--yes")
    assert done.exit_code == 1
    assert "What was loaded of shop belongs to the platform bolts, which is not of this project" in done.stderr
    assert (source / "defs.yaml").exists()
    assert dp("sql", "from raw_shop.customers").exit_code == 0
    with open_lakehouse(settings_from_environment()) as lake:
        ledger.adopt(lake, "bolts", "acme")
    assert "Dropped: raw_shop.customers" in dp("remove", "shop", "--data", "--yes").stdout


def test_what_still_names_a_removed_source_is_listed(dp: Dp, package: Path, source: Path) -> None:
    models = package.parents[1] / "dbt_project" / "models"
    models.mkdir(parents=True)
    (models / "m.sql").write_text("select * from {{ source('staged_shop', 'customers') }}")
    done = dp("remove", "shop", "--yes")
    assert done.exit_code == 0
    assert f"It is still named in {models / 'm.sql'}." in done.stdout


def test_types_of_a_database_that_no_draft_can_hold_are_said(dp: Dp, package: Path, postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            """
            create type mood as enum ('none', 'good');
            create table days (
                id bigint primary key, opens time, at timestamptz, amount numeric, feels mood, took interval,
                price numeric(8, 2), until timestamp
            );
            comment on table days is 'When we are open.';
            comment on column days.took is 'How long it took, {{ roughly }}.';
            insert into days values
                (1745678901234567890, '08:30', '2026-01-05 08:00:00+00', 12345678901234567.123456789, 'none', '1 day',
                    1.50, null),
                (1745678901234567891, '24:00', '2026-01-05 08:00:00+00', 0.5, 'good', '2 days', 2, null),
                (1745678901234567892, '09:00', 'infinity', 1, null, null, null, null),
                (1745678901234567893, '09:00', null, 1, null, null, 'NaN', '294270-01-01');
            """
        )
    done = dp("add", "source", "days", "--url", postgres_url)
    shown = " ".join(done.stdout.split())
    assert done.exit_code == 1
    assert "3 rows would go to quarantine" in shown
    assert "24:00:00" in shown
    columns = {column.name: column for column in contract_columns(source_spec(package, "days").tables["days"].contract)}
    assert columns["amount"].dtype == pl.Decimal(38, 9)
    assert columns["opens"].dtype == pl.Time()
    assert columns["feels"].rules == ("one of none, good",)
    assert columns["took"].description == "How long it took, { { roughly }}."
    table = source_spec(package, "days").tables["days"]
    assert (table.table.description, table.contract.__doc__) == ("When we are open.", "When we are open.")
    assert isinstance(table.table, SqlTable)
    assert sorted(table.table.as_text) == ["price", "until"]
    assert (columns["price"].dtype, columns["until"].dtype) == (pl.Decimal(8, 2), pl.Datetime("us", "UTC"))
    assert "price is read as text: a value that is no" in shown
    assert "# FAILED its trial: 3 rows would go to quarantine" in (package / "defs" / "days" / "defs.yaml").read_text()
