"""The files of models in the lakehouse, one row a version in the table `models.files`: written in the commit that makes
the version, and held against it each time a model is loaded. What is in a file is the business of `files`.
"""

import io
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.failures import explain
from data_platform.lakehouse.ledger import ModelVersion, StageChange
from data_platform.lakehouse.tables import Table, column_types, ensure_table
from data_platform.lakehouse.transaction import (
    ConcurrentStepError,
    commit,
    discarded_on_failure,
    register,
    write_file,
)
from data_platform.ml.registry.files import Task, file_hash, from_bytes, predict, prediction_hash
from data_platform.ml.registry.inputs import Feature, as_json, from_json, prepared
from data_platform.ml.registry.stages import find, into_production, production_of
from data_platform.redaction import first_line

MODELS = "models"
"""The schema of the models' files."""

FILES = Table(MODELS, "files")
COLUMNS = {"model": "VARCHAR", "version": "BIGINT", "inputs": "VARCHAR", "sample": "BLOB", "file": "BLOB"}
"""`inputs` is what the model is given and gives, as JSON; `sample` rows of the test split, as an Arrow stream, for
which it has to predict what it predicted when it was made."""

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("version", pa.int64()),
        ("inputs", pa.string()),
        ("sample", pa.large_binary()),
        ("file", pa.large_binary()),
    ]
)


@dataclass(frozen=True)
class ModelFile:
    """A model as it is stored: its file, what it is given, whether it gives a probability or a number, and prepared
    rows that it was tried on."""

    data: bytes
    features: tuple[Feature, ...]
    task: Task
    label: str
    sample: pl.DataFrame


@dataclass(frozen=True)
class LoadedModel:
    """A version of a model, ready to predict."""

    version: ModelVersion
    features: tuple[Feature, ...]
    task: Task
    label: str
    model: Any

    @property
    def name(self) -> str:
        return name_of(self.version)

    def predict(self, rows: pl.DataFrame) -> Any:
        """One 64-bit float a row. Raises PlatformError for rows without one of the features."""
        return predict(self.model, prepared(rows, self.features, self.name), self.task, self.name)


def name_of(version: ModelVersion) -> str:
    """How messages call a version of a model."""
    return f"Version {version.version} of the model {version.model}"


def register_model(
    lake: Lakehouse,
    version: ModelVersion,
    file: ModelFile,
    *,
    promoted: bool,
    production: int | None,
    by: str,
    reason: str,
) -> ModelVersion:
    """Keep a new version of a model, its file, and its stage (candidate, or production if it is `promoted`) in one
    commit; the version with the number that it was given. What `version` says of number and time does not count.

    Raises ConcurrentStepError if another run made a version meanwhile, or the version in production is no longer
    `production`, with which this one was compared; then nothing is changed.
    """
    number = next_number(lake, version.model)
    made = replace(version, version=number, trained_at=datetime.now(UTC))
    sample = io.BytesIO()
    file.sample.write_ipc_stream(sample)
    row = {
        "model": made.model,
        "version": number,
        "inputs": json.dumps({"features": as_json(file.features), "task": file.task, "label": file.label}),
        "sample": sample.getvalue(),
        "file": file.data,
    }
    written = write_file(lake, FILES, iter([pa.RecordBatch.from_pylist([row], SCHEMA)]), SCHEMA)
    files = [written] if written is not None else []

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        if next_number(lake, made.model) != number or production_of(lake, made.model) != production:
            raise ConcurrentStepError(f"Another version of the model {made.model} was made or promoted meanwhile.")
        ensure_table(connection, FILES, COLUMNS)
        register(connection, FILES, files)
        ledger.record_model(connection, made)
        if promoted:
            changes = into_production(lake, made.model, number, by=by, reason=reason)
        else:
            changes = [StageChange(made.model, number, "candidate", made.trained_at, by, reason)]
        ledger.record_stage(connection, *changes)

    with discarded_on_failure(lake, files):
        commit(lake, work)
    return made


def next_number(lake: Lakehouse, model: str) -> int:
    """The number of the next version of a model."""
    return 1 + max((one.version for one in ledger.model_versions(lake, model)), default=0)


def stored_file(lake: Lakehouse, version: ModelVersion) -> ModelFile:
    """The file of a version. Raises PlatformError if it is lost, or is not the one that was stored."""
    query = f"SELECT inputs, sample, file FROM {FILES.sql} WHERE model = ? AND version = ?"
    rows: list[Any] = []
    try:
        if column_types(lake.connection, FILES):
            rows = lake.connection.execute(query, [version.model, version.version]).fetchall()
    except duckdb.Error as error:
        found = explain(error, lake.settings)
        raise found or PlatformError(f"{name_of(version)} cannot be read: {first_line(error)}") from None
    if len(rows) != 1:
        raise PlatformError(
            f"{name_of(version)} has {len(rows)} files in {FILES}, not one. Train it again: "
            f"dp run models/{version.model}"
        )
    inputs, sample, data = rows[0]
    if file_hash(data) != version.file_hash:
        raise PlatformError(
            f"{name_of(version)} is not used: its file is not the one that was stored, as its hash differs. Train it "
            f"again: dp run models/{version.model}"
        )
    said = json.loads(inputs)
    return ModelFile(data, from_json(said["features"]), said["task"], said["label"], pl.read_ipc_stream(sample))


def load(lake: Lakehouse, model: str, version: int | None = None) -> LoadedModel:
    """A version of a model, by default the one in production, which predicts what it did when it was made.

    Raises PlatformError if there is no such version, its file is not what it was, or it predicts something else.
    """
    return loaded(lake, find(lake, model, version))


def loaded(lake: Lakehouse, version: ModelVersion) -> LoadedModel:
    """`load` of a version that was found already."""
    file = stored_file(lake, version)
    model = from_bytes(version.framework, file.data, name_of(version))
    if prediction_hash(predict(model, file.sample, file.task, name_of(version))) != version.prediction_hash:
        raise PlatformError(
            f"{name_of(version)} predicts otherwise than when it was registered, for the {len(file.sample):,} rows "
            f"that are kept with it. It is not used. Another release of {version.framework} or another machine may be "
            f"why: train it again here, dp run models/{version.model}"
        )
    return LoadedModel(version, file.features, file.task, file.label, model)
