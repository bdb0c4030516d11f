"""The versions of datasets, as the ledger keeps them: written within the transaction that makes one, and found again.
How a dataset is built and read is the business of `ml.datasets`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import duckdb

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.schema import exists
from data_platform.lakehouse.sql import quote_all


@dataclass(frozen=True)
class DatasetVersion:
    """One version of a dataset. Its rows are those of the table `datasets.<name>` at the snapshot `snapshot_id`, which
    is pinned; they were computed from other tables as of the snapshot `built_from`. `time` is the column with the
    moment that a row speaks of, `label` the one that is to be predicted. `splits` has the rows of each split, `hash`
    is that of all rows in the order of the key, and `code_version` that of the query or the function."""

    name: str
    version: int
    snapshot_id: int
    built_from: int
    key: tuple[str, ...]
    time: str | None
    label: str | None
    splits: Mapping[str, int]
    rows: int
    hash: str
    code_version: str
    built_at: datetime
    contract: str | None
    run_id: str = ""


COLUMNS = tuple(field.name for field in fields(DatasetVersion))


def record_dataset(connection: duckdb.DuckDBPyConnection, version: DatasetVersion) -> None:
    """Write a version of a dataset, within the caller's transaction."""
    marks = ", ".join("?" for _ in COLUMNS)
    connection.execute(
        f"INSERT INTO {name('datasets')} ({quote_all(COLUMNS)}) VALUES ({marks})",
        [_stored(getattr(version, column)) for column in COLUMNS],
    )


def move_dataset(connection: duckdb.DuckDBPyConnection, version: DatasetVersion, snapshot: int) -> None:
    """Note that the rows of a version became visible with another snapshot, within the caller's transaction."""
    connection.execute(
        f"UPDATE {name('datasets')} SET snapshot_id = ? WHERE (name, version) = (?, ?)",
        [snapshot, version.name, version.version],
    )


def dataset_versions(lake: Lakehouse, dataset: str | None = None) -> list[DatasetVersion]:
    """All versions of a dataset, or of all, the oldest first."""
    if not exists(lake):
        return []
    rows = lake.connection.execute(
        f"SELECT {quote_all(COLUMNS)} FROM {name('datasets')} WHERE name = coalesce(?, name) ORDER BY name, version",
        [dataset],
    ).fetchall()
    return [_version(dict(zip(COLUMNS, row, strict=True))) for row in rows]


def dataset_is_visible(lake: Lakehouse, version: DatasetVersion, snapshot: int) -> bool:
    """Whether a version of a dataset had been committed by a snapshot."""
    found = lake.connection.execute(
        f"SELECT 1 FROM {name('datasets')} AT (VERSION => {snapshot}) WHERE (name, version) = (?, ?)",
        [version.name, version.version],
    )
    return bool(found.fetchall())


def versions_of_models(connection: duckdb.DuckDBPyConnection, dataset: str) -> set[int]:
    """The versions of a dataset that models were trained on."""
    rows = connection.execute(f"SELECT dataset_version FROM {name('models')} WHERE dataset = ?", [dataset]).fetchall()
    return {row[0] for row in rows}


def _stored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    return json.dumps(value) if isinstance(value, tuple) else value


def _version(row: dict[str, Any]) -> DatasetVersion:
    return DatasetVersion(**{**row, "key": tuple(json.loads(row["key"])), "splits": json.loads(row["splits"])})
