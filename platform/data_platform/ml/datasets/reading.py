"""Finding and reading versions of datasets. Nothing here writes to the lakehouse."""

import difflib

import duckdb
import polars as pl

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import is_kept
from data_platform.lakehouse.ledger import dataset_versions
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.ml.datasets.version import SPLIT, DatasetVersion, dataset_table
from data_platform.redaction import first_line


def find(lake: Lakehouse, name: str, version: int | None = None) -> DatasetVersion:
    """A version of a dataset, or its newest. Raises PlatformError, naming those that exist, if there is none."""
    name = name.removeprefix("datasets/").removeprefix("datasets.")
    found = dataset_versions(lake)
    of_name = [one for one in found if one.name == name]
    if not of_name:
        names = sorted({one.name for one in found})
        close = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[:20]
        raise PlatformError(
            f"There is no dataset {name}. "
            + (f"There are: {', '.join(close)}." if close else "None was built yet: `dp run datasets/NAME` builds one.")
        )
    for one in reversed(of_name):
        if version in (None, one.version):
            return one
    there = ", ".join(str(one.version) for one in of_name[-20:])
    raise PlatformError(f"The dataset {name} has no version {version}. It has: {there}.")


def rows_query(lake: Lakehouse, version: DatasetVersion, split: str | None = None) -> str:
    """The query of a version's rows, of all or of one split, in the order of the key; the column `split` comes last.

    Raises PlatformError if the version is no longer kept, or has no such split; those that exist are named.
    """
    if not is_kept(lake, version.snapshot_id):
        # DuckLake might show an earlier version in its place.
        raise PlatformError(
            f"Version {version.version} of the dataset {version.name} has expired: `keep` of its defs.yaml says how "
            "many of the newest versions are kept. `dp dataset show` lists them."
        )
    if split is not None and split not in version.splits:
        raise PlatformError(
            f"Version {version.version} of the dataset {version.name} has no split {split}. "
            + (f"It has: {', '.join(version.splits)}." if version.splits else "Its rows were not split.")
        )
    where = "" if split is None else f" WHERE {quote(SPLIT)} = {literal(split)}"
    return (
        f"SELECT * FROM {dataset_table(version.name).sql} AT (VERSION => {version.snapshot_id}){where} "
        f"ORDER BY {quote_all(version.key)}"
    )


def read(lake: Lakehouse, version: DatasetVersion, split: str | None = None) -> pl.DataFrame:
    """The rows of a version, of all or of one split, in the order of the key; the column `split` comes last.

    Raises PlatformError if there is no such split, the version has expired, or its rows are not those that were built.
    """
    query = rows_query(lake, version, split)
    try:
        rows = pl.DataFrame(lake.connection.execute(query).to_arrow_table())
    except duckdb.Error as error:
        raise PlatformError(
            f"Version {version.version} of the dataset {version.name} cannot be read: {first_line(error)}"
        ) from None
    expected = version.rows if split is None else version.splits[split]
    if len(rows) != expected:
        raise PlatformError(
            f"Version {version.version} of the dataset {version.name} has {len(rows):,} rows"
            f"{f' in the split {split}' if split else ''} and was built with {expected:,}: it is not what it was. "
            "Build a new version."
        )
    return rows
