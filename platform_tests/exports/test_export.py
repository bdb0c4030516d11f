"""Exports to databases: what a target keeps, what it refuses, and that it holds what the lakehouse holds."""

import threading
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from platform_tests.exports.conftest import Place
from platform_tests.exports.customers import CUSTOMERS, MERGE, REPLACE, change, export, make, rows, table

from data_platform.errors import PlatformError, TransientError
from data_platform.exports.export import TableExport, agreement
from data_platform.exports.mysql import Mysql
from data_platform.exports.postgresql import Postgresql
from data_platform.exports.target import Database
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

BOTH = pytest.mark.parametrize("spec", [MERGE, REPLACE], ids=["merge", "replace"])


def agrees(lake: Lakehouse, place: Place, spec: TableExport = MERGE) -> bool:
    done = export(lake, place, spec)
    return agreement(lake, spec, place.database, done, hashed=True).agrees


@BOTH
def test_a_table_that_an_export_did_not_make_is_left_as_it_was(
    lake: Lakehouse, place: Place, spec: TableExport
) -> None:
    make(lake)
    export(lake, place, replace(spec, name="others"))
    place.query(f"create table {table(place)} (id bigint primary key, name text)")
    place.query(f"insert into {table(place)} values (7, 'theirs')")
    with pytest.raises(PlatformError, match=r"was not made by an export.*adopt: true"):
        export(lake, place, spec)
    with pytest.raises(PlatformError, match="belongs to the export crm"):
        export(lake, place, replace(spec, name="others", export="erp"))
    assert rows(place) == [(7, "theirs")]
    done = export(lake, place, replace(spec, adopt=True))
    assert rows(place) == [(1, "Ada"), (2, "Bob")]
    assert done.whole == "the first export"
    assert export(lake, place, spec).unchanged


@BOTH
def test_changes_and_deletes_arrive_and_nothing_is_written_twice(
    lake: Lakehouse, place: Place, spec: TableExport
) -> None:
    make(lake)
    assert export(lake, place, spec).written.inserted == 2
    assert export(lake, place, spec).unchanged
    change(
        lake,
        "DELETE FROM {} WHERE id = 1",
        "UPDATE {} SET name = 'Rob' WHERE id = 2",
        "INSERT INTO {} VALUES (3, NULL, 1, 1)",
    )
    written = export(lake, place, spec).written
    assert rows(place) == [(2, "Rob"), (3, None)]
    assert written.rows == 2
    if spec is MERGE:
        assert (written.inserted, written.updated, written.deleted) == (1, 1, 1)
    assert agrees(lake, place, spec)


@BOTH
def test_an_empty_table_is_exported_and_a_table_may_become_empty(
    lake: Lakehouse, place: Place, spec: TableExport
) -> None:
    make(lake, values="")
    export(lake, place, spec)
    assert rows(place) == []
    change(lake, "INSERT INTO {} VALUES (1, 'Ada', 1, 1)")
    export(lake, place, spec)
    change(lake, "DELETE FROM {}")
    export(lake, place, spec)
    assert rows(place) == []
    assert agrees(lake, place, spec)


@BOTH
def test_columns_that_are_added_dropped_and_retyped_since(lake: Lakehouse, place: Place, spec: TableExport) -> None:
    make(lake)
    export(lake, place, spec)
    change(lake, "ALTER TABLE {} ADD COLUMN age SMALLINT", "UPDATE {} SET age = 40 WHERE id = 1")
    assert export(lake, place, spec).whole == "its columns or its key changed"
    assert rows(place, "id, name, age") == [(1, "Ada", 40), (2, "Bob", None)]
    change(lake, "ALTER TABLE {} DROP COLUMN name")
    export(lake, place, spec)
    assert rows(place) == [(1, 40), (2, None)]
    change(lake, "ALTER TABLE {} ALTER age TYPE BIGINT", "UPDATE {} SET age = 4000000000 WHERE id = 2")
    export(lake, place, spec)
    assert rows(place) == [(1, 40), (2, 4_000_000_000)]
    assert export(lake, place, spec).unchanged


