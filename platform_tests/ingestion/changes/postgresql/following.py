"""Changes of PostgreSQL as tests follow them: into a lakehouse or only to batches, and what they come to in the end."""

from collections.abc import Mapping
from typing import Any

import psycopg

from data_platform.ingestion.changes.options import Changes
from data_platform.ingestion.changes.postgresql.source import PostgresqlChanges
from data_platform.ingestion.load import LoadResult, load_tables
from data_platform.ingestion.source import Batch, Position
from data_platform.ingestion.sql.dialects import Timeouts
from data_platform.ingestion.sql.source import TIMEOUTS, SqlTable
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse

READING = "changes"

KEYED = "create table t (id int primary key, v text)"
"""A table with a primary key."""


def table(*key: str, **options: Any) -> SqlTable:
    return SqlTable(key=list(key), contract="x", **options)


def source(
    url: str, tables: Mapping[str, SqlTable], label: str = "shop", timeouts: Timeouts = TIMEOUTS, **changes: Any
) -> PostgresqlChanges:
    return PostgresqlChanges(url, tables, Changes(**changes), label, timeouts)


def run(url: str, *statements: str) -> None:
    """Run statements, each a transaction of its own unless it says otherwise."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


class Follower:
    """Reads a source as a load does, and keeps the position and the batches in memory."""

    def __init__(self, of: PostgresqlChanges) -> None:
        self.source, self.position = of, dict[str, str]()

    def read(self, tables: list[str] | None = None, *, acknowledge: bool = True) -> list[Batch]:
        """What is new."""
        found, moved = [], dict[str, str]()
        with self.source.reading(tables or list(self.source.options), self.position) as reading:
            assert all(reading.overlap(name) is None for name in self.source.options)
            for batch in reading:
                found.append(batch)
                if batch.position is not None:
                    moved.update(batch.position)
                    for entry in batch.forget:
                        self.position.pop(entry, None)
            assert not found or found[-1].position is not None, "rows are left without a position"
            self.position.update(moved)
            if acknowledge:
                reading.committed(moved)
        return found

    def rows(self, name: str = "t", *, acknowledge: bool = True) -> list[dict[str, Any]]:
        """The new rows of a table."""
        batches = self.read(acknowledge=acknowledge)
        return [row for batch in batches if batch.table == name for row in batch.rows.to_pylist()]

    def changes(self, name: str = "t") -> list[tuple[Any, ...]]:
        """The new rows of a table: operation, and the values of its own columns."""
        return [
            (row["_operation"], *(value for column, value in row.items() if not column.startswith("_")))
            for row in self.rows(name)
        ]


def follow(lake: Lakehouse, of: PostgresqlChanges, **options: Any) -> dict[str, LoadResult]:
    """Load what is new into `raw_shop`."""
    return load_tables(lake, "shop", of, READING, of.options, run_id="run-1", **options)


def position(lake: Lakehouse) -> Position:
    return ledger.head(lake, "raw", "shop", READING).position


def landed(name: str) -> str:
    """The SQL of the raw rows of a table since it was read as a whole last: those before are kept for a while."""
    return (
        f"(FROM raw_shop.{name} WHERE _load_id >= (SELECT coalesce(max(load_id), 0) FROM platform.loads "
        f"WHERE source = 'shop' AND table_name = '{name}' AND kind = 'whole'))"
    )


def present(lake: Lakehouse, name: str, key: list[str]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """What the raw changes of a table come to, applied in their order: rows without the platform's columns, by key."""
    relation = lake.connection.execute(
        f"SELECT * EXCLUDE (_load_id, _loaded_at, _row) FROM {landed(name)} ORDER BY _order, _load_id, _row"
    )
    names = [column[0] for column in relation.description or ()]
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for values in relation.fetchall():
        row = dict(zip(names, values, strict=True))
        identity = tuple(row[column] for column in key)
        match row["_operation"]:
            case "truncate":
                found.clear()
            case "delete":
                found.pop(identity, None)
            case _:
                found[identity] = tuple(value for column, value in row.items() if not column.startswith("_"))
    return found
