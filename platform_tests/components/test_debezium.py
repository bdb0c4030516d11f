"""A source that Debezium reads, as a platform has it: `defs.yaml`, runs, sensor, check, commands."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import pytest
from platform_tests.components.shop import failures
from platform_tests.components.test_changes import ALL, CONTRACTS, Shop
from platform_tests.databases import Database
from platform_tests.ingestion.debezium.shop import debezium_can_run
from platform_tests.kafka_servers import cache
from pydantic import ValidationError

from data_platform.components.debezium import DebeziumSourceOptions
from data_platform.components.keys import SOURCE_LOG
from data_platform.ingestion.debezium.runtime import downloaded
from data_platform.lakehouse.settings import settings_from_environment

DEFS = """
type: data_platform.components.DebeziumSource
attributes:
  kind: postgresql
  host: 127.0.0.1
  port: {port}
  database: {database}
  username: postgres
  password: "{{{{ env.SHOP_PASSWORD }}}}"
  jars: "{{{{ env.SHOP_JARS }}}}"
  refresh: 1s
  tables:
    orders: {{key: [id], contract: {name}.defs.shop.contracts.Order, mask: [note]}}
    items: {{table: public.items, key: [id], contract: {name}.defs.shop.contracts.Line}}
"""


@pytest.fixture
def shop(tmp_path: Path, home: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    if not debezium_can_run() and "DATA_PLATFORM_NO_SKIPS" not in os.environ:
        pytest.skip("Debezium cannot run here: install a JDK (java, javac) and Maven (its jars are downloaded)")
    (home / "extensions").mkdir(exist_ok=True)
    (tmp_path / "extensions").symlink_to(home / "extensions")
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("LAKEHOUSE_CATALOG", str(tmp_path / "catalog.sqlite"))
    monkeypatch.setenv("LAKEHOUSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DATA_PLATFORM_STRICT", "1")
    monkeypatch.setenv("DATA_PLATFORM_MASK_KEY", "a-key-for-the-tests-of-debezium")
    monkeypatch.setenv("SHOP_PASSWORD", "any-will-do-here")
    monkeypatch.setenv("SHOP_JARS", str(downloaded("postgresql", cache())))
    monkeypatch.syspath_prepend(str(tmp_path))
    database = Database(postgres_url, settings_from_environment())
    database.run(
        "create table orders (id int primary key, note varchar(100), body text)",
        "create table items (id int primary key, order_id int not null)",
        "insert into orders (id, note) values (1, 'one'), (2, 'two')",
        "insert into items values (10, 1), (20, 2)",
    )
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(tmp_path, database, instance, f"changing_{uuid.uuid4().hex[:8]}")
        source = tmp_path / shop.name / "defs" / "shop"
        source.mkdir(parents=True)
        for folder in (source, source.parent, source.parent.parent):
            (folder / "__init__.py").touch()
        (source / "contracts.py").write_text(CONTRACTS)
        place = urlsplit(postgres_url)
        given = {"name": shop.name, "port": place.port, "database": place.path.strip("/")}
        (source / "defs.yaml").write_text(DEFS.format(**given))
        yield shop
    database.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active")
    database.close()


def test_all_tables_are_followed_from_the_first_copy_on(shop: Shop) -> None:
    assert sorted(shop.tick()) == ALL
    first = shop.run()
    assert failures(first) == {}
    assert [one.passed for one in first.get_asset_check_evaluations() if one.check_name == SOURCE_LOG] == [True]
    orders, items = shop.staged()
    assert ([number for number, _ in orders], items) == ([1, 2], [(10, 1), (20, 2)])
    assert "one" not in [note for _, note in orders]
    shop.database.run(
        "insert into orders (id) values (3)", "delete from items where id = 20", "delete from orders where id = 2"
    )
    assert failures(shop.run()) == {}
    orders, items = shop.staged()
    assert ([number for number, _ in orders], items) == ([1, 3], [(10, 1)])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"password": "written-down"}, "`password` is a secret"),
        ({"settings": {"database.ssl.keystore.password": "x"}}, r"database\.ssl\.keystore\.password` is a secret"),
        ({"settings": {"mongodb.connection.string": "mongodb://u:p@h"}}, r"mongodb\.connection\.string` is a secret"),
    ],
)
def test_a_secret_that_is_written_down_is_refused(options: dict[str, object], reason: str) -> None:
    given = {"kind": "mysql", "host": "h", "tables": {"t": {"contract": "x"}}, **options}
    with pytest.raises(ValidationError, match=reason) as refused:
        DebeziumSourceOptions.model_validate(given)
    assert "written-down" not in str(refused.value)
