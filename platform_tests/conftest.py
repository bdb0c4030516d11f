"""Fixtures that several folders of tests share: the servers. What only one folder needs stays in that folder."""

from collections.abc import Iterator

import pytest
from platform_tests.servers import Postgres, fresh_database, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the whole session, ours or the one that POSTGRES_URL names."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of a fresh, empty PostgreSQL database of this test's own."""
    with fresh_database(postgres) as url:
        yield url
