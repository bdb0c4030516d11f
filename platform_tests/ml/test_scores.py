"""Scores: which rows get one, what is refused, and that nothing is written where nothing is new."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from platform_tests.ml.delays import add_version, flights, new_lake, recipe, scheduled
from pydantic import ValidationError

from data_platform.contracts import Contract, Field
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import column_types, duckdb_types, ensure_table, staged_table
from data_platform.lakehouse.transaction import ConcurrentStepError, commit
from data_platform.ml.registry import stages
from data_platform.ml.registry.store import load
from data_platform.ml.scores import score as scoring
from data_platform.ml.scores.options import ScoresOptions
from data_platform.ml.scores.score import Scored, ScoresRecipe, score
from data_platform.ml.training.train import train

FLIGHTS = staged_table("ops", "flights")


class Likelihood(Contract):
    """How likely a flight is late."""

    flight_id: int = Field(unique=True, description="number of the flight")
    score: float = Field(ge=0.2, le=1, description="probability of a delay")


@pytest.fixture(scope="module")
def trained(prepared_sqlite: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    """A lakehouse with two versions of a model, of which the first is in production."""
    with new_lake(prepared_sqlite, tmp_path_factory.mktemp("scores")) as lake:
        train(lake, recipe(promote="automatically"), run_id="run")
        train(lake, recipe(parameters={"num_leaves": 4}), run_id="run")
        yield lake


@pytest.fixture
def lake(trained: Lakehouse) -> Iterator[Lakehouse]:
    """That lakehouse, with 500 flights and no scores."""
    set_rows(trained, flights(500, seed=5))
    yield trained
    if column_types(trained.connection, scoring.scores_table("late")):
        trained.connection.execute("drop table scores.late")
    if stages.production_of(trained, "delay") != 1:
        stages.promote(trained, "delay", 1, by="test", reason="as it was")


def set_rows(lake: Lakehouse, rows: pl.DataFrame) -> None:
    given = rows.to_arrow()

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        if column_types(connection, FLIGHTS):
            connection.execute(f"DROP TABLE {FLIGHTS.sql}")
        ensure_table(connection, FLIGHTS, duckdb_types(connection, given.schema))
        connection.register("given", given)
        connection.execute(f"INSERT INTO {FLIGHTS.sql} FROM given")
        connection.unregister("given")

    commit(lake, work)


LATE = ScoresRecipe(
    "late", "delay", f"SELECT * FROM {FLIGHTS.sql}", [FLIGHTS], ("flight_id",), False, None, "defs.yaml"
)


def late(lake: Lakehouse, **changed: Any) -> Scored:
    return score(lake, replace(LATE, **changed), run_id="run")


def table(lake: Lakehouse) -> pl.DataFrame:
    return lake.connection.execute("select * from scores.late order by model_version, flight_id").pl()


def test_each_row_has_the_score_that_the_model_gives_it_and_no_second_one(lake: Lakehouse) -> None:
    assert late(lake).rows == 500
    found, rows = table(lake), flights(500, seed=5)
    np.testing.assert_array_equal(found["score"].to_numpy(), load(lake, "delay").predict(rows))
    assert found.columns == ["flight_id", "score", "model", "model_version", "scored_at"]
    before = current_snapshot(lake.connection)
    assert late(lake).rows == 0
    assert current_snapshot(lake.connection) == before
    set_rows(lake, flights(520, seed=5).tail(30))
    assert late(lake).rows == 20
    assert table(lake)["flight_id"].to_list() == list(range(520))


def test_another_version_in_production_scores_again_and_the_former_scores_stay(lake: Lakehouse) -> None:
    late(lake)
    stages.promote(lake, "delay", 2, by="ada", reason="newer")
    again = late(lake)
    assert (again.version, again.rows) == (2, 500)
    found = table(lake)
    assert found["model_version"].to_list() == [1] * 500 + [2] * 500
    assert again.mean == pytest.approx(found.filter(model_version=2)["score"].mean())


def test_rows_are_scored_again_on_another_day_if_that_is_wanted(lake: Lakehouse) -> None:
    late(lake)
    assert late(lake, daily=True).rows == 0
    lake.connection.execute("update scores.late set scored_at = scored_at - interval 1 day where flight_id < 100")
    assert late(lake, daily=False).rows == 0
    assert late(lake, daily=True).rows == 100


def test_only_rows_later_than_what_the_version_was_trained_on_are_scored_if_that_is_wanted(lake: Lakehouse) -> None:
    with pytest.raises(
        PlatformError, match=r"`only_after_training` compares .* the dataset delays, version 1, has none"
    ):
        late(lake, only_after_training=True)
    add_version(lake, scheduled(flights()), time="scheduled_at")
    stages.promote(lake, "delay", train(lake, recipe(), run_id="run").version.version, by="ada", reason="newer")
    with pytest.raises(
        PlatformError, match=r"needs the column scheduled_at .* of the dataset delays, which the rows do"
    ):
        late(lake, only_after_training=True)
    set_rows(lake, flights(500).with_columns(scheduled_at=pl.lit("noon")))
    with pytest.raises(PlatformError, match=r"which is a VARCHAR there\. The rows have: flight_id"):
        late(lake, only_after_training=True)
    assert not column_types(lake.connection, LATE.table)
    # The last of 3,000 rows by which it was trained and validated is the 2,400th; the others are its test.
    rows = scheduled(flights(2500, seed=5))
    unknown = pl.when(pl.col("flight_id") < 2450).then("scheduled_at")
    set_rows(lake, rows.with_columns(scheduled_at=unknown))
    found = late(lake, only_after_training=True)
    assert (found.rows, found.after) == (50, rows["scheduled_at"][2399])
    set_rows(lake, rows)
    assert late(lake, only_after_training=True).rows == 50
    assert table(lake)["flight_id"].to_list() == list(range(2400, 2500))
    assert late(lake).rows == 2400


def doubled(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows, rows.head(2)])


def keyless(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(flight_id=pl.when(pl.col("flight_id") > 2).then("flight_id"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (doubled, "4 rows share 2 values of the key flight_id. Nothing was scored"),
        (keyless, "3 rows have no flight_id. Nothing was scored"),
        (lambda rows: rows.drop("carrier"), "the rows have no column carrier. The key is flight_id, and Version 1"),
        (lambda rows: rows.with_columns(hour=pl.lit("noon")), "was trained on numbers in hour, which is a String here"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused_and_nothing_is_written(lake: Lakehouse, rows: Any, said: str) -> None:
    set_rows(lake, rows(flights(500, seed=5)))
    with pytest.raises(PlatformError, match=said):
        late(lake)
    assert not column_types(lake.connection, LATE.table)


def files_of(lake: Lakehouse) -> set[Path]:
    return set(Path(lake.settings.data, "scores", "late").glob("*.parquet"))


def test_scores_that_break_the_contract_are_not_written_and_the_verdict_is_kept(lake: Lakehouse) -> None:
    before = files_of(lake)
    with pytest.raises(
        PlatformError, match=r"[0-9]+ of 500 scores break the contract .*Likelihood, so none was written"
    ):
        late(lake, contract=Likelihood)
    assert not column_types(lake.connection, LATE.table)
    verdicts = lake.connection.execute(
        "select passed, rows_checked from platform.audits where layer = 'scores'"
    ).fetchall()
    assert verdicts == [(False, 500)]
    assert files_of(lake) == before


def test_a_table_that_is_not_there_is_named_with_what_makes_it(lake: Lakehouse) -> None:
    with pytest.raises(PlatformError, match="reads staged/ops/trains, of which there are no rows yet"):
        late(lake, tables=[staged_table("ops", "trains")])
    with pytest.raises(PlatformError, match=r"There is no model delays\. There are: delay"):
        late(lake, model="delays")


def test_of_two_runs_that_score_the_same_rows_one_lands(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    model, first = load(lake, "delay"), scoring._audited

    def another_comes_first(*given: Any) -> None:
        monkeypatch.setattr(scoring, "_audited", first)
        with_another = lake.duplicate()
        with_another.connection.execute("USE lake")
        late(with_another)

    monkeypatch.setattr(scoring, "_audited", another_comes_first)
    with pytest.raises(ConcurrentStepError):
        scoring._score(lake, LATE, model, "run")
    assert len(table(lake)) == 500
    assert late(lake).rows == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "a `table` or a `query`"),
        ({"table": "staged/ops/flights", "query": "rows.sql"}, "a `table` or a `query`, and not both"),
        ({"table": "staged/ops/flights", "key": ["Score"]}, "the key has the column Score"),
    ],
)
def test_options_that_contradict_themselves_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ScoresOptions.model_validate({"model": "delay", "key": ["flight_id"], **options})


def test_the_ledger_knows_how_often_a_table_was_scored(lake: Lakehouse) -> None:
    before = ledger.head(lake, "scores", "delay", "late").number
    late(lake)
    late(lake)
    assert ledger.head(lake, "scores", "delay", "late").number == before + 1
