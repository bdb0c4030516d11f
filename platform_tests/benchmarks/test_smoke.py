"""Every benchmark works, at a size that tells nothing about speed; so nothing here looks at one."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from platform_tests.benchmarks.__main__ import BENCHMARKS
from platform_tests.kafka_servers import kafka_can_run, registry_can_run
from platform_tests.servers import mariadb_is_installed

from data_platform.lakehouse.settings import REPOSITORY

ROWS = {
    "postgresql": 5,
    "sqlite": 4,
    "postgresql_changes": 2,
    "mariadb_changes": 2 if mariadb_is_installed() else 0,
    "csv": 1,
    "json_lines": 1,
    "parquet": 1,
    "logs": 3,
    "kafka_json": int(kafka_can_run()),
    "kafka_avro": int(kafka_can_run() and registry_can_run()),
    "staging": 1,
    "refusal": 2,
    "increment": 2,
    "scoring": 1,
    "commits": 16,
    "growth": 10,
    "definitions": 2,
    "arrival": 8,
}
MADE_OF_TICKS = "arrival"
"""Its stages may take no time at all."""


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_all_benchmarks_run_and_their_table_has_every_row_with_figures(tmp_path: Path) -> None:
    assert set(ROWS) == set(BENCHMARKS)
    outcome = tmp_path / "outcome.json"
    command = [sys.executable, "-m", "platform_tests.benchmarks", "--scale", "small", "--json", str(outcome)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = json.loads(outcome.read_text(encoding="utf-8"))["rows"]
    assert Counter(row["benchmark"] for row in rows) == Counter({name: count for name, count in ROWS.items() if count})
    for row in rows:
        assert row["what"].strip() in done.stdout
        assert row["verdict"] in done.stdout
        assert math.isfinite(row["ours"]["seconds"])
        assert row["ours"]["seconds"] > 0 or row["benchmark"] == MADE_OF_TICKS
        assert row["ours"]["peak"] > 10
        if row["reference"] is not None:
            figures = (row["ratio"], row["cpu_ratio"], row["reference"]["seconds"], row["reference"]["peak"])
            assert all(math.isfinite(figure) and figure > 0 for figure in figures)
    assert sum(row["aim"] is not None for row in rows) == 22 + mariadb_is_installed()
