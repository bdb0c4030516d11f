"""Flights to make datasets of: a table `staged_ops.flights`, filled as staging would, and the recipe of a dataset."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_platform.contracts import Contract, Field, Instant
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.transaction import commit
from data_platform.ml.datasets.options import DatasetOptions
from data_platform.ml.datasets.recipe import Recipe, recipe_of

QUERY = "SELECT id, departs_at, distance, carrier, delay > 15 AS late FROM staged_ops.flights"
BY_TIME = {"by": "time", "until": {"train": "2013-01-03", "validation": "2013-01-04"}, "rest": "test"}


class LateFlight(Contract):
    """A flight, and whether it was late."""

    id: int = Field(unique=True, description="number of the flight")
    departs_at: Instant = Field(description="when it is to depart")
    distance: float = Field(gt=0, nullable=True, description="distance")
    carrier: str = Field(isin=["UA", "AA", "DL"], description="airline")
    late: bool = Field(description="whether it departed more than 15 minutes late")


def fill(lake: Lakehouse, rows: str = "range(100)", table: str = "flights") -> None:
    """Make the table anew: a flight each hour from 2013-01-01 on, for each number that `rows` gives."""
    lake.connection.execute("CREATE SCHEMA IF NOT EXISTS lake.staged_ops")
    query = (
        f"SELECT i::BIGINT AS id, TIMESTAMPTZ '2013-01-01 00:00:00+00' + to_hours(i::INTEGER) AS departs_at, "
        "100.0 + (i * 37) % 900 AS distance, ['UA', 'AA', 'DL'][1 + i % 3] AS carrier, "
        f"(i * 7919) % 60 - 20 AS delay FROM {rows} AS r(i)"
    )
    commit(lake, lambda connection: connection.execute(f"CREATE OR REPLACE TABLE lake.staged_ops.{table} AS {query}"))


def change(lake: Lakehouse, statement: str) -> None:
    """Change a table as a step would."""
    commit(lake, lambda connection: connection.execute(statement))


def recipe(folder: Path, query: str = QUERY, contract: type[Contract] | None = None, **options: Any) -> Recipe:
    """The recipe of the dataset `late_flights`, its query in a file of a folder."""
    (folder / "late_flights.sql").write_text(query)
    given: Mapping[str, Any] = {
        "query": "late_flights.sql", "key": ["id"], "time": "departs_at", "label": "late", "split": BY_TIME, **options,
    }  # fmt: skip
    return replace(recipe_of("late_flights", DatasetOptions.model_validate(given), folder), contract=contract)
