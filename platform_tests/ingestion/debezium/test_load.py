"""Changes that Debezium reads, in the lakehouse: copied anew, and staged as the source has them."""

import pytest
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.debezium.shop import TABLES, Shop
from platform_tests.ingestion.debezium.worker import READING, load_and_stage
from platform_tests.ingestion.landing import ON_SQLITE

from data_platform.ingestion.load import load_tables
from data_platform.lakehouse.connect import Lakehouse


@with_mariadb
@ON_SQLITE
@pytest.mark.parametrize("shop", ["mariadb"], indirect=True)
def test_a_full_refresh_copies_anew_and_the_log_goes_on_from_it(lake: Lakehouse, shop: Shop) -> None:
    load_and_stage(lake, shop)
    shop.run("delete from t where id = 1", "insert into t values (3, 3)", "alter table t add column note varchar(9)")
    load_tables(lake, "shop", shop.source(), READING, TABLES, run_id="run-1", full_refresh=True)
    shop.run("update t set total = 7, note = 'new' where id = 3", "delete from u where id = 2", "truncate table u")
    load_and_stage(lake, shop)
    for name in TABLES:
        there = shop.rows(f"select id, total from {name} order by 1")
        assert lake.connection.execute(f"SELECT id, total FROM staged_shop.{name} ORDER BY 1").fetchall() == there
    notes = lake.connection.execute("SELECT note FROM raw_shop.t WHERE _operation = 'update'").fetchall()
    assert notes == [("new",)]
