"""Views over the ledger, in the schema `platform`, for questions about the pipeline itself:

- `platform.load_performance`: one row for each table and day (UTC) of loads: how many loads landed and were refused,
  rows read, landed and quarantined, the share quarantined, seconds, rows a second.
- `platform.freshness`: one row for each table: when it was last loaded and staged, how many seconds ago, and how many
  loads wait to be staged.

They are created with the first load and hold no rows of their own. What is written to the ledger is in
`lakehouse.ledger`.
"""

import duckdb

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.queries import AWAITING_STAGING
from data_platform.lakehouse.transaction import commit

VIEWS = {
    "load_performance": f"""
        SELECT source, table_name, CAST(started_at AS DATE) AS day,
            count(*) FILTER (status = 'landed') AS loads,
            count(*) FILTER (status = 'refused') AS loads_refused,
            sum(rows_read) AS rows_read,
            sum(rows_landed) AS rows_landed,
            sum(rows_quarantined) AS rows_quarantined,
            sum(rows_quarantined) / nullif(sum(rows_read), 0) AS quarantined_share,
            sum(bytes) AS bytes,
            sum(epoch(ended_at - started_at)) AS seconds,
            sum(rows_read) / nullif(sum(epoch(ended_at - started_at)), 0) AS rows_per_second
        FROM {name("loads")}
        GROUP BY ALL""",
    "freshness": f"""
        SELECT source, table_name, l.loaded_at, s.staged_at,
            epoch(now() - l.loaded_at) AS seconds_since_load,
            epoch(now() - s.staged_at) AS seconds_since_staging,
            coalesce(a.loads, 0) AS loads_awaiting_staging
        FROM (
            SELECT source, table_name, max(ended_at) AS loaded_at
            FROM {name("loads")} WHERE status = 'landed' GROUP BY ALL
        ) AS l
        LEFT JOIN (
            SELECT source, table_name, max(ended_at) AS staged_at
            FROM {name("stagings")} WHERE status = 'staged' GROUP BY ALL
        ) AS s USING (source, table_name)
        LEFT JOIN (SELECT source, table_name, count(*) AS loads FROM {AWAITING_STAGING} GROUP BY ALL) AS a
        USING (source, table_name)""",
}


def ensure_views(lake: Lakehouse) -> None:
    """Create the views that do not exist yet; the ledger must."""
    try:
        for view in VIEWS:
            lake.connection.sql(f"FROM {name(view)}")  # bound, not run
    except duckdb.CatalogException:
        replace_views(lake)


def replace_views(lake: Lakehouse) -> None:
    """Create the views, or bring those of an earlier release up to date."""

    def create(connection: duckdb.DuckDBPyConnection) -> None:
        for view, query in VIEWS.items():
            connection.execute(f"CREATE OR REPLACE VIEW {name(view)} AS {query}")

    commit(lake, create)
