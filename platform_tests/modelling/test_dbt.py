"""What is read of a dbt project, and what is said of one that is broken."""

import os
from pathlib import Path
from typing import Any

import pytest
from platform_tests.components.models_shop import MODELS, PROJECT, SOURCES, copy_needed

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import Settings
from data_platform.modelling import dbt, lineage


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Settings:
    (tmp_path / "home").mkdir()
    (home / "extensions").mkdir(exist_ok=True)
    (tmp_path / "home" / "extensions").symlink_to(home / "extensions")
    return Settings(tmp_path / "home", str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))


@pytest.fixture
def project(tmp_path: Path, settings: Settings) -> dbt.Project:
    folder = tmp_path / "project"
    (folder / "models").mkdir(parents=True)
    copy_needed(folder)
    (folder / "dbt_project.yml").write_text(PROJECT)
    (folder / "models" / "sources.yml").write_text(SOURCES)
    for model, query in MODELS.items():
        (folder / "models" / f"{model}.sql").write_text(query)
    return dbt.project_at(folder, settings)


def test_the_manifest_is_parsed_once_for_each_content_of_the_project(
    project: dbt.Project, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dbt.manifest(project, settings)
    assert set(lineage.models(first)) == {"fct_order", "mart_sales", "dim_pallet"}
    assert lineage.in_order(first, ["mart_sales", "fct_order"]) == ["fct_order", "mart_sales"]
    assert lineage.input_ancestors(first)["mart_sales"] == ["shop/orders"]
    parsed = []
    invoke = dbt.invoke

    def heard(*given: Any) -> list[dbt.NodeResult]:
        parsed.append(given[2])
        return invoke(*given)

    monkeypatch.setattr(dbt, "invoke", heard)
    for file in (project.folder / "models").iterdir():
        os.utime(file)
    assert dbt.manifest(project, settings) == first
    assert parsed == []
    # A file that is gone is noticed, and one that came along with an old date.
    (project.folder / "models" / "dim_pallet.sql").unlink()
    new = project.folder / "models" / "dim_other.sql"
    new.write_text("select 1 as one")
    os.utime(new, (0, 0))
    assert set(lineage.models(dbt.manifest(project, settings))) == {"fct_order", "mart_sales", "dim_other"}
    assert len(parsed) == 1
    assert not list(project.folder.glob("target"))
    assert len(list(project.target.glob("manifest-*.json"))) == 1


def test_a_project_that_cannot_be_parsed_is_reported_in_dbts_words(project: dbt.Project, settings: Settings) -> None:
    (project.folder / "models" / "broken.sql").write_text("select * from {{ ref('nowhere') }}")
    with pytest.raises(PlatformError, match="depends on a node named 'nowhere' which was not found"):
        dbt.manifest(project, settings)


def test_a_folder_without_a_project_is_reported(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(PlatformError, match="There is no dbt project at"):
        dbt.project_at(tmp_path, settings)


def test_a_contract_that_belongs_to_no_model_is_reported_with_the_models_there_are() -> None:
    with pytest.raises(PlatformError, match=r"contracts for .*dim_airline.* are no models. The models: fct_flight"):
        dbt.contracts_of("nyc_flights.defs.modelled.contracts", ["fct_flight"])
    with pytest.raises(PlatformError, match=r"there is no module 'nyc_flights\.defs\.nowhere'"):
        dbt.contracts_of("nyc_flights.defs.nowhere", [])
