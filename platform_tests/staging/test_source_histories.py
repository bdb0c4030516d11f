"""Small histories of a source table, made by a generator: however its rows are written, the staged table ends as the
source does, or differs by what a cursor cannot see, as the README says; and after a reconciliation it ends as the
source does, whatever was done to it. `make test-histories` tries more of them."""

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from platform_tests.databases import Database, values, with_mariadb
from platform_tests.histories import histories
from platform_tests.servers import running_mariadb

from data_platform.contracts import Contract, Field
from data_platform.ingestion.load import load_table
from data_platform.ingestion.reconcile import reconcile_table
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table


class Item(Contract):
    id: int
    value: int = Field(nullable=True)


LAG = 10
"""Ticks of the source's clock that a row may come late: what every cursor below is given as its lag."""

START = datetime(2024, 5, 2)
KINDS: dict[str, tuple[str, Any]] = {
    "integer": ("bigint", LAG),
    "decimal": ("numeric(20, 3)", LAG),
    "float": ("double precision", LAG),
    "date": ("date", f"{LAG}d"),
    "timestamp": ("timestamp", f"{LAG}s"),
    "timestamptz": ("timestamp with time zone", f"{LAG}s"),
    "text": ("text", f"{LAG}s"),
}
OF_MYSQL = {"timestamp": "datetime(6) null", "timestamptz": "timestamp(6) null"}


def at(kind: str, tick: int | None) -> Any:
    """A tick of the clock as a value of the cursor."""
    if tick is None or kind in ("integer", "decimal", "float"):
        return tick
    if kind == "date":
        return (START + timedelta(days=tick)).date().isoformat()
    moment = START + timedelta(seconds=tick)
    return moment.isoformat() + "Z" if kind == "text" else moment.isoformat(sep=" ")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "insert",
                "insert",
                "update",
                "update",
                "revert",
                "revert",
                "late",
                "delete",
                "rekey",
                "null",
                "back",
                "open",
                "stale",
                "silent",
                "load",
                "load",
                "reconcile",
            ]
        ),
        st.integers(0, 3),
        st.integers(0, 2),
    ),
    min_size=3,
    max_size=14,
)
numbers = itertools.count()


class Table:
    """A source table under a history, with what a cursor cannot see of it: keys that were deleted (`gone`), and those
    that were written without raising the cursor to within the lag (`unseen`)."""

    def __init__(self, database: Database, kind: str) -> None:
        self.database, self.kind, self.name = database, kind, f"t{next(numbers)}"
        self.tick = 100
        self.gone: set[int] = set()
        self.unseen: set[int] = set()
        self.states: dict[int, list[tuple[int, int | None]]] = {}
        self.held: list[tuple[int, int, int]] = []
        declared = KINDS[kind][0]
        if database.kind == "mysql":
            declared = OF_MYSQL.get(kind, declared)
        database.run(f"create table {self.name} (id bigint primary key, value bigint, at {declared})")

    def rows(self) -> dict[int, int]:
        return dict(self.database.rows(f"select id, value from {self.name}"))

    def write(self, key: int, value: int, tick: int | None) -> None:
        row = values([(key, value, at(self.kind, tick))])
        self.database.run(f"delete from {self.name} where id = {key}", f"insert into {self.name} values {row}")
        self.gone.discard(key)
        self.unseen.discard(key)
        if tick is not None and self.tick - tick >= LAG:
            self.unseen.add(key)
        self.states.setdefault(key, []).append((value, tick))

    def step(self, what: str, key: int, value: int) -> None:
        self.tick += key % 2  # some of what follows has the same time
        if what in ("insert", "update"):
            self.write(key, value, self.tick)
        elif what == "revert":
            earlier = [(old, tick) for old, tick in self.states.get(key, []) if tick is None or self.tick - tick < LAG]
            if earlier:
                self.write(key, *earlier[value % len(earlier)])
        elif what == "late":  # within the lag
            self.write(key, value, self.tick - 3)
        elif what == "stale":  # far behind it
            self.write(key, value, self.tick - 50)
        elif what == "silent" and key in self.rows():  # the cursor stays as it was
            self.database.run(f"update {self.name} set value = {value + 7} where id = {key}")
            self.unseen.add(key)
        elif what == "back":  # the clock goes back, and the row's own time with it
            self.tick -= 4
            self.write(key, value, self.tick)
        elif what == "null":
            self.write(key, value, None)
        elif what == "open":  # written now, committed after the next load
            self.held.append((key, value, self.tick))
        elif what in ("delete", "rekey") and key in self.rows():
            if what == "rekey" and key + 10 not in self.rows():
                moment = values([(at(self.kind, self.tick),)])
                self.database.run(f"update {self.name} set id = {key + 10}, at = {moment} where id = {key}")
                self.gone.discard(key + 10)
                self.unseen.discard(key + 10)
            else:
                self.database.run(f"delete from {self.name} where id = {key}")
            self.gone.add(key)

    def commit_held(self) -> None:
        for held in self.held:
            self.write(*held)
        self.held = []


