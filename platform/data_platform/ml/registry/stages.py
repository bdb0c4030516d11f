"""The stages of a model's versions: candidate, production, retired. At most one version of a model is in production;
the one before it is retired in the commit that puts another in its place. What is kept of each change is in the ledger.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Literal

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger import ModelStage, ModelVersion, StageChange
from data_platform.lakehouse.transaction import ConcurrentStepError, commit


def stages(lake: Lakehouse, model: str | None = None) -> dict[tuple[str, int], StageChange]:
    """The stage of each version of a model, or of all: what happened to it last."""
    return {(one.model, one.version): one for one in ledger.stage_changes(lake, model)}


def production_of(lake: Lakehouse, model: str) -> int | None:
    """The version of a model that is in production; None if none is."""
    found = [change.version for change in stages(lake, model).values() if change.stage == "production"]
    return found[0] if found else None


def find(lake: Lakehouse, model: str, version: int | None = None) -> ModelVersion:
    """A version of a model, by default the one in production. Raises PlatformError, naming those that exist."""
    versions = ledger.model_versions(lake, model)
    if not versions:
        names = sorted({one.model for one in ledger.model_versions(lake)})
        close = get_close_matches(model, names, n=5, cutoff=0.4) or names[:20]
        raise PlatformError(
            f"There is no model {model}. "
            + (f"There are: {', '.join(close)}." if close else "None was trained yet: `dp run models/NAME` trains one.")
        )
    wanted = version if version is not None else production_of(lake, model)
    if wanted is None:
        raise PlatformError(
            f"No version of the model {model} is in production. It has: {described(lake, versions)}. Put one there: "
            f"dp model promote {model} VERSION --reason ..."
        )
    found = [one for one in versions if one.version == wanted]
    if not found:
        raise PlatformError(f"The model {model} has no version {wanted}. It has: {described(lake, versions)}.")
    return found[0]


def described(lake: Lakehouse, versions: Sequence[ModelVersion]) -> str:
    """Versions of a model with their stages, the newest twenty."""
    current = stages(lake, versions[0].model)
    return ", ".join(f"{one.version} ({current[one.model, one.version].stage})" for one in versions[-20:])


def promote(
    lake: Lakehouse,
    model: str,
    version: int,
    *,
    by: str,
    reason: str,
    despite_gates: bool = False,
    in_place_of: int | Literal["any"] | None = "any",
) -> int | None:
    """Put a version into production, in the place of the one that is there; which one that was, if any.

    Raises PlatformError if there is no such version, it is there already, or it did not pass a gate when it was trained
    (unless `despite_gates`), and ConcurrentStepError if another one is there than `in_place_of`, with which it was
    compared; then nothing is changed.
    """
    missed = [gate for gate in find(lake, model, version).gates if not gate["passed"]]
    if missed and not despite_gates:
        raise PlatformError(
            f"Version {version} of the model {model} did not pass {len(missed)} of its gates: "
            + " ".join(f"{gate['name']}: {gate['reason']}" for gate in missed)
            + " To promote it all the same, add --despite-gates."
        )

    def work(connection: duckdb.DuckDBPyConnection) -> int | None:
        before = production_of(lake, model)
        if before == version:
            raise PlatformError(f"Version {version} of the model {model} is in production already.")
        if in_place_of not in ("any", before):
            raise ConcurrentStepError(
                f"Another version of the model {model} went into production meanwhile. Nothing was changed: run it "
                "again."
            )
        ledger.record_stage(connection, *into_production(lake, model, version, by=by, reason=reason))
        return before

    return commit(lake, work)


def retire(lake: Lakehouse, model: str, version: int, *, by: str, reason: str) -> ModelStage:
    """Take a version out of use; the stage that it was in. Raises PlatformError if there is no such version, or it is
    retired already; then nothing is changed."""
    find(lake, model, version)

    def work(connection: duckdb.DuckDBPyConnection) -> ModelStage:
        current = stages(lake, model)[model, version]
        if current.stage == "retired":
            raise PlatformError(
                f"Version {version} of the model {model} is retired already, since {current.since:%Y-%m-%d %H:%M} UTC, "
                f"by {current.by}: {current.reason}"
            )
        moment = _moment(lake, model)
        ledger.record_stage(connection, StageChange(model, version, "retired", moment, by, reason))
        return current.stage

    return commit(lake, work)


def into_production(lake: Lakehouse, model: str, version: int, *, by: str, reason: str) -> list[StageChange]:
    """The changes that put a version into production, within the caller's transaction."""
    moment, before = _moment(lake, model), production_of(lake, model)
    changes = [StageChange(model, version, "production", moment, by, reason)]
    if before is not None and before != version:
        changes.insert(0, StageChange(model, before, "retired", moment, by, f"replaced by version {version}: {reason}"))
    return changes


def _moment(lake: Lakehouse, model: str) -> datetime:
    """Now, or just after the last change of the model, if the clock was set back since: the newest is what counts."""
    last = max((change.since for change in ledger.stage_changes(lake, model)), default=datetime.min.replace(tzinfo=UTC))
    return max(datetime.now(UTC), last + timedelta(microseconds=1))
