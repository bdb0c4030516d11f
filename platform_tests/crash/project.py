"""A small project of its own for processes that are killed: a database and a folder of files that somebody writes to
all along, their contracts, two models, and what must hold of it all once nothing runs any more.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from data_platform.cli.init import init_project
from data_platform.components.sensors import UNDER_WAY
from data_platform.instance.liveness import FOLDER
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.identity import MARKER
from data_platform.lakehouse.inspection import stored_files
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import Settings

SOURCE = """\
type: data_platform.components.SqlSource
attributes:
  url: "{{ env.SHOP_URL }}"
  every: 5s
  tables:
    bookings:
      key: [id]
      cursor: {column: id}
      contract: acme.defs.shop.contracts.Booking
    customers:
      key: [id]
      cursor: {column: version}
      contract: acme.defs.shop.contracts.Customer
"""
CONTRACTS = '''\
from data_platform.contracts import Contract, Field


class Booking(Contract):
    """One side of a booking: two come together and add up to nothing."""

    id: int = Field(unique=True)
    amount: int


class Customer(Contract):
    """Who buys."""

    id: int = Field(unique=True)
    version: int
'''
MODEL = "select count(*) as sides, sum(amount)::bigint as total from {{ source('shop', 'bookings') }}\n"
MODEL_CONTRACT = '''

class MartBookings(Contract):
    """All bookings: they add up to nothing."""

    sides: int = Field(ge=2)
    total: int = Field(ge=0, le=0)
'''
MODEL_SOURCE = (
    "version: 2\nsources:\n  - {name: shop, schema: staged_shop, database: lake, tables: [{name: bookings}]}\n"
)
TABLES = """
create table bookings (id integer primary key, amount integer not null);
create table customers (id integer primary key, version integer not null);
"""
CUSTOMERS = 12
PAUSE = 0.5
"""Seconds between two transactions of the writer: each of the runs finds something new."""

FILE_EVERY = 3
"""How many transactions there are to a file."""

STATUSES = ("open", "paid", "cancelled")


@dataclass
class Project:
    """The project in `folder`, with its own home, and what its processes see of their environment."""

    folder: Path
    home: Path
    catalog: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        return self.home / "shop.sqlite"

    @property
    def landing(self) -> Path:
        return self.home / "landing" / "acme_example"

    @property
    def settings(self) -> Settings:
        return Settings(self.home, self.catalog, str(self.home / "lakehouse" / "data"))

    def environment(self, **more: str) -> dict[str, str]:
        foreign = ("DAGSTER_HOME", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if name not in foreign}
        return {
            **kept,
            "DATA_PLATFORM_HOME": str(self.home),
            "LAKEHOUSE_CATALOG": self.catalog,
            "LAKEHOUSE_DATA": self.settings.data,
            "PYTHONPATH": str(self.folder / "platform"),
            "SHOP_URL": f"sqlite://{self.database}",
            **more,
        }

    def start(self, *arguments: str, log: Path, **more: str) -> "subprocess.Popen[bytes]":
        """Start `dp` with some arguments, in a process group of its own, as a shell does."""
        # A shell that starts the tests in the background has SIGINT ignored, which what they start would inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "data_platform.cli", *arguments],
                env=self.environment(**more),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def dp(self, *arguments: str) -> str:
        """What `dp` prints, which is to succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "data_platform.cli", *arguments],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"dp {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout


def make_project(folder: Path, extensions: Path, catalog: str | None) -> Project:
    """A project with the first rows in its sources, and nothing loaded. On SQLite if no `catalog` is given."""
    home = folder / "home"
    project = Project(folder / "project", home, catalog or str(home / "lakehouse" / "catalog.sqlite"))
    project.folder.mkdir()
    home.mkdir(mode=0o700)
    (home / "extensions").symlink_to(extensions)
    init_project(project.folder, home / "landing", "acme")
    source = project.folder / "platform" / "acme" / "defs" / "shop"
    source.mkdir()
    (source / "__init__.py").touch()
    (source / "defs.yaml").write_text(SOURCE)
    (source / "contracts.py").write_text(CONTRACTS)
    models = project.folder / "dbt_project" / "models"
    (models / "marts" / "mart_bookings.sql").write_text(MODEL)
    (models / "sources" / "shop.yml").write_text(MODEL_SOURCE)
    with (source.parent / "modelled" / "contracts.py").open("a") as contracts:
        contracts.write(MODEL_CONTRACT)
    for file in project.landing.iterdir():
        file.unlink()
    with closing(sqlite3.connect(project.database)) as connection:
        connection.executescript(TABLES)
    writer = Writer(project)
    for _ in range(2 * FILE_EVERY):
        writer.write()
    return project