@BOTH
def test_a_table_that_was_made_anew_in_the_lakehouse_is_exported_whole(
    lake: Lakehouse, place: Place, spec: TableExport
) -> None:
    make(lake)
    export(lake, place, spec)
    change(lake, "DROP TABLE {}")
    make(lake, values="(2, 'Bob'), (5, 'Eve')")
    assert "was made anew" in export(lake, place, spec).whole
    assert rows(place) == [(2, "Bob"), (5, "Eve")]


@BOTH
def test_an_expired_version_is_compared_whole_and_said_so(lake: Lakehouse, place: Place, spec: TableExport) -> None:
    make(lake)
    done = export(lake, place, spec)
    change(lake, "DELETE FROM {} WHERE id = 1")
    change(lake, "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)")
    lake.connection.execute(f"CALL ducklake_expire_snapshots('lake', versions => [{done.origin.snapshot}])")
    again = export(lake, place, spec)
    assert again.whole == f"the version that was exported last, {done.origin.snapshot}, has expired"
    assert rows(place) == [(2, "Bob"), (3, "Cyd")]
    if spec is MERGE:
        assert (again.written.inserted, again.written.deleted) == (1, 1)


@BOTH
def test_rows_changed_or_a_table_dropped_at_the_target_are_found_and_mended(
    lake: Lakehouse, place: Place, spec: TableExport
) -> None:
    make(lake)
    done = export(lake, place, spec)
    place.query(f"update {table(place)} set name = 'Mallory' where id = 1")
    assert not agreement(lake, spec, place.database, done, hashed=True).agrees
    assert agreement(lake, spec, place.database, done, hashed=False).agrees
    export(lake, place, spec, full=True)
    assert agrees(lake, place, spec)
    place.query(f"drop table {table(place)}")
    assert export(lake, place, spec).whole == "the table was gone at the target"
    assert agrees(lake, place, spec)


def test_a_key_that_is_null_or_not_unique_is_refused_before_anything_is_written(lake: Lakehouse, place: Place) -> None:
    make(lake)
    export(lake, place)
    change(lake, "INSERT INTO {} VALUES (2, 'twin', 1, 1), (NULL, 'nobody', 1, 1)")
    with pytest.raises(PlatformError, match="null in 1 rows and not unique: 1 of its values"):
        export(lake, place)
    assert rows(place) == [(1, "Ada"), (2, "Bob")]


def test_private_columns_are_left_out_unless_they_are_named(lake: Lakehouse, place: Place) -> None:
    make(lake, "id BIGINT, name VARCHAR, email VARCHAR", "(1, 'Ada', 'ada@example.org')")
    spec = replace(MERGE, withheld=frozenset({"email"}))
    export(lake, place, spec)
    assert rows(place) == [(1, "Ada")]
    with pytest.raises(PlatformError, match=r"private or masked.*private: \[email\]"):
        export(lake, place, replace(spec, columns=("id", "email")))
    with pytest.raises(PlatformError, match="private or masked"):
        export(lake, place, replace(spec, key=("email",)))
    with pytest.raises(PlatformError, match="does not have"):
        export(lake, place, replace(spec, columns=("id", "mail")))
    export(lake, place, MERGE)
    assert rows(place, "id, email") == [(1, "ada@example.org")]


@pytest.mark.parametrize("name", ["order", 'a"b`c', "ünï", "select", "100%", "a b", "x" * 60])
def test_reserved_and_odd_names_are_quoted(lake: Lakehouse, place: Place, name: str) -> None:
    quoted = name.replace('"', '""')
    make(lake, f'"{quoted}" BIGINT, "group" VARCHAR', "(1, 'a')")
    spec = replace(MERGE, name=name, key=(name,))
    export(lake, place, spec)
    change(lake, "UPDATE {} SET \"group\" = 'b'")
    assert agrees(lake, place, spec)
    assert agrees(lake, place, replace(spec, name="t", mode="replace"))


def test_names_that_are_too_long_are_refused(lake: Lakehouse, place: Place) -> None:
    with pytest.raises(PlatformError, match="can be called"):
        export(lake, place, replace(MERGE, name="ü" * 70))
    make(lake, f'id BIGINT, "{"ü" * 70}" VARCHAR', "(1, 'a')")
    with pytest.raises(PlatformError, match="cannot have its name"):
        export(lake, place)


