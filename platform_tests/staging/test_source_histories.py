"""Small histories of a source table, made by a generator: however its rows are written, the staged table ends as the
source does, or differs by what a cursor cannot see, as the README says. `make test-histories` tries more of them."""

import itertools
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from platform_tests.histories import histories

from data_platform.contracts import Contract, Field
from data_platform.ingestion.load import load_table
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
                "load",
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
    """A source table under a history, with what a cursor cannot see of it: keys that were deleted, and those whose
    cursor was lowered by more than the lag."""

    def __init__(self, url: str, kind: str) -> None:
        self.url, self.kind, self.name = url, kind, f"t{next(numbers)}"
        self.mark = "%s" if url.startswith("postgresql://") else "?"
        self.tick = 100
        self.gone: set[int] = set()
        self.states: dict[int, list[tuple[int, int | None]]] = {}
        self.held: list[tuple[str, tuple[Any, ...]]] = []
        declared = KINDS[kind][0]
        self.run(f"create table {self.name} (id bigint primary key, value bigint, at {declared})")

    def run(self, statement: str, *values: Any) -> list[Any]:
        statement = statement.replace("?", self.mark)
        if self.url.startswith("postgresql://"):
            with psycopg.connect(self.url) as server:
                done = server.execute(statement, values)
                return done.fetchall() if done.description else []
        with closing(sqlite3.connect(self.url)) as file:
            found = file.execute(statement, values).fetchall()
            file.commit()
            return found

    def rows(self) -> dict[int, int]:
        return dict(self.run(f"select id, value from {self.name}"))

    def write(self, key: int, value: int, tick: int | None) -> None:
        statement = f"insert into {self.name} values (?, ?, ?) on conflict (id) do update set value = ?, at = ?"
        moment = at(self.kind, tick)
        self.run(statement, key, value, moment, value, moment)
        self.gone.discard(key)
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
        elif what == "back":  # the clock goes back, and the row's own time with it
            self.tick -= 4
            self.write(key, value, self.tick)
        elif what == "null":
            self.write(key, value, None)
        elif what == "open":  # written now, committed after the next load
            self.held.append((f"{key}", (key, value, self.tick)))
        elif what in ("delete", "rekey") and key in self.rows():
            if what == "rekey" and key + 10 not in self.rows():
                moment = at(self.kind, self.tick)
                self.run(f"update {self.name} set id = ?, at = ? where id = ?", key + 10, moment, key)
                self.gone.discard(key + 10)
            else:
                self.run(f"delete from {self.name} where id = ?", key)
            self.gone.add(key)

    def commit_held(self) -> None:
        for _, (key, value, tick) in self.held:
            if self.tick - tick < LAG:
                self.write(key, value, tick)
        self.held = []


@pytest.fixture(scope="module")
def small_lake(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("histories")
    return Settings(home, f"{folder}/catalog.sqlite", f"{folder}/data")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
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
@given(kind=st.sampled_from(list(KINDS)), steps=STEPS)
def test_the_staged_table_ends_as_the_source_or_differs_as_documented(
    small_lake: Settings,
    database: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    steps: list[tuple[str, int, int]],
) -> None:
    if database == "sqlite":
        kind = "text" if kind in ("timestamptz",) else kind
        url = str(tmp_path_factory.mktemp("source") / "source.sqlite")
    else:
        url = request.getfixturevalue("postgres").url
    source = Table(url, kind)
    options = {"key": ["id"], "contract": "x", "cursor": {"column": "at", "lag": KINDS[kind][1]}}
    table = SqlTable.model_validate(options)
    recipe = Recipe("histories", source.name, ("id",), Item)
    with open_lakehouse(small_lake) as lake:

        def follow() -> None:
            reader = Relational(url, {source.name: table})
            load_table(lake, "histories", reader, source.name, table, run_id="r")
            stage_table(lake, recipe, run_id="r")

        def staged() -> dict[int, int]:
            return dict(lake.connection.execute(f"SELECT id, value FROM {recipe.staged.sql}").fetchall())

        try:
            for what, key, value in [*steps, ("load", 0, 0)]:
                if what != "load":
                    source.step(what, key, value)
                    continue
                follow()
                source.commit_held()
            follow()
            there, found = source.rows(), staged()
            assert {key: found[key] for key in found if key not in source.gone} == there
            assert set(found) - set(there) <= source.gone
            again = load_table(lake, "histories", Relational(url, {source.name: table}), source.name, table, run_id="r")
            assert again.rows_landed == 0
            stage_table(lake, recipe, run_id="r", rebuild=True)
            assert staged() == found
        finally:
            source.run(f"drop table {source.name}")
