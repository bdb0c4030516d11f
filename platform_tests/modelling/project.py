"""A dbt project of a test's own, on a lakehouse with one staged table, built and published as the platform does."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platform_tests.components.models_shop import begin_from_parsed, copy_needed

from data_platform.contracts import Contract
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.modelling import dbt, lineage
from data_platform.modelling.build import ModelResult, build_and_publish

PROJECT = """
name: small
version: 1.0.0
profile: nyc_flights
macro-paths: [platform_macros]
models: {+materialized: table}
"""

SOURCES = """
version: 2
sources:
  - {name: staged_shop, database: lake, schema: staged_shop, tables: [{name: sales}]}
"""

SALES = "{{ source('staged_shop', 'sales') }}"


@dataclass(frozen=True)
class SmallProject:
    """The project in `folder`, published to the lakehouse of `settings`."""

    folder: Path
    settings: Settings

    def write(self, models: Mapping[str, str]) -> None:
        for model, query in models.items():
            (self.folder / "models" / f"{model}.sql").write_text(query)

    def test(self, name: str, query: str) -> None:
        (self.folder / "tests" / f"{name}.sql").write_text(query)

    def stage(self, *statements: str) -> int:
        """Change the staged table `staged_shop.sales` (number, letter); the step's number."""
        with open_lakehouse(self.settings) as lake:
            for statement in statements:
                lake.connection.execute(statement)
            (step,) = lake.connection.execute(
                "SELECT coalesce(max(staging_id), 0) + 1 FROM platform.stagings"
            ).fetchall()[0]
            ledger.record_staging(lake.connection, staged("shop", "sales", step))
        return int(step)

    def build(
        self,
        *selected: str,
        contracts: Mapping[str, type[Contract]] | None = None,
        full_refresh: bool = False,
        run_id: str = "r",
    ) -> dict[str, ModelResult]:
        """Build and publish models, all of them if none is named; what became of each."""
        project = dbt.project_at(self.folder, self.settings)
        manifest = dbt.manifest(project, self.settings)
        with open_lakehouse(self.settings) as lake:
            results = build_and_publish(
                lake,
                project,
                manifest,
                contracts or {},
                selected or lineage.models(manifest),
                run_id=run_id,
                full_refresh=full_refresh,
            )
        return {result.model: result for result in results}

    def publish(self, model: str, query: str, *, full_refresh: bool = False) -> list[tuple[Any, ...]]:
        """Publish one model as `query`; its rows."""
        self.write({model: query})
        result = self.build(model, full_refresh=full_refresh)[model]
        assert result.published, result.verdict
        return self.rows(f"modelled.{model}")

    def refuse(self, model: str, query: str) -> str:
        """Build one model as `query`, which must not pass; why it did not."""
        self.write({model: query})
        result = self.build(model)[model]
        assert not result.published
        return result.verdict

    def rows(self, relation: str) -> list[tuple[Any, ...]]:
        with open_lakehouse(self.settings, read_only=True) as lake:
            return lake.connection.execute(f"SELECT * FROM {relation} ORDER BY ALL").fetchall()

    def columns(self, model: str) -> dict[str, str]:
        with open_lakehouse(self.settings, read_only=True) as lake:
            found = lake.connection.sql(f"SELECT * FROM modelled.{model}")
            return dict(zip(found.columns, map(str, found.types), strict=True))

    def files(self) -> set[Path]:
        """The files below the folders of models."""
        return set((Path(self.settings.data) / "modelled").rglob("*.parquet"))

    def registered(self, model: str) -> set[Path]:
        with open_lakehouse(self.settings, read_only=True) as lake:
            listed = lake.connection.execute(f"FROM ducklake_list_files('lake', '{model}', schema => 'modelled')")
            return {Path(row[0]) for row in listed.fetchall()}


def staged(source: str, table: str, step: int) -> ledger.Staging:
    """What the ledger says of a staging step that was done by hand."""
    at = datetime.now(UTC)
    return ledger.Staging(source, table, step, "r", "rows", "staged", at, at, step, step)


def small_project(folder: Path, settings: Settings) -> SmallProject:
    """Make the project, and a staged table of three sales."""
    for name in ("models", "tests"):
        (folder / name).mkdir(parents=True)
    copy_needed(folder)
    (folder / "dbt_project.yml").write_text(PROJECT)
    (folder / "models" / "sources.yml").write_text(SOURCES)
    begin_from_parsed(folder, settings)
    project = SmallProject(folder, settings)
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
        lake.connection.execute("CREATE SCHEMA staged_shop")
        lake.connection.execute("CREATE TABLE staged_shop.sales (number BIGINT, letter VARCHAR)")
    project.stage("INSERT INTO staged_shop.sales VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    return project
