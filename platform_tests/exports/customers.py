"""The staged table that tests export, and what they hold its copy against."""

from dataclasses import replace
from typing import Any

from platform_tests.exports.conftest import Place

from data_platform.exports.export import Exported, TableExport, export_table
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import staged_table

CUSTOMERS = staged_table("shop", "customers")
MERGE = TableExport("crm", "customers", CUSTOMERS, "staged/shop/customers", "merge", ("id",))
REPLACE = replace(MERGE, mode="replace", key=())


def make(lake: Lakehouse, columns: str = "id BIGINT, name VARCHAR", values: str = "(1, 'Ada'), (2, 'Bob')") -> None:
    """Make the table in the lakehouse."""
    lake.connection.execute(f'CREATE SCHEMA IF NOT EXISTS lake."{CUSTOMERS.schema}"')
    lake.connection.execute(f"CREATE TABLE {CUSTOMERS.sql} ({columns}, _load_id BIGINT, _row BIGINT)")
    if values:
        change(lake, f"INSERT INTO {{}} SELECT *, 1, 1 FROM (VALUES {values})")


def change(lake: Lakehouse, *statements: str) -> None:
    """Change it in one commit; `{}` stands for it."""
    lake.connection.execute("BEGIN")
    for statement in statements:
        lake.connection.execute(statement.replace("{}", CUSTOMERS.sql))
    lake.connection.execute("COMMIT")


def table(place: Place, name: str = "customers") -> str:
    """The name of a table at the target, in its SQL."""
    return f'platform."{name}"' if place.name == "postgresql" else f"`{name}`"


def rows(place: Place, columns: str = "*", name: str = "customers") -> list[tuple[Any, ...]]:
    """What the target holds."""
    return sorted(place.query(f"select {columns} from {table(place, name)}"), key=repr)


def export(lake: Lakehouse, place: Place, spec: TableExport = MERGE, *, full: bool = False) -> Exported:
    return export_table(lake, spec, place.database, run_id="run-1", full=full)
