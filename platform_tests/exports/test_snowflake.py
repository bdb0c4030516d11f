"""Exports to Snowflake, shown on an emulator of it (fakesnow), which lets everybody in: how a login is refused is shown
by a stand-in."""

from dataclasses import replace
from typing import Any

import pytest
from platform_tests.exports.customers import MERGE, REPLACE, change, make
from platform_tests.exports.fakesnow import fakesnow, query, snowflake
from platform_tests.ingestion.http.server import Answer, running_api
from snowflake import connector

from data_platform.errors import PlatformError, TransientError
from data_platform.exports.export import Exported, TableExport, agreement, export_table
from data_platform.exports.snowflake import Snowflake, SnowflakeTable, snowflake_column
from data_platform.lakehouse.connect import Lakehouse

__all__ = ["fakesnow", "snowflake"]

BOTH = pytest.mark.parametrize("spec", [MERGE, REPLACE], ids=["merge", "replace"])


def rows(url: str, columns: str = "*") -> list[tuple[Any, ...]]:
    return sorted(query(url, f"select {columns} from customers"), key=repr)


def export(lake: Lakehouse, url: str, spec: TableExport = MERGE, **options: Any) -> Exported:
    return export_table(lake, spec, Snowflake(url), **options)


@BOTH
def test_changes_and_deletes_are_one_transaction_and_nothing_is_written_twice(
    lake: Lakehouse, snowflake: str, spec: TableExport
) -> None:
    make(lake)
    assert export(lake, snowflake, spec).whole == "the first export"
    assert export(lake, snowflake, spec).unchanged
    change(lake, "DELETE FROM {} WHERE id = 1", "UPDATE {} SET name = 'R\"o\\b ü' WHERE id = 2")
    change(lake, "INSERT INTO {} VALUES (3, NULL, 1, 1)")
    done = export(lake, snowflake, spec)
    assert rows(snowflake) == [(2, 'R"o\\b ü'), (3, None)]
    assert done.whole == ""
    if spec is MERGE:
        assert (done.written.inserted, done.written.updated, done.written.deleted) == (1, 1, 1)
    assert agreement(lake, spec, Snowflake(snowflake), done, hashed=True).agrees


def test_rows_that_others_changed_are_found_and_a_full_export_mends_them(lake: Lakehouse, snowflake: str) -> None:
    make(lake)
    export(lake, snowflake)
    query(snowflake, "delete from customers where id = 2")
    assert not agreement(lake, MERGE, Snowflake(snowflake), export(lake, snowflake), hashed=True).agrees
    export(lake, snowflake, full=True)
    assert len(rows(snowflake)) == 2


def test_columns_come_change_and_go(lake: Lakehouse, snowflake: str) -> None:
    make(lake)
    export(lake, snowflake)
    change(lake, 'ALTER TABLE {} ADD COLUMN "E-Mail" VARCHAR')
    change(lake, "UPDATE {} SET \"E-Mail\" = 'a@b.c'")
    export(lake, snowflake)
    assert rows(snowflake, 'id, "E-Mail"') == [(1, "a@b.c"), (2, "a@b.c")]
    change(lake, "ALTER TABLE {} DROP COLUMN name", 'ALTER TABLE {} ADD COLUMN "localtime" INTEGER')
    change(lake, "ALTER TABLE {} ADD COLUMN name INTEGER")
    assert export(lake, snowflake).whole == "its columns or its key changed"
    assert query(snowflake, "select name, count(*) from customers group by name") == [(None, 2)]
    assert export(lake, snowflake).unchanged


