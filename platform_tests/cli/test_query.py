"""`dp sql`, `dp read` and `dp snapshots`."""

import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest
from platform_tests.cli.conftest import GOOD, Dp


def test_a_syntax_error_is_shown_with_its_place(dp: Dp, looking: Path) -> None:
    done = dp("sql", "selct 1")
    assert done.exit_code == 1
    assert 'syntax error at or near "selct"' in done.stderr
    assert "LINE 1" in done.stderr


def test_an_error_that_only_a_row_brings_up_is_shown_as_well(dp: Dp, looking: Path, tmp_path: Path) -> None:
    failing = "select case when range = 5 then error('row five') else 1 end as x from range(10)"
    for arguments in (["--format", "table"], ["--format", "csv"], ["-f", "json", "-o", str(tmp_path / "x.json")]):
        done = dp("sql", failing, *arguments)
        assert done.exit_code == 1
        assert "row five" in done.stderr
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    "statement",
    [
        "create table lake.raw_shop.mine as select 1",
        "delete from raw_shop.orders",
        "drop table staged_shop.orders",
        "create or replace view modelled.mart as select 1",
    ],
)
def test_nothing_can_be_written_without_restrictions_either(dp: Dp, looking: Path, statement: str) -> None:
    for options in ([], ["--unrestricted"]):
        done = dp("sql", *options, statement)
        assert done.exit_code == 1
        assert "read-only" in done.stderr


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("from read_text('{file}')", "file system operations are disabled"),
        ("from read_csv('{file}')", "file system operations are disabled"),
        ("from '{file}'", "file system operations are disabled"),
        ("from glob('{file}*')", "file system operations are disabled"),
        ("explain analyze from read_text('{file}')", "file system operations are disabled"),
        ("copy staged_shop.orders to '{file}'", "not a COPY"),
        ("attach '{file}' as other", "not an ATTACH"),
        ("attach ':memory:' as other", "not an ATTACH"),
        ("set enable_external_access = true", "not a SET"),
        ("install spatial", "not a LOAD"),
        ("load spatial", "not a LOAD"),
        ("create temp table t as select 1", "not a CREATE"),
        ("select 1; select 2", "2 statements"),
        ("create type t as enum ('a'); select 1", "2 statements"),
        ("from sqlite_scan('{file}', 'orders')", "calls sqlite_scan"),
        ("select * from SQLite_Scan /* ( */ ('{file}', 'orders')", "calls sqlite_scan"),
        ("from \"sqlite_scan\" -- (\n ('{file}', 'orders')", "calls sqlite_scan"),
        ("from query('from sqlite_' || 'scan(1, 2)')", "calls query"),
        ("select 'é', * from postgres_execute('lake', 'drop table orders')", "calls postgres_execute"),
        ("from ducklake_cleanup_old_files('lake', cleanup_all => true)", "calls ducklake_cleanup_old_files"),
        ("from ducklake_expire_snapshots('lake', older_than => now())", "calls ducklake_expire_snapshots"),
    ],
)
def test_a_query_reaches_nothing_but_the_lakehouse_unless_that_is_asked_for(
    dp: Dp, looking: Path, tmp_path: Path, query: str, reason: str
) -> None:
    file = tmp_path / "file.csv"
    file.write_text("a\n1\n")
    done = dp("sql", query.replace("{file}", str(file)))
    assert done.exit_code == 1
    assert reason in done.stderr
    assert file.read_text() == "a\n1\n"


