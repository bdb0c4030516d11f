"""The lakehouse as a Dagster resource: dagster-duckdb's, opened on DuckLake and closed whatever happens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import duckdb
from dagster_duckdb import DuckDBResource

from data_platform.lakehouse.connect import CATALOG, Lakehouse, shared_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment


class LakehouseResource(DuckDBResource):
    """Gives assets the lakehouse: that of the environment, unless `home`, `catalog` and `data` say another.
    dagster-duckdb's own leaks its connection when an asset fails, and with it the lock on the file."""

    database: str = ":memory:"
    home: str | None = None
    catalog: str | None = None
    data: str | None = None

    @classmethod
    def at(cls, settings: Settings | None) -> Self:
        """The resource of a lakehouse with these settings; None for those of the environment. Secrets are taken from
        the environment when it is opened: what a resource holds is shown in the UI."""
        if settings is None:
            return cls()
        return cls(home=str(settings.home), catalog=settings.catalog, data=settings.data)

    @property
    def settings(self) -> Settings:
        """The settings of the lakehouse."""
        found = settings_from_environment()
        return replace(
            found,
            home=Path(self.home) if self.home else found.home,
            catalog=self.catalog or found.catalog,
            data=self.data or found.data,
        )

    @contextmanager
    def open(self) -> Iterator[Lakehouse]:
        """The open lakehouse, for the time of the block."""
        with shared_lakehouse(self.settings) as lake:
            yield lake

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection with the lakehouse attached as `lake` and in use."""
        with self.open() as lake:
            lake.connection.execute(f"USE {CATALOG}")
            yield lake.connection
