"""What a `SqlSource` may say of how its database is read: options that go together, its pool, figures of its loads."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from platform_tests.components.shop import Shop, failures, materialized
from platform_tests.ingestion.sql.redshift import running_redshift
from pydantic import ValidationError

from data_platform.components.dlt import DltSource, DltSourceOptions
from data_platform.components.pools import within_pool
from data_platform.components.sql import SNAPSHOT, SqlSource, SqlSourceOptions
from data_platform.errors import PlatformError
from data_platform.exports.postgresql import Postgresql
from data_platform.ingestion.load import load_table
from data_platform.ingestion.sql.options import SqlTable
from data_platform.ingestion.sql.source import Relational
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment

RAW = ("raw/shop/orders", "raw/shop/products")


def options(table: dict[str, Any] | None = None, **given: Any) -> SqlSourceOptions:
    tables = {"orders": {"contract": "x", "key": ["id"], **(table or {})}}
    return SqlSourceOptions.model_validate({"url": "postgresql://host/db", "tables": tables, **given})


@pytest.mark.parametrize(
    ("table", "given", "message"),
    [
        ({"parallel": 4}, {"changes": True}, "the table orders has `parallel`, and the source is read by its log"),
        ({}, {"changes": True, "snapshot": True}, "`changes` and `snapshot` do not go together"),
        ({}, {"changes": True, "replica": {"url": "postgresql://h/d"}}, "`changes` and `replica` do not go together"),
        ({}, {"snapshot": True, "budget": {"rows": 5}}, "`snapshot` and `budget` do not go together"),
        (
            {"cursor": {"column": "id"}, "reconcile": "daily"},
            {"snapshot": True},
            "the table orders has `reconcile`, which holds one table against its source",
        ),
        ({}, {"replica": {"url": "postgresql://h/d", "max_lag": "soon"}}, "'soon' is no duration"),
        ({}, {"replica": {"url": "postgresql://h/d", "when_late": "wait"}}, "'fail' or 'primary'"),
    ],
)
def test_options_that_contradict_each_other_are_refused_where_they_are_written(
    table: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        options(table, **given)


def test_those_that_go_together_are_taken() -> None:
    given = options({"parallel": 4}, snapshot=True, replica={"url": "postgresql://h/d", "max_lag": "1m"})
    assert given.replica is not None
    assert (given.replica.when_late, given.tables["orders"].parallel is not None) == ("fail", True)


def test_the_secrets_of_a_replica_come_from_the_environment_and_are_not_shown(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, settings = Path("defs.yaml"), settings_from_environment()
    component = SqlSource(options(url="postgresql://a/b", replica={"url": "{{ env.SHOP_REPLICA_URL }}"}))
    with pytest.raises(PlatformError, match=r"replica\.url needs the environment variable SHOP_REPLICA_URL"):
        component.source(where, settings)
    monkeypatch.setenv("SHOP_REPLICA_URL", "mysql://me:s3cret@host/db")
    with pytest.raises(PlatformError, match="is mysql://, and the database that it is to be one of") as caught:
        component.source(where, settings)
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("SHOP_REPLICA_URL", "postgres://me:s3cret@host/db")
    source = component.source(where, settings)
    assert isinstance(source, Relational)
    assert source.replica is not None
    assert source.replica.url == "postgres://me:s3cret@host/db"


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("mssql", "SQL Server, which .*`sql_database`.*SingerSource"),
        ("mssql+pyodbc", "SQL Server, which .*`sql_database`.*SingerSource"),
        ("oracle+oracledb", "Oracle, which .*`sql_database`.*SingerSource"),
        ("redshift", "Redshift, which .*UNLOAD them as Parquet.*FileSource.*`sql_database`"),
        ("redshift+psycopg2", "Redshift, which .*UNLOAD"),
        ("bigquery", "BigQuery, which .*EXPORT DATA as Parquet.*FileSource.*IcebergSource"),
        ("databricks", "Databricks, which .*DeltaSource.*IcebergSource"),
        ("clickhouse+http", "ClickHouse, which .*INTO OUTFILE.*FileSource"),
    ],
)
def test_databases_that_are_not_read_here_are_answered_with_what_reads_them(scheme: str, message: str) -> None:
    address = f"{scheme}://me:s3cret@host/db"
    assert SqlSource.recognises(address)  # so that `dp add source` says it, too
    with pytest.raises(PlatformError, match=message) as caught:
        Relational(address, {}).tables()
    assert "s3cret" not in str(caught.value)
    assert not SqlSource.recognises(f"x{address}")


def test_redshift_is_known_by_its_host_and_by_what_it_answers(tmp_path: Path) -> None:
    host = "demo.0123456789ab.eu-west-1.redshift.amazonaws.com"
    with pytest.raises(PlatformError, match=r"\*\*\*@demo.* is Redshift.*UNLOAD"):
        Relational(f"postgresql://me:s3cret@{host}:5439/dev", {}).tables()
    with running_redshift() as url:
        with pytest.raises(PlatformError, match=r"is Redshift, not PostgreSQL\. .*UNLOAD"):
            Relational(url, {}).tables()
        with pytest.raises(PlatformError, match=r"is Redshift, which is not exported to.*type: files") as caught:
            Postgresql(url, "public").ping()
    assert "hunter2" not in str(caught.value)


def test_the_example_of_the_readme_reads_a_database_by_dlt(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[2] / ".readme" / "sources.md").read_text()
    (example,) = [one for one in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "sql_database" in one]
    (tmp_path / "erp_example.py").write_text(example)
    monkeypatch.setenv("ERP_URL", f"sqlite:///{shop.database}")
    given = {
        "source": "erp_example.erp",
        "arguments": {"url": "{{ env.ERP_URL }}"},
        "tables": {
            "orders": {"key": ["order_id"], "contract": "x"},
            "products": {"key": ["sku"], "load": "whole", "contract": "x"},
        },
    }
    options = DltSourceOptions.model_validate(given)
    settings = settings_from_environment()
    landed = []
    with open_lakehouse(settings) as lake:
        for _ in range(2):
            for name, table in options.tables.items():
                source = DltSource(options).source(Path("defs.yaml"), settings)
                landed.append(load_table(lake, "erp", source, name, table, run_id="run").rows_landed)
            shop.order((4, "Dan", "dan@example.org", 1.0, 1, "2020-01-04T00:00:00Z"))
    assert landed == [3, 2, 1, 0]


def test_a_load_shows_what_it_took_at_its_database(shop: Shop) -> None:
    shown = materialized(shop.run(*RAW))
    for name, rows in zip(RAW, (3, 2), strict=True):
        figures = shown[name]
        assert figures["source rows"] >= rows
        assert figures["source statements"] >= 3
        assert figures["source bytes"] > 0
        assert figures["source seconds"] > 0


def test_tables_of_one_snapshot_are_one_step_whichever_is_selected_and_one_commit(shop: Shop) -> None:
    defs = shop.package / "defs" / "shop" / "defs.yaml"
    defs.write_text(defs.read_text().replace("  every: 5s\n", "  every: 5s\n  snapshot: true\n"))
    assert SqlSource(options(snapshot=True)).readings() == {SNAPSHOT: ["orders"]}
    result = shop.run("raw/shop/orders")
    assert failures(result) == {}
    loads = "SELECT table_name, rows_landed FROM platform.loads ORDER BY ALL"
    assert shop.query(loads) == [("orders", 3), ("products", 2)]
    positions = "SELECT DISTINCT table_name FROM platform.positions WHERE layer = 'raw'"
    assert shop.query(positions) == [(SNAPSHOT,)]
    shop.order((4, "Dan", "dan@example.org", 1.0, 1, "2020-01-04T00:00:00Z"))
    for _ in range(2):  # the first tick has what landed staged, the second has what is new read
        request = shop.tick("shop_sensor")
        assert isinstance(request, dg.RunRequest)
        assert failures(shop.follow(request)) == {}
    assert shop.query("SELECT count(*) FROM staged_shop.orders") == [(4,)]
    assert shop.query(loads)[-2:] == [("orders", 3), ("products", 2)]


@pytest.fixture
def on_disk(shop: Shop, tmp_path: Path) -> Iterator[Shop]:
    """The shop on an instance that counts slots: one that is in memory alone does not."""
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        shop.instance = instance
        yield shop


def parallel_products(shop: Shop) -> None:
    defs = shop.package / "defs" / "shop" / "defs.yaml"
    text = defs.read_text().replace("      key: [sku]\n", "      key: [sku]\n      parallel: 4\n")
    defs.write_text(text)


def test_no_more_connections_read_a_table_than_its_pool_has_slots(on_disk: Shop) -> None:
    shop = on_disk
    parallel_products(shop)
    result = shop.run("raw/shop/products")
    assert failures(result) == {}
    assert "notes" not in materialized(result)["raw/shop/products"]
    shop.instance.event_log_storage.set_concurrency_slots("shop", 2)
    shop.execute("insert into products values ('jar', 1.0)")
    result = shop.run("raw/shop/products")
    assert failures(result) == {}
    note = materialized(result)["raw/shop/products"]["notes"]
    assert note == (
        "Read by 2 of the 4 connections that `parallel` asks for. The pool shop has 2 slots. To let 8 connections "
        "read at once: dagster instance concurrency set shop 8."
    )


def test_slots_that_other_loads_have_taken_are_theirs(on_disk: Shop) -> None:
    shop = on_disk
    storage = shop.instance.event_log_storage
    storage.set_concurrency_slots("shop", 3)
    for number in range(2):
        storage.claim_concurrency_slot("shop", f"run-{number}", "raw__shop__orders")
    source = within_pool(shop.instance, "shop", Relational("x", {"t": SqlTable.model_validate({"contract": "x"})}))
    assert isinstance(source, Relational)
    assert source.most_readers == 2
    assert "has 3 slots, of which other loads have 1." in source.why
    storage.set_concurrency_slots("shop", 1)
    source = within_pool(shop.instance, "shop", source)
    assert isinstance(source, Relational)
    assert source.most_readers == 1
