"""Views over the ledger, in the schema `platform`, for questions about the pipeline itself:

- `platform.load_performance`: one row for each table and day (UTC) of loads: how many loads landed and were refused,
  rows read, landed and quarantined, the share quarantined, seconds, rows a second.
- `platform.freshness`: one row for each table: when it was last loaded and staged, how many seconds ago, and how many
  loads wait to be staged.
- `platform.step_performance`: one row for each commit of a load, each staging step and each publication of a model:
  when, how long, how long its rows had waited, rows in and out, what it cost.
- `platform.asset_performance`: the same added up for each table and kind of step, of the last 7 days.
- `platform.run_performance`: one row for each run that has ended: who asked for it, how long it waited and took.
- `platform.table_growth`: one row for each table and day (UTC) on which it changed: rows and bytes.
- `platform.quarantine_by_reason`: one row for each table and reason that rows were quarantined for.
- `platform.model_versions`: one row for each version of a model: its stage now, and what it was trained on.
- `platform.model_metrics`: one row for each version of a model and metric of its test split.
- `platform.model_gates`: one row for each version of a model and gate: whether it was passed, and why or why not.

Their columns and units are in `.readme/operations.md`. They are created with the first load and hold no rows of their
own. What is written to the ledger is in
`lakehouse.ledger`.
"""

import duckdb

from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.ledger.names import SCHEMA, name
from data_platform.lakehouse.ledger.views import VIEWS
from data_platform.lakehouse.transaction import commit


def ensure_views(lake: Lakehouse) -> None:
    """Create the views if one of that name does not exist yet; the ledger must. It is looked for after each load, so
    that no more is asked: whether they are those of this release, `replace_views` finds out."""
    *_, last = VIEWS
    try:
        with lake.reading():
            lake.connection.sql(f"FROM {name(last)}")  # bound, not run
    except duckdb.CatalogException:
        replace_views(lake)


def replace_views(lake: Lakehouse) -> bool:
    """Create the views, or bring those of an earlier release up to date; whether any of them was not as it is to be."""
    with lake.reading():  # what is made in it is not kept
        before = _stored(lake.connection)
        _create(lake.connection)
        if _stored(lake.connection) == before:
            return False
    commit(lake, _create)
    return True


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    for view, query in VIEWS.items():
        connection.execute(f"CREATE OR REPLACE VIEW {name(view)} AS {query}")


def _stored(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """The views that are there, as DuckDB writes their SQL."""
    found = "SELECT view_name, sql FROM duckdb_views() WHERE (database_name, schema_name) = (?, ?) ORDER BY ALL"
    return connection.execute(found, [CATALOG, SCHEMA]).fetchall()
