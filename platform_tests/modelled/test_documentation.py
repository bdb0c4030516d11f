"""Contract, dbt documentation and built table must agree on every column."""

from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import yaml
from pandera.errors import SchemaErrors

from data_platform.contracts.contract import columns_of, description_of
from nyc_flights.defs.modelled.contracts import CONTRACTS

PROJECT = Path(__file__).resolve().parents[2] / "dbt_project"
TYPES = {
    pl.String(): "varchar",
    pl.Int64(): "bigint",
    pl.Float64(): "double",
    pl.Boolean(): "boolean",
    pl.Date(): "date",
    pl.Datetime("us", "UTC"): "timestamp with time zone",
}


def documented() -> dict[str, Any]:
    models: dict[str, Any] = {}
    for path in (PROJECT / "models").glob("*/*.yml"):
        models |= {model["name"]: model for model in yaml.safe_load(path.read_text()).get("models", ())}
    return models


@pytest.mark.parametrize("model", sorted(CONTRACTS))
def test_a_model_is_documented_column_by_column_as_its_contract_says(model: str) -> None:
    documentation = documented()[model]
    assert documentation["description"].strip() == description_of(CONTRACTS[model])
    assert {column["name"]: (column["data_type"], column["description"]) for column in documentation["columns"]} == {
        column.name: (TYPES[column.dtype], column.description + (f" [{column.unit}]" if column.unit else ""))
        for column in columns_of(CONTRACTS[model])
    }


@pytest.mark.parametrize("model", sorted(CONTRACTS))
def test_a_built_table_has_the_columns_and_types_of_its_contract(model: str, builds: Any) -> None:
    built = builds.first.built[model]
    assert dict(built.schema) == {column.name: column.dtype for column in columns_of(CONTRACTS[model])}


@pytest.mark.parametrize("model", sorted(CONTRACTS))
@pytest.mark.parametrize("which", ["first", "changed", "restaged"])
def test_a_built_table_keeps_its_contract(model: str, which: str, builds: Any) -> None:
    CONTRACTS[model].validate(getattr(builds, which).built[model], lazy=True)


def test_a_contract_refuses_what_it_should(builds: Any) -> None:
    with pytest.raises(SchemaErrors, match="unique"):
        CONTRACTS["fct_flight"].validate(builds.refused.built["fct_flight"], lazy=True)


def test_there_is_a_contract_for_every_model_and_a_model_for_every_contract() -> None:
    files = {path.stem for path in (PROJECT / "models").glob("*/*.sql")}
    assert files == set(CONTRACTS) == set(documented())


def test_every_source_column_that_is_documented_is_staged_and_every_staged_one_documented(builds: Any) -> None:
    tables: dict[str, Any] = {}
    for path in (PROJECT / "models" / "sources").glob("*.yml"):
        for source in yaml.safe_load(path.read_text())["sources"]:
            tables |= {f"{source['schema']}.{table['name']}": table for table in source["tables"]}
    assert {name: {column["name"] for column in table["columns"]} for name, table in tables.items()} == {
        name: set(table.columns) for name, table in builds.first.staged.items()
    }
    for name, table in tables.items():
        layer, source = name.split(".")[0].split("_")
        assert table["config"]["meta"]["dagster"]["asset_key"] == [layer, source, table["name"]]
        assert all(column["description"] for column in table["columns"])


def test_duckdb_is_the_version_that_the_extensions_are_built_for() -> None:
    assert duckdb.__version__ == "1.5.5"
