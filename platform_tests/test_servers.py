"""The servers that the other tests stand on."""

import os

import psycopg
import pytest
from platform_tests.servers import Postgres, fresh_database, kill_postgres, start_postgres, stop_postgres

SEEN: list[str] = []


@pytest.mark.parametrize("_time", [1, 2])
def test_each_test_gets_an_empty_database_of_its_own(postgres_url: str, _time: int) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select 1 from pg_tables where schemaname = 'public'").fetchall() == []
        connection.execute("create table leftover (x int)")
    assert postgres_url not in SEEN
    SEEN.append(postgres_url)


def test_a_database_is_dropped_even_while_somebody_is_connected_to_it(postgres: Postgres) -> None:
    with fresh_database(postgres) as url:
        lingering = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)
    lingering.close()


@pytest.mark.skipif("POSTGRES_URL" in os.environ, reason="POSTGRES_URL names the server: its settings are its owner's")
def test_our_own_server_can_replicate_logically(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("show wal_level").fetchone() == ("logical",)


def test_a_killed_server_is_gone_and_leaves_nothing_behind() -> None:
    server = start_postgres()
    kill_postgres(server)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(server.url)
    stop_postgres(server)
    assert server.folder is not None
    assert not server.folder.exists()
