"""What a step costs in a lakehouse that has become large, beside the same in a new one: loading and staging some small
tables, in a process that has the lakehouse open and in one that opens it; on both catalogs. The large ones are as
nightly maintenance leaves them.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from platform_tests.benchmarks.measure import Case, Say, measure, prepare
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale
from platform_tests.grown import ROWS, grow, load_and_stage, versions
from platform_tests.servers import Postgres, fresh_database, running_postgres

from data_platform.ingestion.source import Kind
from data_platform.lakehouse.connect import shared_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment

HERE = "platform_tests.benchmarks.growth"

TABLES = 12
"""The small tables that are loaded and staged."""

AIM = 1.3

STEPS: Mapping[str, tuple[str, Kind, int]] = {
    "rows": ("an increment", "rows", ROWS),
    "whole": ("a full refresh", "whole", ROWS),
    "nothing": ("nothing new", "rows", 0),
    "new": ("a new table", "rows", ROWS),
}


def growth(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """For each catalog and size: a table's load and staging of each kind, and one with the opening of the lakehouse."""
    with running_postgres() as server:
        for catalog in ("SQLite", "PostgreSQL"):
            with ExitStack() as databases:
                yield from _rows(catalog, server, databases, scale, scratch, say)


def _rows(catalog: str, server: Postgres, databases: ExitStack, scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    sizes = [(0, 0), *scale.grown]
    places = {}
    for tables, snapshots in sizes:
        say(f"{catalog}: {tables:,} tables, {snapshots:,} versions")
        into = scratch / f"{catalog}-{tables}"
        into.mkdir()
        sqlite = str(into / "catalog.sqlite")
        address = sqlite if catalog == "SQLite" else databases.enter_context(fresh_database(server))
        places[tables, snapshots] = {"catalog": address, "data": str(into / "data")}
        prepare(f"{HERE}:write", scratch, **places[tables, snapshots], tables=tables, snapshots=snapshots)
    for step, (what, _, _) in STEPS.items():
        cases = {str(size): Case(f"{HERE}:steps", {**places[size], "step": step}) for size in sizes}
        yield from _compared(catalog, f"{what}, load and staging of {TABLES} tables", sizes, cases, scale, scratch, say)
    cases = {str(size): Case(f"{HERE}:opened", places[size]) for size in sizes}
    yield from _compared(catalog, "opening, load and staging of one table", sizes, cases, scale, scratch, say)


def _compared(
    catalog: str,
    what: str,
    sizes: list[tuple[int, int]],
    cases: Mapping[str, Case],
    scale: Scale,
    scratch: Path,
    say: Say,
) -> Iterator[Row]:
    measured = measure(cases, scratch, scale.repeats, say)
    fresh = measured[str(sizes[0])]
    for tables, snapshots in sizes[1:]:
        among = f"{catalog}: {what}, among {tables:,} tables and {snapshots:,} versions"
        aim = None if "a new table" in what else AIM
        yield Row("growth", among, measured[str((tables, snapshots))], "in a new lakehouse", fresh, aim)


def write(folder: str, catalog: str, data: str, tables: int, snapshots: int) -> Callable[[], int]:
    """The lakehouse, with so many tables and versions, and the small tables, loaded and staged once."""

    def timed() -> int:
        with shared_lakehouse(_settings(catalog, data)) as lake:
            if tables:
                grow(lake, tables, snapshots)
            for number in range(TABLES):
                load_and_stage(lake, f"small{number}")
            return versions(lake)

    return timed


def steps(folder: str, catalog: str, data: str, step: str) -> Callable[[], int]:
    """Load and stage each of the small tables once, in a process that did so before."""
    opened = ExitStack()
    lake = opened.enter_context(shared_lakehouse(_settings(catalog, data)))
    load_and_stage(lake, "small0")
    _, kind, rows = STEPS[step]
    source = f"new{uuid.uuid4().hex[:8]}" if step == "new" else "small"

    def timed() -> int:
        with opened:
            staged = [load_and_stage(lake, f"{source}{number}", rows, kind=kind) for number in range(TABLES)]
            assert sum(one.rows_read for one in staged) == rows * TABLES
            return len(staged)

    return timed


def opened(folder: str, catalog: str, data: str) -> Callable[[], int]:
    """Open the lakehouse, and load and stage one of the small tables."""

    def timed() -> int:
        with shared_lakehouse(_settings(catalog, data)) as lake:
            return load_and_stage(lake, "small0").rows_read

    return timed


def _settings(catalog: str, data: str) -> Settings:
    return Settings(settings_from_environment().home, catalog, data)