def test_what_fails_in_the_middle_changes_nothing_and_the_next_export_does_it_once(
    lake: Lakehouse, snowflake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(lake)
    export(lake, snowflake)
    change(lake, "UPDATE {} SET name = 'Rob'", "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)")

    def lost(*_: object) -> None:
        raise connector.errors.OperationalError("the connection was closed")

    with monkeypatch.context() as patched:
        patched.setattr(SnowflakeTable, "record", lost)
        with pytest.raises(TransientError, match="broke the connection"):
            export(lake, snowflake)
    assert rows(snowflake) == [(1, "Ada"), (2, "Bob")]
    assert export(lake, snowflake).written.inserted == 1
    assert rows(snowflake) == [(1, "Rob"), (2, "Rob"), (3, "Cyd")]


def test_of_two_exports_at_once_the_later_one_changes_nothing(
    lake: Lakehouse, snowflake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(lake)
    export(lake, snowflake)
    change(lake, "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)")
    merge = SnowflakeTable.merge

    def late(self: SnowflakeTable, *given: Any) -> Any:
        monkeypatch.setattr(SnowflakeTable, "merge", merge)
        export(lake.duplicate(), snowflake)
        return merge(self, *given)

    monkeypatch.setattr(SnowflakeTable, "merge", late)
    with pytest.raises(TransientError, match="was exported to Snowflake by another at the same time"):
        export(lake, snowflake)
    assert export(lake, snowflake).unchanged
    assert len(rows(snowflake)) == 3


def test_a_table_of_others_is_left_as_it_was(lake: Lakehouse, snowflake: str) -> None:
    make(lake)
    query(snowflake, "create table customers (id number(19,0)) as select 7")
    with pytest.raises(PlatformError, match=r"was not made by an export.*adopt: true"):
        export(lake, snowflake)
    assert rows(snowflake) == [(7,)]
    export(lake, snowflake, replace(MERGE, adopt=True))
    assert rows(snowflake) == [(1, "Ada"), (2, "Bob")]


TYPES = (
    "id BIGINT, a UTINYINT, b UBIGINT, c HUGEINT, d DECIMAL(38, 3), e UUID, f TIME, g TIMESTAMPTZ, h VARCHAR[], "
    "i BLOB, j DATE, k DOUBLE, l JSON, m TIMESTAMP_NS, n BOOLEAN, o TIMESTAMP_S"
)
VALUES = (
    "(1, 255, 18446744073709551615, 7, 1.5, '6f9619ff-8b86-d011-b42d-00cf4fc964ff', '12:00:00', "
    "'2024-02-29 12:00:00+02', ['x', NULL], '\\x00\\xFF'::BLOB, '0001-01-01', 1e300, '{\"a\": 1}', "
    "'2024-12-31 23:59:59.999999', true, '2024-01-01 00:00:00')"
)


def test_types_are_kept_as_those_that_hold_them_and_nulls_as_nulls(lake: Lakehouse, snowflake: str) -> None:
    make(lake, TYPES, VALUES)
    change(lake, "INSERT INTO {} (id, _load_id, _row) VALUES (2, 1, 1)")
    export(lake, snowflake)
    assert export(lake, snowflake).unchanged
    full, empty = rows(snowflake, "id, a, b, c, d, e, f, h, i, j, k, l, n")
    assert (full[:5], str(full[5])) == (
        (1, 255, 18446744073709551615, "7", full[4]),
        "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
    )
    assert (str(full[4]), str(full[6]), bytes(full[8]), str(full[9])) == ("1.500", "12:00:00", b"\0\xff", "0001-01-01")
    assert (full[7].replace(" ", ""), full[10], full[11].replace(" ", ""), full[12]) == (
        '["x",null]',
        1e300,
        '{"a":1}',
        True,
    )
    assert empty == (2, *[None] * 12)
    (times,) = query(snowflake, "select g, m, o from customers where id = 1")
    assert [one.isoformat() for one in times] == [
        "2024-02-29T10:00:00+00:00",
        "2024-12-31T23:59:59.999999",
        "2024-01-01T00:00:00",
    ]
    assert query(snowflake, "select count(*) from customers where g is null and m is null and o is null") == [(1,)]


def test_what_snowflake_cannot_keep_is_refused() -> None:
    for name, kind in (("odd", "TIME WITH TIME ZONE"), ("odd", "BIT"), ("ODD", "VARCHAR"), ("a\0b", "VARCHAR")):
        with pytest.raises(PlatformError, match=r"for which Snowflake has no place|cannot have its name"):
            snowflake_column("staged/shop/customers", name, kind)
    with pytest.raises(PlatformError, match="a key in Snowflake"):
        snowflake_column("staged/shop/customers", "odd", "JSON", is_key=True)
    with pytest.raises(PlatformError, match="does not name an account, a database and a schema"):
        Snowflake("snowflake://shop:secret@acme/db")


def test_a_login_that_is_refused_and_a_schema_that_is_not_there_are_said_in_words(snowflake: str) -> None:
    gone = snowflake.partition("/DB/")
    with pytest.raises(PlatformError, match=r"refused it: .*The schema must be there"):
        Snowflake(f"{gone[0]}/DB/NOWHERE?{gone[2].partition('?')[2]}").ping()
    said = {"success": False, "code": "390100", "message": "Incorrect username or password was specified.", "data": {}}
    with running_api(lambda _: Answer(said)) as api:
        port = api.url.rpartition(":")[2].strip("/")
        wrong = f"snowflake://shop:hunter2hunter2@acme/DB/S?host=127.0.0.1&port={port}&protocol=http"
        with pytest.raises(PlatformError, match=r"does not let us in: .*Incorrect username") as failed:
            Snowflake(wrong).ping()
    assert "hunter2" not in str(failed.value)
