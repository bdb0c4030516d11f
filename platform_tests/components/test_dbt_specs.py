"""The specs of models, kept beside the manifest so that dagster-dbt is imported only when a model changed."""

import dagster as dg
import pytest
from platform_tests.components.models_shop import FCT, MART, PALLET, add_models
from platform_tests.components.shop import Shop

from data_platform.components import dbt_specs
from data_platform.components.platform import platform_definitions


def specs(shop: Shop) -> dict[str, dg.AssetSpec]:
    found = platform_definitions(shop.package).resolve_all_asset_specs()
    return {"/".join(spec.key.path): spec for spec in found if spec.key.path[0] == "modelled"}


def told(spec: dg.AssetSpec) -> tuple[object, ...]:
    """What a spec says; itself it is equal to nothing else, because of the component it came from."""
    deps = [dep.asset_key for dep in spec.deps]
    columns = spec.metadata.get("dagster/column_schema")
    return (deps, spec.description, spec.tags, spec.owners, spec.code_version, columns)


def test_dagster_dbt_is_asked_again_only_when_the_project_changed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    add_models(shop)
    first = {name: told(spec) for name, spec in specs(shop).items()}
    asked = []
    made = dbt_specs._made

    def heard(manifest: object) -> object:
        asked.append(manifest)
        return made(manifest)  # type: ignore[arg-type]

    monkeypatch.setattr(dbt_specs, "_made", heard)
    assert {name: told(spec) for name, spec in specs(shop).items()} == first
    assert asked == []
    model = next(shop.folder.rglob("mart_sales.sql"))
    described = "version: 2\nmodels:\n  - {name: mart_sales, description: What was sold.}\n"
    (model.parent / "described.yml").write_text(described)
    assert specs(shop)[MART].description == "What was sold."
    assert len(asked) == 1


def test_a_spec_says_what_dbt_knows(shop: Shop) -> None:
    add_models(shop)
    found = specs(shop)
    assert set(found) == {FCT, MART, PALLET}
    assert [dep.asset_key.path for dep in found[FCT].deps] == [["staged", "shop", "orders"]]
    # The SQL is in the repository; in the catalogue it hides what a table means.
    assert not found[FCT].description
    assert found[FCT].code_version != found[MART].code_version
    assert found[FCT].kinds == {"dbt", "ducklake"}
