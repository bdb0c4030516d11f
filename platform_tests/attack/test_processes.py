"""Several processes at one lakehouse at once, a clock that is set back, names of files: `dp` as people start it."""

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from platform_tests.crash.killing import Ui, wait_until_nothing_runs
from platform_tests.crash.project import Project, Writer, instance_of, make_project, what_is_wrong
from platform_tests.proxy import proxy_to

pytestmark = [pytest.mark.attack, pytest.mark.timeout(600)]

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long offset(void) { const char *given = getenv("CLOCK_OFFSET"); return given ? atol(given) : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += offset();
    return code;
}

int gettimeofday(struct timeval *now, void *zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int code = real(now, zone);
    now->tv_sec += offset();
    return code;
}

time_t time(time_t *there) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (there) *there = now.tv_sec;
    return now.tv_sec;
}
"""
"""A library that moves the clock of a process by so many seconds."""

SILENCES = 4
SILENT_SECONDS = 5.0
"""For how long nothing comes: longer than the limit of the run's settings."""

NAMES = (
    "orders-#step.csv",
    "orders-a\nb.csv",
    "orders-...csv",
    f"orders-{'x' * 240}.csv",
    'orders-it\'s "quoted" %s {0} $(date).csv',
    "orders-[1]*?.csv",
    "orders- -rf \N{RIGHT-TO-LEFT OVERRIDE}.csv",
    "orders-..%2f..%2fescape.csv",
    "orders-\\..\\x.csv",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Project:
    (home / "extensions").mkdir(exist_ok=True)
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    return make_project(tmp_path, home / "extensions", url)


def require_well(project: Project) -> None:
    """Load what is left, and see to it that all is well."""
    project.dp("run")
    assert wait_until_nothing_runs(project) == []
    with instance_of(project) as instance:
        assert what_is_wrong(project, instance) == []


def test_three_runs_at_once_beside_a_ui_whose_sensors_run_the_same_lose_and_double_nothing(project: Project) -> None:
    log = project.home / "log"
    project.dp("run")
    ui = Ui(project, log)
    with Writer(project).writing():
        ui.start()
        try:
            for _ in range(2):
                runs = [project.start("run", log=log) for _ in range(3)]
                assert [run.wait(300) for run in runs] == [0, 0, 0], log.read_text()
            assert ui.process.poll() is None, ui.tail()
        finally:
            ui.stop()
    assert wait_until_nothing_runs(project) == []
    require_well(project)


@pytest.mark.parametrize("project", ["postgresql"], indirect=True)
def test_a_catalog_that_falls_silent_at_any_instant_of_a_run_neither_holds_it_for_ever_nor_loses_a_row(
    project: Project,
) -> None:
    log, instants, writer = project.home / "log", random.Random("silence"), Writer(project)
    with proxy_to(project.catalog) as proxy:
        limits = {
            "LAKEHOUSE_CATALOG": f"{proxy.url}?connect_timeout=2",
            "LAKEHOUSE_CATALOG_TIMEOUT": "2s",
        }
        whole = project.start("run", log=log, **limits)
        assert whole.wait(120) == 0, log.read_text()
        answered = proxy.forwarded
        for _ in range(SILENCES):
            writer.write()
            proxy.forwarded, proxy.stall_after = 0, instants.randrange(answered)
            run = project.start("run", log=log, **limits)
            until = time.monotonic() + 60
            while proxy.forwarded < proxy.stall_after and run.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.01)
            time.sleep(SILENT_SECONDS)
            proxy.stall_after = None
            assert run.wait(120) in (0, 1), log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    require_well(project)


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_clock_that_is_set_back_by_a_day_and_forward_again_loses_no_row(project: Project, tmp_path: Path) -> None:
    (tmp_path / "clock.c").write_text(CLOCK)
    library = tmp_path / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "clock.c", "-ldl"], check=True)
    writer = Writer(project)
    for offset in (0, -86_400, 0, 3 * 86_400, 0):
        writer.write()
        writer.write()
        code = project.start("run", log=tmp_path / "log", LD_PRELOAD=str(library), CLOCK_OFFSET=str(offset)).wait(120)
        assert code == 0, (tmp_path / "log").read_text()
    require_well(project)


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_files_of_any_name_land_beside_one_that_cannot_be_read_which_is_said(project: Project) -> None:
    header = "order_id,ordered_at,customer,status,amount\n"
    for number, name in enumerate(NAMES):
        text = f"{header}{9_000_000 + number},2026-01-01T00:00:00Z,c,open,1.5\n"
        (project.landing / name).write_text(text)
    bad = project.landing / "orders-unreadable.csv"
    os.symlink(project.landing / "nowhere", bad)  # noqa: PTH211 - what it points to is not there
    log = project.home / "log"
    assert project.start("run", log=log).wait(120) in (0, 1)
    said = log.read_text()
    bad.unlink()
    assert project.start("run", log=log).wait(120) == 0, log.read_text()
    assert "Traceback" not in said, said
    require_well(project)