class Writer:
    """Somebody who writes to the sources: bookings that are added, customers that change, files that arrive."""

    def __init__(self, project: Project) -> None:
        self.project = project
        with closing(sqlite3.connect(project.database)) as connection:
            # Versions go on where the last writer left off: they never fall.
            (self.transactions,) = connection.execute("select coalesce(max(version), 0) from customers").fetchone()
        self._random = random.Random("writer")
        self._over = threading.Event()

    def write(self) -> None:
        """One transaction, and at times a file."""
        self.transactions += 1
        number, pick = self.transactions, self._random
        with closing(sqlite3.connect(self.project.database, timeout=30)) as connection, connection:
            for _ in range(pick.randint(1, 5)):
                amount = pick.randint(1, 10_000)
                connection.executemany("insert into bookings (amount) values (?)", [(amount,), (-amount,)])
            changed = [(one, number) for one in pick.sample(range(CUSTOMERS), 3)]
            connection.executemany("insert or replace into customers values (?, ?)", changed)
        if number % FILE_EVERY == 0:
            self._file(number)

    def _file(self, number: int) -> None:
        name = self.project.landing / f"orders-{number:06}.csv"
        lines = [
            f"{number * 10 + one},{datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number):%Y-%m-%dT%H:%M:%SZ},"
            f"c{one},{STATUSES[one % 3]},{number}.{one}"
            for one in range(5)
        ]
        partial = name.with_suffix(".part")
        partial.write_text("\n".join(["order_id,ordered_at,customer,status,amount", *lines]) + "\n")
        partial.replace(name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write all along while the block lasts."""

        def go_on() -> None:
            while not self._over.wait(PAUSE):
                self.write()

        thread = threading.Thread(target=go_on, name="writer")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


@contextmanager
def instance_of(project: Project) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance of a project, as its own processes open it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(project.home / "dagster"))
        with dg.DagsterInstance.get() as instance:
            yield instance


def processes_of(project: Project) -> dict[int, str]:
    """The processes of a project, by the home in their environment, and their command lines."""
    mine = f"DATA_PLATFORM_HOME={project.home}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mine in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:  # it ended, or is another user's
            continue
    return found


def what_is_wrong(project: Project, instance: dg.DagsterInstance) -> list[str]:
    """What is not as it should be after everything was loaded and nothing runs; nothing if all is well."""
    wrong = [f"process {number} is left: {command[:200]}" for number, command in processes_of(project).items()]
    # A run that is queued begins with the next UI.
    under_way = instance.get_runs(dg.RunsFilter(statuses=[one for one in UNDER_WAY if one.value != "QUEUED"]))
    wrong += [f"run {one.run_id} is said to be {one.status.value}" for one in under_way]
    wrong += [f"run {one} holds a slot" for one in instance.event_log_storage.get_concurrency_run_ids()]
    wrong += [f"{file} is left" for file in (Path(instance.root_directory) / FOLDER).glob("*")]
    with open_lakehouse(project.settings) as lake:
        wrong += _wrong_rows(project, lake)
        # What the first replaces, the second deletes. Where the clock was set back, a snapshot of the future hides for
        # a pass that the one before it was replaced.
        maintain(lake, keep_snapshots=timedelta(0), keep_files=timedelta(0))
        for _ in range(6):
            if not maintain(lake, keep_snapshots=timedelta(0), keep_files=timedelta(0)).files_deleted:
                break
        else:
            wrong.append("maintenance deletes files for ever")
        known = {Path(file.path) for file in stored_files(lake)}
        there = {file for file in Path(project.settings.data).rglob("*") if file.is_file() and file.name != MARKER}
        # The kilobytes that DuckLake itself writes in a commit that is killed have names that do not tell whose they
        # are: maintenance counts them, and lets them be.
        wrong += [f"{file} is an orphan" for file in sorted(there - known) if not file.name.startswith("ducklake-")]
        wrong += [f"{file} is lost" for file in sorted(known - there)]
        wrong += [f"after maintenance: {one}" for one in _wrong_rows(project, lake)]
    status = json.loads(project.dp("status", "--json"))
    for table in status["tables"]:
        if not table["passed"] or table["awaiting"] or table["reason"] or table["files_lost"]:
            wrong.append(f"dp status of {table['source']}/{table['table']}: {table}")
    wrong += [f"dp status of {model['model']}: {model}" for model in status["models"] if not model["passed"]]
    project.dp("doctor")
    project.dp("doctor", "--deep")
    return wrong


def _wrong_rows(project: Project, lake: Lakehouse) -> list[str]:
    """Tables whose rows are not those of the sources, each once."""
    with closing(sqlite3.connect(project.database)) as connection:
        bookings = connection.execute("select id, amount from bookings order by id").fetchall()
        customers = connection.execute("select id, version from customers order by id").fetchall()
    lines = [
        line.split(",") for file in sorted(project.landing.glob("*.csv")) for line in file.read_text().split("\n")[1:-1]
    ]
    orders = sorted((int(line[0]), line[2], line[3], float(line[4])) for line in lines)
    by_status = [
        (status, len(amounts), round(sum(amounts), 2))
        for status in sorted(STATUSES)
        if (amounts := [order[3] for order in orders if order[2] == status])
    ]
    expected: dict[str, list[Any]] = {
        "SELECT id, amount::BIGINT FROM raw_shop.bookings ORDER BY ALL": bookings,
        "SELECT id, amount FROM staged_shop.bookings ORDER BY ALL": bookings,
        "SELECT id, version FROM staged_shop.customers ORDER BY ALL": customers,
        # Rows at the position may be read again, and are dropped then.
        "SELECT id, max(version::BIGINT) FROM raw_shop.customers GROUP BY id ORDER BY ALL": customers,
        "SELECT count(*) - count(DISTINCT (id, version)) FROM raw_shop.customers": [(0,)],
        "SELECT order_id::BIGINT, count(*) FROM raw_acme_example.orders GROUP BY ALL ORDER BY ALL": [
            (order[0], 1) for order in orders
        ],
        "SELECT order_id, customer, status, amount_usd FROM staged_acme_example.orders ORDER BY ALL": orders,
        "SELECT sides, total FROM modelled.mart_bookings": [(len(bookings), 0)],
        "SELECT status, orders, round(amount_usd, 2) FROM modelled.mart_acme_orders ORDER BY ALL": by_status,
    }
    wrong = []
    for query, rows in expected.items():
        found = lake.connection.execute(query).fetchall()
        if found != rows:
            lost, more = [row for row in rows if row not in found], [row for row in found if row not in rows]
            wrong.append(
                f"{query}: {len(found)} rows for {len(rows)}, without {lost[:5]}, and with {more[:5]} "
                f"({len(found) - len(set(found))} twice)"
            )
    return wrong
