"""The SQL of the views over the ledger, by name. What they tell is in `observability.views`, which makes them."""

from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.queries import AWAITING_STAGING


def seconds(begin: str, end: str) -> str:
    """The seconds between two columns of times in SQL; 0 where a clock that was set back has the end before the
    beginning, as no time is negative. NULL where there is no beginning."""
    return f"epoch(greatest({end}, {begin}) - {begin})"


def day(time: str) -> str:
    """The day in UTC of a column of times in SQL, whatever the time zone of the session is."""
    return f"({time} AT TIME ZONE 'UTC')::DATE"


STEPS = f"""
    SELECT 'raw/' || source || '/' || table_name AS asset, 'load' AS kind, load_id AS step_id, run_id,
        status AS outcome, started_at, ended_at, {seconds("started_at", "ended_at")} AS seconds,
        NULL::DOUBLE AS seconds_waited, rows_read AS rows_in, rows_landed AS rows_out, rows_quarantined,
        rows_read / nullif({seconds("started_at", "ended_at")}, 0) AS rows_per_second,
        cpu_seconds, peak_bytes, bytes_read, bytes AS bytes_written
    FROM {name("loads")}
    UNION ALL
    SELECT 'staged/' || s.source || '/' || s.table_name, 'stage', s.staging_id, s.run_id,
        s.status, s.started_at, s.ended_at, {seconds("s.started_at", "s.ended_at")},
        CASE WHEN s.kind IN ('rows', 'whole') THEN {seconds("l.ended_at", "s.started_at")} END,
        s.rows_read, s.rows_inserted + s.rows_updated, s.rows_quarantined,
        s.rows_read / nullif({seconds("s.started_at", "s.ended_at")}, 0),
        s.cpu_seconds, s.peak_bytes, NULL, s.bytes
    FROM {name("stagings")} AS s LEFT JOIN {name("loads")} AS l
    ON (l.source, l.table_name, l.load_id) = (s.source, s.table_name, s.load_to)
    UNION ALL
    SELECT 'modelled/' || model, 'model', publication_id, run_id,
        'published', started_at, published_at, seconds,
        NULL, NULL, rows_written, NULL, NULL, NULL, NULL, NULL, bytes
    FROM {name("publications")}"""
"""Every step that committed something, in columns that all kinds of steps share."""

