"""PostgreSQL as a source, on a real server: types, snapshots, and what can go wrong between it and us."""

import datetime as dt
from collections.abc import Generator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
from platform_tests.ingestion.reading import probe, read_all, reading
from platform_tests.servers import Postgres, free_port, kill_postgres, start_postgres, stop_postgres

from data_platform.errors import PlatformError
from data_platform.ingestion.source import Batch
from data_platform.ingestion.sql import reading as relational
from data_platform.ingestion.sql.dialects import Timeouts
from data_platform.ingestion.sql.source import Relational, SqlTable


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def table(**options: Any) -> SqlTable:
    return SqlTable(key=["id"], contract="x", **options)


def source(url: str, **tables: SqlTable) -> Relational:
    return Relational(url, tables)


def rows(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.rows.to_pylist()]


def refusal(url: str, name: str = "t", **options: Any) -> str:
    with pytest.raises(PlatformError) as caught:
        read_all(source(url, **{name: table(**options)}), name)
    return str(caught.value)


def test_an_unreachable_server_is_reported_with_host_port_and_no_password() -> None:
    port = free_port()
    message = refusal(f"postgresql://me:s3cret@127.0.0.1:{port}/db")
    assert f"127.0.0.1:{port}" in message
    assert "refused" in message
    assert "Check that the server runs" in message
    assert "s3cret" not in message


def test_a_password_among_the_options_of_the_url_is_not_shown_either() -> None:
    message = refusal(f"postgresql://me@127.0.0.1:{free_port()}/db?password=s3cret")
    assert "s3cret" not in message


def test_a_database_that_is_not_there_is_named(postgres: Postgres) -> None:
    message = refusal(postgres.database_url("nowhere"))
    assert 'database "nowhere" does not exist' in message
    assert "Check the name of the database" in message


def test_a_wrong_password_is_reported_and_not_repeated() -> None:
    server = start_postgres()
    assert server.folder is not None
    try:
        run(server.url, "create role reader login password 'right'")
        (server.folder / "data" / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        run(server.url, "select pg_reload_conf()")
        url = server.url.replace("postgres@", "reader:wr%40ng@")
        message = refusal(url)
        assert "password authentication failed" in message
        assert "Check the user and the password" in message
        assert "wr%40ng" not in message
        assert "wr@ng" not in message
    finally:
        stop_postgres(server)


def test_a_missing_table_is_answered_with_those_that_exist_the_closest_first(postgres_url: str) -> None:
    run(
        postgres_url, "create table bookings ()", "create table flights ()", "create schema s; create table s.planes ()"
    )
    message = refusal(postgres_url, "flihgts")
    assert "no table flihgts" in message
    assert "Did you mean flights?" in message
    assert "s.planes" in message


def test_an_account_without_rights_is_told_which_to_grant(postgres: Postgres, postgres_url: str) -> None:
    run(postgres_url, "create table t (id int)")
    run(postgres.url, "do $$ begin create role nobody_in_particular login; exception when others then null; end $$")
    message = refusal(postgres_url.replace("postgres@", "nobody_in_particular@"))
    assert "permission denied" in message
    assert "SELECT" in message


def test_a_missing_cursor_column_is_answered_with_columns_and_types(postgres_url: str) -> None:
    run(postgres_url, "create table t (id int, changed timestamptz)")
    message = refusal(postgres_url, cursor={"column": "updated_at"})
    assert "no column updated_at" in message
    assert "changed (timestamp with time zone)" in message


@pytest.mark.parametrize("declared", ["jsonb", "int[]", "boolean", "interval"])
def test_a_column_that_has_no_order_worth_the_name_cannot_be_a_cursor(postgres_url: str, declared: str) -> None:
    run(postgres_url, f"create table t (id int, c {declared})")
    assert "cannot be a cursor" in refusal(postgres_url, cursor={"column": "c"})


@pytest.mark.parametrize("name", ["_load_id", "_ROW", "_loaded_at"])
def test_a_column_named_like_one_of_the_platforms_is_refused(postgres_url: str, name: str) -> None:
    run(postgres_url, f'create table t (id int, "{name}" int)')
    assert f"has a column {name}" in refusal(postgres_url)
    assert rows(read_all(source(postgres_url, t=table(columns=["id"])), "t")) == []


def test_columns_that_differ_by_case_only_are_refused(postgres_url: str) -> None:
    run(postgres_url, 'create table t (id int, "Id" int)')
    assert "upper and lower case" in refusal(postgres_url)


def test_a_server_that_dies_midway_leaves_what_was_read_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relational, "BATCH_ROWS", 20_000)
    server = start_postgres()
    try:
        run(
            server.url,
            "create table t as select i as id, repeat('x', 500) as filling from generate_series(1, 300000) i",
            "alter table t alter id set not null",
        )
        with reading(source(server.url, t=table(cursor={"column": "id"}))) as batches:
            first = next(batches)
            kill_postgres(server)
            with pytest.raises(PlatformError, match=r"The connection to PostgreSQL .* broke") as caught:
                list(batches)
        assert "the next load goes on" in str(caught.value)
        assert first.position == {"cursor": str(first.rows.num_rows)}
        assert first.rows["id"][-1].as_py() == first.rows.num_rows
    finally:
        stop_postgres(server)


