"""What hangs on a table at the target that is replaced: it is kept, or nothing is written and it is named."""

import pytest
from platform_tests.exports.conftest import Place
from platform_tests.exports.customers import REPLACE, change, export, make, rows, table

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse

NEW_ROW = "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)"
NEW_COLUMN = "ALTER TABLE {} ADD COLUMN age INTEGER"


def test_grants_indexes_and_comments_of_postgresql_are_kept(lake: Lakehouse, postgresql_place: Place) -> None:
    query = postgresql_place.query
    make(lake)
    export(lake, postgresql_place, REPLACE)
    query("drop role if exists export_reader")
    query("create role export_reader")
    query("grant select on platform.customers to export_reader")
    query("grant update (name) on platform.customers to public")
    query("comment on table platform.customers is 'who buys 100% %s'")
    query("create index by_name on platform.customers (name)")
    change(lake, NEW_ROW)
    export(lake, postgresql_place, REPLACE)
    assert len(rows(postgresql_place)) == 3
    assert query("select has_table_privilege('export_reader', 'platform.customers', 'select')") == [(True,)]
    assert query("select has_column_privilege('export_reader', 'platform.customers', 'name', 'update')") == [(True,)]
    assert query("select obj_description('platform.customers'::regclass)") == [("who buys 100% %s",)]
    assert query("select count(*) from pg_indexes where tablename = 'customers' and indexdef like '%(name)'") == [(1,)]
    query("drop owned by export_reader")
    query("drop role export_reader")


def test_a_view_on_a_replaced_table_sees_the_new_rows(lake: Lakehouse, place: Place) -> None:
    make(lake)
    export(lake, place, REPLACE)
    place.query(f"create view seen as select name from {table(place)}")
    change(lake, NEW_ROW)
    export(lake, place, REPLACE)
    assert len(place.query("select * from seen")) == 3


def test_a_view_that_would_be_lost_with_a_changed_table_is_named(lake: Lakehouse, postgresql_place: Place) -> None:
    make(lake)
    export(lake, postgresql_place, REPLACE)
    postgresql_place.query("create view seen as select name from platform.customers")
    change(lake, NEW_COLUMN)
    with pytest.raises(PlatformError, match=r"view platform.customers -> public.seen.*Nothing was written"):
        export(lake, postgresql_place, REPLACE)
    assert len(rows(postgresql_place)) == 2


def test_a_trigger_of_mariadb_stays_and_a_change_of_columns_is_refused(lake: Lakehouse, mariadb_place: Place) -> None:
    make(lake)
    export(lake, mariadb_place, REPLACE)
    mariadb_place.query("create trigger upper_name before insert on customers for each row set new.name = 'X'")
    change(lake, NEW_ROW)
    assert "trigger upper_name" in export(lake, mariadb_place, REPLACE).written.notes[0]
    assert [name for _, name in rows(mariadb_place)] == ["X"] * 3
    change(lake, NEW_COLUMN)
    with pytest.raises(PlatformError, match="trigger upper_name"):
        export(lake, mariadb_place, REPLACE)
