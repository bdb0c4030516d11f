"""Every column type of PostgreSQL, MariaDB and SQLite with its extremes, and texts of CSV, through load, audit, merge
and quarantine: a staged value is the one that the database's own client shows, any other is in quarantine by name."""

import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from platform_tests.ingestion.deliveries import write
from platform_tests.ingestion.sql.test_mysql import run as run_mysql
from platform_tests.servers import mariadb_is_installed, running_mariadb
from platform_tests.staging.steps import ON_SQLITE, figures_add_up, query

from data_platform.contracts import Contract, Field, Instant
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Source, TableOptions
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe, StagingFunction
from data_platform.staging.step import stage_table

INSTANT = pl.Datetime("us", "UTC")

TABLE = SqlTable(key=["id"], contract="x")

Case = tuple[Any, list[str], list[str], list[str]]
"""The contract's type; values as the database takes them, and those of them that are staged, as DuckDB shows them;
then those that are not, as their reasons show them."""

POSTGRES: dict[str, Case] = {
    "smallint": (int, ["-32768", "32767"], ["-32768", "32767"], []),
    "integer": (int, ["-2147483648", "2147483647"], ["-2147483648", "2147483647"], []),
    "bigint": (int, [str(-(2**63)), str(2**63 - 1)], [str(-(2**63)), str(2**63 - 1)], []),
    "real": (pl.Float32, ["3.4028235e38", "1e-45", "NaN", "Infinity"], ["1e-45", "3.4028235e+38"], ["NaN", "inf"]),
    "double precision": (float, ["1.7976931348623157e308", "5e-324", "-0", "NaN", "-Infinity"],
        ["-0.0", "1.7976931348623157e+308", "5e-324"], ["-inf", "NaN"]),
    "numeric(38,38)": (pl.Decimal(38, 38), ["0." + "9" * 38, "-0." + "0" * 37 + "1"],
        ["-." + "0" * 37 + "1", "." + "9" * 38], []),
    "numeric(38,0)": (pl.Decimal(38, 0), ["9" * 38, "-" + "9" * 38], ["-" + "9" * 38, "9" * 38], []),
    "numeric": (pl.Decimal(38, 9), ["12345678901234567.123456789", "0.1234567891", "NaN", "Infinity", "1" + "0" * 40],
        ["12345678901234567.123456789"], ["0.1234567891", "1" + "0" * 40, "Infinity", "NaN"]),
    "numeric(10,2)": (pl.Decimal(18, 1), ["0.50", "0.55"], ["0.5"], ["0.55"]),
    "money": (pl.Decimal(18, 2), ["-92233720368547758.08", "12.5"], ["12.50"], ["-92233720368547758.08"]),
    "boolean": (bool, ["true", "false"], ["false", "true"], []),
    "text": (str, ["", "naïve ☂", "NULL", "\\N"], ["", "NULL", "\\N", "naïve ☂"], []),
    "varchar(3)": (str, ["a  ", "abc"], ["a  ", "abc"], []),
    "char(4)": (str, ["ab", "abcd"], ["ab  ", "abcd"], []),
    "bytea": (bytes, ["\\x", "\\x00ff27"], ["", "\\x00\\xFF\\x27"], []),
    "uuid": (str, ["00000000-0000-0000-0000-000000000000"], ["00000000-0000-0000-0000-000000000000"], []),
    "json": (str, ['{"a":  1, "a": 2}'], ['{"a":  1, "a": 2}'], []),
    "jsonb": (str, ['{"a":  1, "a": 2}', "null"], ["null", '{"a": 2}'], []),
    "integer[]": (str, ["{}", "{1,NULL,3}", "{{1},{2}}"], ["[1,null,3]", "[[1],[2]]", "[]"], []),
    "date": (pl.Date, ["0001-01-01", "9999-12-31", "10000-01-01", "5874897-12-31", "4713-01-01 BC", "0044-03-15 BC",
        "infinity", "-infinity"], ["0001-01-01", "9999-12-31"],
        ["-043-03-15", "-4712-01-01", "-infinity", "10000-01-01", "5874897-12-31", "infinity"]),
    "timestamp": (INSTANT, ["0001-01-01", "9999-12-31 23:59:59.999999", "294246-12-31 23:59:59.999999",
        "4713-01-01 BC", "infinity", "-infinity"], ["0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"],
        ["-4712-01-01 00:00:00", "-infinity", "294246-12-31 23:59:59.999999", "infinity"]),
    "timestamptz": (INSTANT, ["2013-01-01 00:00:00.5+14", "294246-12-31 23:59:59.999999+00", "infinity"],
        ["2012-12-31 10:00:00.5+00"], ["294246-12-31 23:59:59.999999", "infinity"]),
    "timestamp(0)": (pl.Date, ["2013-01-01", "2013-01-01 00:00:01"], ["2013-01-01"], ["2013-01-01 00:00:01.000000"]),
    "time": (pl.Time, ["00:00:00", "17:30", "23:59:59.999999", "24:00:00"],
        ["00:00:00", "17:30:00", "23:59:59.999999"], ["24:00:00"]),
    "timetz": (str, ["24:00:00+15:59", "10:00:00-02"], ["10:00:00-02", "24:00:00+15:59"], []),
    "interval": (str, ["178000000 years", "-1 day 2 hours"], ["P-1DT2H", "P178000000Y"], []),
    "bit(3)": (str, ["101"], ["101"], []),
    "bit varying": (str, ["", "10"], ["", "10"], []),
    "inet": (str, ["::1", "10.0.0.1/8"], ["10.0.0.1/8", "::1/128"], []),
    "int8range": (str, ["empty", "[1,)"], ["[1,)", "empty"], []),
    "point": (str, ["(1,2)"], ["(1,2)"], []),
    "int4": (bool, ["2", "-1", "0", "1"], ["false", "true"], ["-1", "2"]),
    "int8": (float, ["9007199254740993", "9007199254740992"], ["9007199254740992.0"], ["9007199254740993"]),
    "float8": (bool, ["0.5", "1"], ["true"], ["0.5"]),
    "pg_catalog.float8": (pl.Decimal(18, 4), ["1e15", "19.99999", "2.5"], ["2.5000"],
        ["1000000000000000.0", "19.99999"]),
    "pg_catalog.date": (INSTANT, ["infinity", "10000-01-01", "0044-03-15 BC", "2013-01-02"],
        ["2013-01-02 00:00:00+00"], ["-043-03-15", "10000-01-01", "infinity"]),
    "pg_catalog.bytea": (str, ["\\xff", "\\x41"], ["A"], ["\\xff"]),
    "oid": (int, ["4294967295"], ["4294967295"], []),
}  # fmt: skip

