"""The registry of models, mirrored to MLflow: runs, files, versions, and which version is in production. The ledger is
the truth: what MLflow lacks is worked out by comparing, so that nothing has to be noted while MLflow cannot be reached,
and sending twice changes nothing. How MLflow is spoken to is in `mlflow_client`; what a version is, in the ledger.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_platform.errors import PlatformError, shortened
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger import ModelVersion, StageChange
from data_platform.ml.registry.mlflow_client import ADDRESS, Client, Mirrored, connected
from data_platform.ml.registry.stages import find, stages
from data_platform.ml.registry.store import name_of, stored_file
from data_platform.redaction import scrub

SECONDS = 60.0
"""How long a training goes on sending what its model lacks in MLflow. What is left is sent the next time."""

REASON_CHARACTERS = 300
"""How much of why it failed is shown where the mirror is not what was asked for."""


@dataclass(frozen=True)
class Sent:
    """What was changed in MLflow for a model: versions of the ledger that were written, those whose stage was, and
    which one is in production there now."""

    model: str
    versions: tuple[int, ...]
    staged: tuple[int, ...]
    production: int | None


def is_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment says where MLflow is."""
    return bool(environment.get(ADDRESS))


def mirror(lake: Lakehouse, model: str | None = None, *, seconds: float = math.inf) -> list[Sent]:
    """Bring MLflow up to what the ledger says of a model, or of all; what was changed, by model. After so many
    `seconds` no further version is begun.

    Raises PlatformError if the environment names no MLflow, there is no such model, or MLflow does not take it. What
    concerns one version or model alone (its file is lost, MLflow has a model of that name that is another's) is raised
    once all others are there.
    """
    if not is_configured():
        raise PlatformError(
            f"There is no MLflow to send models to: set {ADDRESS} (and MLFLOW_TRACKING_TOKEN, or "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, if it asks who you are)."
        )
    with lake.reading():
        versions, current = ledger.model_versions(lake, model), stages(lake, model)
        if model is not None and not versions:
            find(lake, model)  # which says what there is
    if not versions:
        return []
    problems: list[str] = []
    sent: list[Sent] = []
    ends = time.monotonic() + seconds
    with connected() as client:
        for name in sorted({one.model for one in versions}):
            mine = [one for one in versions if one.model == name]
            try:
                sent.append(_mirrored(lake, client, name, mine, current, problems, ends))
            except PlatformError as error:
                problems.append(str(error))
    if problems:
        raise PlatformError(f"Not all of it is in MLflow. {' '.join(problems)}")
    return sent


def mirrored(lake: Lakehouse, model: str) -> str:
    """What to say of the mirror after the ledger was changed; empty if none is configured. It never raises: what could
    not be sent is sent the next time."""
    if not is_configured():
        return ""
    try:
        (sent,) = mirror(lake, model, seconds=SECONDS)
    except Exception as error:  # noqa: BLE001 - the change is made already, whatever becomes of its copy
        reason = shortened(" ".join(scrub(str(error) or type(error).__name__).split()), REASON_CHARACTERS)
        return f"Not mirrored to MLflow yet: {reason} It is sent with the next change, or by: dp model mirror {model}"
    return f"MLflow: {described(sent)}"


def described(sent: Sent) -> str:
    """One line on what was changed."""
    written = f"written: version {', '.join(map(str, sent.versions))}" if sent.versions else "nothing was missing"
    there = f"version {sent.production} is in production" if sent.production is not None else "none is in production"
    return f"{sent.model}: {written}; {there}"


def _mirrored(
    lake: Lakehouse,
    client: Client,
    model: str,
    versions: Sequence[ModelVersion],
    current: Mapping[tuple[str, int], StageChange],
    problems: list[str],
    ends: float,
) -> Sent:
    there = client.mirrored(model, lake.identity)
    known = {(one.version, one.file_hash) for one in versions}
    written = []
    for version in versions:
        if (version.version, version.file_hash) in there:
            continue
        if time.monotonic() > ends:
            problems.append(f"{name_of(version)} is left for later.")
            continue
        try:
            with lake.reading():
                file = stored_file(lake, version)
        except PlatformError as error:
            problems.append(str(error))
            continue
        there[version.version, version.file_hash] = client.write(version, file, lake.identity)
        written.append(version.version)
    staged = []
    production: Mirrored | None = None
    for version in versions:
        one, change = there.get((version.version, version.file_hash)), current[model, version.version]
        if one is None:
            continue
        if client.set_stage(one, change):
            staged.append(version.version)
        if change.stage == "production":
            production = one
    for key, one in there.items():
        if key not in known:  # of before the lakehouse was restored from a backup
            client.set_unknown(one)
    client.set_production(model, production)
    return Sent(model, tuple(written), tuple(staged), production.version if production is not None else None)
