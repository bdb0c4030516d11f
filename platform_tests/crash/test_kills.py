"""Real `dp run` and `dp ui` processes are killed over and over, in every way and at any instant, while others write to
the sources. Each time the next run begins within seconds, and in the end every row is there once, and nothing is left.

`KILLS` is how often in all; each kill is then in the file that `KILLS_REPORT` names.
"""

import json
import os
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from platform_tests.crash.killing import Kill, Killer, wait_until_nothing_runs
from platform_tests.crash.project import Writer, instance_of, make_project, what_is_wrong
from platform_tests.kills import KILLS

FEW = 40
CATALOGS = ["sqlite", "postgresql"]
UI_CATALOGS = CATALOGS if KILLS >= FEW else CATALOGS[:1]
# Three of five kills are of `dp run`, the others of `dp ui`, half of each on either catalog; few of `dp ui` are on
# SQLite alone, as it takes long to start.
RUNS = KILLS * 3 // 5 // len(CATALOGS)
UIS = (KILLS - KILLS * 3 // 5) // len(UI_CATALOGS)

RECOVERED = 60
"""Seconds within which the next run begins, on a machine that is busy with other tests: less than any time-out of
Dagster's, for which nothing may wait."""

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300 + 60 * KILLS)]


@pytest.fixture
def killing(home: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Iterator[Killer]]:
    """What kills in a project on a catalog; after the block nothing may be wrong with it."""

    def begin(catalog: str) -> Iterator[Killer]:
        url = request.getfixturevalue("postgres_url") if catalog == "postgresql" else None
        project = make_project(tmp_path, home / "extensions", url)
        project.dp("run")
        with instance_of(project) as instance:
            killer = Killer(project, instance, random.Random(f"{catalog} {KILLS}"), tmp_path / "log")
            with Writer(project).writing():
                yield killer
            report(catalog, killer.kills)
            assert wait_until_nothing_runs(project) == []
            project.dp("run")
            assert wait_until_nothing_runs(project) == []
            wrong = what_is_wrong(project, instance)
        assert wrong == [], "\n".join(wrong)
        slow = [kill for kill in killer.kills if kill.recovered > RECOVERED]
        assert slow == []

    return begin


@pytest.mark.parametrize("catalog", CATALOGS)
def test_however_dp_run_is_killed_the_next_run_begins_within_seconds_and_every_row_is_there_once(
    killing: Callable[[str], Iterator[Killer]], catalog: str
) -> None:
    with contextmanager(killing)(catalog) as killer:
        killer.kill_runs(RUNS)
    assert len(killer.kills) == RUNS + 1, "besides what was measured before the first kill"


@pytest.mark.parametrize("catalog", UI_CATALOGS)
def test_whatever_is_killed_of_dp_ui_the_next_run_begins_within_seconds_and_every_row_is_there_once(
    killing: Callable[[str], Iterator[Killer]], catalog: str
) -> None:
    with contextmanager(killing)(catalog) as killer:
        killer.kill_uis(UIS)
    assert len(killer.kills) == UIS + 1, "besides what was measured before the first kill"


def report(catalog: str, kills: Sequence[Kill]) -> None:
    """Say how long it took, by kind, and write each kill to the file that KILLS_REPORT names."""
    for by, kind in sorted({(kill.by, kill.kind) for kill in kills}):
        times = sorted(kill.recovered for kill in kills if (kill.by, kill.kind) == (by, kind))
        print(f"{catalog}, {by}, {kind}: {len(times)}, median {statistics.median(times):.1f} s, most {times[-1]:.1f} s")
    if file := os.environ.get("KILLS_REPORT"):
        with Path(file).open("a") as lines:
            lines.writelines(json.dumps({"catalog": catalog, **kill.record()}) + "\n" for kill in kills)