def test_a_statement_that_takes_too_long_is_given_up_by_the_server(postgres_url: str) -> None:
    run(postgres_url, "create view t as select pg_sleep(20)::text as id")
    slow = Relational(postgres_url, {"t": table()}, timeouts=Timeouts(statement=dt.timedelta(milliseconds=100)))
    with pytest.raises(PlatformError, match=r"statement timeout.*Raise `statement_timeout`"):
        read_all(slow, "t")


def test_closing_a_read_in_the_middle_ends_the_statement_on_the_server(postgres: Postgres, postgres_url: str) -> None:
    run(postgres_url, "create table t as select i as id, repeat('x', 900) as f from generate_series(1, 200000) i")
    busy = (
        "select count(*) from pg_stat_activity "
        "where application_name = 'data_platform' and datname = current_database()"
    )
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        with reading(source(postgres_url, t=table())) as batches:
            next(batches)
            assert connection.execute(busy).fetchone() == (1,)
            assert isinstance(batches, Generator)
            batches.close()
        for _ in range(200):
            if connection.execute(busy).fetchone() == (0,):
                break
        else:
            pytest.fail("the connection is still there")


def test_a_session_can_write_nothing(postgres_url: str) -> None:
    run(postgres_url, "create sequence s", "create view t as select nextval('s') as id")
    assert "read-only transaction" in refusal(postgres_url)


def test_one_read_sees_one_snapshot_whatever_is_committed_meanwhile(postgres_url: str) -> None:
    run(postgres_url, "create table t as select i as id, repeat('x', 900) as f from generate_series(1, 200000) i")
    with reading(source(postgres_url, t=table())) as batches:
        first = next(batches)
        run(postgres_url, "delete from t where id % 2 = 0", "insert into t values (0, 'late')")
        rest = list(batches)
    assert first.rows.num_rows + sum(batch.rows.num_rows for batch in rest) == 200_000
    assert (rest[-1].position or {})["rows"] == "200000"


