"""What brings a ledger of an earlier release up to date, one function for each version, run within one transaction
under the writer lock. A migration says what it changes in its own SQL: the tables in `schema` are those of today.
"""

from collections.abc import Callable, Sequence

import duckdb

from data_platform.lakehouse.ledger.names import name


def to_version_2(connection: duckdb.DuckDBPyConnection) -> None:
    """Loads and stagings call their kinds `rows` and `whole`; loads may be retired; every audit has a kind, and only
    sources are in `source`. Heads have a table of their own, files one entry each in `positions`.

    Release 0.1.0 cannot commit a step to it: it writes a column of `positions` that is gone.
    """
    connection.execute(f"CREATE TABLE {name('schema_version')} (version BIGINT, migrated_at TIMESTAMPTZ)")
    for table in ("loads", "stagings"):
        connection.execute(
            f"UPDATE {name(table)} SET kind = CASE kind WHEN 'additions' THEN 'rows' WHEN 'snapshot' THEN 'whole' END "
            "WHERE kind IN ('additions', 'snapshot')"
        )
    connection.execute(f"ALTER TABLE {name('loads')} ADD COLUMN retired_at TIMESTAMPTZ")
    connection.execute(f"ALTER TABLE {name('stagings')} ADD COLUMN rows_removals BIGINT")
    connection.execute(f"UPDATE {name('stagings')} SET rows_removals = 0")
    connection.execute(f"ALTER TABLE {name('audits')} ADD COLUMN IF NOT EXISTS kind VARCHAR")
    connection.execute(
        f"UPDATE {name('audits')} SET kind = CASE WHEN kind = 'full' THEN kind WHEN layer = 'modelled' THEN 'build' "
        "ELSE 'step' END, source = CASE WHEN layer <> 'modelled' THEN source END"
    )
    connection.execute(
        f"CREATE TABLE {name('heads')} (layer VARCHAR, source VARCHAR, table_name VARCHAR, number BIGINT, "
        "moved_at TIMESTAMPTZ)"
    )
    # A file called `#step` took the place of the number, or stood beside it.
    connection.execute(
        f"INSERT INTO {name('heads')} SELECT layer, source, table_name, "
        "coalesce(max(TRY_CAST(value AS BIGINT)), max(last)) AS number, max(moved_at) "
        f"FROM {name('positions')} LEFT JOIN (SELECT 'raw' AS layer, source, table_name, max(load_id) AS last "
        f"FROM {name('loads')} GROUP BY ALL UNION ALL SELECT 'staged', source, table_name, max(staging_id) "
        f"FROM {name('stagings')} GROUP BY ALL) USING (layer, source, table_name) "
        "WHERE partition = '#step' AND layer <> 'platform' GROUP BY layer, source, table_name HAVING number > 0"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE entries AS SELECT p.layer, p.source, p.table_name, p.partition, "
        "p.value || coalesce(':' || c.value, '') AS value "
        f"FROM {name('positions')} AS p LEFT JOIN {name('positions')} AS c "
        "ON (c.layer, c.source, c.table_name, c.partition) "
        "= (p.layer, p.source, p.table_name, p.partition || '#sha256') "
        "WHERE NOT (p.partition = '#step' AND TRY_CAST(p.value AS BIGINT) IS NOT NULL) "
        "AND NOT (p.partition LIKE '%#sha256' AND (p.layer, p.source, p.table_name, "
        f"p.partition) IN (SELECT (layer, source, table_name, partition || '#sha256') FROM {name('positions')}))"
    )
    connection.execute(f"DROP TABLE {name('positions')}")
    connection.execute(
        f"CREATE TABLE {name('positions')} (layer VARCHAR, source VARCHAR, table_name VARCHAR, partition VARCHAR, "
        "value VARCHAR)"
    )
    connection.execute(f"INSERT INTO {name('positions')} FROM entries")
    connection.execute("DROP TABLE entries")
    for view in ("load_performance", "freshness"):  # made anew by the next load
        connection.execute(f"DROP VIEW IF EXISTS {name(view)}")


def to_version_3(connection: duckdb.DuckDBPyConnection) -> None:
    """Entries of a position that mean the same in every source begin with a slash, as no file's path does: a file
    called `digest` was taken for the digest of a whole table, and forgotten with it. Sources and models belong to
    platforms: to the first that writes them from now on. There is a table of the keys that columns were masked with:
    those of earlier releases are not known, the next masked load tells."""
    connection.execute(
        f"UPDATE {name('positions')} SET partition = '/' || partition WHERE layer = 'raw' "
        "AND partition IN ('digest', 'hint') "
        "AND NOT regexp_full_match(value, '[0-9]+:[0-9]+(:[0-9]+)?:[0-9a-f]{64}')"
    )
    connection.execute(
        f"CREATE TABLE {name('owners')} (kind VARCHAR, name VARCHAR, platform VARCHAR, claimed_at TIMESTAMPTZ)"
    )
    connection.execute(
        f"CREATE TABLE {name('mask_keys')} (number BIGINT, fingerprint VARCHAR, source VARCHAR, table_name VARCHAR, "
        "since TIMESTAMPTZ)"
    )


def to_version_4(connection: duckdb.DuckDBPyConnection) -> None:
    """There are tables of datasets, of models, and of the stages that versions of models have been in. Steps say what
    they cost, publications also when their build began and what it wrote; runs that ended have a table. Of what was
    before that is not known. The views are made anew by the next load, with those that are new."""
    connection.execute(
        f"CREATE TABLE {name('datasets')} (name VARCHAR, version BIGINT, snapshot_id BIGINT, built_from BIGINT, "
        "key VARCHAR, time VARCHAR, label VARCHAR, splits VARCHAR, rows BIGINT, hash VARCHAR, code_version VARCHAR, "
        "built_at TIMESTAMPTZ, contract VARCHAR, run_id VARCHAR)"
    )
    connection.execute(
        f"CREATE TABLE {name('models')} (model VARCHAR, version BIGINT, dataset VARCHAR, dataset_version BIGINT, "
        "snapshot_id BIGINT, code_version VARCHAR, parameters VARCHAR, metrics VARCHAR, gates VARCHAR, "
        "framework VARCHAR, file_hash VARCHAR, prediction_hash VARCHAR, run_id VARCHAR, trained_at TIMESTAMPTZ)"
    )
    connection.execute(
        f"CREATE TABLE {name('model_stages')} (model VARCHAR, version BIGINT, stage VARCHAR, since TIMESTAMPTZ, "
        '"by" VARCHAR, reason VARCHAR)'
    )
    measured = {
        "loads": ("bytes_read BIGINT", "cpu_seconds DOUBLE", "peak_bytes BIGINT"),
        "stagings": ("cpu_seconds DOUBLE", "peak_bytes BIGINT"),
        "publications": ("started_at TIMESTAMPTZ", "seconds DOUBLE", "rows_written BIGINT", "bytes BIGINT"),
    }
    for table, columns in measured.items():
        for column in columns:
            connection.execute(f"ALTER TABLE {name(table)} ADD COLUMN {column}")
    connection.execute(
        f"CREATE TABLE {name('runs')} (run_id VARCHAR, job VARCHAR, status VARCHAR, asked_by VARCHAR, asker VARCHAR, "
        "asked_at TIMESTAMPTZ, started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, steps BIGINT, steps_failed BIGINT)"
    )


MIGRATIONS: Sequence[Callable[[duckdb.DuckDBPyConnection], None]] = (to_version_2, to_version_3, to_version_4)
"""The first one leads from version 1 to version 2, and so on."""
