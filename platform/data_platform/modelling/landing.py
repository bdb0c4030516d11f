"""A model computed into files: its rows where the lakehouse will have them, unseen until they are published, and the
numbers of the rows that they replace. `plugin` calls this from within dbt; what becomes of the files is decided in
`build`, and how they are published in `lakehouse.publish`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.failures import explain
from data_platform.lakehouse.history import row_count
from data_platform.lakehouse.sql import literal, nulls, quote, quote_all
from data_platform.lakehouse.tables import column_types, key_bounds, modelled_table
from data_platform.lakehouse.transaction import PARQUET, DataFile, discard, new_path, storage_error
from data_platform.modelling.pin import Pin, show
from data_platform.redaction import without_values

CASTS = {
    "HUGEINT": "BIGINT",
    "UHUGEINT": "UBIGINT",
    "ENUM": "VARCHAR",
    "BIT": "VARCHAR",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
}
"""Types that Parquet or DuckLake does not keep, and those that take their place. A sum of whole numbers is a HUGEINT,
which Parquet would keep as a DOUBLE; a sum that a BIGINT cannot hold is an error."""

UNKEPT = {"INTERVAL", "TIME WITH TIME ZONE", "TIME_NS", "BIGNUM", "UNION", "VARIANT", "GEOMETRY"}
"""Types of which a file would lose something (an interval's microseconds), or which it cannot hold."""

APPEND = "append"
STRATEGIES = (APPEND, "delete+insert", "merge")
ON_SCHEMA_CHANGE = ("ignore", "fail", "append_new_columns")
UNSUPPORTED = (
    "incremental_predicates",
    "predicates",
    "merge_update_columns",
    "merge_exclude_columns",
    "merge_update_condition",
    "merge_insert_condition",
    "merge_clauses",
    "merge_on_using_columns",
)
"""Settings of dbt's incremental models that would change which rows replace which."""


@dataclass(frozen=True)
class Wanted:
    """How a model is to be built. The rows of an `increment` are added to those that are published, others replace them
    all. `key` are the columns by which an increment replaces rows, none if it only adds; a row whose key is not in the
    relation `present_in` is deleted, none if that is empty.
    """

    model: str
    query: str
    increment: bool = False
    key: tuple[str, ...] = ()
    on_schema_change: str = "ignore"
    present_in: str = ""


@dataclass(frozen=True)
class Landing:
    """A model as it was computed. `columns` are those of its table once it is published, by type; `deletes` is a local
    file of the `rowid` of each published row that goes, empty if none does; `replaces` tells whether the rows replace
    all that are published; `total` is how many rows the model has then.
    """

    model: str
    columns: Mapping[str, str]
    rows: DataFile
    deletes: str
    replaces: bool
    total: int

    @property
    def query(self) -> str:
        """The model as it will be once it is published."""
        rows = f"SELECT * FROM read_parquet({literal(self.rows.path)})"
        if self.replaces:
            return rows
        published = f"SELECT t.* FROM {modelled_table(self.model).sql} AS t"
        if self.deletes:
            published += f" ANTI JOIN read_parquet({literal(self.deletes)}) AS d ON t.rowid = d.deleted"
        return f"{published} UNION ALL BY NAME {rows}"


def wanted(config: Mapping[str, Any]) -> Wanted:
    """What a materialization asks for: see macros/materializations.sql. Raises PlatformError if it is not supported."""
    node = config["model"]
    settings = node["config"]
    refusal = refused(settings)
    if refusal:
        raise PlatformError(f"{node['name']} cannot be built: {refusal}")
    key = settings.get("unique_key") or ()
    key = (key,) if isinstance(key, str) else tuple(key)
    appends = settings.get("incremental_strategy") == APPEND
    return Wanted(
        node["name"],
        config["sql"],
        bool(config["increment"]),
        () if appends else key,
        settings.get("on_schema_change") or "ignore",
        config["present_in"] or "",
    )


def refused(settings: Mapping[str, Any]) -> str:
    """Why a model with these settings of dbt's cannot be built; empty if it can."""
    if settings["materialized"] != "incremental":
        return ""
    strategy = settings.get("incremental_strategy")
    if strategy and strategy not in STRATEGIES:
        return f"the incremental strategy {strategy} is not supported. There are: {', '.join(STRATEGIES)}."
    change = settings.get("on_schema_change") or "ignore"
    if change not in ON_SCHEMA_CHANGE:
        return (
            f"on_schema_change: {change} is not supported. There are: {', '.join(ON_SCHEMA_CHANGE)}; "
            "a full refresh makes the table anew."
        )
    unsupported = [name for name in UNSUPPORTED if settings.get(name)]
    if unsupported:
        return f"{', '.join(unsupported)} is not supported: rows are replaced by unique_key, whole, or only added."
    if settings.get("delete_missing_in") and (strategy == APPEND or not settings.get("unique_key")):
        return "delete_missing_in needs a unique_key and a strategy that replaces rows (delete+insert or merge)."
    return ""


def land(connection: duckdb.DuckDBPyConnection, pin: Pin, want: Wanted) -> Landing:
    """Compute a model into files, and let its name mean the result from now on. Raises PlatformError, with DuckDB's own
    words, if the query fails."""
    lake = Lakehouse(pin.settings, connection, pin.identity)
    path = new_path(lake, modelled_table(want.model)) if pin.publishes else str(pin.folder / f"{want.model}.parquet")
    with removed_on_failure(lake, path):
        columns = kept_columns(connection, want.query, want.model)
        if want.increment:
            landing = _increment(lake, pin, want, columns, path)
        else:
            rows = write_rows(lake, want.query, columns, path)
            landing = Landing(want.model, columns, rows, "", replaces=True, total=rows.rows)
        show(connection, want.model, landing.query)
    pin.landings[want.model] = landing
    return landing


@contextmanager
def removed_on_failure(lake: Lakehouse, path: str) -> Iterator[None]:
    """Remove the file at `path` if the block fails. Raises PlatformError for what DuckDB raises."""
    try:
        yield
    except duckdb.Error as error:
        discard(lake, path)
        if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
            raise storage_error(error, path, lake.settings) from None
        raise (explain(error, lake.settings) or PlatformError(without_values(str(error)))) from None
    except BaseException:
        discard(lake, path)
        raise


def kept_columns(connection: duckdb.DuckDBPyConnection, query: str, model: str) -> dict[str, str]:
    """The columns that a query gives, each with the type in which it lands. Raises PlatformError if one has none."""
    found = connection.sql(f"SELECT * FROM (\n{query}\n)")
    kept = [_kept_type(kind, f"{model}.{name}") for name, kind in zip(found.columns, found.types, strict=True)]
    # As DuckDB spells them, so that they compare with those of a table.
    spelt = connection.sql(f"SELECT {', '.join(f'NULL::{kind}' for kind in kept)}").types
    return dict(zip(found.columns, map(str, spelt), strict=True))


def _kept_type(kind: Any, column: str) -> str:
    name = str(kind) if kind.id in ("timestamp", "time") else kind.id.upper()
    if name in UNKEPT:
        raise PlatformError(
            f"{column} is of the type {kind}, which a file of the lakehouse does not hold without loss. Cast it in the "
            "model: an interval to seconds (epoch(...)), anything else to a number or to text."
        )
    if name in CASTS:
        return CASTS[name]
    if name in ("LIST", "ARRAY"):
        return f"{_kept_type(kind.children[0][1], column)}[]"
    if name == "STRUCT":
        fields = (f"{quote(field)} {_kept_type(child, f'{column}.{field}')}" for field, child in kind.children)
        return f"STRUCT({', '.join(fields)})"
    if name == "MAP":
        (_, key), (_, value) = kind.children
        return f"MAP({_kept_type(key, column)}, {_kept_type(value, column)})"
    return str(kind)


def write_rows(lake: Lakehouse, query: str, columns: Mapping[str, str], path: str) -> DataFile:
    """Write what a query gives, in the types of `columns`. The file is there even if it has no rows."""
    cast = ", ".join(f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name, kind in columns.items())
    return _copy(lake, f"SELECT {cast} FROM (\n{query}\n)", path)


def _copy(lake: Lakehouse, query: str, path: str) -> DataFile:
    row = lake.connection.execute(f"COPY ({query}) TO {literal(path)} ({PARQUET}, RETURN_STATS)").fetchone()
    if row is None:
        raise PlatformError(f"DuckDB did not say what it wrote to {path}.")
    return DataFile(path, rows=row[1], bytes=row[2])


def _increment(lake: Lakehouse, pin: Pin, want: Wanted, found: Mapping[str, str], path: str) -> Landing:
    table = modelled_table(want.model)
    columns = _reconciled(want, column_types(lake.connection, table), found)
    have = {name.lower() for name in found}
    missing = [name for name in want.key if name.lower() not in have]
    if missing:
        raise PlatformError(f"The unique_key of {want.model} names {', '.join(missing)}, which is no column of it.")
    gone = {name: kind for name, kind in columns.items() if name.lower() not in have}
    rows = write_rows(lake, f"SELECT *{nulls(gone)} FROM (\n{want.query}\n)", columns, path)
    deletes = _find_deletes(lake, pin, want, rows)
    total = row_count(lake, table) - (deletes.rows if deletes else 0) + rows.rows
    return Landing(want.model, columns, rows, deletes.path if deletes else "", replaces=False, total=total)


def _reconciled(want: Wanted, published: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """The columns of the table after an increment: new values take the types of the published table. Raises
    PlatformError where the columns differ and the model says that they may not."""
    # The lakehouse tells names apart by their letters, not by their case, and keeps the case that came first.
    have = {name.lower(): name for name in published}
    given = {have.get(name.lower(), name): kind for name, kind in found.items()}
    added = {name: kind for name, kind in given.items() if name not in published}
    removed = [name for name in published if name not in given]
    changes = [f"{name} is new" for name in added] + [f"{name} is gone" for name in removed]
    changes += [
        f"{name} was {published[name]} and is {kind}"
        for name, kind in given.items()
        if published.get(name, kind) != kind
    ]
    anew = "Build it anew with full_refresh (in the launchpad of the models)"
    if want.on_schema_change == "fail" and changes:
        raise PlatformError(
            f"The columns of {want.model} are not those that are published, and its on_schema_change is fail: "
            f"{'; '.join(changes)}. {anew}."
        )
    if want.on_schema_change == "ignore":
        if removed:
            raise PlatformError(
                f"{want.model} lacks {', '.join(removed)}, which its published table has. {anew}, or set "
                "on_schema_change to append_new_columns, which leaves them empty."
            )
        return dict(published)
    return {**published, **added}


def _find_deletes(lake: Lakehouse, pin: Pin, want: Wanted, rows: DataFile) -> DataFile | None:
    """Find the published rows that new ones replace, and those whose key is gone, by the number that DuckLake gives
    each row for good: to delete by it takes a commit a fifth of the time that the keys take."""
    if not want.key:
        return None
    table = modelled_table(want.model)
    keys = quote_all(want.key)
    # A null is a key like any other: by `=` a row with one would be added once more by each build.
    on = " AND ".join(f"t.{quote(column)} IS NOT DISTINCT FROM n.{quote(column)}" for column in want.key)
    incoming = f"read_parquet({literal(rows.path)})"
    queries = []
    if rows.rows:
        bounds = key_bounds(lake.connection, want.key, incoming)
        queries.append(
            f"SELECT t.row AS deleted FROM (SELECT rowid AS row, {keys} FROM {table.sql} WHERE {bounds}) AS t "
            f"SEMI JOIN {incoming} AS n ON {on}"
        )
    if want.present_in:
        queries.append(
            f"SELECT t.row AS deleted FROM (SELECT rowid AS row, {keys} FROM {table.sql}) AS t "
            f"ANTI JOIN {want.present_in} AS n ON {on}"
        )
    if not queries:
        return None
    found = _copy(lake, " UNION ".join(queries), str(pin.folder / f"{want.model}.deletes.parquet"))
    return found if found.rows else None
