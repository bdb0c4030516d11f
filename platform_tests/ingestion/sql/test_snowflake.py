"""Snowflake as a source, on an emulator of it. What the emulator lacks is shown without it: it keeps no number of 38
digits, has one type of instants only, gives empty times as 1970, and never says when a table was altered."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from platform_tests.exports.fakesnow import connected, fakesnow, snowflake
from platform_tests.ingestion.http.server import Answer, running_api
from platform_tests.ingestion.landing import ON_SQLITE
from platform_tests.ingestion.reading import overlap, probe, read_all

from data_platform.contracts.conform import converted
from data_platform.drafting.databases import profile_table
from data_platform.drafting.profile import Declared
from data_platform.drafting.types import draft_type
from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.load import load_table
from data_platform.ingestion.reconcile import reconcile_table
from data_platform.ingestion.source import Batch
from data_platform.ingestion.sql.dialects import Timeouts
from data_platform.ingestion.sql.dialects.snowflake import _conform, column_of, names_of, text_literal
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import Lakehouse

__all__ = ["fakesnow", "snowflake"]

LIMITS = Timeouts(timedelta(seconds=5), timedelta(seconds=5))

ITEMS = """
create table items (
    id integer primary key, big number(20,0), price number(9,2), few number(5,0), name varchar, paid boolean, day date,
    clock time, local timestamp_ntz, since timestamp_tz, doc variant, tags array, raw binary, rate float,
    "Mixed Name" varchar
)
"""
FIRST = r"""
insert into items select
    1, 12345678901234567890, 3.50, 7, 't\\e''a', true, '2024-02-29', '12:34:56.789', '9999-12-31 00:00:00',
    '2024-01-01 00:00:00.123456+02:00', parse_json('{"a": [1, null, "x"]}'), array_construct(1, 'b'),
    to_binary('00ff', 'HEX'), 'NaN'::float, 'ü'
