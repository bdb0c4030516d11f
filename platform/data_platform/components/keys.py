"""How assets, their checks and their metadata are called: `raw/<source>/<table>`, `staged/<source>/<table>`,
`reconciliation/<source>/<table>`, `modelled/<model>`, `export/<name>/<table>`, `external/<job>/<name>`,
`datasets/<name>`, `models/<name>`, `scores/<name>`, `dashboards/<page>`. Spelt only here."""

import dagster as dg

from data_platform.lakehouse.tables import MODELLED, RAW, STAGED
from data_platform.ml.datasets.version import DATASETS

RECONCILIATION = "reconciliation"
"""The first part of the keys of assets that hold a table against its source."""

CHECK = "contract"
"""The name of the one check that each table has in each layer."""

EXPORT = "export"
"""The first part of the keys of assets that are exported tables."""

EXTERNAL = "external"
"""The first part of the keys of assets that jobs of other orchestrators make."""

LEAKAGE = "leakage"
"""The name of the check of a dataset that nothing tells its label which is not known yet."""

TRAINED = "models"
"""The first part of the keys of assets that are models which were trained."""

SCORES = "scores"
"""The first part of the keys of assets that are tables of what models predicted."""

GATES = "gates"
"""The name of the check of each model that its newest version passed its gates."""
DASHBOARDS = "dashboards"
"""The first part of the keys of assets that are pages."""

BROKEN = "broken"
"""The first part of the keys of assets that stand for folders which cannot be loaded."""

WAITS_FOR = "waits for"
"""The metadata of an observation that a model was left out: the tables that do not exist yet."""

MODELS_JOB = "build_models"
"""The job that builds all models."""

DASHBOARDS_JOB = "build_dashboards"
"""The job that builds all pages."""

REACHABLE = "reachable"
"""The name of the check of each raw table that its source answers."""

SOURCE_LOG = "source_log"
"""The name of the check that a source which is read by its log of changes keeps little of it for us."""

KEEP_REPLACED = "keep_replaced_seconds"
"""The metadata of a raw table that says how long it keeps a full refresh which was replaced."""


def load_job(source: str) -> str:
    """The job that loads and stages all tables of a source."""
    return f"load_{source}"


def reconcile_job(source: str) -> str:
    """The job that holds tables of a source against it."""
    return f"reconcile_{source}"


def export_job(name: str) -> str:
    """The job that exports all tables of an export."""
    return f"export_{name}"


def export_key(name: str, table: str) -> dg.AssetKey:
    """The asset of an exported table."""
    return dg.AssetKey([EXPORT, name, table])


def external_job(name: str) -> str:
    """The job that starts a job of another orchestrator."""
    return f"start_{name}"


def external_key(job: str, name: str) -> dg.AssetKey:
    """The asset of something that a job of another orchestrator makes."""
    return dg.AssetKey([EXTERNAL, job, name])


def dataset_job(name: str) -> str:
    """The job that builds a dataset."""
    return f"dataset_{name}"


def dataset_key(name: str) -> dg.AssetKey:
    """The asset of a dataset."""
    return dg.AssetKey([DATASETS, name])


def training_job(model: str) -> str:
    """The job that trains a model."""
    return f"train_{model}"


def retraining_job(model: str) -> str:
    """The job that builds the dataset of a model and trains it on that."""
    return f"retrain_{model}"


def trained_key(model: str) -> dg.AssetKey:
    """The asset of a model."""
    return dg.AssetKey([TRAINED, model])


def scoring_job(name: str) -> str:
    """The job that scores rows."""
    return f"score_{name}"


def scores_key(name: str) -> dg.AssetKey:
    """The asset of a table of scores."""
    return dg.AssetKey([SCORES, name])


def dashboard_key(page: str) -> dg.AssetKey:
    """The asset of a page."""
    return dg.AssetKey([DASHBOARDS, page])


def job_name(key: dg.AssetKey) -> str | None:
    """The job that an asset belongs to: one of its source, that of the models, or that of the pages."""
    layer, *rest = key.path
    if layer == EXPORT:
        return export_job(rest[0])
    if layer == EXTERNAL:
        return external_job(rest[0])
    if layer == DATASETS:
        return dataset_job(rest[0])
    if layer == TRAINED:
        return training_job(rest[0])
    if layer == SCORES:
        return scoring_job(rest[0])
    if layer == RECONCILIATION:
        return reconcile_job(rest[0])
    if layer in (RAW, STAGED) and len(rest) > 1:
        return load_job(rest[0])
    return {MODELLED: MODELS_JOB, DASHBOARDS: DASHBOARDS_JOB}.get(layer)


def raw_key(source: str, table: str) -> dg.AssetKey:
    """The asset of a raw table."""
    return dg.AssetKey([RAW, source, table])


def staged_key(source: str, table: str) -> dg.AssetKey:
    """The asset of a staged table."""
    return dg.AssetKey([STAGED, source, table])


def platform_key(name: str, platform: str | None = None) -> dg.AssetKey:
    """The asset of something that a platform does for itself; `platform` is only named where another one of the
    workspace comes before it."""
    return dg.AssetKey(["platform", *([platform] if platform else []), name])


def broken_key(folder: str, platform: str | None = None) -> dg.AssetKey:
    """The asset that stands for a folder which cannot be loaded; `platform` is only named where another one of the
    workspace comes before it: that may have a folder of the same name."""
    return dg.AssetKey([BROKEN, *([platform] if platform else []), folder])


def reconciliation_key(source: str, table: str) -> dg.AssetKey:
    """The asset that holds a table against its source."""
    return dg.AssetKey([RECONCILIATION, source, table])


def model_key(model: str) -> dg.AssetKey:
    """The asset of a modelled table."""
    return dg.AssetKey([MODELLED, model])
