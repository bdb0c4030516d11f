"""MLflow, spoken to by its own client: a version of a model as a run with its file, and as a version of a registered
model. What is to be there is known to `mirror`; nothing here reads the lakehouse.
"""

import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_platform.errors import PlatformError
from data_platform.lakehouse.ledger import ModelVersion, StageChange
from data_platform.ml.registry.files import TRUSTED
from data_platform.ml.registry.inputs import as_json
from data_platform.redaction import first_line, scrub

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

    from data_platform.ml.registry.store import ModelFile

ADDRESS, REGISTRY, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME"
"""The client's own variables: where runs go, where models do if it is elsewhere, and the experiment of all runs (by
default each model has one of its name)."""

DEFAULTS = {
    # A training is over when this begins: a server that is gone or hangs must not hold it up for minutes, as it would.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    # It would tell its makers what is called.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""The client's variables while it is used here, where the environment does not set them."""

PREFIX = "data_platform."
"""Begins the tags by which what is mirrored is found again."""
LAKEHOUSE, VERSION, FILE_HASH = f"{PREFIX}lakehouse", f"{PREFIX}version", f"{PREFIX}file_hash"
STAGE, STAGE_REASON = f"{PREFIX}stage", f"{PREFIX}stage_reason"

ALIAS = "production"
"""The alias of the version in production: `models:/delay@production`."""

UNKNOWN = "not in the ledger"
"""The stage of a version that the lakehouse had before it was restored from a backup."""

FOLDER = "model"
"""The artifact of a run that is its model."""

MOST_CHARACTERS = 500
"""Of the value of a parameter: servers from before 2.8 take no longer ones. All of it is in the artifact."""

BATCH = 100
"""Parameters that are sent at once: servers take no more."""

CAUSE = "Caused by "
"""What follows it in an error of the client is why it could not ask; before it are addresses of its interface."""


@dataclass(frozen=True)
class Mirrored:
    """A version as MLflow has it: the number that it has there, and what is said of its stage."""

    model: str
    version: int
    file_hash: str
    number: str
    stage: str
    reason: str


@contextmanager
def connected() -> Iterator["Client"]:
    """A client of the MLflow that the environment names. Raises PlatformError, without secrets, for all that goes wrong
    in the block or before it."""
    before = {name: os.environ.get(name) for name in DEFAULTS}
    os.environ.update({name: value for name, value in DEFAULTS.items() if before[name] is None})
    try:
        yield Client(_client())
    except PlatformError:
        raise
    except Exception as error:  # noqa: BLE001 - the client, its stores and its plugins raise anything
        raise PlatformError(_explained(error)) from None
    finally:
        for name in (name for name, value in before.items() if value is None):
            os.environ.pop(name, None)


def _client() -> "MlflowClient":
    for name in (ADDRESS, REGISTRY):
        address = os.environ.get(name)
        # A database that is gone would be waited for a minute and a half, and every training would know its password.
        if address and not address.startswith(("http://", "https://")):
            raise PlatformError(
                f"{name} is {scrub(address)}: models are sent to a tracking server, whose address begins with http:// "
                "or https://, not to its database or folder."
            )
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise PlatformError(
            f"Models are mirrored to MLflow by the package mlflow-skinny, which cannot be imported ({error}). Install "
            f"it where Dagster runs: pip install 'data-platform[mlflow]', or unset {ADDRESS}."
        ) from None
    return MlflowClient(os.environ[ADDRESS], os.environ.get(REGISTRY) or None)


def _explained(error: Exception) -> str:
    said = scrub(f"{type(error).__name__}: {first_line(error)}")
    if CAUSE in said:
        said = said.rpartition(CAUSE)[2].removesuffix(")")
    if isinstance(error, ImportError):
        return f"The client of MLflow needs another package for where files are kept: {said}. Install that here."
    refused = any(sign in said for sign in ("401", "403", "PERMISSION_DENIED", "UNAUTHENTICATED"))
    hint = " Is MLFLOW_TRACKING_TOKEN right, or are MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD?"
    return f"MLflow, at {scrub(os.environ[ADDRESS])}, did not take it: {said}{hint if refused else ''}"


class Client:
    """What the mirror needs of MLflow. Its methods raise whatever the client raises; `connected` explains it."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client

    def mirrored(self, model: str, lakehouse: str) -> dict[tuple[int, str], Mirrored]:
        """The versions of a registered model, by number and hash of the file in the ledger; the model is made if there
        is none. Raises PlatformError if it is there, and was not made from this lakehouse."""
        found = self._registered(model)
        if found is None:
            self._client.create_registered_model(model, tags={LAKEHOUSE: lakehouse})
            return {}
        if found.tags.get(LAKEHOUSE) != lakehouse:
            whose = "another lakehouse" if LAKEHOUSE in found.tags else "someone else"
            raise PlatformError(
                f"MLflow has a registered model {model} already, which was made by {whose}. Rename it there, or give "
                f"this platform an MLflow of its own ({ADDRESS}, {REGISTRY})."
            )
        versions: dict[tuple[int, str], Mirrored] = {}
        token: str | None = None
        while True:
            page = self._client.search_model_versions(f"name='{model}'", max_results=200, page_token=token)
            for one in page:
                if one.tags.get(VERSION, "").isdecimal() and one.status != "FAILED_REGISTRATION":
                    made = _mirrored(model, one.version, one.tags)
                    versions.setdefault((made.version, made.file_hash), made)
            token = page.token
            if not token:
                return versions

    def write(self, version: ModelVersion, file: "ModelFile", lakehouse: str) -> Mirrored:
        """A version as a run and a registered version. A run that was ended is taken up; one that was not is removed
        first, as it may have other values."""
        tags = {
            LAKEHOUSE: lakehouse,
            VERSION: str(version.version),
            FILE_HASH: version.file_hash,
            **{f"{PREFIX}{name}": value for name, value in _facts(version).items()},
        }
        experiment = self._experiment(os.environ.get(EXPERIMENT) or version.model)
        query = " and ".join(f"tags.`{name}` = '{tags[name]}'" for name in (LAKEHOUSE, VERSION, FILE_HASH))
        query += f" and tags.`{PREFIX}model` = '{version.model}'"
        run = None
        for one in self._client.search_runs([experiment], query):
            if one.info.status == "FINISHED" and run is None:
                run = one.info.run_id
            elif one.info.status != "FINISHED":
                self._client.delete_run(one.info.run_id)
        if run is None:
            run = self._write_run(experiment, version, file, tags)
        source = f"{self._client.get_run(run).info.artifact_uri}/{FOLDER}"
        made = self._client.create_model_version(
            version.model,
            source,
            run,
            tags=tags,
            description=f"Version {version.version} in the lakehouse, trained on {version.dataset}, version "
            f"{version.dataset_version} (snapshot {version.snapshot_id}).",
            await_creation_for=0,
        )
        return Mirrored(version.model, version.version, version.file_hash, str(made.version), "", "")

    def set_stage(self, one: Mirrored, change: StageChange) -> bool:
        """Say which stage a version is in, and why; whether anything had to be changed."""
        reason = f"since {change.since:%Y-%m-%d %H:%M} UTC, by {change.by}: {change.reason}"
        return self._tag(one, change.stage, reason)

    def set_unknown(self, one: Mirrored) -> None:
        """Say of a version that the ledger does not have it."""
        self._tag(one, UNKNOWN, "The lakehouse was restored from before it.")

    def set_production(self, model: str, one: Mirrored | None) -> None:
        """Let the alias be that of a version, or of none."""
        found = self._registered(model)
        number = found.aliases.get(ALIAS) if found is not None else None
        if one is None and number is not None:
            self._client.delete_registered_model_alias(model, ALIAS)
        elif one is not None and str(number) != one.number:
            self._client.set_registered_model_alias(model, ALIAS, one.number)

    def _tag(self, one: Mirrored, stage: str, reason: str) -> bool:
        if (one.stage, one.reason) == (stage, reason):
            return False
        self._client.set_model_version_tag(one.model, one.number, STAGE_REASON, reason)
        self._client.set_model_version_tag(one.model, one.number, STAGE, stage)
        return True

    def _registered(self, model: str) -> Any:
        return _found(lambda: self._client.get_registered_model(model))

    def _experiment(self, name: str) -> str:
        found: Experiment | None = self._client.get_experiment_by_name(name)
        if found is None:
            return str(self._client.create_experiment(name))
        if found.lifecycle_stage != "active":
            raise PlatformError(
                f"The experiment {name} was deleted in MLflow. Restore it (mlflow experiments restore --experiment-id "
                f"{found.experiment_id}), or name another one in {EXPERIMENT}."
            )
        return str(found.experiment_id)

    def _write_run(self, experiment: str, version: ModelVersion, file: "ModelFile", tags: Mapping[str, str]) -> str:
        from mlflow.entities import Metric, Param

        milliseconds = int(version.trained_at.timestamp() * 1000)
        name = f"{version.model} {version.version}"
        run = self._client.create_run(experiment, milliseconds, dict(tags), name).info.run_id
        reached = [Metric(name, figure, milliseconds, 0) for name, figure in figures(version).items()]
        self._client.log_batch(run, reached)
        given = [Param(name, value) for name, value in parameters(version).items()]
        for first in range(0, len(given), BATCH):
            self._client.log_batch(run, params=given[first : first + BATCH])
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), version, file, run)
            self._client.log_artifacts(run, folder, FOLDER)
        # Last: a run that is ended is whole.
        self._client.set_terminated(run, "FINISHED", milliseconds)
        return str(run)


def _found(look: Any) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return look()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _mirrored(model: str, number: object, tags: Mapping[str, str]) -> Mirrored:
    return Mirrored(
        model, int(tags[VERSION]), tags.get(FILE_HASH, ""), str(number), tags.get(STAGE, ""), tags.get(STAGE_REASON, "")
    )


def _facts(version: ModelVersion) -> dict[str, str]:
    """Where a version comes from, as tags."""
    return {
        "model": version.model,
        "dataset": version.dataset,
        "dataset_version": str(version.dataset_version),
        "snapshot": str(version.snapshot_id),
        "code_version": version.code_version,
        "prediction_hash": version.prediction_hash,
        "framework": version.framework,
        "dagster_run": version.run_id,
        "gates": "passed" if all(gate["passed"] for gate in version.gates) else "not passed",
    }


def parameters(version: ModelVersion) -> dict[str, str]:
    """What is compared between runs: the parameters of the function under their own names, then seed, function and
    features. Names and lengths are those that MLflow takes."""
    said = version.parameters
    given = dict(said.get("parameters", {}))
    given = {**{name: said[name] for name in ("function", "features", "label", "threads") if name in said}, **given}
    given["seed"] = said.get("seed")  # that of the function, whatever its parameters call one
    shown: dict[str, str] = {}
    for name, value in given.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        shown.setdefault(_key(name), text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…")
    return shown


def figures(version: ModelVersion) -> dict[str, float]:
    """The metrics, without those that are no number: servers keep infinity as the largest number that there is, and
    their pages fail on NaN. They are in the artifact."""
    return {_key(name): figure for name, figure in version.metrics.items() if math.isfinite(figure)}


def _key(name: str) -> str:
    """A name as MLflow takes it for a parameter or a metric."""
    cleaned = re.sub(r"[^\w\-. /:]", "_", name, flags=re.ASCII).strip("/. ")[:250]
    return cleaned or "_"


def write_files(folder: Path, version: ModelVersion, file: "ModelFile", run: str) -> None:
    """The folder of a model: its file, what it is given, all that the ledger says of it, and MLflow's own description,
    by which its libraries load it. They are given prepared features, as the file is."""
    from mlflow.models import Model

    described = Model(artifact_path=FOLDER, run_id=run, utc_time_created=version.trained_at.replace(tzinfo=None))
    if version.framework == "lightgbm":
        name = "model.lgb"
        described.add_flavor(
            "lightgbm", data=name, model_class="lightgbm.basic.Booster", lgb_version=installed("lightgbm"), code=None
        )
    else:
        name = "model.skops"
        described.add_flavor(
            "sklearn",
            pickled_model=name,
            sklearn_version=installed("scikit-learn"),
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED),
            code=None,
        )
    (folder / name).write_bytes(file.data)
    inputs = {"features": as_json(file.features), "task": file.task, "label": file.label}
    (folder / "inputs.json").write_text(json.dumps(inputs, indent=2))
    (folder / "version.json").write_text(json.dumps(asdict(version), indent=2, default=str))
    described.save(str(folder / "MLmodel"))
