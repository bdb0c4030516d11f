"""The SQL of a model with its variables and the names of its tables put in, to be run on rows made by hand in any
DuckDB. What dbt itself makes of the project is seen by the tests that build it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import jinja2
import polars as pl
import yaml

PROJECT = Path(__file__).resolve().parents[2] / "dbt_project"


def rendered(model: str) -> str:
    """The query of a model: sources are `schema.table`, other models `modelled.name`."""
    (path,) = (PROJECT / "models").glob(f"*/{model}.sql")
    variables = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())["vars"]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)  # noqa: S701 - SQL, not HTML
    return environment.from_string(path.read_text()).render(
        config=lambda **_: "",
        var=variables.__getitem__,
        source=lambda schema, table: f"{schema}.{table}",
        ref=lambda name: f"modelled.{name}",
    )


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory, at UTC as the platform's."""
    with closing(duckdb.connect(config={"threads": 2})) as connection:
        connection.execute("set TimeZone = 'UTC'")
        yield connection


def put(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
    """Make or replace a table, `schema.name`."""
    connection.execute(f"create schema if not exists {table.split('.')[0]}")
    connection.register("given", rows)
    connection.execute(f"create or replace table {table} as from given")
    connection.unregister("given")


def departure_features(
    connection: duckdb.DuckDBPyConnection, flights: pl.DataFrame, observations: pl.DataFrame
) -> pl.DataFrame:
    """What departure_features says of staged flights, in the order of their ids."""
    put(connection, "staged_operations.flights", flights)
    put(connection, "staged_weather.observations", observations)
    return connection.execute(rendered("departure_features")).pl().sort("flight_id")
