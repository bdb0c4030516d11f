"""Scoring rows of a table by a model of LightGBM, beside LightGBM alone on a matrix that is in memory already; both on
one core.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import lightgbm
import numpy as np
import polars as pl
from platform_tests.benchmarks.measure import Case, Say, measure
from platform_tests.benchmarks.places import lakehouse_in
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale

from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.ledger import ModelVersion
from data_platform.lakehouse.tables import duckdb_types, ensure_table, staged_table
from data_platform.lakehouse.transaction import commit, register, write_file
from data_platform.ml.registry import files
from data_platform.ml.registry.inputs import Feature, matrix
from data_platform.ml.registry.store import ModelFile, register_model
from data_platform.ml.scores.score import ScoresRecipe, score

HERE = "platform_tests.benchmarks.scoring"
FEATURES = [f"feature_{number}" for number in range(15)]
ROUNDS, LEAVES = 100, 31
ONE_CORE = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "SLURM_CPUS_ON_NODE": "1"}
AIM = 1.5

TABLE = staged_table("shop", "orders")


def scoring(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """As many rows as are staged elsewhere, each with 15 numbers."""
    given = {"rows": scale.staged}
    cases = {
        "here": Case(f"{HERE}:here", given, variables=ONE_CORE),
        "alone": Case(f"{HERE}:alone", given, variables=ONE_CORE),
    }
    measured = measure(cases, scratch, scale.repeats, say)
    what = f"Scoring {scale.staged:,} rows of 15 features, {ROUNDS} trees, one core"
    yield Row("scoring", what, measured["here"], "Booster.predict, rows in memory", measured["alone"], AIM)


def features(rows: int) -> pl.DataFrame:
    """Numbers, a twentieth of them unknown."""
    random = np.random.default_rng(1)
    found = random.normal(size=(rows, len(FEATURES)))
    found[random.random(found.shape) < 0.05] = np.nan
    return pl.DataFrame(found, schema=FEATURES).with_columns(pl.all().fill_nan(None))


def booster() -> lightgbm.Booster:
    """A model of ordinary size."""
    given = features(20_000)
    label = (given["feature_0"].fill_null(0) + given["feature_1"].fill_null(0) > 0).to_numpy()
    parameters = {"objective": "binary", "num_leaves": LEAVES, "verbose": -1, "deterministic": True}
    data = lightgbm.Dataset(matrix(given), label.astype(int))
    return lightgbm.train({**parameters, "force_row_wise": True, "num_threads": 1}, data, ROUNDS)


def alone(folder: str, rows: int) -> Callable[[], int]:
    """LightGBM on a matrix."""
    model, given = booster(), matrix(features(rows))
    return lambda: len(np.asarray(model.predict(given)))


def here(folder: str, rows: int) -> Callable[[], int]:
    """From the staged rows to their scores in the lakehouse, with the look at the key."""
    settings = lakehouse_in(folder)
    with open_lakehouse(settings) as lake:
        _write(lake, rows)
        _register(lake, booster())
    recipe = ScoresRecipe(
        "orders", "orders", f"SELECT * FROM {TABLE.sql}", [TABLE], ("id",), False, None, "the benchmark"
    )

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            return score(lake, recipe, run_id="benchmark").rows

    return timed


def _write(lake: Lakehouse, rows: int) -> None:
    given = features(rows).with_row_index("id").with_columns(pl.col("id").cast(pl.Int64)).to_arrow()
    file = write_file(lake, TABLE, iter(given.to_batches()), given.schema)

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        ensure_table(connection, TABLE, duckdb_types(connection, given.schema))
        register(connection, TABLE, [file] if file is not None else [])

    commit(lake, work)


def _register(lake: Lakehouse, model: lightgbm.Booster) -> None:
    data, sample = files.to_bytes(model, "the model"), features(1_000)
    predicted = files.predict(model, sample, "classification", "the model")
    version = ModelVersion(
        *("orders", 0, "orders", 1, 1, "code", {}, {}, [], "lightgbm"),
        *(files.file_hash(data), files.prediction_hash(predicted), "benchmark", datetime.now(UTC)),
    )
    file = ModelFile(data, tuple(map(Feature, FEATURES)), "classification", "late", sample)
    register_model(lake, version, file, promoted=True, production=None, by="benchmark", reason="to be measured")