VIEWS = {
    "load_performance": f"""
        SELECT source, table_name, {day("started_at")} AS day,
            count(*) FILTER (status = 'landed') AS loads,
            count(*) FILTER (status = 'refused') AS loads_refused,
            sum(rows_read) AS rows_read,
            sum(rows_landed) AS rows_landed,
            sum(rows_quarantined) AS rows_quarantined,
            sum(rows_quarantined) / nullif(sum(rows_read), 0) AS quarantined_share,
            sum(bytes) AS bytes,
            sum({seconds("started_at", "ended_at")}) AS seconds,
            sum(rows_read) / nullif(sum({seconds("started_at", "ended_at")}), 0) AS rows_per_second
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
    "step_performance": STEPS,
    "asset_performance": f"""
        SELECT asset, kind,
            count(*) AS steps,
            count(*) FILTER (outcome = 'refused') AS steps_refused,
            sum(seconds) AS seconds,
            median(seconds) AS seconds_median,
            any_value(seconds_median_before) AS seconds_median_before,
            max(seconds) AS seconds_longest,
            median(seconds_waited) AS seconds_waited_median,
            sum(rows_in) / nullif(sum(seconds) FILTER (rows_in IS NOT NULL), 0) AS rows_per_second,
            sum(cpu_seconds) AS cpu_seconds,
            max(peak_bytes) AS peak_bytes,
            max(ended_at) AS ended_at
        FROM ({STEPS})
        LEFT JOIN (
            SELECT asset, kind, median(seconds) AS seconds_median_before
            FROM ({STEPS})
            WHERE ended_at BETWEEN now() - INTERVAL 28 DAY AND now() - INTERVAL 7 DAY
            GROUP BY asset, kind
        ) USING (asset, kind)
        WHERE ended_at > now() - INTERVAL 7 DAY
        GROUP BY asset, kind""",
    "run_performance": f"""
        SELECT run_id, job, status, asked_by, asker, asked_at, r.started_at, r.ended_at,
            {seconds("asked_at", "coalesce(r.started_at, r.ended_at)")} AS seconds_waited,
            {seconds("r.started_at", "r.ended_at")} AS seconds,
            steps, steps_failed,
            coalesce(c.rows_landed, 0)::BIGINT AS rows_landed,
            coalesce(c.rows_quarantined, 0)::BIGINT AS rows_quarantined,
            c.cpu_seconds
        FROM {name("runs")} AS r
        LEFT JOIN (
            SELECT run_id, sum(rows_landed) AS rows_landed, sum(rows_quarantined) AS rows_quarantined,
                sum(cpu_seconds) AS cpu_seconds
            FROM (
                -- The tables of one reading are committed together, and each has the processor time of all.
                SELECT run_id, sum(rows_landed) AS rows_landed, sum(rows_quarantined) AS rows_quarantined,
                    max(cpu_seconds) AS cpu_seconds
                FROM {name("loads")} GROUP BY run_id, source, ended_at
                UNION ALL
                SELECT run_id, 0, rows_quarantined, cpu_seconds FROM {name("stagings")}
            ) GROUP BY run_id
        ) AS c USING (run_id)""",
    "table_growth": f"""
        SELECT asset, day, rows_added, sum(rows_added) OVER before::BIGINT AS rows, bytes_written
        FROM (
            SELECT asset, day, sum(rows)::BIGINT AS rows_added, sum(bytes)::BIGINT AS bytes_written
            FROM (
                SELECT 'raw/' || source || '/' || table_name AS asset, {day("ended_at")} AS day,
                    rows_landed AS rows, bytes
                FROM {name("loads")} WHERE status = 'landed'
                UNION ALL
                SELECT 'raw/' || source || '/' || table_name, {day("retired_at")}, -rows_landed, 0
                FROM {name("loads")} WHERE retired_at IS NOT NULL
                UNION ALL
                SELECT 'staged/' || source || '/' || table_name, {day("ended_at")}, rows_inserted - rows_deleted, bytes
                FROM {name("stagings")} WHERE status = 'staged'
                UNION ALL
                SELECT 'modelled/' || model, {day("published_at")},
                    rows - lag(rows, 1, 0) OVER (PARTITION BY model ORDER BY publication_id), bytes
                FROM {name("publications")}
            ) GROUP BY asset, day
        )
        WINDOW before AS (PARTITION BY asset ORDER BY day)""",
    "quarantine_by_reason": f"""
        SELECT source, table_name, column_name, rule, sum(rows)::BIGINT AS rows, count(*) AS steps,
            min(found_at) AS first_at, max(found_at) AS last_at
        FROM (
            SELECT source, table_name, NULL AS column_name, 'cannot be read' AS rule, rows_quarantined AS rows,
                ended_at AS found_at
            FROM {name("loads")} WHERE rows_quarantined > 0
            UNION ALL
            SELECT source, table_name, nullif(violation ->> '$.column', ''), violation ->> '$.check',
                (violation ->> '$.rows')::BIGINT, audited_at
            FROM (
                SELECT source, table_name, audited_at, unnest(from_json(violations, '["JSON"]')) AS violation
                FROM {name("audits")} WHERE kind = 'step' AND violations <> '[]'
            )
            WHERE (violation ->> '$.fatal')::BOOLEAN
        )
        GROUP BY source, table_name, column_name, rule""",
    "model_versions": f"""
        SELECT m.model, m.version, s.stage, s.since, s."by", s.reason, s.promoted_at,
            m.dataset, m.dataset_version, d.rows AS dataset_rows, m.code_version, m.framework, m.trained_at, m.run_id
        FROM {name("models")} AS m
        LEFT JOIN (
            SELECT model, version, max(since) AS since,
                arg_max(stage, since) AS stage, arg_max("by", since) AS "by", arg_max(reason, since) AS reason,
                max(since) FILTER (stage = 'production') AS promoted_at
            FROM {name("model_stages")}
            GROUP BY model, version
        ) AS s USING (model, version)
        LEFT JOIN {name("datasets")} AS d ON (d.name, d.version) = (m.dataset, m.dataset_version)""",
    "model_metrics": f"""
        SELECT model, version, figure.key AS metric, figure.value AS value
        FROM (
            SELECT model, version, unnest(map_entries(from_json(metrics, '"MAP(VARCHAR, DOUBLE)"'))) AS figure
            FROM {name("models")}
        )""",
    "model_gates": f"""
        SELECT model, version, gate.name AS gate, gate.passed AS passed, gate.reason AS reason
        FROM (
            SELECT model, version, unnest(
                from_json(gates, '[{{"name": "VARCHAR", "passed": "BOOLEAN", "reason": "VARCHAR"}}]')
            ) AS gate
            FROM {name("models")}
        )""",
}
"""By name; all of them are made in one commit, so that the last one tells whether all of this release are there."""
