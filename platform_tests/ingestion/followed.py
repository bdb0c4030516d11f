"""A table of PostgreSQL to which somebody writes all along, read by programs of others: a Singer tap, and a resource of
dlt. What is read, and what has come of it, for tests that kill and cut."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dlt
import psycopg

from data_platform.contracts import Contract, Field
from data_platform.ingestion.dlt.source import DltResources, DltTable
from data_platform.ingestion.load import LoadResult, load_tables
from data_platform.ingestion.singer.options import SingerTable, SingerTap
from data_platform.ingestion.singer.source import Singer
from data_platform.ingestion.source import Source, TableOptions
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.state import make_folder
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

SETUP = (
    "create table ev (id bigint primary key, note text not null)",
    "insert into ev select i, 'first' from generate_series(1, 200) i",
)
POSTGRES = "meltanolabs-tap-postgres==0.8.3"
READINGS = {"tap": "tap", "dlt": "ev"}
"""The name of the reading of each kind of program."""


class Event(Contract):
    """One event."""

    id: int = Field(ge=1)
    note: str


RECIPE = Recipe("crm", "ev", ("id",), Event)


def taps() -> Path:
    """Where taps are installed: once for a machine, as each is some sixty megabytes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data-platform-tests"


def config_of(url: str) -> dict[str, Any]:
    """The configuration of the tap."""
    parts = urlsplit(url)
    return {
        "host": parts.hostname,
        "port": parts.port,
        "user": parts.username,
        "password": "x",
        "database": parts.path.strip("/"),
        "filter_schemas": ["public"],
        "ssl_enable": False,
    }


@dlt.resource(primary_key="id")
def ev(url: str, new: Any = dlt.sources.incremental("id", initial_value=0)) -> Iterator[Any]:  # noqa: B008 - as dlt has it
    """Events that are new, in pages."""
    with psycopg.connect(url) as server, server.cursor("pages") as cursor:
        cursor.execute("select id, note from ev where id >= %s order by id", [new.last_value])
        while page := cursor.fetchmany(50):
            yield [{"id": number, "note": note} for number, note in page]


def source(kind: str, url: str, settings: Settings, **options: Any) -> tuple[Source, Mapping[str, TableOptions]]:
    """The source of a kind, and its table."""
    given: dict[str, Any] = {"key": ["id"], "contract": "platform_tests.ingestion.followed.Event"}
    if kind == "dlt":
        table = DltTable(**given)
        return DltResources(partial(ev, url), {"ev": table}, "followed.ev"), {"ev": table}
    make_folder(settings.spool, settings)
    stream = SingerTable(**given, stream="public-ev", replication="incremental", replication_key="id")
    tap = SingerTap(**{"tap": "tap-postgres", "install": POSTGRES, "config": config_of(url), **options})
    return Singer(tap, {"ev": stream}, taps(), settings.spool), {"ev": stream}


def follow(lake: Lakehouse, kind: str, url: str, **options: Any) -> LoadResult:
    """Load what is new, and stage it."""
    opened, tables = source(kind, url, lake.settings, **options)
    found = load_tables(lake, "crm", opened, READINGS[kind], tables, run_id="follow")
    stage_table(lake, RECIPE, run_id="follow")
    return found["ev"]


@dataclass
class Writing:
    """Writes events until it is told to stop; `last` is the number of the last."""

    url: str
    last: int = 200
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as server:
            while not self.stopped.wait(0.01):
                server.execute("insert into ev values (%s, 'later')", [self.last + 1])
                self.last += 1


@contextmanager
def writing(url: str) -> Iterator[Writing]:
    """Somebody who writes for the time of the block."""
    one = Writing(url)
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        yield one
    finally:
        one.stopped.set()
        thread.join()


def check(lake: Lakehouse, last: int) -> None:
    """Every event has landed, in its order; a tap gives the one at its bookmark again, and no other; each is staged
    once."""
    landed = [
        int(number)
        for (number,) in lake.connection.execute("SELECT id FROM raw_crm.ev ORDER BY _load_id, _row").fetchall()
    ]
    steps = [after - before for before, after in pairwise(landed)]
    assert set(steps) <= {0, 1}, "one is missing, or out of order"
    assert (landed[0], landed[-1]) == (1, last)
    staged = lake.connection.execute("SELECT id FROM staged_crm.ev ORDER BY id").fetchall()
    assert [number for (number,) in staged] == list(range(1, last + 1))


def processes(settings: Settings) -> list[int]:
    """The taps that run with files of a lakehouse, without their guards."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "tap-postgres" in command and str(settings.spool) in command and "guard.py" not in command:
            found.append(int(entry.name))
    return found
