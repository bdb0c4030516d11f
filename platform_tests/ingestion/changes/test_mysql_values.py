"""The same row of MariaDB is the same in raw whether it is read by table, by the first copy or from the log, for every
type there is."""

import datetime as dt

import pyarrow as pa
import pytest
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.changes.mysql_shop import Shop, changes, nowhere, of, read, rows_of, table
from platform_tests.ingestion.reading import read_all

from data_platform.errors import PlatformError
from data_platform.ingestion.sql.source import Relational

pytestmark = with_mariadb


NUMBERS = {
    "tinyint": ["-128", "127", "0"],
    "tinyint unsigned": ["255"],
    "tinyint(1)": ["1"],
    "smallint": ["-32768", "32767"],
    "smallint unsigned": ["65535"],
    "mediumint": ["-8388608", "8388607", "-1"],
    "mediumint unsigned": ["16777215"],
    "int": ["-2147483648", "2147483647"],
    "int(6) unsigned zerofill": ["4294967295", "7"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "bigint unsigned": ["18446744073709551615", "0"],
    "year": ["2026", "1901", "0", "2155"],
    "float": ["0.1", "-3.4e38", "1e-30", "16777217"],
    "float unsigned": ["1.5"],
    "double": ["0.1", "-1.7e308", "5e-324", "123456789.123456789"],
    "decimal(12,2)": ["-1.50", "9999999999.99", "-9999999999.99", "0", "0.01", "-0.01"],
    "decimal(18,18)": ["0.123456789012345678", "-0.999999999999999999"],
    "decimal(18,0)": ["999999999999999999", "-1"],
    "decimal(9,9)": ["0.000000001"],
    "decimal(1,0)": ["-9"],
    "decimal(38,10)": ["1234567890123456789012345678.0123456789", "-1.0000000001"],
    "decimal(65,30)": ["-12345678901234567890123456789012345.123456789012345678901234567890", "0.1", "7"],
    "bit(1)": ["b'1'", "b'0'"],
    "bit(5)": ["b'10101'"],
    "bit(64)": ["b'" + "1" * 64 + "'", "b'1'"],
    "bool": ["true"],
}
TIMES = {
    "date": ["'2026-02-03'", "'1000-01-01'", "'9999-12-31'", "'2024-02-29'", "'1600-02-29'", "'1969-12-31'"],
    **{
        f"datetime({digits})": ["'2026-01-02 03:04:05.123456'", "'1000-01-01'", "'9999-12-31 23:59:59'", "'1969-12-31'"]
        for digits in range(7)
    },
    **{
        f"timestamp({digits}) null": ["'2026-01-02 03:04:05.123456'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"]
        for digits in range(7)
    },
    **{
        f"time({digits})": [
            "'838:59:59'",
            "'-838:59:59'",
            "'-01:02:03.5'",
            "'-00:00:00.25'",
            "'00:00:00'",
            "'12:34:56.789'",
        ]
        for digits in range(7)
    },
}
ODD = "'é ß', 'plain', '', 'trailing '"
TEXTS = {
    "char(20)": ["'é☃'", "'padded  '", "''"],
    "varchar(20)": ["'é☃𝄞'", "'trailing '", "''"],
    "varchar(300)": ["repeat('é', 300)", "'x'"],
    "char(255)": ["repeat('é', 255)"],
    "tinytext": ["'tiny'"],
    "text": ["repeat('long ', 1000)"],
    "mediumtext": ["repeat('m', 70000)"],
    "longtext": ["repeat('l', 100000)", "''"],
    "json": ['\'{"b": [1, 2.50, null], "a":  "é"}\''],
    "enum('p', 'é', 'it''s')": ["'é'", "'it''s'"],
    "enum('only') character set latin1": ["'only'"],
    "enum('p', 'é') character set latin1": ["'é'"],
    "set('x', 'y', 'é')": ["'x,é'", "''", "'y'"],
    "set('x', 'é') character set latin1": ["'x,é'"],
    **{
        f"varchar(40) character set {charset}": [*texts, "''"]
        for charset, texts in {
            "latin1": ["'é€'", "x'819d'"],
            "latin2": ["'ł'"],
            "latin7": ["'ž'"],
            "cp1251": ["'ж'"],
            "koi8r": ["'ж'"],
            "greek": ["'λ'"],
            "ascii": ["'a'"],
            "utf8mb3": ["'☃'"],
            "ucs2": ["'é☃'"],
            "utf16": ["'é𝄞'"],
            "utf16le": ["'é𝄞'"],
            "utf32": ["'𝄞'"],
            "big5": ["'中'"],
            "gbk": ["'中'"],
            "gb2312": ["'中'"],
            "sjis": ["'日本'"],
            "cp932": ["'日本'"],
            "ujis": ["'日本'"],
            "eucjpms": ["'日本'"],
            "euckr": ["'한'"],
            "tis620": ["'ไทย'"],
            "dec8": ["'é'"],
            "hp8": ["'é'"],
            "swe7": ["'a'"],
            "armscii8": ["'a'"],
            "keybcs2": ["'ž'"],
            "macce": ["'ž'"],
            "macroman": ["'é'"],
            "cp1250": ["'ž'"],
            "cp1256": ["'م'"],
            "cp1257": ["'ž'"],
            "cp850": ["'é'"],
            "cp852": ["'ž'"],
            "cp866": ["'ж'"],
            "geostd8": ["'ა'"],
            "hebrew": ["'א'"],
            "latin5": ["'ş'"],
        }.items()
    },
}
BYTES = {
    "binary(6)": ["x'0100'", "x'000000000000'", "x'ffffffffffff'"],
    "varbinary(20)": ["x'00ff00'", "''", "x'2020'"],
    "tinyblob": ["x'00'"],
    "blob": ["x'00ff'", "''"],
    "mediumblob": ["repeat(x'ff', 70000)"],
    "longblob": ["repeat(x'00', 100000)"],
    "uuid": ["'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'"],
    "inet6": ["'2001:db8::1'", "'::ffff:1.2.3.4'", "'::'"],
    "inet4": ["'192.168.0.0'", "'255.255.255.255'"],
    "point": ["point(1, -2.5)"],
    "linestring": ["ST_GeomFromText('LINESTRING(0 0,1 1)')"],
    "polygon": ["ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"],
    "multipoint": ["ST_GeomFromText('MULTIPOINT(0 0,1 1)', 4326)"],
    "geometry": ["ST_GeomFromText('POINT(3 4)')"],
    "geometrycollection": ["ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')"],
}
GENERATED = {
    "int": ["5", "6"],
    "int as (c0 + 1) stored": [],
    "int as (c0 + 2) virtual": [],
    "int invisible default 7": ["8"],
    "varchar(30) as (concat('n', c0)) virtual": [],
}


def written(at: Shop, types: dict[str, list[str]]) -> None:
    """A table `t` with a column of each type, and rows with its values, one column at a time; all null in the first."""
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(types))
    at.run("drop table if exists t", f"create table t (id int primary key auto_increment, {columns})")
    insert(at, types)


