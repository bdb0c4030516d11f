"""The machinery of the platform: it knows nothing of any particular company's data.

The dependency direction is components -> {contracts, staging, ingestion, observability, modelling} -> lakehouse.

`read` is for notebooks and scripts; nothing else is here, and nothing is imported before it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    import duckdb
    import polars as pl
    import pyarrow as pa

__all__ = ["read"]


@overload
def read(
    name: str,
    *,
    at: int | str | datetime | None = None,
    columns: Sequence[str] | None = None,
    as_: Literal["polars"] = "polars",
    home: str | Path | None = None,
) -> pl.LazyFrame: ...
@overload
def read(
    name: str,
    *,
    at: int | str | datetime | None = None,
    columns: Sequence[str] | None = None,
    as_: Literal["arrow"],
    home: str | Path | None = None,
) -> pa.Table: ...
@overload
def read(
    name: str,
    *,
    at: int | str | datetime | None = None,
    columns: Sequence[str] | None = None,
    as_: Literal["duckdb"],
    home: str | Path | None = None,
) -> duckdb.DuckDBPyRelation: ...
def read(
    name: str,
    *,
    at: int | str | datetime | None = None,
    columns: Sequence[str] | None = None,
    as_: Literal["polars", "arrow", "duckdb"] = "polars",
    home: str | Path | None = None,
) -> pl.LazyFrame | pa.Table | duckdb.DuckDBPyRelation:
    """A table of the lakehouse by its asset (`staged/operations/flights`) or its name, as it is now or `at` a version
    or a time (one without a zone is UTC): as a lazy frame of Polars, of which only the columns and rows that are asked
    for are read, as a table of Arrow, or as a relation of DuckDB. What is collected later is of the same version.

    The lakehouse is that of `home`, of DATA_PLATFORM_HOME, or of the project of the working directory, with the
    settings that `dp` has there. Nothing is written, and no writer is kept waiting.

    Raises PlatformError for a table, a column or a version that there is not; the closest are named.
    """
    import os
    from pathlib import Path

    from data_platform.cli.environment import load_environment, load_environments
    from data_platform.lakehouse.frames import read_frame
    from data_platform.lakehouse.settings import settings_from_environment

    environment = dict(os.environ)
    if home is not None:
        environment["DATA_PLATFORM_HOME"] = str(home)
    if environment.get("DATA_PLATFORM_HOME"):
        load_environment(Path(environment["DATA_PLATFORM_HOME"]), environment)
    else:
        load_environments(environment)
    return read_frame(settings_from_environment(environment), name, at, columns, as_)