MARIADB: dict[str, Case] = {
    "tinyint": (int, ["-128", "127"], ["-128", "127"], []),
    "bigint": (int, [str(-(2**63)), str(2**63 - 1)], [str(-(2**63)), str(2**63 - 1)], []),
    "bigint unsigned": (int, ["0", str(2**64 - 1)], ["0"], [str(2**64 - 1)]),
    "int unsigned zerofill": (int, ["7", "4294967295"], ["4294967295", "7"], []),
    "float": (pl.Float32, ["1.5", "-3.4e38"], ["-3.4e+38", "1.5"], []),
    "double": (float, ["1.7976931348623157e308", "0.1"], ["0.1", "1.7976931348623157e+308"], []),
    "decimal(38,38)": (pl.Decimal(38, 38), ["0." + "9" * 38], ["." + "9" * 38], []),
    "decimal(65,2)": (pl.Decimal(38, 2), ["1.25", "1" + "0" * 40], ["1.25"], ["1" + "0" * 40 + ".00"]),
    "bit(64)": (pl.Decimal(20, 0), ["b'0'", "b'" + "1" * 64 + "'"], ["0", str(2**64 - 1)], []),
    "boolean": (bool, ["0", "1", "2"], ["false", "true"], ["2"]),
    "date": (pl.Date, ["'1000-01-01'", "'9999-12-31'"], ["1000-01-01", "9999-12-31"], []),
    "datetime(6)": (INSTANT, ["'1000-01-01'", "'9999-12-31 23:59:59.999999'"],
        ["1000-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"], []),
    "timestamp(6) null": (INSTANT, ["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07.999999'"],
        ["1970-01-01 00:00:01+00", "2038-01-19 03:14:07.999999+00"], []),
    "time(3)": (pl.Time, ["'00:00:00'", "'23:59:59.999'", "'24:00:00'", "'-01:00:00'", "'838:59:59.999'"],
        ["00:00:00", "23:59:59.999"], ["-01:00:00.000", "24:00:00.000", "838:59:59.999"]),
    "date null": (pl.Date, ["'0000-00-00'", "'2024-00-10'", "'2024-02-29'"], ["2024-02-29"],
        ["0000-00-00", "2024-00-10"]),
    "datetime(6) null": (INSTANT, ["'0000-00-00'", "'2024-02-00 10:00:00'", "'2024-02-29 10:00:00.5'"],
        ["2024-02-29 10:00:00.5+00"], ["0000-00-00 00:00:00.000000", "2024-02-00 10:00:00.000000"]),
    "timestamp null": (INSTANT, ["0"], [], ["0000-00-00 00:00:00"]),
    "year": (int, ["1901", "2155", "0"], ["0", "1901", "2155"], []),
    "char(4)": (str, ["'ab'"], ["ab"], []),
    "varchar(9)": (str, ["''", "'a  '", "'\\\\'", "'☂'"], ["", "\\", "a  ", "☂"], []),
    "varchar(9) character set latin1": (str, ["'naïve'"], ["naïve"], []),
    "enum('a','B')": (str, ["'a'", "'b'"], ["B", "a"], []),
    "set('x','y')": (str, ["''", "'y,x'"], ["", "x,y"], []),
    "json": (str, ["'{\"a\": [1]}'"], ['{"a": [1]}'], []),
    "varbinary(3)": (bytes, ["x''", "x'00ff27'"], ["", "\\x00\\xFF\\x27"], []),
    "longblob": (bytes, ["x'00'"], ["\\x00"], []),
    "uuid": (str, ["'123e4567-e89b-12d3-a456-426655440000'"], ["123e4567-e89b-12d3-a456-426655440000"], []),
    "inet6": (str, ["'::1'"], ["::1"], []),
    "point": (str, ["point(1, 2)"], ["POINT(1 2)"], []),
}  # fmt: skip