def insert(at: Shop, types: dict[str, list[str]]) -> None:
    at.run("begin", "insert into t() values ()")
    for number, values in enumerate(types.values()):
        for value in values:
            at.run(f"insert into t(c{number}) values ({value})")
    at.run("commit")


@pytest.mark.parametrize(
    "types", [NUMBERS, TIMES, TEXTS, BYTES, GENERATED], ids=["numbers", "times", "texts", "bytes", "generated"]
)
def test_a_row_is_the_same_by_table_by_copy_and_by_log(at: Shop, types: dict[str, list[str]]) -> None:
    at.run("set sql_mode = ''", "set names utf8mb4")
    written(at, types)
    tables = {"t": table()}
    by_copy = read(changes(at.url, tables), position := nowhere())
    expected = pa.concat_tables(batch.rows for batch in read_all(Relational(at.url, tables)))
    compare(rows_of(by_copy), expected, types)
    at.run("delete from t")
    deleted = rows_of(read(changes(at.url, tables), position))
    compare(deleted, expected, types)
    at.run("alter table t auto_increment = 1")
    insert(at, types)
    compare(rows_of(read(changes(at.url, tables), position)), expected, types)


def compare(found: pa.Table, expected: pa.Table, types: dict[str, list[str]]) -> None:
    names = ["id", *types]
    assert found.column_names == expected.column_names
    found = found.sort_by("id")
    for number, (name, kind) in enumerate(zip(expected.column_names, names, strict=True)):
        assert found.schema.field(number).type == expected.schema.field(number).type, kind
        assert found[name].to_pylist() == expected[name].to_pylist(), kind
    assert expected.num_rows


