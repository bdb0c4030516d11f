"""The versions of models and the stages that they have been in, as the ledger keeps them: written within the
transaction that makes a version or moves it. Training and the rules by which versions move are the business of `ml`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

import duckdb

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.schema import exists
from data_platform.lakehouse.sql import quote_all

ModelStage = Literal["candidate", "production", "retired"]


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model, trained on a version of a dataset, whose rows are those of the snapshot `snapshot_id`.
    `metrics` are figures of its test split, `gates` what was asked of them. `prediction_hash` is that of the
    predictions for the rows that are kept with the file."""

    model: str
    version: int
    dataset: str
    dataset_version: int
    snapshot_id: int
    code_version: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    gates: Sequence[Mapping[str, Any]]
    framework: str
    file_hash: str
    prediction_hash: str
    run_id: str
    trained_at: datetime


@dataclass(frozen=True)
class StageChange:
    """That a version came into a stage: since when, by whom, and why."""

    model: str
    version: int
    stage: ModelStage
    since: datetime
    by: str
    reason: str


OF_VERSION = tuple(field.name for field in fields(ModelVersion))
OF_STAGE = tuple(field.name for field in fields(StageChange))
AS_JSON = ("parameters", "metrics", "gates")


def record_model(connection: duckdb.DuckDBPyConnection, version: ModelVersion) -> None:
    """Write a version of a model, within the caller's transaction."""
    values = [getattr(version, column) for column in OF_VERSION]
    stored = [
        json.dumps(value, default=dict) if column in AS_JSON else value
        for column, value in zip(OF_VERSION, values, strict=True)
    ]
    _insert(connection, "models", OF_VERSION, stored)


def record_stage(connection: duckdb.DuckDBPyConnection, *changes: StageChange) -> None:
    """Write that versions came into stages, within the caller's transaction."""
    for change in changes:
        _insert(connection, "model_stages", OF_STAGE, [getattr(change, column) for column in OF_STAGE])


def _insert(connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], values: Sequence[Any]) -> None:
    marks = ", ".join("?" for _ in columns)
    connection.execute(f"INSERT INTO {name(table)} ({quote_all(columns)}) VALUES ({marks})", list(values))


def model_versions(lake: Lakehouse, model: str | None = None) -> list[ModelVersion]:
    """All versions of a model, or of all models, the oldest first."""
    if not exists(lake):
        return []
    rows = lake.connection.execute(
        f"SELECT {quote_all(OF_VERSION)} FROM {name('models')} WHERE model = coalesce(?, model) "
        "ORDER BY model, version",
        [model],
    ).fetchall()
    found = [dict(zip(OF_VERSION, row, strict=True)) for row in rows]
    return [ModelVersion(**{**one, **{column: json.loads(one[column]) for column in AS_JSON}}) for one in found]


def stage_changes(lake: Lakehouse, model: str | None = None) -> list[StageChange]:
    """All that happened to the versions of a model, or of all models, the oldest first."""
    if not exists(lake):
        return []
    rows = lake.connection.execute(
        f"SELECT {quote_all(OF_STAGE)} FROM {name('model_stages')} WHERE model = coalesce(?, model) "
        "ORDER BY since, model, version",
        [model],
    ).fetchall()
    return [StageChange(*row) for row in rows]
