"""Contract, dbt documentation and built table must agree on every column."""

from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import yaml
from pandera.errors import SchemaErrors

from data_platform.contracts.contract import contract_columns, description_of
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


WAITING = "science"
"""The folder of the models that wait for predictions: test_feedback looks at them."""


def documented() -> dict[str, Any]:
    models: dict[str, Any] = {}
    for path in (PROJECT / "models").glob("*/*.yml"):
        if path.parent.name == WAITING:
            continue
        models |= {model["name"]: model for model in yaml.safe_load(path.read_text()).get("models", ())}
    return models


@pytest.mark.parametrize("model", sorted(CONTRACTS))
def test_a_model_is_documented_column_by_column_as_its_contract_says(model: str) -> None:
    documentation = documented()[model]
    assert documentation["description"].strip() == description_of(CONTRACTS[model])
    assert {column["name"]: (column["data_type"], column["description"]) for column in documentation["columns"]} == {
        column.name: (TYPES[column.dtype], column.description + (f" [{column.unit}]" if column.unit else ""))
        for column in contract_columns(CONTRACTS[model])
    }


@pytest.mark.parametrize("model", sorted(CONTRACTS))
def test_a_built_table_has_the_columns_and_types_of_its_contract(model: str, builds: Any) -> None:
    built = builds.first.built[model]
    assert dict(built.schema) == {column.name: column.dtype for column in contract_columns(CONTRACTS[model])}


@pytest.mark.parametrize("model", sorted(CONTRACTS))
@pytest.mark.parametrize("which", ["first", "changed", "restaged"])
def test_a_built_table_keeps_its_contract(model: str, which: str, builds: Any) -> None:
    CONTRACTS[model].validate(getattr(builds, which).built[model], lazy=True)


@pytest.mark.parametrize("model", sorted(CONTRACTS))
def test_a_null_is_refused_in_every_column_that_may_not_hold_one(model: str, builds: Any) -> None:
    row = builds.first.built[model].head(1)
    required = [column.name for column in contract_columns(CONTRACTS[model]) if not column.nullable]
    for name in required:
        with pytest.raises(SchemaErrors, match=name):
            CONTRACTS[model].validate(row.with_columns(pl.lit(None).cast(row.schema[name]).alias(name)), lazy=True)


@pytest.mark.parametrize(
    ("model", "column", "value"),
    [
        ("dim_airport", "latitude", 91.0),
        ("dim_airport", "longitude", -181.0),
        ("dim_airport", "altitude_ft", 30_000),
        ("dim_airport", "utc_offset_h", 15.0),
        ("dim_aircraft", "version", 0),
        ("dim_aircraft", "registered_year", 1900),
        ("dim_aircraft", "engines", -1),
        ("dim_aircraft", "seats", 1_001),
        ("dim_aircraft", "speed_mph", -1.0),
        ("fct_flight", "flight_number", 0),
        ("fct_flight", "dep_delay_min", -181.0),
        ("fct_flight", "arr_delay_min", 2_881.0),
        ("fct_flight", "air_time_min", -1.0),
        ("fct_flight", "distance_mi", -1.0),
        ("fct_flight", "status", "lost"),
        ("fct_flight", "_staging_id", 0),
        ("fct_web_visit", "status", 99),
        ("fct_web_visit", "device", "toaster"),
        ("fct_web_visit", "response_bytes", -1),
        ("fct_web_visit", "_staging_id", 0),
        ("departure_features", "departure_hour", 24),
        ("departure_features", "weekday", 0),
        ("departure_features", "departures_in_hour", 0),
        ("departure_features", "wind_speed_mph", 201.0),
        ("departure_features", "observation_age_min", 361.0),
        ("departure_features", "aircraft_gap_min", 1_621.0),
        ("departure_features", "previous_leg_overdue_min", -1.0),
        ("departure_features", "route_late_share_28d", 1.01),
        ("mart_punctuality", "flights", -1),
        ("mart_punctuality", "departed_on_time_share", 1.01),
        ("mart_punctuality", "p90_arr_delay_min", 2_881.0),
        ("mart_weather_delay", "wind_band", "breezy"),
        ("mart_weather_delay", "visibility_band", "clear"),
        ("mart_weather_delay", "precipitation_band", "wet"),
        ("mart_campaign_conversion", "visits", 0),
        ("mart_campaign_conversion", "conversion_rate", 1.5),
        ("mart_campaign_conversion", "revenue_usd", -1.0),
    ],
)
def test_a_value_out_of_range_is_refused(model: str, column: str, value: object, builds: Any) -> None:
    row = builds.first.built[model].head(1)
    with pytest.raises(SchemaErrors, match=column):
        CONTRACTS[model].validate(row.with_columns(pl.lit(value).cast(row.schema[column]).alias(column)), lazy=True)


@pytest.mark.parametrize("model", sorted(CONTRACTS))
def test_the_same_row_twice_is_refused(model: str, builds: Any) -> None:
    row = builds.first.built[model].head(1)
    with pytest.raises(SchemaErrors, match=r"(?i)unique"):
        CONTRACTS[model].validate(pl.concat([row, row]), lazy=True)


def test_there_is_a_contract_for_every_model_and_a_model_for_every_contract() -> None:
    files = {path.stem for path in (PROJECT / "models").glob("*/*.sql") if path.parent.name != WAITING}
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