"""


def source(url: str, **options: object) -> Relational:
    return Relational(url, {"t": SqlTable.model_validate({"contract": "x.y.Z", "table": "items", **options})}, LIMITS)


def rows(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.rows.to_pylist()]


def run(url: str, *statements: str) -> None:
    with connected(url) as connection:
        cursor = connection.cursor()
        cursor.execute(f"use schema DB.{schema_of(url)}")
        for statement in statements:
            cursor.execute(statement)


def schema_of(url: str) -> str:
    return url.partition("/DB/")[2].partition("?")[0]


def test_a_table_is_read_as_a_whole_in_the_types_that_it_declares(snowflake: str) -> None:
    run(snowflake, ITEMS, FIRST)
    batches = read_all(source(snowflake))
    assert {batch.kind for batch in batches} == {"whole"}
    (row,) = rows(batches)
    assert row.pop("rate") != 0
    assert row == {
        "id": Decimal(1),
        "big": Decimal(12345678901234567890),
        "price": Decimal("3.50"),
        "few": 7,
        "name": "t\\e'a",
        "paid": True,
        "day": date(2024, 2, 29),
        "clock": time(12, 34, 56, 789000),
        "local": datetime(9999, 12, 31),
        "since": datetime(2023, 12, 31, 22, 0, 0, 123456, UTC),
        "doc": '{"a":[1,null,"x"]}',
        "tags": '[1,"b"]',
        "raw": b"\0\xff",
        "Mixed Name": "ü",
    }
    assert source(snowflake).describe("t")[:3] == [
        ("id", "NUMBER(38,0)", False, True),
        ("big", "NUMBER(20,0)", True, False),
        ("price", "NUMBER(9,2)", True, False),
    ]


def test_a_cursor_reads_what_is_new_and_a_probe_says_whether_there_is_anything(snowflake: str) -> None:
    run(snowflake, "create table items (id integer, name varchar, changed timestamp_tz)")
    new = source(snowflake, key=["id"], cursor={"column": "changed", "lag": "0s"})
    run(snowflake, "insert into items values (1, 'a', '2024-01-02 00:00:00+02:00'), (2, 'b', '2024-01-01 23:00:00+00')")
    (first,) = read_all(new)
    assert [row["id"] for row in rows([first])] == [1, 2]  # by the instant, not by what is written
    after = first.position
    assert after is not None
    assert after["cursor"] == "2024-01-01T23:00:00.000000+00:00"
    assert probe(new, after=after) == {}
    found = overlap(new, "t", after)
    assert found is not None
    assert found.since == datetime(2024, 1, 1, 23, tzinfo=UTC)
    run(snowflake, "insert into items values (3, 'c', '2024-01-01 23:30:00+00')")
    assert probe(new, after=after) == {"cursor": "2024-01-01T23:30:00.000000+00:00"}
    assert [row["id"] for row in rows(read_all(new, after=after))] == [2, 3]


def test_numbers_and_texts_are_cursors_whatever_is_written_in_them(snowflake: str) -> None:
    run(
        snowflake,
        "create table items (id integer, price number(9,2), rate float, name varchar)",
        r"insert into items values (1, 0.5, 0.1, 'a\\'), (2, 1.5, 0.25, 'b\\'), (3, 2.5, 'NaN'::float, 'c\\')",
    )
    for column, position, highest in (
        ("id", "2", "3"),
        ("price", "1.50", "2.50"),
        ("rate", "0.25", "0.25"),
        ("name", "b\\", "c\\"),
    ):
        new = source(snowflake, cursor={"column": column})
        assert [row["id"] for row in rows(read_all(new, after={"cursor": position}))] == [2, 3]
        assert probe(new) == {"cursor": highest}


def test_rows_without_a_value_of_the_cursor_come_first_or_not_at_all_or_are_refused(snowflake: str) -> None:
    run(snowflake, "create table items (id integer, at_id integer)", "insert into items values (1, 5), (2, null)")

    def read(nulls: str) -> list[int]:
        return [row["id"] for row in rows(read_all(source(snowflake, cursor={"column": "at_id", "nulls": nulls})))]

    assert (read("include"), read("exclude")) == ([2, 1], [1])
    with pytest.raises(PlatformError, match=r"1 rows have no at_id.*refuse"):
        read("refuse")


def test_names_are_found_as_without_quotes_and_quoted_ones_as_they_are(snowflake: str) -> None:
    run(
        snowflake,
        "create table items (id integer)",
        'create table "Straße.1" ("id" integer)',
        "insert into items values (1)",
        'create table "a""b" ("x""y" integer)',
        'create view "a_items" as select 2::integer as one',
    )
    assert rows(read_all(source(snowflake))) == [{"id": 1}]
    assert rows(read_all(source(snowflake, table="a_items"))) == [{"one": 2}]
    assert source(snowflake, table='a"b').describe("t")[0][0] == 'x"y'
    assert sorted(source(snowflake).tables()) == ["Straße.1", 'a"b', "a_items", "items"]
    assert source(snowflake, table="Straße.1").describe("t")[0][0] == "id"
    # `_` of LIKE would find both.
    run(snowflake, "create table axitems (id integer)")
    with pytest.raises(PlatformError, match=r"no table a\.items in Snowflake .*There is: ") as failed:
        source(snowflake, table="a.items").describe("t")
    assert "secret" not in str(failed.value)


def test_quotes_cases_and_percent_signs_mean_nothing_in_names_and_positions(snowflake: str) -> None:
    mixed = schema_of(snowflake) + "_Mixed"
    run(
        snowflake,
        f'create schema DB."{mixed}"',
        f'create table DB."{mixed}"."50% off" ("changed" varchar, "_" integer, "%s" integer)',
        f"""insert into DB."{mixed}"."50% off" values ('4%', 1, 1), ('5%', 2, 2), ('5%s', 3, 3)""",
    )
    url = snowflake.replace(schema_of(snowflake), mixed)
    new = source(url, table="50% off", cursor={"column": "changed"})
    assert source(url).tables() == ["50% off"]
    assert rows(read_all(source(url, table="50% off"), after={}))[0] == {"changed": "4%", "_": 1, "%s": 1}
    assert probe(new) == {"cursor": "5%s"}
    with pytest.raises(PlatformError, match="text of two shapes"):
        read_all(new, after={"cursor": "5%"})
    run(snowflake, f"""update DB."{mixed}"."50% off" set "changed" = '6%' where "_" = 3""")
    assert [row["_"] for row in rows(read_all(new, after={"cursor": "5%"}))] == [2, 3]


def test_only_the_schema_of_the_url_is_listed_and_another_is_read_by_its_name(snowflake: str) -> None:
    other = schema_of(snowflake) + "_O"
    run(snowflake, "create table items (id integer)", f"create schema DB.{other}")
    run(snowflake, f"create table DB.{other}.far as select 7::integer as id")
    assert source(snowflake).tables() == ["items"]
    assert rows(read_all(source(snowflake, table=f"{other.lower()}.far"))) == [{"id": 7}]


def test_columns_that_differ_by_case_only_keep_their_names_so_that_one_can_be_chosen() -> None:
    assert names_of(["ID", "id", "NAME", "Mixed"]) == ["ID", "id", "name", "Mixed"]


def test_values_that_have_no_place_in_their_type_can_be_read_as_text(snowflake: str) -> None:
    run(snowflake, ITEMS, FIRST)
    (row,) = rows(read_all(source(snowflake, as_text=["price", "doc", "name"], columns=["price", "doc", "name"])))
    assert row == {"price": "3.50", "name": "t\\e'a", "doc": '{"a":[1,null,"x"]}'}


def test_a_part_of_a_result_becomes_what_the_column_declares_however_narrow_it_is() -> None:
    wide = pa.schema(
        [("a", pa.decimal128(38, 0)), ("b", pa.int64()), ("c", pa.decimal128(9, 2)), ("d", pa.time64("us"))]
    )
    narrow = pa.record_batch(
        [
            pa.array([1, None], pa.int8()),
            pa.array([2, 3], pa.int16()),
            pa.array([Decimal("1.50"), None], pa.decimal128(38, 2)),
            pa.array([1_001, None], pa.time64("ns")),
        ],
        names=list("abcd"),
    )
    found = _conform(narrow, wide)
    assert found.schema == wide
    assert found.to_pylist()[0] == {"a": 1, "b": 2, "c": Decimal("1.50"), "d": time(0, 0, 0, 1)}
    with pytest.raises(PlatformError, match=r"Column c holds a value that is no decimal128\(9, 2\)"):
        _conform(narrow.set_column(2, "c", pa.array([Decimal("1.555"), None], pa.decimal128(38, 3))), wide)


@pytest.mark.parametrize(
    ("data", "select", "kind"),
    [
        ("TIMESTAMP_LTZ", '"X"', "timestamptz"),
        ("OBJECT", 'to_json("X"::variant)', None),
        ("GEOGRAPHY", 'st_aswkt("X")', None),
        ("VECTOR", 'to_json("X"::array)', None),
        ("DECFLOAT", 'to_varchar("X")', None),
    ],
)
def test_types_that_the_emulator_lacks_are_asked_for_as_documented(data: str, select: str, kind: str | None) -> None:
    column = column_of({"n": "X", "t": data, "o": "NO", "p": None, "s": None, "c": None}, "x", is_key=False)
    assert (column.name, column.select, column.kind, column.nullable) == ("x", select, kind, False)


def test_a_text_with_a_collation_is_compared_by_its_bytes() -> None:
    row = {"n": "X", "t": "TEXT", "o": "YES", "p": None, "s": None, "c": "en-ci"}
    assert column_of(row, "x", is_key=False).order == "collate(\"X\", 'utf8')"
    assert text_literal("a\\'b") == r"'a\\''b'"


def test_what_was_written_changes_the_hint_of_a_table_and_a_view_has_none(snowflake: str) -> None:
    run(snowflake, "create table items as select 1::integer as id", "create view v as select * from items")
    before = probe(source(snowflake))
    run(snowflake, "insert into items values (2)")
    assert probe(source(snowflake)) != before
    assert source(snowflake, table="v").probe(["t"], {})["t"].supported is False


@ON_SQLITE
def test_loads_land_what_is_new_once_and_reconcile_finds_what_was_deleted(lake: Lakehouse, snowflake: str) -> None:
    run(snowflake, "create table items (id integer, at_id integer)", "insert into items values (1, 1), (2, 2), (3, 9)")
    options = {"key": ["id"], "cursor": {"column": "at_id", "lag": 5}, "reconcile": "daily", "shrink_limit": 0}
    items = source(snowflake, **options)
    table = items.options["t"]

    def load() -> int:
        return load_table(lake, "shop", items, "t", table, run_id="r").rows_landed

    assert (load(), load()) == (3, 0)
    run(
        snowflake,
        "insert into items values (4, 7)",
        "delete from items where id = 1",
        "insert into items values (5, 2)",
    )
    assert load() == 1
    found = reconcile_table(lake, "shop", items, "t", table, run_id="r")
    assert (found.deleted, found.missed) == (1, 1)
    assert reconcile_table(lake, "shop", items, "t", table, run_id="r").differences == 0


def test_what_snowflake_cannot_do_is_said(snowflake: str) -> None:
    run(snowflake, "create table items (id integer)")
    with pytest.raises(PlatformError, match="`parallel` cannot be had of Snowflake"):
        read_all(source(snowflake, parallel=2))
    several = Relational(snowflake, source(snowflake).options, LIMITS, snapshot=True)
    with pytest.raises(PlatformError, match="`snapshot` cannot be had of Snowflake"):
        read_all(several)


def test_a_draft_has_the_key_and_takes_whole_numbers_for_such(snowflake: str) -> None:
    run(snowflake, ITEMS, FIRST)
    run(snowflake, "comment on table items is 'what is sold'")
    found = overlap(source(snowflake, cursor={"column": "id"}), "t", {"cursor": "1"})
    assert found is not None
    assert found.key == ()  # two rows may have the same
    table = profile_table(snowflake, "items", "items")
    assert table.key == ["id"]
    assert table.comments.table == "what is sold"  # of columns the emulator keeps none
    drafted = {
        name: draft_type(
            name, pl.Series(table.rows[name]).drop_nulls(), table.rows.schema.field(name).type, one, show=True
        )
        for name, one in table.declared.items()
    }
    # What is declared as integer is NUMBER(38,0) there.
    assert [drafted[name].annotation for name in ("id", "big", "price", "few")] == [
        "int",
        "Annotated[pl.Decimal, 20, 0]",
        "Annotated[pl.Decimal, 9, 2]",
        "int",
    ]
    huge = pl.Series([Decimal(10**30)], dtype=pl.Decimal(38, 0))
    declared = Declared("NUMBER(38,0)", nullable=False)
    assert (
        draft_type("id", huge, pa.decimal128(38, 0), declared, show=True).annotation == "Annotated[pl.Decimal, 38, 0]"
    )
    small = huge - huge + 1
    assert draft_type("id", small, pa.decimal128(38, 0), declared, show=True).annotation == "int"
    assert converted(small, pl.Int64()).to_list() == [1]


def test_a_key_pair_is_taken_and_one_that_cannot_be_read_is_said_without_its_passphrase(
    snowflake: str, tmp_path: Path
) -> None:
    run(snowflake, "create table items as select 1::integer as id")
    key, file = generate_private_key(65537, 2048), tmp_path / "key.p8"
    encrypted = BestAvailableEncryption(b"hunter2hunter2")
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted))
    by_key = snowflake.replace("shop:secret@", "shop:hunter2hunter2@") + f"&private_key_file={file}"
    assert rows(read_all(source(by_key))) == [{"id": 1}]
    for wrong in (by_key.replace("hunter2hunter2", "wrongwrong"), by_key.replace("key.p8", "none.p8")):
        with pytest.raises(PlatformError, match=r"the private key .*p8 cannot be read \(.*passphrase") as failed:
            source(wrong).tables()
        assert "wrongwrong@" not in str(failed.value)


@pytest.mark.parametrize(
    ("code", "said", "kind", "message"),
    [
        ("390100", "Incorrect username or password was specified.", PlatformError, "does not let us in: .*Incorrect"),
        ("000606", "No active warehouse selected.", PlatformError, r"Name one in the URL by \?warehouse=name"),
        ("000630", "Statement reached its timeout.", PlatformError, "Raise `statement_timeout`"),
        ("000604", "SQL execution canceled", TransientError, "Somebody ended the statement"),
    ],
)
def test_what_is_refused_is_said_with_what_to_do(code: str, said: str, kind: type[PlatformError], message: str) -> None:
    refused = {"success": False, "code": code, "message": said, "data": {"sqlState": "57014"}}
    logged_in = {"success": True, "data": {"token": "t", "parameters": [], "sessionInfo": {}}}
    answers = iter([refused] if code == "390100" else [logged_in, refused])
    with running_api(lambda _: Answer(next(answers, {"success": True, "data": None}))) as api:
        port = api.url.rpartition(":")[2].strip("/")
        url = f"snowflake://shop:hunter2hunter2@acme/DB/S?host=127.0.0.1&port={port}&protocol=http"
        with pytest.raises(kind, match=message) as failed:
            source(url).tables()
    assert "hunter2" not in str(failed.value)
