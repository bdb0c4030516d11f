"""What people wrote about tables and columns, as real databases keep it."""

from pathlib import Path

import pytest
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.sql.test_mysql import run as run_mysql
from platform_tests.ingestion.sql.test_postgresql import run
from platform_tests.servers import running_mariadb

from data_platform.ingestion.sql.comments import Comments
from data_platform.ingestion.sql.source import Relational


def test_postgresql(postgres_url: str) -> None:
    run(
        postgres_url,
        'create table "The Table" (id int, "odd ""n" text, gone int, bare int)',
        'create index ids on "The Table" (id)',
        "comment on table \"The Table\" is 'What is sold; it''s \\ all.'",
        'comment on column "The Table"."odd ""n" is \' Its name.\nIn words. \'',
        "comment on column \"The Table\".gone is 'Gone.'",
        "comment on index ids is 'an index'",
        'alter table "The Table" drop column gone',
        "create view seen as select 1 as id",
    )
    source = Relational(postgres_url, {})
    assert source.comments("The Table") == Comments("What is sold; it's \\ all.", {'odd "n': "Its name.\nIn words."})
    assert source.comments("seen") == Comments()


@with_mariadb
@pytest.mark.servers
def test_mariadb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    with running_mariadb() as server:
        run_mysql(f"{server}/mysql", "create database noted character set utf8mb4")
        run_mysql(
            f"{server}/noted",
            "create table `The ``T` (id int comment 'it''s a number', bare int) comment 'What is sold. naïve'",
            "create view seen as select 1 as id",
        )
        source = Relational(f"{server}/noted", {})
        assert source.comments("The `T") == Comments("What is sold. naïve", {"id": "it's a number"})
        assert source.comments("seen") == Comments()


def test_sqlite_keeps_none(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        connection.execute("create table t (id integer primary key -- the number\n)")
    assert Relational(str(tmp_path / "s.sqlite"), {}).comments("t") == Comments()