CSV: dict[str, Case] = {
    "amount": (pl.Decimal(18, 2), ["19.999", "0.005", "1.10", "1e1"], ["1.10"], ["0.005", "19.999", "1e1"]),
    "day": (pl.Date, ["24-01-05", "99-12-31", "-2013-01-02", "2013-01-02"], ["2013-01-02"],
        ["-2013-01-02", "24-01-05", "99-12-31"]),
    "ratio": (float, ["1e999", "Infinity", "inf", "-inf", "nan", "0.5"], ["0.5"],
        ["-inf", "1e999", "Infinity", "inf", "nan"]),
    "flag": (bool, ["2", "-1", "0.5", "yes"], ["true"], ["-1", "0.5", "2"]),
    "seen": (pl.Date, ["2024-05-01T13:05:00", "2024-05-01"], ["2024-05-01"], ["2024-05-01T13:05:00"]),
    "size": (float, ["9007199254740993", "9007199254740992"], ["9007199254740992.0"], ["9007199254740993"]),
    "narrow": (pl.Float32, ["1e39", "0.5"], ["0.5"], ["1e39"]),
    "opens": (pl.Time, ["24:00:00", "17:30"], ["17:30:00"], ["24:00:00"]),
}  # fmt: skip

SQLITE: dict[str, Case] = {
    "integer": (int, [str(-(2**63)), str(2**63 - 1), "'x'", "1.5"], [str(-(2**63)), str(2**63 - 1)], ["1.5", "x"]),
    "bigint": (int, ["1745678901234567890", "1745678901234567891"], ["1745678901234567890", "1745678901234567891"], []),
    "real": (float, ["1.7976931348623157e308", "0.1", "9e999", "-9e999", "'abc'"],
        ["0.1", "1.7976931348623157e+308"], ["-Inf", "Inf", "abc"]),
    "decimal(10,2)": (pl.Decimal(10, 2), ["1.10", "19.999", "1e3"], ["1.10", "1000.00"], ["19.999"]),
    "boolean": (bool, ["0", "1", "2", "'true'"], ["false", "true", "true"], ["2"]),
    "date": (pl.Date, ["'2013-01-02'", "'24-01-05'", "20130102", "'2013-02-30'"], ["2013-01-02"],
        ["20130102", "2013-02-30", "24-01-05"]),
    "datetime": (INSTANT, ["'2013-01-02 03:04:05'", "1356998400"], ["2013-01-02 03:04:05+00"], ["1356998400"]),
    "time": (pl.Time, ["'17:30'", "'24:00:00'"], ["17:30:00"], ["24:00:00"]),
    "text": (str, ["''", "'naïve'", "1", "1.5", "x'00ff'"], ["", "1", "1.5", "X'00FF'", "naïve"], []),
    "blob": (bytes, ["x'00ff'", "'text'"], ["\\x00\\xFF", "text"], []),
    "": (str, ["x'00'", "'a'"], ["X'00'", "a"], []),
}  # fmt: skip


