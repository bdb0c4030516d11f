"""What SQL reaches on a connection that is restricted. Which statements are queries is tested with `dp sql`."""

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from platform_tests import workers

from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import METADATA, open_lakehouse
from data_platform.lakehouse.guard import restrict
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.settings import Settings
from data_platform.staging.step import stage_table


def test_a_restricted_connection_reads_every_table_as_it_is_and_was_and_writes_one_file(
    settings: Settings, tmp_path: Path
) -> None:
    settings = replace(settings, memory="150MB")
    with open_lakehouse(settings) as lake:
        for _ in range(2):
            load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="r")
            stage_table(lake, workers.RECIPE, run_id="r")
        lake.connection.execute("DELETE FROM raw_growing.entries WHERE number < 10")
        version = current_snapshot(lake.connection)
    output = tmp_path / "rows.csv"
    with open_lakehouse(settings, read_only=True) as lake:
        restrict(lake, output)

        def count(query: str) -> int:
            row = lake.connection.sql(f"SELECT count(*) FROM {query}").fetchone()
            assert row is not None
            return int(row[0])

        assert count("raw_growing.entries") == 60
        assert count(f"raw_growing.entries AT (VERSION => {version - 1})") == 80
        assert count("platform.loads") == 2
        assert count(f"ducklake_table_deletions('lake', 'raw_growing', 'entries', 0, {version})") == 20
        spilled = "(SELECT range AS n, repeat(md5(range::VARCHAR), 4) AS s FROM range(2_000_000) ORDER BY s)"
        assert count(f"{spilled} WHERE s > ''") == 2_000_000
        lake.connection.execute(f"COPY (FROM raw_growing.entries) TO '{output}' (FORMAT csv)")
        for statement in (
            f"COPY (SELECT 1) TO '{tmp_path / 'other.csv'}'",
            f"FROM read_text('{output}.txt')",
            "SET enable_external_access = true",
            "DELETE FROM raw_growing.entries",
            f"DELETE FROM {METADATA}.ducklake_snapshot",
            f"ATTACH '{tmp_path / 'other.duckdb'}' AS other",
        ):
            with pytest.raises(duckdb.Error):
                lake.connection.execute(statement)
    assert [file.name for file in tmp_path.glob("*.csv")] == ["rows.csv"]
    assert len(output.read_text().splitlines()) == 61
