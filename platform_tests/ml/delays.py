"""Flights that are late or not, as versions of a dataset, and functions that train on them: for tests of models."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import lightgbm
import numpy as np
import polars as pl
import pytest
from platform_tests.prepared import copy
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse, open_lakehouse
from data_platform.lakehouse.ledger import DatasetVersion
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import column_types, duckdb_types, ensure_table
from data_platform.lakehouse.transaction import commit, register, write_file
from data_platform.ml.datasets.version import dataset_table
from data_platform.ml.registry.inputs import matrix
from data_platform.ml.training.options import TrainingOptions
from data_platform.ml.training.train import Recipe, train

FEATURES = ["hour", "distance", "is_weekend", "carrier"]


def flights(rows: int = 3_000, seed: int = 1, noise: float = 1.0) -> pl.DataFrame:
    """Flights whose delay follows from hour and carrier, up to noise; some distances are unknown."""
    random = np.random.default_rng(seed)
    hour, carrier = random.integers(0, 24, rows), random.choice(["AA", "B6", "UA", "9E"], rows)
    delay = hour - 12 + 6 * (carrier == "B6") + noise * random.normal(0, 6, rows)
    distance = np.where(random.random(rows) < 0.05, np.nan, random.uniform(100, 3000, rows))
    splits = np.array(["train", "validation", "test"])[np.searchsorted([0.6, 0.8], np.arange(rows) / rows, "right")]
    columns = {
        "flight_id": np.arange(rows),
        "hour": hour,
        "distance": pl.Series(distance).fill_nan(None),
        "is_weekend": random.random(rows) < 0.3,
        "carrier": carrier,
        "delay": delay,
        "late": delay > 3,
        "split": splits,
    }
    return pl.DataFrame(columns)


def scheduled(rows: pl.DataFrame) -> pl.DataFrame:
    """Flights with the time that they are scheduled at, one after another."""
    times = datetime(2020, 1, 1, tzinfo=UTC) + pl.duration(hours=pl.col("flight_id"))
    return rows.with_columns(scheduled_at=times)


def add_version(lake: Lakehouse, rows: pl.DataFrame, name: str = "delays", time: str | None = None) -> DatasetVersion:
    """The next version of a dataset, of these rows, as building one leaves it."""
    ledger.ensure_ledger(lake)
    table, arrow = dataset_table(name), rows.to_arrow()
    file = write_file(lake, table, iter(arrow.to_batches()), arrow.schema)
    number = 1 + len(ledger.dataset_versions(lake, name))

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        if column_types(connection, table):
            connection.execute(f"DROP TABLE {table.sql}")
        ensure_table(connection, table, duckdb_types(connection, arrow.schema))
        register(connection, table, [file] if file is not None else [])

    commit(lake, work)
    row = lake.connection.execute(f"SELECT max(snapshot_id) FROM ducklake_snapshots('{CATALOG}')").fetchone()
    assert row is not None
    splits = dict(rows["split"].value_counts().iter_rows())
    version = DatasetVersion(
        *(name, number, row[0], row[0], ("flight_id",), time, "late", splits, len(rows), f"hash {number}", "code"),
        datetime.now(UTC),
        None,
    )
    commit(lake, lambda connection: ledger.record_dataset(connection, version))
    return version


def boosted(train: pl.DataFrame, validation: pl.DataFrame | None, parameters: Mapping[str, Any]) -> lightgbm.Booster:
    """Boosted trees."""
    data = lightgbm.Dataset(matrix(train.drop("late")), train["late"].to_numpy())
    given = {"objective": "binary", "verbose": -1, "deterministic": True, "force_row_wise": True, **parameters}
    return lightgbm.train(given, data, num_boost_round=20)


def boosted_by_time(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> lightgbm.Booster:
    """Boosted trees whose sums depend on what was faster."""
    return boosted(train, validation, {**parameters, "deterministic": False})


def logistic(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> Any:
    """A pipeline of scikit-learn that is given a frame."""
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["carrier"]), remainder="drop")
    return make_pipeline(columns, LogisticRegression()).fit(train.drop("late"), train["late"].to_numpy())


def histograms(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> Any:
    """Trees of scikit-learn that are given no seed."""
    return HistGradientBoostingClassifier(max_iter=10, early_stopping=True).fit(
        matrix(train.drop("late")), train["late"].to_numpy()
    )


def ridge(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> Any:
    """A line through the hours and delays."""
    return Ridge().fit(train.select("hour").to_numpy(), train["delay"].to_numpy())


def own_code(values: Any) -> Any:
    return values


def with_own_code(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> Any:
    """A pipeline with a function that is no part of scikit-learn."""
    steps = make_pipeline(FunctionTransformer(own_code), LogisticRegression())
    return steps.fit(matrix(train.select("hour")), train["late"].to_numpy())


def of_all_columns(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> lightgbm.Booster:
    """Given its label by mistake."""
    data = lightgbm.Dataset(matrix(train), train["late"].to_numpy())
    given = {"objective": "binary", "verbose": -1, "deterministic": True, "force_row_wise": True}
    return lightgbm.train(given, data, num_boost_round=2)


def raw_scores(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> lightgbm.Booster:
    """A regression of the label."""
    return boosted(train.with_columns(late=pl.col("late") * 9), validation, {**parameters, "objective": "regression"})


def nothing(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> None:
    """Forgets to return what it made."""


def failing(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> None:
    """Fails."""
    train.select("horsepower")


def recipe(function: Any = boosted, **options: Any) -> Recipe:
    """A recipe of the model `delay`."""
    given = {"dataset": "delays", "features": FEATURES, "metrics": ["auc", "log_loss"], **options}
    path = f"{__name__}.{function.__name__}"
    return Recipe("delay", TrainingOptions.model_validate({"function": path, **given}), function, "defs.yaml")


@contextmanager
def new_lake(prepared: Settings, folder: Path) -> Iterator[Lakehouse]:
    """A lakehouse with its catalog in SQLite and one version of the dataset."""
    settings = copy(prepared, Settings(prepared.home, str(folder / "catalog.sqlite"), str(folder / "data")))
    with open_lakehouse(settings) as lake:
        add_version(lake, flights())
        yield lake


@pytest.fixture
def lake(prepared_sqlite: Settings, tmp_path: Path) -> Iterator[Lakehouse]:
    """A lakehouse of this test's own."""
    with new_lake(prepared_sqlite, tmp_path) as lake:
        yield lake


@pytest.fixture(scope="module")
def untrained(prepared_sqlite: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    """A lakehouse of all tests of a module that leave no model."""
    with new_lake(prepared_sqlite, tmp_path_factory.mktemp("untrained")) as lake:
        yield lake


def fitted_again(home: str, catalog: str, data: str) -> str:
    """Train once more, in this process, what another one trained: hashes of file and predictions, and whether it is a
    new version."""
    with open_lakehouse(Settings(Path(home), catalog, data)) as lake:
        made = train(lake, recipe(), run_id="another")
        return f"{made.version.file_hash} {made.version.prediction_hash} {made.is_new}"
