"""The SQL of the views over the ledger, by name. What they tell is in `observability.views`, which makes them."""

from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.queries import AWAITING_STAGING

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