@pytest.fixture(scope="module")
def small_lake(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("histories")
    return Settings(home, f"{folder}/catalog.sqlite", f"{folder}/data")


@pytest.fixture(scope="module", params=["sqlite", "postgresql", pytest.param("mysql", marks=with_mariadb)])
def database(
    request: pytest.FixtureRequest, small_lake: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    if request.param == "mysql":
        with running_mariadb() as url:
            server = Database(f"{url}/mysql", small_lake)
            server.run("drop database if exists histories", "create database histories character set utf8mb4")
            server.close()
            mysql = Database(f"{url}/histories", small_lake)
            yield mysql
            mysql.close()
        return
    if request.param == "postgresql":
        yield Database(request.getfixturevalue("postgres").url, small_lake)
        return
    yield Database(str(tmp_path_factory.mktemp("source") / "source.sqlite"), small_lake)


@histories(3)
@example(
    kind="date", steps=[("insert", 0, 1), ("load", 0, 0), ("update", 0, 2), ("load", 0, 0), ("revert", 0, 0)]
)  # back to an earlier state on one day
@example(
    kind="integer", steps=[("insert", 0, 1), ("load", 0, 0), ("null", 0, 2), ("load", 0, 0), ("revert", 0, 0)]
)  # the cursor is taken away and comes back
@example(
    kind="decimal", steps=[("load", 0, 0), ("insert", 0, 1), ("load", 0, 0), ("insert", 0, 2)]
)  # the first load finds no row, and no type
@example(kind="decimal", steps=[("revert", 0, 0), ("revert", 0, 0), ("open", 0, 0)])
@example(
    kind="decimal",
    steps=[("insert", 1, 0), ("load", 0, 0), ("null", 1, 1), ("null", 2, 1), ("load", 2, 1), ("update", 1, 2)],
)  # for a while no row has a cursor
@example(
    kind="timestamp",
    steps=[("insert", 0, 1), ("load", 0, 0), ("delete", 0, 0), ("reconcile", 0, 0), ("insert", 0, 1), ("load", 0, 0)],
)  # a row comes back as it was
@given(kind=st.sampled_from(list(KINDS)), steps=STEPS)
def test_the_staged_table_ends_as_the_source_or_differs_as_documented(
    small_lake: Settings, database: Database, kind: str, steps: list[tuple[str, int, int]]
) -> None:
    kind = "text" if database.kind == "sqlite" and kind == "timestamptz" else kind
    source = Table(database, kind)
    cursor = {"column": "at", "lag": KINDS[kind][1]}
    table = SqlTable.model_validate(
        {"key": ["id"], "contract": "x", "cursor": cursor, "reconcile": {"compare": "rows"}, "shrink_limit": 0}
    )
    recipe = Recipe("histories", source.name, ("id",), Item)
    with open_lakehouse(small_lake) as lake:
        reader = Relational(database.url, {source.name: table})

        def follow() -> None:
            load_table(lake, "histories", reader, source.name, table, run_id="r")
            stage_table(lake, recipe, run_id="r")

        def reconcile() -> int:
            found = reconcile_table(lake, "histories", reader, source.name, table, run_id="r")
            stage_table(lake, recipe, run_id="r")
            return found.differences

        def staged() -> dict[int, int]:
            return dict(lake.connection.execute(f"SELECT id, value FROM {recipe.staged.sql}").fetchall())

        try:
            for what, key, value in [*steps, ("load", 0, 0)]:
                if what == "reconcile":
                    reconcile()
                    continue
                if what != "load":
                    source.step(what, key, value)
                    continue
                follow()
                source.commit_held()
            follow()
            there, found = source.rows(), staged()
            cannot_see = source.gone | source.unseen
            assert {key: found[key] for key in found if key not in cannot_see} == {
                key: there[key] for key in there if key not in cannot_see
            }
            assert set(found) - set(there) <= source.gone
            assert load_table(lake, "histories", reader, source.name, table, run_id="r").rows_landed == 0
            reconcile()
            assert staged() == there
            assert load_table(lake, "histories", reader, source.name, table, run_id="r").rows_landed == 0
            assert reconcile() == 0
            stage_table(lake, recipe, run_id="r", rebuild=True)
            assert staged() == there
        finally:
            database.run(f"drop table {source.name}")
