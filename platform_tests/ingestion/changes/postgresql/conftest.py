"""A table whose changes are followed, in a fresh database."""

from collections.abc import Iterator

import pytest
from platform_tests.ingestion.changes.postgresql.following import KEYED, Follower, run, source, table


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    """A fresh database; whatever slots its test makes are gone with it."""
    yield postgres_url
    run(
        postgres_url,
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
        "where database = current_database() and not active",
    )


@pytest.fixture
def follower(url: str) -> Follower:
    """A table of two rows, copied."""
    run(url, KEYED, "insert into t values (1, 'a'), (2, 'b')")
    found = Follower(source(url, {"t": table("id")}))
    assert found.changes() == [("insert", 1, "a"), ("insert", 2, "b")]
    return found