EVERY_TYPE = {
    "i2 smallint": (pa.int16(), "7", 7),
    "i4 integer": (pa.int32(), "-7", -7),
    "i8 bigint": (pa.int64(), "9007199254740993", 9007199254740993),
    "f4 real": (pa.float32(), "1.5", 1.5),
    "f8 double precision": (pa.float64(), "0.1", 0.1),
    "n numeric": (
        pa.string(),
        "12345678901234567890123456789012345678901.5",
        "12345678901234567890123456789012345678901.5",
    ),
    "n2 numeric(10,2)": (pa.decimal128(10, 2), "99999999.99", Decimal("99999999.99")),
    "n50 numeric(50,2)": (pa.string(), "1.25", "1.25"),
    "nn numeric(5,-2)": (pa.string(), "12345", "12300"),
    "b boolean": (pa.bool_(), "true", True),
    "t text": (pa.string(), "naïve ☂", "naïve ☂"),
    "c character(4)": (pa.string(), "ab", "ab  "),
    "d date": (pa.date32(), "2013-02-28", dt.date(2013, 2, 28)),
    "ti time": (pa.time64("us"), "10:00:00.123456", dt.time(10, 0, 0, 123456)),
    "tz timetz": (pa.string(), "10:00:00+02", "10:00:00+02"),
    "ts timestamp": (pa.timestamp("us"), "2013-01-01 10:00:00.123456", dt.datetime(2013, 1, 1, 10, 0, 0, 123456)),
    "tsz timestamptz": (
        pa.timestamp("us", "UTC"),
        "2013-01-01 10:00:00.123456+02",
        dt.datetime(2013, 1, 1, 8, 0, 0, 123456, dt.UTC),
    ),
    "iv interval": (pa.string(), "1 year 2 days 3 hours", "P1Y2DT3H"),
    "by bytea": (pa.binary(), "\\xdeadbeef", b"\xde\xad\xbe\xef"),
    "u uuid": (pa.string(), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "j json": (pa.string(), '{"a":  1}', '{"a":  1}'),
    "jb jsonb": (pa.string(), '{"a":  1}', '{"a": 1}'),
    "ar integer[]": (pa.string(), "{1,NULL,3}", "[1,null,3]"),
    "ta text[]": (pa.string(), '{a,"b, c"}', '["a","b, c"]'),
    "m mood": (pa.string(), "glad", "glad"),
    "dom cents": (pa.decimal128(12, 2), "12.50", Decimal("12.50")),
    "ip inet": (pa.string(), "127.0.0.1", "127.0.0.1/32"),
    "mo money": (pa.string(), "12.5", "12.50"),
    "o oid": (pa.int64(), "4294967295", 4294967295),
    "r int4range": (pa.string(), "[1,5)", "[1,5)"),
    "bi bit(3)": (pa.string(), "101", "101"),
    "co pair": (pa.string(), "(1,x)", '{"a":1,"b":"x"}'),
}


def test_each_type_arrives_without_loss_and_keeps_its_type_when_all_is_null(postgres_url: str) -> None:
    run(
        postgres_url,
        "create type mood as enum ('glad', 'sad')",
        "create type pair as (a int, b text)",
        "create domain cents as numeric(12,2) check (value >= 0)",
        f"create table t ({', '.join(EVERY_TYPE)})",
        "create table nulls as select * from t",
    )
    with psycopg.connect(postgres_url) as connection:
        values = [value for _, value, _ in EVERY_TYPE.values()]
        types = [name.split(" ", 1)[1] for name in EVERY_TYPE]
        marks = ", ".join(f"%s::text::{kind}" for kind in types)
        connection.execute(f"insert into t values ({marks})", values)
        connection.execute("insert into nulls (i2) values (null)")
    everything = source(postgres_url, t=table(), nulls=table())
    expected = pa.schema([(name.split()[0], kind) for name, (kind, _, _) in EVERY_TYPE.items()])
    full, empty = (read_all(everything, name)[0].rows for name in ("t", "nulls"))
    assert full.schema == expected
    assert full.to_pylist() == [{name.split()[0]: value for name, (_, _, value) in EVERY_TYPE.items()}]
    assert empty.schema == expected
    assert duckdb.connect().from_arrow(full).fetchone() is not None


def test_infinity_stays_infinity_in_the_lake_and_does_not_stall_the_cursor(postgres_url: str) -> None:
    run(
        postgres_url,
        "create table t (id int, d date, ts timestamp, tz timestamptz)",
        "insert into t values (1, 'infinity', 'infinity', 'infinity'), (2, '-infinity', '-infinity', '-infinity'),"
        " (3, '2013-01-01', '2013-01-01', '2013-01-01 00:00+00'), (4, null, null, null)",
    )
    reader = source(postgres_url, t=table(cursor={"column": "tz"}), d=table(table="t", cursor={"column": "d"}))
    batches = read_all(reader, "t")
    landed = batches[0].rows
    texts = duckdb.connect().execute("select id, d::text, ts::text from landed order by id").fetchall()
    assert texts[:2] == [(1, "infinity", "infinity"), (2, "-infinity", "-infinity")]
    assert landed["id"].to_pylist() == [4, 2, 3, 1]
    assert (batches[-1].position or {})["cursor"] == probe(reader, "t")["cursor"] == "2013-01-01T00:00:00.000000+00:00"
    assert (read_all(reader, "d")[-1].position or {})["cursor"] == probe(reader, "d")["cursor"] == "2013-01-01"


def test_a_numeric_that_is_not_a_number_is_refused_where_it_is_declared_a_decimal(postgres_url: str) -> None:
    run(
        postgres_url,
        "create table t (id int, price numeric(8,2), loose numeric)",
        "insert into t values (1, 'NaN', 'NaN')",
    )
    assert "price" in refusal(postgres_url)
    assert rows(read_all(source(postgres_url, t=table(columns=["loose"])), "t")) == [{"loose": "NaN"}]
    as_text = read_all(source(postgres_url, t=table(as_text=["price"])), "t")
    assert rows(as_text) == [{"id": 1, "price": "NaN", "loose": "NaN"}]


@pytest.mark.parametrize("declared", ["timestamp", "timestamptz"])
def test_a_time_that_the_lakehouse_has_no_place_for_is_refused_by_name(postgres_url: str, declared: str) -> None:
    run(
        postgres_url,
        f"create table t (id int, ends {declared})",
        "insert into t values (1, '294276-12-31 23:59:59.999999'), (2, 'infinity'), (3, '4713-01-01 BC')",
    )
    assert "Column ends holds a time after the year 294246" in refusal(postgres_url)
    read = read_all(source(postgres_url, t=table(as_text=["ends"])), "t")
    assert [row["ends"][:10] for row in rows(read)] == ["294276-12-", "infinity", "4713-01-01"]
    run(postgres_url, "delete from t where id = 1")
    assert read_all(source(postgres_url, t=table()), "t")[0].rows.num_rows == 2


def test_any_name_can_be_read(postgres_url: str) -> None:
    run(
        postgres_url,
        'create schema "Odd ""schema"',
        'create table "Odd ""schema"."select x" ("a b" int, "he said ""no""" text, "order" date)',
        'insert into "Odd ""schema"."select x" values (1, $$it\'s$$, \'2013-01-01\')',
        'create table "dotted.name" (id int)',
    )
    reader = source(
        postgres_url,
        t=table(table='Odd "schema.select x', cursor={"column": "order", "lag": "1d"}),
        d=table(table="dotted.name"),
    )
    expected = [{"a b": 1, 'he said "no"': "it's", "order": dt.date(2013, 1, 1)}]
    assert rows(read_all(reader, "t")) == expected
    assert rows(read_all(reader, "t", {"cursor": "2013-01-01"})) == expected
    assert read_all(reader, "d")[0].rows.column_names == ["id"]


def test_a_text_cursor_is_ordered_by_bytes_whatever_the_collation(postgres_url: str) -> None:
    run(
        postgres_url,
        "create table t (id text not null)",
        "insert into t values ('bbbbb'), ('Abbbb'), ('abbbb'), ('Bbbbb'), ('ébbbb'), ('it''s\\')",
    )
    reader = source(postgres_url, t=table(cursor={"column": "id"}))
    order = [row["id"] for row in rows(read_all(reader, "t"))]
    assert order == sorted(order, key=str.encode)
    assert probe(reader, "t") == {"cursor": "ébbbb"}
    assert [row["id"] for row in rows(read_all(reader, "t", {"cursor": "it's\\"}))] == ["it's\\", "ébbbb"]


def test_rows_of_a_partitioned_table_and_of_a_view_are_read(postgres_url: str) -> None:
    run(
        postgres_url,
        "create table t (id int primary key, n text not null) partition by range (id)",
        "create table t1 partition of t for values from (0) to (10)",
        "create table t2 partition of t for values from (10) to (20)",
        "insert into t values (1, 'x'), (11, 'y')",
        "create view v as select id from t",
    )
    reader = source(postgres_url, t=table(cursor={"column": "id"}), v=table())
    assert [row["id"] for row in rows(read_all(reader, "t"))] == [1, 11]
    assert len(rows(read_all(reader, "v"))) == 2
    assert reader.tables() == ["t", "v"]
    assert reader.describe("t") == [("id", "integer", False, True), ("n", "text", False, False)]


def test_memory_stays_bounded_while_a_table_is_read(postgres_url: str) -> None:
    run(postgres_url, "create table t as select i as id, repeat('x', 1000) as f from generate_series(1, 200000) i")
    before = pa.total_allocated_bytes()
    highest = 0
    for batch in read_all(source(postgres_url, t=table()), "t"):
        highest = max(highest, batch.rows.nbytes)
    assert highest < 2 * relational.BATCH_BYTES
    del batch
    assert pa.total_allocated_bytes() - before < relational.BATCH_BYTES


def test_a_server_of_ascii_hands_on_bytes_that_are_no_text_and_they_survive(postgres: Postgres, tmp_path: Path) -> None:
    name = f"ascii_{tmp_path.name.replace('-', '_')}"
    run(postgres.url, f"create database {name} encoding 'SQL_ASCII' template template0")
    try:
        url = postgres.database_url(name)
        run(url, "create table t (id int, v text)", "insert into t values (1, E'caf\\xe9')")
        assert rows(read_all(source(url, t=table()), "t")) == [{"id": 1, "v": "caf\\xe9"}]
    finally:
        run(postgres.url, f"drop database {name} with (force)")
