"""A music store from a SQLite and a PostgreSQL database, CSV files and an API becomes the same source each time: types,
keys, references and rules as its schema has them, and every row staged."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from platform_tests import music_store
from platform_tests.cli.conftest import Dp
from platform_tests.cli.test_add import run
from platform_tests.ingestion.http.server import Answer, Asked, running_api
from platform_tests.ingestion.sql.test_mysql import run as run_mysql
from platform_tests.servers import mariadb_is_installed, running_mariadb

from data_platform.components.platform import source_spec
from data_platform.components.spec import SourceSpec
from data_platform.contracts.contract import Column, contract_columns, owner_of
from data_platform.lakehouse.settings import settings_from_environment

PAGE = 40


def store_api(asked: Asked) -> Answer:
    """A page of the table that the path names, with a link to the next."""
    rows = music_store.records(asked.path.removeprefix("/v1/"))
    start = int(asked.query.get("start", "0"))
    more = {"Link": f'<{asked.path}?start={start + PAGE}>; rel="next"'} if start + PAGE < len(rows) else {}
    return Answer(rows[start : start + PAGE], headers=more)


Arguments = list[str]

NO_MARIADB: dict[str, Any] = {
    "condition": not (mariadb_is_installed() or os.environ.get("MYSQL_URL")),
    "reason": "no MariaDB here: apt-get install mariadb-server, or set MYSQL_URL",
}


@pytest.fixture
def arguments(tmp_path: Path, postgres_url: str) -> Iterator[Callable[[str], Arguments]]:
    """The arguments of `dp add source` for the store in a kind of source."""
    named = [part for table in music_store.ROWS for part in ("--table", table)]
    with running_api(store_api) as api, ExitStack() as stack:

        def of(kind: str) -> Arguments:
            if kind == "sqlite":
                return ["--url", music_store.in_sqlite(tmp_path / "store.sqlite"), "--all"]
            if kind == "postgresql":
                return ["--url", music_store.in_postgresql(postgres_url), "--all"]
            if kind == "mariadb":
                server = stack.enter_context(running_mariadb())
                run_mysql(f"{server}/mysql", "create database music")
                run_mysql(f"{server}/music", *music_store.mariadb_statements())
                return ["--url", f"{server}/music", "--all"]
            if kind == "csv":
                return ["--folder", music_store.as_csv(tmp_path / "store")]
            return ["--url", f"{api.url}/v1", *named]

        yield of


def columns_of(spec: SourceSpec, table: str) -> dict[str, Column]:
    return {column.name: column for column in contract_columns(spec.tables[table].contract)}


@pytest.mark.parametrize(
    "kind", ["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.skipif(**NO_MARIADB)), "csv", "api"]
)
def test_the_store_is_drafted_with_its_types_and_keys_and_all_of_it_is_staged(
    dp: Dp,
    package: Path,
    arguments: Callable[[str], Arguments],
    kind: str,
) -> None:
    done = dp("add", "source", "store", *arguments(kind))
    assert done.exit_code == 0, done.stdout + done.stderr
    spec = source_spec(package, "store")
    assert {name: table.table.key for name, table in spec.tables.items()} == music_store.KEYS
    assert {owner_of(table.contract) for table in spec.tables.values()} == {"team:store"}
    money = [columns_of(spec, table)[name].dtype for table, name in MONEY]
    assert all(isinstance(dtype, pl.Decimal) and dtype.scale == 2 for dtype in money)
    assert columns_of(spec, "invoices")["invoiced_at"].dtype == pl.Datetime("us", "UTC")
    assert columns_of(spec, "employees")["hired_on"].dtype == pl.Date()
    assert columns_of(spec, "customers")["email"].private
    if kind in ("sqlite", "postgresql", "mariadb"):
        assert_promises_are_kept(spec)
        assert "primary key of the source" in (package / "defs" / "store" / "defs.yaml").read_text()
    results, frames = run(package, "store")
    expected = {table: len(rows) for table, rows in music_store.ROWS.items()}
    assert {name: (result.rows_inserted, result.rows_quarantined) for name, result in results.items()} == {
        name: (rows, 0) for name, rows in expected.items()
    }
    ids = sorted(row[0] for row in music_store.ROWS["invoices"])
    assert frames["invoices"]["invoice_id"].sort().to_list() == ids
    totals = sorted(Decimal(row[4]) for row in music_store.ROWS["invoices"])
    assert frames["invoices"]["total"].sort().to_list() == totals
    codes = sorted(row[4] for row in music_store.ROWS["customers"])
    assert frames["customers"]["postal_code"].sort().to_list() == codes


MONEY = [("tracks", "unit_price"), ("invoice_lines", "unit_price"), ("invoices", "total")]


def assert_promises_are_kept(spec: SourceSpec) -> None:
    """References, allowed values, bounds and unique columns are in the contracts."""
    found: dict[Any, str] = {}
    for table in spec.tables:
        for column in columns_of(spec, table).values():
            if column.references is not None:
                found[table, column.name] = f"{column.references.table}.{column.references.column}"
    assert found == {where: f"store/{target}" for where, target in music_store.REFERENCES.items()}
    assert columns_of(spec, "invoices")["status"].rules == ("one of open, paid, void",)
    assert columns_of(spec, "tracks")["milliseconds"].rules == ("more than 0",)
    assert columns_of(spec, "tracks")["unit_price"].rules == ("at least 0",)
    assert columns_of(spec, "genres")["name"].unique


def test_a_key_for_masking_is_made_once_where_there_is_none(
    dp: Dp, package: Path, arguments: Callable[[str], Arguments], tmp_path: Path
) -> None:
    done = dp("add", "source", "store", *arguments("sqlite")[:2], "--table", "customers")
    assert "A new key for masking" in done.stdout
    file = settings_from_environment().home / "environment"
    (line,) = [line for line in file.read_text().splitlines() if line.startswith("DATA_PLATFORM_MASK_KEY=")]
    assert len(line.partition("=")[2]) == 64
    assert line.partition("=")[2] not in done.stdout
    assert file.stat().st_mode & 0o077 == 0
    again = dp("add", "source", "again", "--url", str(tmp_path / "store.sqlite"), "--table", "employees")
    assert again.exit_code == 0, again.stderr
    assert "A new key" not in again.stdout
    assert file.read_text().count("DATA_PLATFORM_MASK_KEY") == 1
