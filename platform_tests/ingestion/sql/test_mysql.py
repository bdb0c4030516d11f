"""MySQL as a source: its SQL text everywhere, and a real MariaDB where there is one."""

import datetime as dt
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from platform_tests.ingestion.reading import overlap, probe, read_all
from platform_tests.proxy import proxy_to
from platform_tests.servers import free_port, mariadb_is_installed, running_mariadb

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.source import HINT
from data_platform.ingestion.sql.dialects.mysql import backquote, query, text_literal
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import database
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.lakehouse.sql import literal

real = pytest.mark.skipif(
    not (mariadb_is_installed() or os.environ.get("MYSQL_URL")),
    reason="no MariaDB here: apt-get install mariadb-server, or set MYSQL_URL",
)


def table(**options: Any) -> SqlTable:
    return SqlTable(key=["id"], contract="x", **options)


def test_identifiers_are_quoted_by_backticks() -> None:
    assert backquote("a`b", 'c"d') == '`a``b`.`c"d`'


@pytest.mark.parametrize("text", ["it's", "back\\slash", "\\' or 1=1 -- ", "é☂", ""])
def test_a_text_literal_has_no_character_that_the_server_could_read_otherwise(text: str) -> None:
    sql = text_literal(text)
    assert "\\" not in sql
    assert "or 1=1" not in sql
    assert bytes.fromhex(sql.removeprefix("_utf8mb4 x").strip("'")).decode() == text


def test_the_statement_is_handed_to_the_server_and_its_result_cast_to_the_declared_types() -> None:
    schema = pa.schema([("i d", pa.int64()), ("d", pa.decimal128(10, 2)), ("at", pa.timestamp("us", "UTC"))])
    assert query("select `i d` from `t` where n = 'x'", schema) == (
        'SELECT CAST("i d" AS BIGINT) AS "i d", CAST("d" AS DECIMAL(10, 2)) AS "d", coalesce(TRY_CAST("at" AS '
        'TIMESTAMPTZ), CASE WHEN "at" IS NOT NULL THEN CAST(error(\'no date: 6174 '
        '74696d657374616d70747a <\' || "at" || \'>\') AS TIMESTAMPTZ) END) AS "at" '
        "FROM mysql_query('source', 'select `i d` from `t` where n = ''x''')"
    )


def test_a_url_without_a_database_is_refused() -> None:
    with pytest.raises(PlatformError, match="names no database"):
        Relational("mysql://me@localhost", {}).tables()


def test_an_unreachable_server_is_reported_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    with pytest.raises(PlatformError, match="Cannot connect to MySQL at") as caught:
        Relational(f"mysql://me:s3cret@127.0.0.1:{free_port()}/db", {}).tables()
    assert "s3cret" not in str(caught.value)
    assert "Check that the server runs" in str(caught.value)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_mariadb() as url:
        yield url


