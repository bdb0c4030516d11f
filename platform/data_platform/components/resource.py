"""The lakehouse as a Dagster resource: dagster-duckdb's, opened on DuckLake and closed whatever happens."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from dagster_duckdb import DuckDBResource

from data_platform.lakehouse.connect import CATALOG, Lakehouse, shared_lakehouse
from data_platform.lakehouse.settings import settings_from_environment


class LakehouseResource(DuckDBResource):
    """Gives assets the lakehouse that the environment names. dagster-duckdb's own leaks its connection when an asset
    fails, and with it the lock on the file."""

    database: str = ":memory:"

    @contextmanager
    def open(self) -> Iterator[Lakehouse]:
        """The open lakehouse, for the time of the block."""
        with shared_lakehouse(settings_from_environment()) as lake:
            yield lake

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection with the lakehouse attached as `lake` and in use."""
        with self.open() as lake:
            lake.connection.execute(f"USE {CATALOG}")
            yield lake.connection