def test_a_merge_that_breaks_a_constraint_of_the_target_changes_nothing(lake: Lakehouse, place: Place) -> None:
    make(lake)
    export(lake, place)
    place.query(f"alter table {table(place)} add constraint short check (length(name) < 6)")
    change(lake, "DELETE FROM {} WHERE id = 1", "INSERT INTO {} VALUES (3, 'Bartholomew', 1, 1)")
    with pytest.raises(PlatformError, match="refused the rows") as error:
        export(lake, place)
    assert "Bartholomew" not in str(error.value)
    assert rows(place) == [(1, "Ada"), (2, "Bob")]
    place.query(f"alter table {table(place)} drop constraint short")
    assert agrees(lake, place)


def test_two_exports_at_once_write_each_change_once(settings: Settings, place: Place) -> None:
    with open_lakehouse(settings) as lake:
        make(lake)
        export(lake, place)
        change(lake, "INSERT INTO {} SELECT 10 + i, 'n', 1, 1 FROM range(20000) AS r(i)")
        found = []
        lakes = [lake.duplicate() for _ in range(3)]
        threads = [threading.Thread(target=lambda one=one: found.append(export(one, place))) for one in lakes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(one.written.inserted for one in found) == [0, 0, 20_000]
        assert agrees(lake, place)


def test_a_target_that_is_down_is_tried_again_and_a_wrong_password_is_not(lake: Lakehouse, place: Place) -> None:
    make(lake)
    port = urlsplit(place.url).port

    def kind(url: str) -> Database:
        return Mysql(url) if place.name == "mariadb" else Postgresql(url, "x")

    with pytest.raises(TransientError, match="cannot be reached"):
        kind(place.url.replace(f":{port}/", ":1/")).ping()
    with pytest.raises(PlatformError, match="does not let us in") as error:
        kind(place.url.rpartition("/")[0] + "/nothing_there_hunter2").ping()
    assert not isinstance(error.value, TransientError)
    place.database.ping()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["insert", "update", "delete", "again", "export", "rest"]), st.integers(1, 9)),
    min_size=5,
    max_size=25,
)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_after_each_export_the_target_equals_the_table(
    kind: str, settings: Settings, request: pytest.FixtureRequest
) -> None:
    place: Place = request.getfixturevalue(f"{kind}_place")
    with open_lakehouse(settings) as lake:
        make(lake, "id BIGINT, name VARCHAR, total DECIMAL(12, 3)", "")

        @given(OPERATIONS)
        @settings_of_examples
        def follows(operations: list[tuple[str, int]]) -> None:
            for number, (operation, key) in enumerate([*operations, ("export", 0)]):
                if operation == "insert":
                    there = lake.connection.execute(f"SELECT 1 FROM {CUSTOMERS.sql} WHERE id = {key}").fetchall()
                    if not there:
                        change(lake, f"INSERT INTO {{}} VALUES ({key}, '{number}\\''\t%', {number}.5, 1, 1)")
                elif operation == "update":
                    change(lake, f"UPDATE {{}} SET name = 'u{number}' WHERE id >= {key}")
                elif operation == "delete":
                    change(lake, f"DELETE FROM {{}} WHERE id = {key}")
                elif operation == "again":  # a full refresh: all rows are replaced by equal ones
                    change(lake, "CREATE TEMP TABLE kept AS FROM {}", "DELETE FROM {}", "INSERT INTO {} FROM kept")
                    lake.connection.execute("DROP TABLE temp.kept")
                elif operation == "rest":
                    maintain(lake)
                else:
                    export(lake, place)
                    ours = lake.connection.execute(f"SELECT id, name, total FROM {CUSTOMERS.sql}").fetchall()
                    assert rows(place, "id, name, total") == sorted(ours, key=repr)

        follows()
        assert agrees(lake, place)


settings_of_examples = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def maintain(lake: Lakehouse) -> None:
    """What maintenance does to files, which changes no row."""
    table = f"'lake', 'customers', schema => '{CUSTOMERS.schema}'"
    lake.connection.execute(f"CALL ducklake_merge_adjacent_files({table})")
    lake.connection.execute(f"CALL ducklake_rewrite_data_files({table}, delete_threshold => 0.0)")
