"""Commits a second with 1, 4, 8 and 16 writers, each a process with a table of its own, on both catalogs; and how long
the longest commit took, from asking for it to its end. Writing the rows is not part of it: a step does that beforehand.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from platform_tests.benchmarks.measure import CaseError, Measured, Say
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale
from platform_tests.benchmarks.worker import cpu_seconds, peak_mib
from platform_tests.servers import fresh_database, running_postgres

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import REPOSITORY, Settings, settings_from_environment
from data_platform.lakehouse.tables import Table, ensure_table
from data_platform.lakehouse.transaction import DataFile, commit, copy_to, new_path, register

WRITERS = (1, 4, 8, 16)
SECONDS = {"small": 1.0, "medium": 5.0, "full": 15.0}
PATIENCE = 300
ROWS = 1_000
COLUMNS = {"id": "BIGINT", "amount": "DOUBLE"}


def commits(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """For each catalog and number of writers: the time of one commit, the writers taken together, and the longest."""
    home = settings_from_environment().home
    yield from _rows("SQLite", Settings(home, str(scratch / "catalog.sqlite"), str(scratch / "data")), scale, say)
    with running_postgres() as server, fresh_database(server) as url:
        yield from _rows("PostgreSQL", Settings(home, url, str(scratch / "data-postgresql")), scale, say)


def _rows(catalog: str, settings: Settings, scale: Scale, say: Say) -> Iterator[Row]:
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    alone: Measured | None = None
    for writers in WRITERS:
        say(f"{writers} on {catalog}")
        found = _together(settings, writers, SECONDS[scale.name])
        taken = [seconds for one in found for seconds in one["commits"]]
        peak, cpu = max(one["peak"] for one in found), sum(one["cpu"] for one in found) / len(taken)
        each = Measured(SECONDS[scale.name] / len(taken), cpu, peak, len(taken))
        rate = len(taken) / SECONDS[scale.name]
        who = "1 writer" if writers == 1 else f"{writers} writers"
        beside = "the same with 1 writer" if alone else ""
        yield Row("commits", f"{catalog}, {who}: a commit ({rate:.1f} a second)", each, beside, alone)
        longest = Measured(max(taken), cpu, peak, len(taken), (statistics.median(taken), max(taken)))
        yield Row("commits", f"{catalog}, {who}: the longest commit", longest)
        alone = alone or each


def _together(settings: Settings, writers: int, seconds: float) -> list[dict[str, Any]]:
    """Start the writers, let them begin at one moment, and return what each measured."""
    command = [sys.executable, "-m", __name__, str(settings.home), settings.catalog, settings.data, str(seconds)]
    processes = [
        subprocess.Popen(
            [*command, f"t{number}"], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(writers)
    ]
    outcomes = []
    try:
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise CaseError("a writer ended before it began")
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            printed, _ = process.communicate(timeout=PATIENCE)
            if process.returncode != 0:
                raise CaseError(f"a writer ended with status {process.returncode}")
            outcomes.append(json.loads(printed))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return outcomes


def write(home: str, catalog: str, data: str, seconds: str, name: str) -> dict[str, Any]:
    """Commit a file of rows and a position, as a load does, over and over: how long each commit took [s]."""
    table = Table("raw_bench", name)
    with open_lakehouse(Settings(Path(home), catalog, data)) as lake:
        commit(lake, lambda connection: ensure_table(connection, table, COLUMNS))
        head = ledger.head(lake, "raw", "bench", name)
        print("ready", flush=True)
        sys.stdin.readline()
        began, cpu, taken = time.monotonic(), cpu_seconds(), list[float]()
        while time.monotonic() - began < float(seconds):
            file = copy_to(lake, f"SELECT range AS id, range / 7 AS amount FROM range({ROWS})", new_path(lake, table))
            assert file is not None
            files = [file]

            def work(
                connection: duckdb.DuckDBPyConnection, files: list[DataFile] = files, head: ledger.Head = head
            ) -> ledger.Head:
                register(connection, table, files)
                return ledger.advance(connection, head, {"n": str(head.number)}, datetime.now(UTC))

            start = time.monotonic()
            head = commit(lake, work)
            taken.append(time.monotonic() - start)
    return {"commits": taken, "cpu": cpu_seconds() - cpu, "peak": peak_mib()}


if __name__ == "__main__":
    print(json.dumps(write(*sys.argv[1:])))
