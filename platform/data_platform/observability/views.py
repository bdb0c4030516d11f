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

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.views import VIEWS
from data_platform.lakehouse.transaction import commit


def ensure_views(lake: Lakehouse) -> None:
    """Create the views if those of this release do not exist yet; the ledger must."""
    *_, last = VIEWS
    try:
        with lake.reading():
            lake.connection.sql(f"FROM {name(last)}")  # bound, not run
    except duckdb.CatalogException:
        replace_views(lake)


def replace_views(lake: Lakehouse) -> None:
    """Create the views, or bring those of an earlier release up to date."""

    def create(connection: duckdb.DuckDBPyConnection) -> None:
        for view, query in VIEWS.items():
            connection.execute(f"CREATE OR REPLACE VIEW {name(view)} AS {query}")

    commit(lake, create)