def _name(place: int) -> str:
    return f"c{place}"


def _staged(
    lake: Lakehouse,
    source: Source,
    cases: dict[str, Case],
    table: TableOptions = TABLE,
    function: StagingFunction | None = None,
) -> None:
    """Load and stage a table `t` of an `id` and a column for each case, and see where each value is."""
    kinds = [case[0] for case in cases.values()]
    body: dict[str, Any] = {_name(place): Field(nullable=True) for place in range(len(kinds))}
    annotations = {"id": int, **{_name(place): kind for place, kind in enumerate(kinds)}}
    contract = type(
        "Any", (Contract,), {"__annotations__": annotations, "__module__": __name__, "__doc__": "Any.", **body}
    )
    load_table(lake, "shop", source, "t", table, run_id="r")
    recipe = Recipe("shop", "t", ("id",), contract, function=function, refuse_above=1.0)
    result = stage_table(lake, recipe, run_id="r")
    columns = query(lake, "SELECT unnest(reasons, recursive := true) FROM quarantine_shop.t") if _bad(cases) else []
    for place, (declared, (_, _, good, bad)) in enumerate(cases.items()):
        name = _name(place)
        shown = query(lake, f"SELECT {name}::VARCHAR FROM staged_shop.t WHERE {name} IS NOT NULL ORDER BY 1")
        assert sorted(value for (value,) in shown) == sorted(good), declared
        assert sorted(value for column, _, value in columns if column == name) == sorted(bad), declared
    assert result.rows_quarantined == _bad(cases)
    if _bad(cases):
        records = query(lake, "SELECT record FROM quarantine_shop.t")
        assert all(json.loads(record)["id"] is not None for (record,) in records)
    # A second step reads nothing anew, a rebuild comes to the same.
    assert stage_table(lake, recipe, run_id="r", rebuild=True).rows_inserted == result.rows_inserted
    assert figures_add_up(lake)


def _bad(cases: dict[str, Case]) -> int:
    return sum(len(bad) for _, _, _, bad in cases.values())


def _rows(cases: dict[str, Case]) -> Iterator[tuple[int, str, str]]:
    """A number, a column and a value of it: one row each, so that what fails of one column takes no other with it."""
    number = 0
    for place, (_, values, _, _) in enumerate(cases.values()):
        for value in values:
            number += 1
            yield number, _name(place), value


def test_postgresql(lake: Lakehouse, postgres_url: str) -> None:
    columns = ", ".join(f"{_name(place)} {declared}" for place, declared in enumerate(POSTGRES))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create table t (id int primary key, {columns})")
        for number, name, value in _rows(POSTGRES):
            declared = list(POSTGRES)[int(name[1:])]
            connection.execute(f"insert into t (id, {name}) values ({number}, %s::text::{declared})", [value])
    _staged(lake, Relational(postgres_url, {"t": SqlTable(key=["id"], contract="x")}), POSTGRES)