def test_a_column_read_as_text_is_what_the_server_shows_of_it_either_way(at: Shop) -> None:
    types = {
        "date": ["'2026-02-03'", "'0000-00-00'", "'2024-00-10'"],
        "datetime(3)": ["'2026-01-02 03:04:05.12'", "'0000-00-00'", "'2024-02-00'"],
        "datetime": ["'2026-01-02 03:04:05'"],
        "timestamp(2) null": ["'2026-01-02 03:04:05.12'", "'0000-00-00'"],
        "int": ["-5"],
        "mediumint": ["-5"],
        "year": ["2026", "0"],
        "bigint unsigned": ["18446744073709551615"],
        "decimal(12,2)": ["-0.05", "1.50"],
        "double": ["0.1", "1e300"],
        "float": ["0.1"],
        "time(1)": ["'-01:02:03.5'"],
        "enum('p', 'q')": ["'q'"],
        "varchar(10)": ["'é'"],
        "varbinary(10)": ["'abc'"],
    }
    at.run("set sql_mode = ''")
    written(at, types)
    tables = {"t": table(as_text=[f"c{number}" for number in range(len(types))])}
    by_copy = read(changes(at.url, tables), position := nowhere())
    expected = pa.concat_tables(batch.rows for batch in read_all(Relational(at.url, tables)))
    compare(rows_of(by_copy), expected, types)
    at.run("delete from t")
    compare(rows_of(read(changes(at.url, tables), position)), expected, types)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("date", "0000-00-00"), ("datetime", "2024-00-10 00:00:00"), ("timestamp null", "0000-00-00 00:00:00")],
)
def test_a_date_that_is_none_is_refused_by_name_and_value(at: Shop, kind: str, value: str) -> None:
    at.run(
        "set sql_mode = ''", f"create table t (id int primary key, d {kind})", f"insert into t values (1, '{value}')"
    )
    with pytest.raises(PlatformError, match=rf"Column d holds {value}, which is no .*`as_text: \[d\]`"):
        read(changes(at.url, {"t": table()}), {})
    at.run("delete from t")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run(f"insert into t values (2, '{value}')")
    with pytest.raises(PlatformError, match=rf"Column d holds {value}, which is no .*`as_text: \[d\]`"):
        read(changes(at.url, {"t": table()}), position)
    masked = table(mask=["id"])
    with pytest.raises(PlatformError, match="Column d holds a value, which is no"):
        read(changes(at.url, {"t": masked}), position)
    assert of(read(changes(at.url, {"t": table(as_text=["d"])}), position))[0]["d"] == value


def test_only_the_columns_that_are_named_are_read(at: Shop) -> None:
    at.run("create table t (id int primary key, a int, secret int)", "insert into t values (1, 2, 3)")
    source = changes(at.url, {"t": table(columns=["id", "a"])})
    assert rows_of(read(source, position := nowhere())).to_pylist() == [{"id": 1, "a": 2}]
    at.run("insert into t values (2, 3, 4)")
    assert rows_of(read(source, position)).to_pylist() == [{"id": 2, "a": 3}]


def test_the_time_of_a_change_is_that_of_its_commit(at: Shop) -> None:
    at.run("create table t (id int primary key)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    before = at.value("select now()").replace(tzinfo=dt.UTC)
    at.run("insert into t values (1)")
    (row,) = of(read(changes(at.url, {"t": table()}), position))
    assert dt.timedelta(0) <= row["_committed_at"] - before < dt.timedelta(seconds=5)


def test_a_column_that_the_platform_names_itself_is_refused_unless_it_is_left_out(at: Shop) -> None:
    at.run("create table t (id int primary key, _operation int)")
    with pytest.raises(PlatformError, match="a column _operation, a name that the platform uses itself"):
        read(changes(at.url, {"t": table()}), {})
    read(changes(at.url, {"t": table(columns=["id"])}), {})
