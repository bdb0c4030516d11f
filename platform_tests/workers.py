"""What other processes do to a lakehouse while a test watches: `python -m platform_tests.workers TASK ARGUMENT...`,
with the lakehouse named by the environment as for anybody. Each prints one line of JSON when it ends."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from data_platform.contracts import Contract, Field
from data_platform.errors import PlatformError
from data_platform.ingestion import load as load_module
from data_platform.ingestion.load import load_table, load_tables
from data_platform.ingestion.source import UNKNOWN, Batch, Overlap, Position, Probe, TableOptions
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.publish import Change, publish
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.tables import modelled_table
from data_platform.lakehouse.transaction import ConcurrentStepError, copy_to, new_path
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

ROOT = Path(__file__).parents[1]
TABLE = TableOptions(key=["key"], contract="platform_tests.workers.Entry")
KEYS = 40


class Entry(Contract):
    """One side of a booking: the sides of each booking come together and add up to nothing."""

    key: int = Field(ge=0, lt=KEYS)
    side: int = Field(isin=[-1, 1])
    amount: int = Field(ge=0)
    number: int


RECIPE = Recipe("growing", "entries", ("key", "side"), Entry, newest_by="number", refuse_above=0.5)


def entries(first: int, last: int) -> pa.Table:
    """Rows of the bookings from `first` up to but without `last`; every eleventh is a bad one on both sides. The
    amounts do not compress: a million rows of the rest are fifty kilobytes."""
    numbers = [number for number in range(first, last) for _ in (0, 1)]
    return pa.table(
        {
            "key": pa.array([number * 7 % KEYS for number in numbers], pa.int64()),
            "side": pa.array([(-1, 1)[i % 2] for i in range(len(numbers))], pa.int64()),
            "amount": pa.array([-1 if number % 11 == 0 else scattered(number) for number in numbers], pa.int64()),
            "number": pa.array(numbers, pa.int64()),
        }
    )


def scattered(number: int) -> int:
    """A number of 31 bits that says nothing of its neighbours."""
    return (number * 2_654_435_761 ^ number * number * 40_503) % 2**31


def expected_staged(upto: int) -> list[tuple[int, int, int]]:
    """Key, side and number of the newest good version of each key among the bookings before `upto`."""
    return sorted((key, side, number) for key, number in _newest(upto).items() for side in (-1, 1))


def expected_open(upto: int) -> int:
    """How many bad rows before `upto` no later version of their key has corrected."""
    newest = _newest(upto)
    return 2 * sum(newest.get(number * 7 % KEYS, -1) < number for number in range(0, upto, 11))


def _newest(upto: int) -> dict[int, int]:
    return {number * 7 % KEYS: number for number in range(upto) if number % 11}


class Growing:
    """A source that has always some bookings more, a few batches at a time, each batch with its position."""

    def __init__(self, batches: int = 3, size: int = 20) -> None:
        self.batches, self.size = batches, size

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> Mapping[str, Probe]:
        return dict.fromkeys(tables, UNKNOWN)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["GrowingReading"]:
        yield GrowingReading(self, tables[0], int(after.get("number", "0")))


class GrowingReading:
    def __init__(self, source: Growing, table: str, start: int) -> None:
        self.source, self.table, self.start = source, table, start

    def overlap(self, table: str) -> Overlap | None:
        return None

    def __iter__(self) -> Iterator[Batch]:
        start, size = self.start, self.source.size
        for _ in range(self.source.batches):
            yield Batch(self.table, entries(start, start + size), "rows", {"number": str(start + size)})
            start += size

    def committed(self, position: Position) -> None:
        pass


class Waiting(Growing):
    """A source that says when it was asked, and answers when it is told to: so two loads start from one position."""

    def __init__(self, folder: Path) -> None:
        super().__init__(batches=1)
        self.folder = folder

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[GrowingReading]:
        (self.folder / f"asked-{os.getpid()}").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.01)
        with super().reading(tables, after) as reading:
            yield reading


def race(lake: Lakehouse, folder: str) -> dict[str, Any]:
    """Load once, starting when `folder` has a file `go`."""
    try:
        result = load_table(lake, "growing", Waiting(Path(folder)), "entries", TABLE, run_id="race")
    except ConcurrentStepError as error:
        return {"refused": str(error)}
    return {"landed": result.rows_landed}


def load(lake: Lakehouse, name: str, seconds: str) -> dict[str, Any]:
    """Load table `name` again and again; how many rows landed."""
    landed = 0
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        landed += load_table(lake, "growing", Growing(), name, TABLE, run_id="load").rows_landed
    return {"landed": landed}


def work(lake: Lakehouse, _: str = "") -> dict[str, Any]:
    """Load, stage, build and publish until somebody ends this process."""
    while True:
        load_table(lake, "growing", Growing(), "entries", TABLE, run_id="work")
        staged = stage_table(lake, RECIPE, run_id="work")
        totals = (
            "SELECT key, sum(side * amount)::BIGINT AS total, max(number) AS number FROM staged_growing.entries "
            "AT (VERSION => {}) GROUP BY key"
        )
        publish_query(lake, "totals", totals, {"growing/entries": staged.staging_id}, run_id="work")


def follow(lake: Lakehouse, folder: str) -> dict[str, Any]:
    """Read the log in `folder` to its end, committing every few transactions."""
    from platform_tests.ingestion.log_source import READING, TABLES, LogSource

    load_module.CHUNK_ROWS = 60
    load_tables(lake, "shop", LogSource(Path(folder)), READING, TABLES, run_id="follow")
    return {}


def follow_changes(lake: Lakehouse, url: str) -> dict[str, Any]:
    """Read the log of a PostgreSQL until somebody ends this process, copying first and committing in small pieces."""
    from platform_tests.ingestion.changes.postgresql.following import follow as follow_log
    from platform_tests.ingestion.changes.postgresql.following import source
    from platform_tests.ingestion.changes.postgresql.test_histories import TABLES

    from data_platform.ingestion.changes.postgresql import copy, log

    load_module.CHUNK_ROWS = 60
    copy.BATCH_ROWS, log.ROWS, log.MOST_ROWS = 40, 30, 20  # type: ignore[attr-defined]
    while True:
        follow_log(lake, source(url, TABLES))


def consume(lake: Lakehouse, bootstrap: str, topic: str) -> dict[str, Any]:
    """Load and stage a topic for ever, committing every few messages."""
    from platform_tests.ingestion.kafka.killed import load_and_stage

    from data_platform.ingestion.kafka import source as source_module

    # Of this process alone: a test that is in the same one has those of every load.
    load_module.CHUNK_ROWS, source_module.BATCH_ROWS, source_module.AT_ONCE = 60, 30, 30
    while True:
        load_and_stage(lake, bootstrap, topic)


def follow_lake(lake: Lakehouse, kind: str, folder: str) -> dict[str, Any]:
    """Load and stage a table of a lake for ever, committing every few rows."""
    from platform_tests.ingestion.lakes.killed import load_and_stage

    from data_platform.ingestion.lakes import delta, iceberg

    load_module.CHUNK_ROWS, delta.PART_ROWS, iceberg.PART_ROWS = 5, 5, 5  # type: ignore[attr-defined]
    while True:
        load_and_stage(lake, kind, Path(folder))


def read_mongodb(lake: Lakehouse, url: str, collection: str) -> dict[str, Any]:
    """Load and stage a collection of MongoDB for ever, committing every few rows."""
    from platform_tests.ingestion.mongodb.killed import load_and_stage

    from data_platform.ingestion.mongodb import reading

    load_module.CHUNK_ROWS, reading.BATCH_ROWS = 40, 20
    while True:
        load_and_stage(lake, url, collection)


def scan_hbase(lake: Lakehouse, url: str, table: str) -> dict[str, Any]:
    """Load and stage a table of HBase for ever, committing every few rows."""
    from platform_tests.ingestion.hbase.killed import load_and_stage

    from data_platform.ingestion.hbase import source as source_module

    load_module.CHUNK_ROWS, source_module.BATCH_ROWS, source_module.KEYS_AT_ONCE = 40, 20, 20
    while True:
        load_and_stage(lake, url, table)


def follow_program(lake: Lakehouse, kind: str, url: str) -> dict[str, Any]:
    """Load and stage for ever what a tap or a resource of dlt gives; one that was killed is run again."""
    from platform_tests.ingestion.followed import follow as follow_one

    from data_platform.ingestion.singer import source as source_module

    load_module.CHUNK_ROWS, source_module.BATCH_ROWS = 60, 30
    while True:
        try:
            follow_one(lake, kind, url)
        except PlatformError as error:
            print(error, file=sys.stderr)


def publish_query(lake: Lakehouse, model: str, query: str, built_from: Mapping[str, int], *, run_id: str) -> int:
    """Publish what a query gives at the current snapshot, whose number it takes in the place of `{}`; the snapshot."""
    ledger.ensure_ledger(lake)
    before = ledger.published(lake)
    # In one transaction, in which the snapshot is there whatever maintenance expires meanwhile.
    with lake.reading():
        snapshot = current_snapshot(lake.connection)
        query = query.format(snapshot)
        found = lake.connection.sql(query)
        columns = dict(zip(found.columns, map(str, found.types), strict=True))
        file = copy_to(lake, query, new_path(lake, modelled_table(model)))
    assert file is not None
    publish(lake, [Change(model, columns, file, file.rows, built_from)], snapshot, before, run_id=run_id)
    return snapshot


def fill(lake: Lakehouse, megabytes: str) -> dict[str, Any]:
    """Load and stage a million rows where no file may grow beyond some megabytes, as if the disk were full: what each
    of the two said."""
    limit = int(float(megabytes) * 2**20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    said = {}
    try:
        load_table(lake, "growing", Growing(1, 500_000), "entries", TABLE, run_id="fill")
    except PlatformError as error:
        said["load"] = str(error)
    try:
        stage_table(lake, RECIPE, run_id="fill")
    except PlatformError as error:
        said["stage"] = str(error)
    return said


def read(lake: Lakehouse, folder: str) -> dict[str, Any]:
    """Open the lakehouse and look, over and over, until `folder` has a file `stop`: how often, and what was wrong."""
    looks, wrong = 0, list[str]()
    while not (Path(folder) / "stop").exists():
        with open_lakehouse(lake.settings, read_only=True) as reader:
            for _ in range(5):
                wrong += look(reader)
                looks += 1
    return {"looks": looks, "wrong": wrong}


def look(lake: Lakehouse) -> list[str]:
    """What a reader sees that ought never to be seen."""
    connection = lake.connection
    tables = {
        f"{schema}.{table}"
        for schema, table in connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake' UNION ALL "
            "SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = 'lake'"
        ).fetchall()
    }
    wrong = [
        f"{table}: half a booking"
        for table in sorted(tables)
        if table.startswith("raw_growing.")
        and connection.execute(
            f"SELECT count(*) FROM (SELECT number FROM {table} GROUP BY number HAVING count(*) <> 2)"
        ).fetchone()
        != (0,)
    ]
    if "staged_growing.entries" in tables:
        bad = connection.execute(
            "SELECT count(*) FILTER (amount < 0 OR key < 0 OR side NOT IN (-1, 1)), coalesce(sum(side * amount), 0), "
            "count(*) - count(DISTINCT (key, side)) FROM staged_growing.entries"
        ).fetchone()
        wrong += [f"staged: {bad}"] if bad != (0, 0, 0) else []
    if "modelled.totals" in tables:
        totals = connection.execute("SELECT coalesce(sum(total), 0), count(*) > 0 FROM modelled.totals").fetchone()
        wrong += [f"published: {totals}"] if totals != (0, True) else []
    return wrong


def start(settings: Settings, *arguments: object, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start a worker on the lakehouse of `settings`."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
        "DATA_PLATFORM_HOME": str(settings.home),
        "LAKEHOUSE_CATALOG": settings.catalog,
        "LAKEHOUSE_DATA": settings.data,
    }
    command = [sys.executable, "-m", "platform_tests.workers", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output or subprocess.PIPE)


def outcome(worker: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a worker printed when it ended; an AssertionError if it failed."""
    printed, _ = worker.communicate(timeout=240)
    assert worker.returncode == 0, printed.decode()
    result: dict[str, Any] = json.loads(printed.decode().splitlines()[-1])
    return result


def main(arguments: Sequence[str]) -> None:
    tasks: dict[str, Callable[..., dict[str, Any]]] = {
        "race": race,
        "load": load,
        "work": work,
        "read": read,
        "fill": fill,
        "follow": follow,
        "follow_changes": follow_changes,
        "consume": consume,
        "follow_lake": follow_lake,
        "read_mongodb": read_mongodb,
        "scan_hbase": scan_hbase,
        "follow_program": follow_program,
    }
    task = tasks[arguments[0]]
    with open_lakehouse(settings_from_environment()) as lake:
        print(json.dumps(task(lake, *arguments[1:])))


if __name__ == "__main__":
    main(sys.argv[1:])