@ON_SQLITE
@pytest.mark.skipif(
    not (mariadb_is_installed() or os.environ.get("MYSQL_URL")),
    reason="no MariaDB here: apt-get install mariadb-server, or set MYSQL_URL",
)
@pytest.mark.servers
def test_mariadb(lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    columns = ", ".join(f"{_name(place)} {declared}" for place, declared in enumerate(MARIADB))
    values = [f"insert into t (id, {name}) values ({number}, {value})" for number, name, value in _rows(MARIADB)]
    as_text = [_name(list(MARIADB).index(one)) for one in ("date null", "datetime(6) null", "timestamp null")]
    with running_mariadb() as url:
        run_mysql(
            f"{url}/mysql",
            "drop database if exists shop",
            "create database shop character set utf8mb4",
            "set global time_zone = '+00:00'",
        )
        run_mysql(f"{url}/shop", "set time_zone = '+00:00'", f"create table t (id int primary key, {columns})", *values)
        options = SqlTable(key=["id"], contract="x", as_text=as_text)
        _staged(lake, Relational(f"{url}/shop", {"t": options}), MARIADB)


@ON_SQLITE
def test_csv(lake: Lakehouse, tmp_path: Path) -> None:
    lines = [",".join(["id", *map(_name, range(len(CSV)))])]
    for number, name, value in _rows(CSV):
        fields = [value if name == _name(place) else "" for place in range(len(CSV))]
        lines.append(",".join([str(number), *fields]))
    write(tmp_path / "landing", "t.csv", "\n".join(lines) + "\n", 1)
    given = {"key": ["id"], "contract": "x", "path": "*.csv", "format": {"type": "csv"}}
    table = FileTable.model_validate(given)
    _staged(lake, Files(tmp_path / "landing", {"t": table}), CSV, table, null_for_empty)


def null_for_empty(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.when(pl.col(pl.String) != "").then(pl.col(pl.String)).name.keep())


def test_what_no_library_can_write_is_in_the_record_of_a_row_that_breaks_a_rule(
    lake: Lakehouse, postgres_url: str
) -> None:
    class Thing(Contract):
        id: int
        size: int = Field(le=5)
        picture: bytes
        ends: pl.Date
        seen: Instant = Field(le=datetime(2100, 1, 1, tzinfo=UTC))

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create table t (id int primary key, size int, picture bytea, ends date, seen timestamptz)")
        connection.execute(
            "insert into t select g, 1, '\\xdeadbeef', '2024-01-01', '2024-01-01Z' from generate_series(1, 100) g"
        )
        connection.execute("update t set size = 9 where id = 7")
        connection.execute("update t set size = 9, ends = 'infinity', seen = '294246-01-01Z' where id = 8")
        connection.execute("update t set seen = '2100-01-02Z' where id = 9")
        connection.execute("update t set size = 9, ends = '0044-03-15 BC', seen = '-infinity' where id = 10")
    table = SqlTable(key=["id"], contract="x")
    load_table(lake, "shop", Relational(postgres_url, {"t": table}), "t", table, run_id="r")
    result = stage_table(lake, Recipe("shop", "t", ("id",), Thing, refuse_above=0.1), run_id="r")
    assert (result.rows_inserted, result.rows_quarantined) == (96, 4)
    records = [json.loads(text) for (text,) in query(lake, "SELECT record FROM quarantine_shop.t")]
    found = {record["id"]: record for record in records}
    assert [found[number]["picture"] for number in (7, 8, 9, 10)] == ["\\xdeadbeef"] * 4
    assert (found[8]["ends"], found[8]["seen"][:6]) == ("infinity", "294246")
    assert found[10]["seen"] == "-infinity"


@ON_SQLITE
@pytest.mark.parametrize("strict", [False, True])
def test_sqlite(lake: Lakehouse, tmp_path: Path, strict: bool) -> None:
    allowed = {"integer", "real", "text", "blob"}
    cases = {declared: case for declared, case in SQLITE.items() if not strict or declared in allowed}
    if strict:
        held = {"integer": [0, 1], "real": [0, 1, 2, 3], "text": [0, 1, 2, 3], "blob": [0]}
        cases = {
            "integer": (int, cases["integer"][1][:2], cases["integer"][2], []),
            "real": (float, cases["real"][1][:4], cases["real"][2], ["-inf", "inf"]),
            "text": (str, cases["text"][1][:4], ["", "1", "1.5", "naïve"], []),
            "blob": (bytes, cases["blob"][1][:1], ["\\x00\\xFF"], []),
        }
        assert set(held) == allowed
    columns = ", ".join(f"{_name(place)} {declared}" for place, declared in enumerate(cases))
    with sqlite3.connect(tmp_path / "shop.sqlite") as connection:
        connection.execute(f"create table t (id integer primary key, {columns}){' strict' if strict else ''}")
        for number, name, value in _rows(cases):
            connection.execute(f"insert into t (id, {name}) values ({number}, {value})")
    connection.close()
    _staged(lake, Relational(f"sqlite://{tmp_path}/shop.sqlite", {"t": SqlTable(key=["id"], contract="x")}), cases)