@pytest.fixture
def url(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    run(f"{server}/mysql", "drop database if exists shop", "create database shop character set utf8mb4")
    return f"{server}/shop"


def run(url: str, *statements: str) -> None:
    address, schema = url.removeprefix("mysql://").split("/")
    user, host = address.split("@")
    connection: duckdb.DuckDBPyConnection = database(settings_from_environment())
    connection.execute("LOAD mysql_scanner")
    connection.execute(
        f"ATTACH 'host={host.split(':')[0]} port={host.split(':')[1]} user={user} database={schema}' AS db (TYPE mysql)"
    )
    for statement in statements:
        connection.execute(f"CALL mysql_execute('db', {literal(statement)})")
    connection.close()


@real
def test_each_type_arrives_without_loss(url: str) -> None:
    run(
        url,
        "set sql_mode = ''",
        "create table t (id bigint unsigned primary key, tiny tinyint(1), d decimal(10,2), big decimal(65,2), "
        "f double, da date, at datetime(6), ts timestamp(6) null, tm time(3), e enum('a','b'), j json, b blob, "
        'bits bit(5), `odd ``name"` int, txt text)',
        "insert into t values (18446744073709551615, 7, 12.34, 1e50, 0.1, '2013-01-01', '2013-01-01 10:00:00.123456', "
        "'2013-01-01 10:00:00.5', '-100:00:00.5', 'b', '{\"a\":1}', x'ff00', b'10101', 3, 'naïve ☂')",
    )
    (batch,) = read_all(Relational(url, {"t": table()}), "t")
    assert batch.rows.to_pylist() == [
        {
            "id": Decimal("18446744073709551615"),
            "tiny": 7,
            "d": Decimal("12.34"),
            "big": "1" + "0" * 50 + ".00",
            "f": 0.1,
            "da": dt.date(2013, 1, 1),
            "at": dt.datetime(2013, 1, 1, 10, 0, 0, 123456),
            "ts": dt.datetime(2013, 1, 1, 10, 0, 0, 500000, dt.UTC),
            "tm": "-100:00:00.500",
            "e": "b",
            "j": '{"a":1}',
            "b": b"\xff\x00",
            "bits": Decimal(21),
            'odd `name"': 3,
            "txt": "naïve ☂",
        }
    ]


@real
@pytest.mark.parametrize(
    ("column", "declared", "value", "shown"),
    [
        ("da", "date", "'0000-00-00'", "0000-00-00"),
        ('d`a "x', "date", "'2024-00-10'", "2024-00-10"),
        ("at", "datetime", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00"),
        ("at", "datetime(3)", "'2024-02-00 10:00:00'", "2024-02-00 10:00:00.000"),
        ("ts", "timestamp null", "0", "0000-00-00 00:00:00"),
    ],
)
def test_a_date_that_is_none_is_refused_by_name_or_read_as_text(
    url: str, column: str, declared: str, value: str, shown: str
) -> None:
    name = backquote(column)
    run(url, f"create table t (id int, {name} {declared})", f"insert into t values (1, null), (2, {value})")
    with pytest.raises(PlatformError, match=r"which is no (date|timestamp)") as refused:
        read_all(Relational(url, {"t": table()}), "t")
    assert f"Column {column} holds {shown}" in str(refused.value)
    assert f"`as_text: [{column}]`" in str(refused.value)
    (batch,) = read_all(Relational(url, {"t": table(as_text=[column])}), "t")
    assert batch.rows[column].to_pylist() == [None, shown]
    with pytest.raises(PlatformError, match="holds a value, which is no") as withheld:
        read_all(Relational(url, {"t": table(mask=["id"])}), "t")
    assert shown not in str(withheld.value)


@real
def test_an_incremental_read_goes_on_from_the_position_less_the_lag(url: str) -> None:
    run(
        url,
        "create table t (id int, at timestamp(6) null, s varchar(9) not null)",
        "insert into t values (1, '2013-01-01 10:00:00', 'b'), (2, '2013-01-01 11:00:00', 'B'), (3, null, '''')",
    )
    reader = Relational(
        url, {"t": table(cursor={"column": "at", "lag": "15m"}), "s": table(table="t", cursor={"column": "s"})}
    )
    (first,) = read_all(reader, "t")
    assert first.rows["id"].to_pylist() == [3, 1, 2]
    assert probe(reader, "t") == {"cursor": "2013-01-01T11:00:00.000000+00:00"}
    assert first.position == {**probe(reader, "t"), HINT: "2"}
    (second,) = read_all(reader, "t", first.position)
    assert second.rows["id"].to_pylist() == [3, 2]
    again = overlap(reader, "t", first.position)
    assert again is not None
    assert again.since == dt.datetime(2013, 1, 1, 10, 45, tzinfo=dt.UTC)
    assert [row["s"] for batch in read_all(reader, "s") for row in batch.rows.to_pylist()] == ["'", "B", "b"]
    assert [row["s"] for batch in read_all(reader, "s", {"cursor": "B"}) for row in batch.rows.to_pylist()] == [
        "B",
        "b",
    ]


@real
def test_a_wrong_password_is_reported_and_not_repeated(url: str) -> None:
    run(url, "create or replace user reader identified by 'right'")
    with pytest.raises(PlatformError, match="Access denied") as caught:
        Relational(url.replace("root@", "reader:s3cret@"), {}).tables()
    assert "s3cret" not in str(caught.value)


@real
def test_missing_tables_and_rights_are_reported(url: str) -> None:
    run(
        url,
        "create table flights (id int)",
        "create table secret (id int)",
        "create or replace user poor",
        "grant select on shop.flights to poor",
    )
    with pytest.raises(PlatformError, match=r"no table flihgts.*Did you mean flights\?"):
        read_all(Relational(url, {"flihgts": table()}), "flihgts")
    with pytest.raises(PlatformError, match=r"no table secret.*There is: flights\."):
        read_all(Relational(url.replace("root@", "poor@"), {"secret": table()}), "secret")


@real
def test_the_source_is_opened_read_only_and_described(url: str) -> None:
    run(url, "create table t (id int primary key, s varchar(9) not null, d decimal(5,1))")
    reader = Relational(url, {"t": table()})
    assert reader.describe("t") == [
        ("id", "int(11)", False, True),
        ("s", "varchar(9)", False, False),
        ("d", "decimal(5,1)", True, False),
    ]
    assert reader.tables() == ["t"]


def test_the_time_of_the_last_write_is_the_hint_of_a_table_without_a_cursor(url: str) -> None:
    run(url, "create table t (id int primary key)")
    reader = Relational(url, {"t": table()})
    assert probe(reader, "t") == {}, "nothing was written yet"
    run(url, "insert into t values (1)")
    first = probe(reader, "t")
    assert list(first) == [HINT]
    assert first[HINT].endswith("?"), "another write in this second would not move it"
    run(url, "insert into t values (2)")
    assert list(probe(reader, "t")) == [HINT]


CUTS = [0, 300, 1_000, 3_000, 10_000, 600_000, 1_500_000]
"""Bytes from the server after which a connection is cut: in the handshake, among the questions before the rows, and in
the middle of these."""


@real
def test_a_connection_that_is_cut_anywhere_is_a_passing_failure(url: str) -> None:
    # The client has the server compress its answers: to little, of text that repeats itself.
    run(url, "create table t as select seq as id, sha2(seq, 512) as v from seq_1_to_40000")
    for count in CUTS:
        with proxy_to(url) as proxy:
            proxy.cut_after = count
            with pytest.raises(TransientError, match=r"The connection to MySQL at .* broke"):
                read_all(Relational(proxy.url, {"t": table()}), "t")
