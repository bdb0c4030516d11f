"""The models of a dbt project as asset specs, as dagster-dbt makes them of the manifest. What the models do is in
`models`.

They are kept beside the manifest, as long as it does not change: dagster-dbt imports half of dbt, which takes every
process that Dagster starts a second, and most of them have nothing to do with models.
"""

import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg

from data_platform.components.keys import model_key, staged_key
from data_platform.lakehouse.tables import MODELLED
from data_platform.modelling import dbt, lineage

COLUMNS = "dagster/column_schema"

FORM = 2
"""Changes when specs are made in another way of the same manifest: those that are kept are made anew."""


def model_specs(project: dbt.Project, manifest: Mapping[str, Any]) -> list[dg.AssetSpec]:
    """One spec for each model: key, what it is built from, description, tags, owners, version of its code, columns."""
    kept = _kept(project)
    if not kept.exists():
        partial = kept.with_suffix(f".{os.getpid()}.part")
        partial.write_text(json.dumps([_plain(spec) for spec in _made(manifest)]), encoding="utf-8")
        partial.replace(kept)
        for older in kept.parent.glob("specs-*.json"):
            if older != kept:
                older.unlink(missing_ok=True)
    return [_spec(plain) for plain in json.loads(kept.read_text(encoding="utf-8"))]


def _kept(project: dbt.Project) -> Path:
    return project.target / f"specs-{FORM}-{dbt.fingerprint(project)}-{version('dagster-dbt')}.json"


def _made(manifest: Mapping[str, Any]) -> Sequence[dg.AssetSpec]:
    from dagster_dbt import DagsterDbtTranslator, build_dbt_asset_specs

    class Translator(DagsterDbtTranslator):
        """Calls models `modelled/<name>`, finds staged tables by their asset keys, and describes models in words."""

        def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
            # Without the SQL, which Dagster's own adds: it is in the repository, and hides what the table means.
            return str(dbt_resource_props.get("description") or "")

        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
            name = dbt_resource_props["name"]
            if dbt_resource_props["resource_type"] != "source":
                return model_key(name)
            schema = dbt_resource_props["schema"]
            # What is not staged, such as the ledger, is no asset of ours; the key says where it lies.
            own = schema.startswith(lineage.STAGED)
            return staged_key(schema.removeprefix(lineage.STAGED), name) if own else dg.AssetKey([schema, name])

    return build_dbt_asset_specs(manifest=manifest, dagster_dbt_translator=Translator())


def _plain(spec: dg.AssetSpec) -> dict[str, Any]:
    columns = spec.metadata.get(COLUMNS)
    return {
        "key": list(spec.key.path),
        "deps": [list(dep.asset_key.path) for dep in spec.deps],
        "description": spec.description,
        "tags": dict(spec.tags),
        "owners": list(spec.owners),
        "code_version": spec.code_version,
        "columns": dg.serialize_value(columns) if isinstance(columns, dg.TableSchema) else None,
    }


def _spec(plain: Mapping[str, Any]) -> dg.AssetSpec:
    columns = plain["columns"]
    return dg.AssetSpec(
        dg.AssetKey(plain["key"]),
        deps=[dg.AssetKey(key) for key in plain["deps"]],
        description=plain["description"],
        tags=plain["tags"],
        owners=plain["owners"],
        code_version=plain["code_version"],
        group_name=MODELLED,
        metadata={COLUMNS: dg.deserialize_value(columns, dg.TableSchema)} if columns else {},
    )
