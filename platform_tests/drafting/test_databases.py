"""Profiles of databases: what their tables are called here, and columns whose values have no place in their type."""

from pathlib import Path

import polars as pl
import psycopg
import pytest
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.sql.test_mysql import run as run_mysql
from platform_tests.servers import running_mariadb

from data_platform.contracts import Contract
from data_platform.drafting.databases import profile_database, profile_table
from data_platform.drafting.draft import Wish, draft_table
from data_platform.drafting.naming import class_name
from data_platform.drafting.profile import UNUSED, Profile, Request
from data_platform.drafting.types import dtype_of
from data_platform.ingestion.load import load_table
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

TABLES = ["ORDERS", "Order", "order items", "order_items", "orders", "orders_2", "_x", "x"]


def profiled(url: str) -> Profile:
    return profile_database(Request("shop", url, [], None, settings_from_environment()), url)


def test_tables_whose_names_come_to_the_same_are_told_apart_and_the_exact_name_comes_first(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOP_URL", raising=False)
    with psycopg.connect(postgres_url) as server:
        server.execute("create schema other")
        for name in [*TABLES, 'other"."orders']:
            server.execute(f'create table "{name}" (id int primary key, "of {name[:3]}" int)'.encode())
    found = {one.origin: one.name for one in profiled(postgres_url).tables}
    exact = {name: name for name in ("orders", "order_items", "orders_2", "x")}
    assert {name: called for name, called in found.items() if name in exact} == exact
    assert len(set(found.values())) == len(TABLES) + 1
    contracts: list[str] = []
    for name in found.values():
        contracts.append(class_name(name, contracts))
    assert len(set(contracts)) == len(contracts)


@with_mariadb
@pytest.mark.servers
def test_dates_that_are_none_are_drafted_as_dates_that_are_read_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    with running_mariadb() as server:
        run_mysql(f"{server}/mysql", "create database old character set utf8mb4")
        run_mysql(
            f"{server}/old",
            "create table t (id int primary key, day date, at datetime, seen timestamp null, n int)",
            "insert into t values (1, '0000-00-00', '2024-00-10', 0, 1), (2, '2024-01-02', null, null, 2)",
        )
        profile = profile_table(f"{server}/old", "t", "t")
    assert profile.place == {"as_text": ["day", "at", "seen"]}
    assert profile.notes[0] == "day is read as text: 0000-00-00, which is no date"
    draft = draft_table(profile, Wish())
    instant = pl.Datetime("us", "UTC")
    assert [dtype_of(one.annotation) for one in draft.columns] == [pl.Int64(), pl.Date(), instant, instant, pl.Int64()]
    assert [one.notes for one in draft.columns[2:4]] == [("taken as UTC: it has no zone",), ()]


@pytest.mark.parametrize(
    ("synced", "deleted", "kind"),
    [
        ("_fivetran_synced", "_fivetran_deleted", "boolean"),
        ("_sdc_batched_at", "_sdc_deleted_at", "timestamptz"),
        ("_airbyte_extracted_at", "_ab_cdc_deleted_at", "text"),
    ],
)
def test_tables_that_another_tool_landed_are_read_by_what_it_says_of_their_rows(
    postgres_url: str, lake: Lakehouse, synced: str, deleted: str, kind: str
) -> None:
    mark = {"boolean": "true", "timestamptz": "now()", "text": "'2026-01-02T00:00:00Z'"}[kind]
    with psycopg.connect(postgres_url) as server:
        server.execute(
            f"create table bill (id int primary key, amount int, {synced} timestamptz, {deleted} {kind})".encode()
        )
        server.execute("insert into bill values (1, 10, now(), null), (2, 20, now(), null)")
        server.execute("create table no_key as select * from bill")
    profile = profile_table(postgres_url, "bill", "bill")
    assert profile.place == {"cursor": {"column": synced}, "soft_delete": deleted}
    assert profile_table(postgres_url, "no_key", "no_key").place == {"cursor": {"column": synced}}

    class Bill(Contract):
        id: int
        amount: int

    table = SqlTable.model_validate({**UNUSED, **profile.place, "key": ["id"]})
    recipe = Recipe("shop", "bill", ("id",), Bill, soft_delete=deleted)

    def staged() -> list[tuple[int, int]]:
        load_table(lake, "shop", Relational(postgres_url, {"bill": table}), "bill", table, run_id="run")
        stage_table(lake, recipe, run_id="run")
        return lake.connection.execute("SELECT id, amount FROM staged_shop.bill ORDER BY 1").fetchall()

    assert staged() == [(1, 10), (2, 20)]
    with psycopg.connect(postgres_url) as server:
        server.execute(f"update bill set {deleted} = {mark}, {synced} = now() where id = 1".encode())
    assert staged() == [(2, 20)]
