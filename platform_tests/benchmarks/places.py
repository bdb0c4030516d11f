"""Where the cases of a benchmark keep what they make: a lakehouse for each run below its folder, all with the same home
so that the extensions are copied once. Not for the figures themselves.
"""

from pathlib import Path

import duckdb

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.extensions import install_extensions
from data_platform.lakehouse.settings import Settings, settings_from_environment


def lakehouse_in(folder: str) -> Settings:
    """An empty lakehouse in `folder`: there before the first load, with its ledger, as on any day but the first."""
    settings = Settings(settings_from_environment().home, f"{folder}/catalog.sqlite", f"{folder}/data")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    return settings


def plain_duckdb(path: Path, *extensions: str) -> duckdb.DuckDBPyConnection:
    """DuckDB as anyone has it, with its own settings, on a file of its own; the platform's copies of the extensions,
    whose signatures are not verified again, as in the platform."""
    folder = install_extensions(settings_from_environment())
    connection = duckdb.connect(
        str(path), config={"extension_directory": str(folder), "allow_unsigned_extensions": "true"}
    )
    for extension in extensions:
        connection.execute(f"LOAD {extension}")
    return connection


def count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    """How many rows a relation has."""
    row = connection.execute(f"SELECT count(*) FROM {relation}").fetchone()
    return int(row[0]) if row is not None else 0
