"""Tombstones: rows that a reconciliation found gone leave the staged table, whatever is staged again, and no other row
of the source leaves with them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from platform_tests.databases import Database

from data_platform.contracts import Contract, Field, Instant
from data_platform.contracts.quarantine import Selection
from data_platform.ingestion.load import load_table
from data_platform.ingestion.reconcile import Reconciliation, reconcile_table
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe, StagingResult
from data_platform.staging.step import replay, stage_table


class Part(Contract):
    code: str
    value: int = Field(ge=0)
    at: Instant = Field(nullable=True)


def stripped(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.col("code").str.strip_chars().str.to_lowercase())


def even(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.filter(pl.col("value").cast(pl.Int64) % 2 == 0)


@dataclass
class Parts:
    """A table of parts, followed by raw and staged."""

    lake: Lakehouse
    database: Database
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        given = {"clock": "at", **self.options}
        return Recipe("s", "parts", ("code",), Part, refuse_above=1.0, **given)

    @property
    def table(self) -> SqlTable:
        return SqlTable.model_validate(
            {
                "key": ["code"],
                "contract": "x",
                "cursor": {"column": "at", "lag": "1s"},
                "reconcile": {"compare": "rows"},
                "shrink_limit": 0,
                "newest_by": self.options.get("newest_by"),
            }
        )

    @property
    def source(self) -> Relational:
        return Relational(self.database.url, {"parts": self.table})

    def write(self, *rows: tuple[str, int, str]) -> None:
        for code, value, at in rows:
            self.database.run(f"insert or replace into parts values ('{code}', {value}, '{at}')")

    def load(self) -> StagingResult:
        load_table(self.lake, "s", self.source, "parts", self.table, run_id="r")
        return self.stage()

    def stage(self, **how: Any) -> StagingResult:
        result = stage_table(self.lake, self.recipe, run_id="r", **how)
        if self.options.get("function") is None or result.rows_read:
            figures = ("inserted", "updated", "superseded", "filtered", "quarantined", "removals")
            assert result.rows_read == sum(getattr(result, f"rows_{figure}") for figure in figures)
        return result

    def reconcile(self) -> tuple[Reconciliation, StagingResult]:
        return reconcile_table(self.lake, "s", self.source, "parts", self.table, run_id="r"), self.stage()

    def staged(self) -> dict[str, int]:
        return dict(self.lake.connection.execute("SELECT code, value FROM staged_s.parts").fetchall())

    def history(self) -> list[Any]:
        return self.lake.connection.execute(
            "SELECT code, value, is_current FROM staged_s.parts_history ORDER BY valid_from, code"
        ).fetchall()


@pytest.fixture
def parts(home: Path, tmp_path: Path) -> Iterator[Parts]:
    settings = Settings(home, f"{tmp_path}/catalog.sqlite", f"{tmp_path}/data")
    database = Database(str(tmp_path / "source.sqlite"), settings)
    database.run("create table parts (code text primary key, value integer, at text)")
    with open_lakehouse(settings) as lake:
        parts = Parts(lake, database)
        parts.write(("a", 1, "2024-01-01T00:00:01Z"), ("b", 2, "2024-01-01T00:00:02Z"))
        parts.write(("now", 0, "2024-02-01T00:00:00Z"))
        yield parts


def test_a_row_that_is_gone_leaves_the_staged_table_and_its_figures_say_so(parts: Parts) -> None:
    parts.load()
    parts.database.run("delete from parts where code = 'a'")
    found, result = parts.reconcile()
    assert (found.deleted, result.rows_deleted, result.rows_removals, result.rows_inserted) == (1, 1, 1, 0)
    assert parts.staged() == {"b": 2, "now": 0}
    parts.write(("a", 1, "2024-02-01T00:00:05Z"))
    assert parts.load().rows_inserted == 1
    assert parts.stage(rebuild=True).rows_inserted == 3
    assert parts.staged() == {"a": 1, "b": 2, "now": 0}


def test_staging_again_what_came_before_brings_no_row_back(parts: Parts) -> None:
    parts.load()
    parts.write(("b", 3, "2024-02-01T00:00:01Z"))
    parts.load()
    parts.database.run("delete from parts where code in ('a', 'b')")
    parts.reconcile()
    for loads in [(1, 1), (2, 2), (1, 3), (3, 3)]:
        parts.stage(loads=loads)
        assert parts.staged() == {"now": 0}, loads


def test_a_quarantined_row_that_is_gone_is_closed_and_never_comes_back(parts: Parts) -> None:
    parts.write(("bad", -1, "2024-01-01T00:00:03Z"), ("worse", -1, "2024-01-01T00:00:04Z"))
    parts.load()
    parts.database.run("delete from parts where code = 'bad'")
    parts.reconcile()
    status = "SELECT key[1], status FROM quarantine_s.parts ORDER BY 1"
    assert parts.lake.connection.execute(status).fetchall() == [("bad", "superseded"), ("worse", "open")]
    parts.stage(loads=(1, 1))
    parts.stage(rebuild=True)
    replay(parts.lake, parts.recipe, Selection(), run_id="r")
    assert "bad" not in parts.staged()


def test_the_history_ends_a_version_when_it_was_found_gone(parts: Parts) -> None:
    parts.options["history"] = True
    parts.load()
    parts.database.run("delete from parts where code = 'a'")
    found, _ = parts.reconcile()
    ended = "SELECT valid_to FROM staged_s.parts_history WHERE code = 'a'"
    landed = "SELECT _loaded_at FROM raw_s.parts WHERE _deleted_load_id IS NOT NULL"
    assert parts.lake.connection.execute(ended).fetchall() == parts.lake.connection.execute(landed).fetchall()
    parts.write(("a", 5, "2099-01-01T00:00:00Z"))
    parts.load()
    expected = [("a", 1, False), ("b", 2, True), ("now", 0, True), ("a", 5, True)]
    assert parts.history() == expected
    parts.stage(rebuild=True)
    assert parts.history() == expected
    parts.stage(loads=(1, found.load_id))
    assert parts.history() == expected


@pytest.mark.parametrize("history", [False, True])
def test_a_row_that_took_over_the_key_stays(parts: Parts, history: bool) -> None:
    parts.options |= {"function": stripped, "history": history}
    parts.write((" A ", 7, "2024-01-15T00:00:00Z"))
    parts.database.run("delete from parts where code = 'a'")
    parts.load()
    assert parts.staged() == {"a": 7, "b": 2, "now": 0}
    parts.database.run("delete from parts where code = ' A '")
    parts.write(("A", 8, "2024-02-01T00:00:01Z"))  # spelt another way: another row to the source
    parts.load()
    found, _ = parts.reconcile()
    assert found.deleted == 1
    assert parts.staged() == {"a": 8, "b": 2, "now": 0}
    parts.stage(rebuild=True)
    assert parts.staged() == {"a": 8, "b": 2, "now": 0}
    parts.database.run("delete from parts where code = 'A'")
    parts.reconcile()
    assert parts.staged() == {"b": 2, "now": 0}
    parts.stage(rebuild=True)
    assert parts.staged() == {"b": 2, "now": 0}


def test_a_row_that_takes_over_the_key_in_the_same_load_stays(parts: Parts) -> None:
    parts.options["function"] = stripped
    parts.load()
    parts.database.run("update parts set code = ' A' where code = 'a'")
    found, _ = parts.reconcile()
    assert (found.deleted, found.missed) == (1, 1)
    assert parts.staged() == {"a": 1, "b": 2, "now": 0}


def test_a_row_is_gone_in_whatever_version_it_is_staged(parts: Parts) -> None:
    parts.options["newest_by"] = "value"
    parts.write(("b", 9, "2024-01-01T00:00:02Z"))
    parts.load()
    parts.write(("b", 4, "2024-02-01T00:00:01Z"))  # delivered later, and older by the declared order
    parts.load()
    assert parts.staged()["b"] == 9
    parts.database.run("delete from parts where code = 'b'")
    parts.reconcile()
    assert parts.staged() == {"a": 1, "now": 0}
    parts.stage(rebuild=True)
    assert parts.staged() == {"a": 1, "now": 0}


def test_rows_that_staging_leaves_out_are_left_out_when_they_are_gone(parts: Parts) -> None:
    parts.options["function"] = even
    parts.load()
    parts.database.run("delete from parts where code in ('a', 'b')")
    _, result = parts.reconcile()
    assert (result.rows_removals, result.rows_filtered, result.rows_deleted) == (1, 1, 1)
    assert parts.staged() == {"now": 0}