def test_without_restrictions_files_can_be_read(dp: Dp, looking: Path, tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text("a\n1\n")
    done = dp("sql", "--unrestricted", f"from '{tmp_path / 'rates.csv'}'", "-f", "json")
    assert json.loads(done.stdout) == [{"a": 1}]


@pytest.mark.parametrize(
    "query",
    [
        "describe staged_shop.orders",
        "summarize staged_shop.orders",
        "show all tables",
        "explain analyze from staged_shop.orders",
        "pivot staged_shop.orders on status using count(*);",
        "from ducklake_snapshots('lake')",
        "select 'sqlite_scan(1)' as query, 1 as sqlite_scan -- sqlite_scan(",
        "with query as (select 1) select count(*) from query where (1 = 1)",
        "select i, s from (select range as i, repeat(range::varchar, 100) as s from range(300000)) order by s limit 1",
    ],
)
def test_whatever_reads_the_lakehouse_is_a_query(dp: Dp, looking: Path, query: str) -> None:
    done = dp("sql", query)
    assert done.exit_code == 0, done.stderr


def test_a_query_is_read_from_stdin(dp: Dp, looking: Path) -> None:
    done = dp("sql", "-", "--format", "json", text="select count(*) as n from staged_shop.orders")
    assert json.loads(done.stdout) == [{"n": GOOD}]


def test_no_query_at_all_is_a_mistake(dp: Dp, looking: Path) -> None:
    assert "There is no query" in dp("sql", "-", text=" \n").stderr


def test_csv_keeps_commas_quotes_line_ends_and_nulls_apart(dp: Dp, looking: Path) -> None:
    done = dp("sql", "select 'a,\"b\"\nc' as text, null as nothing, '' as empty, 1.50::decimal(9,2) as d", "-f", "csv")
    assert list(csv.reader(io.StringIO(done.stdout))) == [
        ["text", "nothing", "empty", "d"],
        ['a,"b"\nc', "", "", "1.50"],
    ]
    assert done.stdout.splitlines()[-1].endswith(',,"",1.50')


def test_json_is_one_array_with_nested_values(dp: Dp, looking: Path) -> None:
    done = dp(
        "sql",
        "select [1, null] as list, {'x': 'é'} as object, timestamptz '2026-01-05 08:00:00+00' as at",
        "-f",
        "json",
    )
    (row,) = json.loads(done.stdout)
    assert (row["list"], row["object"]) == ([1, None], {"x": "é"})
    assert row["at"].startswith("2026-01-05 08:00:00")


def test_no_rows_are_an_empty_array_and_a_header(dp: Dp, looking: Path) -> None:
    assert json.loads(dp("sql", "select 1 as a where false", "-f", "json").stdout) == []
    assert dp("sql", "select 1 as a where false", "-f", "csv").stdout == "a\n"


def test_parquet_goes_to_a_file_whole(dp: Dp, looking: Path, tmp_path: Path) -> None:
    target = tmp_path / "orders.parquet"
    assert dp("sql", "from staged_shop.orders", "-f", "parquet", "-o", str(target)).exit_code == 0
    assert len(pl.read_parquet(target)) == GOOD
    assert [path.name for path in tmp_path.glob(".*.part")] == []


def test_parquet_on_the_screen_and_a_table_in_a_file_are_mistakes(dp: Dp, looking: Path, tmp_path: Path) -> None:
    assert "--output" in dp("sql", "select 1", "-f", "parquet").stderr
    assert "--format csv" in dp("sql", "select 1", "-o", str(tmp_path / "x.txt")).stderr


def test_a_folder_that_does_not_exist_is_named(dp: Dp, looking: Path, tmp_path: Path) -> None:
    assert "does not exist" in dp("sql", "select 1", "-f", "csv", "-o", str(tmp_path / "no" / "x.csv")).stderr


def test_a_table_on_the_screen_is_cut_and_says_so(dp: Dp, looking: Path) -> None:
    done = dp("sql", "from range(100)", "--limit", "3")
    assert done.stdout.split() == ["range", "0", "1", "2"]
    assert "there are more" in done.stderr
    assert dp("sql", "from range(3)", "--limit", "3").stderr == ""


def test_a_cell_with_brackets_is_shown_as_it_is(dp: Dp, looking: Path) -> None:
    assert "[red]x[/red]" in dp("sql", "select '[red]x[/red]' as a").stdout


def test_two_columns_of_one_name_are_both_there(dp: Dp, looking: Path) -> None:
    assert dp("sql", "select 1 as a, 2 as a", "-f", "csv").stdout.splitlines()[1] == "1,2"


def test_without_a_lakehouse_there_is_nothing_to_read(dp: Dp) -> None:
    done = dp("sql", "select 1")
    assert done.exit_code == 1
    assert "There is no lakehouse" in done.stderr


def test_a_table_is_read_by_its_asset_key_with_the_columns_asked_for(dp: Dp, looking: Path) -> None:
    done = dp("read", "staged/shop/orders", "--columns", "order_id,status", "-n", "1", "-f", "csv")
    assert done.stdout.splitlines()[0] == "order_id,status"
    assert len(done.stdout.splitlines()) == 2


def test_a_column_that_is_not_there_is_named_beside_those_that_are(dp: Dp, looking: Path) -> None:
    done = dp("read", "staged/shop/orders", "--columns", "order_id,amuont")
    assert done.exit_code == 1
    assert "no column amuont" in done.stderr
    assert "amount" in done.stderr


def test_a_table_is_read_as_it_was(dp: Dp, looking: Path) -> None:
    made = [
        one["snapshot"]
        for one in json.loads(dp("snapshots", "--json").stdout)
        if "staged_shop.orders" in one["changes"].get("tables_created", [])
    ]
    assert len(made) == 1
    at = dp("read", "staged/shop/orders", "--at", str(made[0]), "-f", "csv")
    assert len(at.stdout.splitlines()) == GOOD + 1
    before = dp("read", "staged/shop/orders", "--at", str(made[0] - 1))
    assert before.exit_code == 1
    assert f"cannot be read at {made[0] - 1}" in before.stderr


def test_a_time_that_is_none_says_what_one_looks_like(dp: Dp, looking: Path) -> None:
    assert "neither a version nor a time" in dp("read", "staged/shop/orders", "--at", "yesterday").stderr


def test_snapshots_name_the_tables_that_changed_and_what_is_published(dp: Dp, looking: Path) -> None:
    found = json.loads(dp("snapshots", "--json").stdout)
    assert [one["snapshot"] for one in found] == sorted((one["snapshot"] for one in found), reverse=True)
    changes = [name for one in found for names in one["changes"].values() for name in names]
    assert "staged_shop.orders" in changes
    assert not [name for name in changes if name.isdecimal() or name.startswith("platform.")]
    assert [one["published"] for one in found if one["published"]] == [["mart"]]


def test_snapshots_are_limited(dp: Dp, looking: Path) -> None:
    assert len(json.loads(dp("snapshots", "-n", "2", "--json").stdout)) == 2
