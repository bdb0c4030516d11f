"""Real `dp run` and `dp ui` processes are killed over and over, in every way and at any instant, while others write to
the sources. Each time the next run begins within seconds, and in the end every row is there once, and nothing is left.

`KILLS=200 make test-crash` kills so often in all; the figures then are in the file that `KILLS_REPORT` names.
"""

import json
import os
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
from platform_tests.crash.killing import Kill, Killer, wait_until_nothing_runs
from platform_tests.crash.project import Writer, make_project, what_is_wrong

KILLS = int(os.environ.get("KILLS", "10"))
"""How many in all, half of them on each catalog."""

RECOVERED = 40
"""Seconds within which the next run begins, on a machine that is busy with other tests: nothing waits for a time-out of
Dagster's, of which the shortest is a minute."""

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300 + 60 * KILLS)]


@pytest.mark.parametrize("catalog", ["sqlite", "postgresql"])
def test_whatever_is_killed_the_next_run_begins_within_seconds_and_every_row_is_there_once(
    catalog: str, home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if catalog == "postgresql" else None
    project = make_project(tmp_path, home / "extensions", url)
    project.dp("run")
    instants = random.Random(f"{catalog} {KILLS}")
    with dg.DagsterInstance.from_config(str(project.home / "dagster")) as instance:
        killer = Killer(project, instance, instants, tmp_path / "log")
        with Writer(project).writing():
            killer.kill_runs(KILLS // 2 * 3 // 5)
            killer.kill_uis(KILLS // 2 - KILLS // 2 * 3 // 5)
        report(catalog, killer.kills)
        assert wait_until_nothing_runs(project) == []
        project.dp("run")
        assert wait_until_nothing_runs(project) == []
        wrong = what_is_wrong(project, instance)
    assert wrong == [], "\n".join(wrong)
    assert len(killer.kills) == KILLS // 2 + 2, "besides those before the first kill"
    slow = [kill for kill in killer.kills if kill.recovered > RECOVERED]
    assert slow == []


def report(catalog: str, kills: Sequence[Kill]) -> None:
    """Say how long it took, by kind, and write each kill to the file that KILLS_REPORT names."""
    for by, kind in sorted({(kill.by, kill.kind) for kill in kills}):
        times = sorted(kill.recovered for kill in kills if (kill.by, kill.kind) == (by, kind))
        print(f"{catalog}, {by}, {kind}: {len(times)}, median {statistics.median(times):.1f} s, most {times[-1]:.1f} s")
    if file := os.environ.get("KILLS_REPORT"):
        with Path(file).open("a") as lines:
            lines.writelines(json.dumps({"catalog": catalog, **kill.record()}) + "\n" for kill in kills)
