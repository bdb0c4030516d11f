"""One table that is written, maintained and read by several processes at once:
`python -m platform_tests.lakehouse.polling TASK FOLDER`, with the lakehouse named by the environment as for anybody.
Each task goes on until `FOLDER` has a file `stop`, and prints one line of JSON.

Each commit replaces some keys by newer versions of them, so that every state of the table has the same keys once.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import duckdb
from typer.testing import CliRunner

from data_platform.cli.app import app
from data_platform.lakehouse.connect import (
    CATALOG,
    ONE_VIEW,
    Lakehouse,
    attach_url,
    open_lakehouse,
    shared_lakehouse,
)
from data_platform.lakehouse.extensions import install_extensions
from data_platform.lakehouse.history import read_table, run_query
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.transaction import commit

ROOT = Path(__file__).parents[2]
KEYS = 3_000
FIGURES = "count(*) AS n, sum(key)::BIGINT AS keys, count(DISTINCT key) AS different, min(key) AS least"
RIGHT = (KEYS, KEYS * (KEYS - 1) // 2, KEYS, 0)
"""What the figures are in every state of the table."""

NAME = "polled.items"
ITEMS = f"{CATALOG}.{NAME}"
FEW, MANY = 5, 400
BUILD_SECONDS = 30
"""Longer than a build of models takes here."""
"""Keys in a commit: so few stay in DuckLake's catalog, so many become a file."""


def create(settings: Settings) -> None:
    """Make the table."""
    with open_lakehouse(settings) as lake:

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute(f"CREATE SCHEMA {CATALOG}.polled")
            connection.execute(f"CREATE TABLE {ITEMS} AS SELECT range AS key, 0 AS version FROM range({KEYS})")
            connection.execute(f"CREATE TABLE {CATALOG}.polled.others AS SELECT range AS key FROM range({KEYS})")

        commit(lake, work)


def replace(lake: Lakehouse, version: int) -> None:
    """Put a new version in the place of some keys, and delete some rows of another table."""
    number = FEW if version % 2 else MANY
    first = version * 977 % (KEYS - number)
    which = f"key >= {first} AND key < {first + number}"

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"DELETE FROM {ITEMS} WHERE {which}")
        connection.execute(
            f"INSERT INTO {ITEMS} SELECT range, {version} FROM range({KEYS}) WHERE {which.replace('key', 'range')}"
        )
        connection.execute(f"DELETE FROM {CATALOG}.polled.others WHERE {which}")
        connection.execute(f"INSERT INTO {CATALOG}.polled.others SELECT range FROM range({first}, {first + number})")

    commit(lake, work)


def write(lake: Lakehouse, until: Callable[[], bool]) -> dict[str, Any]:
    """Commit over and over: how long each took [s]."""
    seconds: list[float] = []
    while not until():
        start = time.monotonic()
        replace(lake, len(seconds) + 1)
        seconds.append(time.monotonic() - start)
    return {"commits": seconds}


def keep_up(lake: Lakehouse, until: Callable[[], bool], keep_snapshots: timedelta = timedelta(0)) -> dict[str, Any]:
    """Run maintenance over and over, which keeps no snapshot but the last: how often, and what it did."""
    runs = merged = expired = 0
    while not until():
        done = maintain(lake, keep_snapshots=keep_snapshots)
        runs, merged, expired = runs + 1, merged + done.files_merged, expired + done.snapshots_expired
    return {"runs": runs, "merged": merged, "expired": expired}


def keep_up_beside_builds(lake: Lakehouse, until: Callable[[], bool]) -> dict[str, Any]:
    """The same, but snapshots are kept for as long as a build of models may take: it reads one all along."""
    return keep_up(lake, until, timedelta(seconds=BUILD_SECONDS))


def poll(read: Callable[[Settings], Iterator[Any]]) -> Callable[[Lakehouse, Callable[[], bool]], dict[str, Any]]:
    """A task that reads over and over in one way: how often, and what was not right."""

    def task(lake: Lakehouse, until: Callable[[], bool]) -> dict[str, Any]:
        polled, wrong = 0, []
        while not until():
            for figures in read(lake.settings):
                polled += 1
                if tuple(figures) != RIGHT:
                    wrong.append(figures)
        return {"polled": polled, "wrong": wrong[:5], "times": len(wrong)}

    return task


def dp(*arguments: str) -> Any:
    """What a command of `dp` writes as JSON."""
    with NamedTemporaryFile(suffix=".json") as file:
        done = CliRunner().invoke(app, [*arguments, "--format", "json", "--output", file.name])
        assert done.exit_code == 0, done.output
        return json.loads(Path(file.name).read_text())


