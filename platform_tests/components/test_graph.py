"""The whole of nyc_flights as Dagster sees it, as text: what changes in it changes in review.

`UPDATE_SNAPSHOTS=1 pytest platform_tests/components/test_graph.py` writes `graph.txt` anew.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from data_platform.components.platform import platform_definitions

SNAPSHOT = Path(__file__).parent / "graph.txt"
PACKAGE = Path(__file__).parents[2] / "platform" / "nyc_flights"


def described(definitions: dg.Definitions) -> Iterator[str]:
    """Assets with what they depend on, then jobs, schedules and sensors, a line each."""
    graph = definitions.resolve_asset_graph()
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        yield "/".join(key.path)
        yield f"    from {', '.join(sorted('/'.join(parent.path) for parent in node.parent_keys)) or 'nothing'}"
        owners = " ".join(node.owners) or "none"
        yield f"    group {node.group_name}, kinds {' '.join(sorted(node.kinds))}, owners {owners}"
        yield f"    checks {' '.join(check.name for check in sorted(node.check_keys)) or 'none'}"
        yield f"    pool {' '.join(sorted(node.pools or ())) or 'none'}"
    repository = definitions.get_repository_def()
    for job in sorted(repository.get_all_jobs(), key=lambda job: job.name):
        if not job.name.startswith("__"):
            yield f"job {job.name}: {len(list(job.asset_layer.executable_asset_keys))} assets"
    for schedule in sorted(repository.schedule_defs, key=lambda schedule: schedule.name):
        yield f"schedule {schedule.name}: {schedule.cron_schedule}, {schedule.default_status.value}"
    for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
        yield f"sensor {sensor.name}: every {sensor.minimum_interval_seconds} s, {sensor.default_status.value}"


def test_the_graph_is_as_it_was_reviewed(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "extensions").mkdir(exist_ok=True)
    (tmp_path / "extensions").symlink_to(home / "extensions")
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("DATA_PLATFORM_STRICT", "1")
    for variable in ("OPERATIONS_URL", "WEATHER_URL", "WEATHER_TOKEN"):
        # Definitions load without any of it.
        monkeypatch.delenv(variable, raising=False)
    text = "\n".join(described(platform_definitions(PACKAGE))) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text(), "run with UPDATE_SNAPSHOTS=1 if the change is meant"
