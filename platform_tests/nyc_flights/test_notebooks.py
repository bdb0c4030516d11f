"""The notebooks run as scripts, on a lakehouse with the tables that they read."""

import os
import subprocess
import sys
from pathlib import Path

from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment

NOTEBOOK = Path(__file__).parents[2] / "platform" / "nyc_flights" / "notebooks" / "delays.py"

FLIGHTS = """
    SELECT 'UA' || i AS flight_id, 'EWR' AS origin, (CASE WHEN i % 4 = 0 THEN 40 ELSE 0 END)::DOUBLE AS dep_delay_min,
        TIMESTAMPTZ '2013-01-01 12:30:00+00' + to_minutes(i::INTEGER) AS scheduled_departure FROM range(60) AS r(i)"""
WEATHER = """
    SELECT 'EWR' AS station, TIMESTAMPTZ '2013-01-01 11:00:00+00' + to_hours(i::INTEGER) AS observed_at,
        (7.5 * (1 + i))::DOUBLE AS wind_speed_mph FROM range(3) AS r(i)"""


def test_the_notebook_runs_as_a_script(home: Path, tmp_path: Path) -> None:
    (home / "extensions").mkdir(exist_ok=True)
    (tmp_path / "extensions").symlink_to(home / "extensions")
    environment = {**os.environ, "DATA_PLATFORM_HOME": str(tmp_path)}
    for name in ("LAKEHOUSE_CATALOG", "LAKEHOUSE_DATA"):
        environment.pop(name, None)
    with open_lakehouse(settings_from_environment({"DATA_PLATFORM_HOME": str(tmp_path)})) as lake:
        for table, query in (("operations.flights", FLIGHTS), ("weather.observations", WEATHER)):
            lake.connection.execute(f"CREATE SCHEMA lake.staged_{table.split('.')[0]}")
            lake.connection.execute(f"CREATE TABLE lake.staged_{table} AS {query}")
    done = subprocess.run([sys.executable, str(NOTEBOOK)], env=environment, capture_output=True, text=True, check=False)
    # An hour after it was made, the observation of noon is known.
    assert done.stdout.split() == ["wind_from_mph,flights,late", "5,30,0.267", "15,30,0.233"], done.stderr