def by_dp_sql(settings: Settings) -> Iterator[Any]:
    """`dp sql`."""
    yield dp("sql", f"SELECT {FIGURES} FROM {NAME}")[0].values()


def by_dp_read(settings: Settings) -> Iterator[Any]:
    """`dp read`, which gives the rows themselves."""
    keys = [row["key"] for row in dp("read", NAME, "--columns", "key")]
    yield len(keys), sum(keys), len(set(keys)), min(keys, default=None)


def by_python(settings: Settings) -> Iterator[Any]:
    """The Python API, with one lakehouse for several reads."""
    with open_lakehouse(settings, read_only=True) as lake:
        for _ in range(5):
            yield read_table(lake, NAME).aggregate(FIGURES).fetchall()[0]
            query = run_query(lake, f"SELECT {FIGURES} FROM {NAME}")
            assert query is not None
            yield query.fetchall()[0]


def by_shared_lakehouse(settings: Settings) -> Iterator[Any]:
    """The lakehouse of a process, as sensors, checks and steps use it: reads that belong together see one snapshot."""
    with shared_lakehouse(settings) as lake:
        for _ in range(5):
            with lake.reading():
                first = lake.connection.execute(f"SELECT sum(version) FROM {ITEMS}").fetchall()
                for _ in range(3):
                    time.sleep(0.05)
                    yield lake.connection.execute(f"SELECT {FIGURES} FROM {ITEMS}").fetchall()[0]
                again = lake.connection.execute(f"SELECT sum(version) FROM {ITEMS}").fetchall()
                yield RIGHT if again == first else (first, again)
            yield lake.connection.execute(f"SELECT {FIGURES} FROM {ITEMS}").fetchall()[0]


def by_a_stream(settings: Settings) -> Iterator[Any]:
    """A result that is fetched slowly, while files are replaced."""
    with open_lakehouse(settings, read_only=True) as lake:
        keys: list[int] = []
        stream = lake.connection.execute(f"SELECT key FROM {ITEMS} UNION ALL SELECT key FROM {ITEMS}").to_arrow_reader(
            500
        )
        for batch in stream:
            keys += batch["key"].to_pylist()
            time.sleep(0.02)
        yield len(keys) / 2, sum(keys) / 2, len(set(keys)), min(keys, default=None)


def by_another_duckdb(settings: Settings) -> Iterator[Any]:
    """A DuckDB that is not the platform's own, such as dbt's, opened with the same option."""
    config: dict[str, Any] = {
        "extension_directory": str(install_extensions(settings)),
        "allow_unsigned_extensions": "true",
        **ONE_VIEW,
    }
    with duckdb.connect(config=config) as connection:
        connection.execute("LOAD ducklake")
        connection.execute(f"LOAD {'sqlite_scanner' if settings.catalog_is_sqlite else 'postgres_scanner'}")
        connection.execute(f"ATTACH '{attach_url(settings)}' AS {CATALOG}")
        for _ in range(5):
            yield connection.execute(f"SELECT {FIGURES} FROM {ITEMS}").fetchall()[0]


READERS: dict[str, Callable[[Settings], Iterator[Any]]] = {
    "dp sql": by_dp_sql,
    "dp read": by_dp_read,
    "Python": by_python,
    "shared lakehouse": by_shared_lakehouse,
    "stream": by_a_stream,
    "another DuckDB": by_another_duckdb,
}
TASKS: dict[str, Callable[[Lakehouse, Callable[[], bool]], dict[str, Any]]] = {
    "write": write,
    "maintain": keep_up,
    "maintain beside builds": keep_up_beside_builds,
    **{way: poll(reader) for way, reader in READERS.items()},
}


def start(settings: Settings, task: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Start a task in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
        "DATA_PLATFORM_HOME": str(settings.home),
        "LAKEHOUSE_CATALOG": settings.catalog,
        "LAKEHOUSE_DATA": settings.data,
    }
    command = [sys.executable, "-m", "platform_tests.lakehouse.polling", task, str(folder)]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE)


def begun(folder: Path, task: str) -> Path:
    """The file that a task makes when it begins."""
    return folder / f"begun-{task.replace(' ', '-')}"


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until something is so; an AssertionError if it never is."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def outcome(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """What a task printed when it ended; an AssertionError if it failed."""
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed.decode()
    result: dict[str, Any] = json.loads(printed.decode().splitlines()[-1])
    return result


def main(task: str, folder: str) -> None:
    stop = Path(folder) / "stop"
    with open_lakehouse(settings_from_environment()) as lake:
        begun(Path(folder), task).touch()
        print(json.dumps(TASKS[task](lake, stop.exists)))


if __name__ == "__main__":
    main(*sys.argv[1:])
