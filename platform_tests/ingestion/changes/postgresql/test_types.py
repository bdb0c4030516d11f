"""Every type of PostgreSQL, and DDL in the middle of the log: a row is the same whether it is read from the table or
from the log."""

from typing import Any

import psycopg
import pyarrow as pa
import pytest
from platform_tests.ingestion.changes.postgresql.following import Follower, follow, present, run, source, table
from platform_tests.ingestion.landing import ON_SQLITE
from platform_tests.ingestion.reading import read_all
from platform_tests.ingestion.sql.test_postgresql import EVERY_TYPE

from data_platform.ingestion.source import Batch
from data_platform.ingestion.sql.source import Relational
from data_platform.lakehouse.connect import Lakehouse

SETUP = (
    "create type mood as enum ('glad', 'sad')",
    "create type pair as (a int, b text)",
    "create domain cents as numeric(12,2) check (value >= 0)",
    "create domain tags as text[]",
    "create domain boxed as pair",
    "create extension if not exists citext",
)

VALUES: dict[str, list[str | None]] = {
    **{declared.split(" ", 1)[1]: [value] for declared, (_, value, _) in EVERY_TYPE.items()},
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "real": ["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1"],
    "double precision": ["NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "0.1"],
    "numeric": ["NaN", "Infinity", "0.000000000000000000000000000001", "-1e40", "1.50"],
    "numeric(10,2)": ["0", "-99999999.99", "1.5"],
    "numeric(38,0)": ["99999999999999999999999999999999999999"],
    "numeric(3,5)": ["0.00123"],
    "boolean": ["true", "false"],
    "text": ["", 'it\'s "quoted" \\ {a}, (b)', "line\nbreak\ttab", "naïve ☂ 🎈", "NULL"],
    "varchar(20)": ["abc  ", ""],
    "character(4)": ["ab", ""],
    "date": ["infinity", "-infinity", "0044-03-15 BC", "12013-01-01", "0001-01-01", "9999-12-31", "2020-02-29"],
    "time": ["00:00:00", "24:00:00", "23:59:59.999999", "10:00:00.5"],
    "timetz": ["10:00:00.5-03:30", "24:00:00+00"],
    "timestamp": [
        "infinity",
        "-infinity",
        "0044-03-15 10:00:00.5 BC",
        "12013-01-01 00:00:00.000001",
        "1900-01-01 00:00",
        "9999-12-31 23:59:59.999999",
    ],
    "timestamptz": ["infinity", "-infinity", "0044-03-15 10:00 BC", "12013-01-01 00:00+05", "2013-07-01 10:00:00.5+02"],
    "interval": ["-1 day 02:03:04.5", "0", "1 mon -1 day", "100 years", "00:00:00.000001"],
    "bytea": ["\\x", "\\x00ff27"],
    "uuid": [],
    "json": ['{"a":\n 1, "a": 2}', "null"],
    "jsonb": ['"text"', "[1, 2.50]"],
    "integer[]": ["{}", "{{1,2},{3,4}}", "[0:1]={1,2}"],
    "text[]": ['{"a\\"b","NULL",NULL,"c,d",""}', "{}"],
    "timestamptz[]": ["{2013-01-01 10:00+02,infinity}"],
    "numeric[]": ["{1.50,NaN}"],
    "mood[]": ["{glad,sad}"],
    "pair": ['(,"a ""b"", c")', "(1,)"],
    "pair[]": ['{"(1,x)","(,)"}'],
    "tags": ['{a,"b c"}'],
    "boxed": ["(2,y)"],
    "mood": ["sad"],
    "cents": ["0"],
    "citext": ["MiXed"],
    "inet": ["10.0.0.0/8", "::1"],
    "cidr": ["10.0.0.0/8", "192.168.1.1/32"],
    "macaddr": ["08:00:2b:01:02:03"],
    "money": ["-1234.56"],
    "oid": ["0"],
    '"char"': ["a"],
    "name": ["a name"],
    "int4range": ["empty", "(,)"],
    "tstzrange": ["[2013-01-01 10:00+02,infinity)"],
    "int4multirange": ["{[1,3),[5,7)}"],
    "bit(3)": ["000"],
    "bit varying": ["", "10101"],
    "point": ["(0.1,-1e300)"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "tsvector": ["'a' 'fat':2"],
    "pg_lsn": ["16/B374D848"],
    "regclass": ["pg_class"],
    "regtype": ["integer"],
}

COLUMNS = {f"c{number}": declared for number, declared in enumerate(VALUES)}


def whole(batches: list[Batch], name: str = "t") -> pa.Table:
    """The rows of a table's changes in the order of their key, without what the platform adds."""
    rows = pa.concat_tables(batch.rows for batch in batches if batch.table == name and batch.rows.num_columns)
    own = [column for column in rows.column_names if not column.startswith("_")]
    return rows.select(own).sort_by("id").combine_chunks()


def fill(url: str, name: str) -> None:
    rows = max(len(values) for values in VALUES.values())
    with psycopg.connect(url) as connection:
        marks = ", ".join(f"%s::text::{declared}" for declared in COLUMNS.values())
        for number in range(rows):
            given = [values[number] if number < len(values) else None for values in VALUES.values()]
            connection.execute(f"insert into {name} values (%s, {marks})".encode(), [number, *given])


@pytest.mark.parametrize("as_text", [False, True])
def test_a_row_is_the_same_from_the_table_from_the_copy_and_from_the_log(url: str, as_text: bool) -> None:
    body = ", ".join(f"{name} {declared}" for name, declared in COLUMNS.items())
    run(url, *SETUP, f"create table t (id int primary key, {body})", f"create table u (id int primary key, {body})")
    options = table("id", as_text=list(COLUMNS) if as_text else [])
    follower = Follower(source(url, {"t": options, "u": options}))
    fill(url, "u")
    copied = follower.read()
    fill(url, "t")
    logged = whole(follower.read())
    table_source = Relational(url, {"t": options})
    expected = pa.concat_tables([batch.rows for batch in read_all(table_source)]).sort_by("id").combine_chunks()
    assert whole(copied, "u").schema == logged.schema == expected.schema
    for name in expected.column_names:
        declared = COLUMNS.get(name)
        for found in (logged, whole(copied, "u")):
            assert _texts(found[name]) == _texts(expected[name]), declared


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Values to compare, those that Python has no place for too."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date32(column.type):
        column = column.cast(pa.int64() if pa.types.is_timestamp(column.type) else pa.int32())
    return [repr(value) for value in column.to_pylist()]


@pytest.mark.parametrize(
    ("declared", "value"),
    [("numeric(8,2)", "NaN"), ("timestamp", "294276-12-31 23:59:59"), ("timestamptz", "294276-12-31 23:59:59+00")],
)
def test_a_value_without_a_place_in_its_type_lands_as_text_and_the_log_is_read_on(
    url: str, declared: str, value: str
) -> None:
    run(url, f"create table t (id int primary key, v {declared})")
    follower = Follower(source(url, {"t": table("id")}))
    follower.read()
    run(url, f"insert into t values (1, '{value}')")
    assert follower.changes() == [("insert", 1, value)]


def test_any_name_can_be_read(url: str) -> None:
    name, no = '"50 %"."it\'s %s"', '"he said ""no"""'
    run(
        url,
        'create schema "50 %"',
        'create type "50 %"."%s" as (a int)',
        f'create table {name} ("a %s" text primary key, {no} int[], c "50 %"."%s", t text)',
        f"alter table {name} alter t set storage external",
    )
    follower = Follower(source(url, {"t": table("a %s", table="50 %.it's %s")}))
    follower.read()
    run(
        url,
        f"insert into {name} values ('100 %', '{{1}}', '(2)', repeat('%s', 5000))",
        f"update {name} set \"a %s\" = '%s'",
    )
    own = ("[1]", '{"a":2}', "%s" * 5000)
    assert follower.changes() == [
        ("insert", "100 %", *own),
        ("delete", "100 %", None, None, None),
        ("insert", "%s", *own),
    ]


DDL: list[tuple[str, dict[str, Any]]] = [
    ("alter table t add column w int default 7", {"id": 2, "v": "x", "w": 8}),
    ("alter table t alter column w type bigint", {"id": 3, "v": "x", "w": 2**40}),
    ("alter table t rename column v to v2", {"id": 4, "v2": "y", "w": 9}),
    ("alter table t drop column w", {"id": 5, "v2": "z"}),
    ("alter table t alter column v2 type int using 5", {"id": 6, "v2": 6}),
    ("alter table t add column w text", {"id": 7, "v2": 7, "w": "another type"}),
    ("alter table t add column g int generated always as (id * 2) stored", {"id": 8, "v2": 8, "w": "n", "g": 16}),
    ("alter table t add column x int generated always as (id * 3) virtual", {"id": 9, "v2": 9, "w": "n", "g": 18}),
]


def test_columns_that_come_go_are_renamed_and_retyped_come_as_they_are_at_each_change(url: str) -> None:
    run(url, "create table t (id int primary key, v text)", "insert into t values (1, 'a')")
    follower = Follower(source(url, {"t": table("id")}))
    follower.read()
    expected: list[dict[str, Any]] = []
    for statement, row in DDL:
        given = {name: value for name, value in row.items() if name != "g"}
        values = ", ".join(f"'{value}'" for value in given.values())
        run(url, statement, f"insert into t ({', '.join(given)}) values ({values})")
        expected.append(row)
    rows = follower.rows()
    found = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
    assert found == expected


@ON_SQLITE
def test_ddl_in_the_middle_lands_and_the_copy_has_the_columns_of_the_log(lake: Lakehouse, url: str) -> None:
    run(
        url,
        "create table t (id int primary key, v text, g int generated always as (id * 2) stored, "
        "virtual int generated always as (id * 3) virtual)",
        "insert into t values (1, 'a')",
    )
    changes = source(url, {"t": table("id")})
    follow(lake, changes)
    assert present(lake, "t", ["id"]) == {(1,): (1, "a", 2)}
    run(
        url,
        "insert into t values (2, 'b')",
        "alter table t alter column v type int using length(v)",
        "insert into t values (3, 33)",
        "alter table t add column n numeric(8,2)",
        "insert into t (id, v, n) values (4, 44, 'NaN')",
        'alter table t add column "_order" int',
        "insert into t (id, v, n) values (5, 55, 1.5)",
    )
    (notes,) = {result.notes for result in follow(lake, changes).values()}
    assert "The column _order is left out" in notes[0]
    assert present(lake, "t", ["id"]) == {
        (1,): (1, "a", 2, None),
        (2,): (2, "b", 4, None),
        (3,): (3, "33", 6, None),
        (4,): (4, "44", 8, "NaN"),
        (5,): (5, "55", 10, "1.50"),
    }
