"""DuckLakes for the tests: catalogs in SQLite, in PostgreSQL and in a DuckDB file, written by DuckDB."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from data_platform.ingestion.lakes.ducklake import DuckLake
from data_platform.ingestion.lakes.options import DuckLakeTable
from data_platform.lakehouse.connect import database
from data_platform.lakehouse.settings import Settings


@dataclass(frozen=True)
class Other:
    """A DuckLake beside the platform's own, with a table `shop.items`; rows are written to files, or to its catalog
    (`inlined`)."""

    settings: Settings
    catalog: str
    folder: Path
    inlined: bool = False

    @contextmanager
    def opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB that writes to it, of which `l` is the DuckLake."""
        kind = "postgres:" if "://" in self.catalog else "" if self.catalog.endswith(".ducklake") else "sqlite:"
        limit = 10 if self.inlined else 0
        with closing(database(self.settings)) as connection:
            connection.execute("LOAD ducklake; LOAD sqlite_scanner; LOAD postgres_scanner")
            connection.execute(
                f"ATTACH 'ducklake:{kind}{self.catalog}' AS l (DATA_PATH '{self.folder}/other', "
                f"DATA_INLINING_ROW_LIMIT {limit})"
            )
            yield connection

    def run(self, *statements: str) -> None:
        with self.opened() as connection:
            for statement in statements:
                connection.execute(statement)

    def make(self) -> "Other":
        self.run("CREATE SCHEMA l.shop", "CREATE TABLE l.shop.items (id BIGINT, name VARCHAR)")
        return self

    def insert(self, *rows: tuple[int, str]) -> None:
        self.run(*(f"INSERT INTO l.shop.items VALUES ({number}, '{name}')" for number, name in rows))

    def source(self, **options: Any) -> DuckLake:
        """The source of the table, called `t`."""
        table = DuckLakeTable.model_validate({"contract": "x.y.Z", "table": "shop.items", **options})
        return DuckLake("lake", self.catalog, None, {}, {"t": table}, self.settings)
