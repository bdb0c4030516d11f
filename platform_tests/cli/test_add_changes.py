"""`dp add source --changes` looks at the server: what it lacks for its log to be read is said, what will be made there
is said before it is made, and the draft reads the log."""

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import yaml
from platform_tests.cli.conftest import Dp
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.changes.mysql_shop import Shop
from platform_tests.ingestion.changes.postgresql.following import query, run
from platform_tests.servers import own_mariadb

from data_platform.components.platform import source_spec
from data_platform.ingestion.changes.held import change_source
from data_platform.ingestion.load import load_tables
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment

TABLES = (
    "create table orders (id int primary key, amount numeric(10, 2), updated_at timestamp)",
    "insert into orders values (1, 1.50, '2026-01-01'), (2, 2.50, '2026-01-02')",
    "create table notes (note varchar(10))",
)
MADE = (
    "select (select count(*) from pg_replication_slots where database = current_database()) "
    "+ (select count(*) from pg_publication)"
)
"""How many slots and publications there are."""


def load(package: Path, name: str) -> dict[str, int]:
    """Load a source that is read by its log, and remove what it made at the server."""
    spec = source_spec(package, name)
    (reading,) = spec.readings
    with open_lakehouse(settings_from_environment()) as lake, spec.open() as source:
        try:
            tables = {one: table.table for one, table in spec.tables.items()}
            found = load_tables(lake, name, source, reading, tables, run_id="run")
        finally:
            change_source(source, name).drop()
    return {one: result.rows_landed for one, result in found.items()}


def test_postgresql_is_drafted_and_nothing_is_made_there_before_the_first_load(
    dp: Dp, package: Path, postgres_url: str
) -> None:
    run(postgres_url, *TABLES)
    done = dp("add", "source", "shop", "--url", postgres_url, "--changes", "--all")
    assert done.exit_code == 1
    assert "NOT DRAFTED: notes. Table notes (public.notes) has no primary key" in done.stdout
    assert "MISSING" not in done.stdout
    assert "the first load makes the replication slot data_platform_shop_" in done.stdout
    assert query(postgres_url, MADE) == [(0,)]
    attributes = yaml.safe_load((package / "defs" / "shop" / "defs.yaml").read_text())["attributes"]
    assert (attributes["changes"], list(attributes["tables"])) == (True, ["orders"])
    assert "cursor: {column" not in done.stdout
    assert load(package, "shop") == {"orders": 2}
    run(postgres_url, "alter table notes add primary key (note)")
    done = dp("add", "table", "shop", "notes")
    assert done.exit_code == 0, done.output
    assert query(postgres_url, MADE) == [(0,)]


def test_all_that_an_account_of_postgresql_lacks_is_said_at_once(dp: Dp, package: Path, postgres_url: str) -> None:
    run(postgres_url, *TABLES, "drop role if exists only_reads", "create role only_reads login password 'hush-hush'")
    run(postgres_url, "grant select on all tables in schema public to only_reads")
    parts = urlsplit(postgres_url)
    url = urlunsplit(parts._replace(netloc=f"only_reads:hush-hush@{parts.hostname}:{parts.port}"))
    try:
        done = dp("add", "source", "shop", "--url", url, "--changes", "--table", "orders")
        assert done.exit_code == 1
        said = " ".join(done.stdout.split())
        assert "MISSING: The account only_reads of PostgreSQL" in said
        assert 'ALTER ROLE "only_reads" REPLICATION' in said
        assert "the ownership of orders. Have the owner say: CREATE PUBLICATION data_platform_shop_" in said
        assert "hush" not in done.output
        assert (package / "defs" / "shop" / "defs.yaml").exists()
        # What it was told to have done is enough.
        statement = said[said.index("CREATE PUBLICATION") :].partition(";")[0]
        run(postgres_url, 'alter role "only_reads" replication', statement)
        file = package / "defs" / "shop" / "defs.yaml"
        name = statement.split()[2]
        file.write_text(file.read_text().replace("changes: true", f"changes: {{publication: {name}}}"))
        assert load(package, "shop") == {"orders": 2}
    finally:
        run(postgres_url, f"reassign owned by only_reads to {parts.username}", "drop owned by only_reads")
        run(postgres_url, "drop role only_reads")


def test_a_database_without_a_log_is_refused(dp: Dp, package: Path, tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("create table a (id integer primary key)")
    done = dp("add", "source", "shop", "--url", str(tmp_path / "a.sqlite"), "--changes")
    assert done.exit_code == 1
    assert "a database sqlite:// has none" in " ".join(done.stderr.split())
    assert not (package / "defs" / "shop").exists()


@with_mariadb
@pytest.mark.servers
def test_mariadb_is_drafted_once_its_log_has_rows(dp: Dp, package: Path) -> None:
    with own_mariadb() as server:
        shop = Shop(server.url)
        shop.run(*TABLES, "create table flat (id int primary key) engine = MyISAM", "insert into flat values (1)")
        shop.run("set global binlog_row_metadata = 'NO_LOG'", "create user only_reads identified by 'hush-hush'")
        shop.run("grant select on shop.* to only_reads")
        url = shop.url.replace("root@", "only_reads:hush-hush@")
        done = dp("add", "source", "shop", "--url", url, "--changes", "--table", "orders", "--table", "flat")
        assert done.exit_code == 1
        said = " ".join(done.stdout.split())
        assert "NOT DRAFTED: flat. Table flat: shop.flat is stored by MyISAM" in said
        assert "Set binlog_row_metadata = FULL" in said
        assert "GRANT REPLICATION SLAVE, BINLOG MONITOR" in said
        assert "nothing is made at the server; it knows the reader as a replica with the server_id" in said
        assert "hush" not in done.output
        shop.run("set global binlog_row_metadata = 'FULL'")
        shop.run("grant replication slave, binlog monitor on *.* to only_reads")
        assert load(package, "shop") == {"orders": 2}
