"""Exports to tables of Delta Lake: rows and position in one commit of the table's own log, the position as the version
of an application's transaction, which Delta keeps for this. So each change is there once, also after a kill: what was
not committed are files that nobody names, which a vacuum of the table removes.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.exports.columns import (
    Column,
    infinities_within,
    require_kept,
    require_key,
    simple_kind,
    unplaced,
    within,
)
from data_platform.exports.commits import (
    CASTS,
    METADATA,
    Committed,
    changes_since,
    has_rows,
    names,
    owner_of,
    position,
    reader,
    selected,
)
from data_platform.exports.export import Origin, TableExport, origin
from data_platform.exports.folders import require_folder_name
from data_platform.ingestion.lakes.log import Folder
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote, quote_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltalake import CommitProperties, DeltaTable

GONE = "_data_platform_gone"

PLAIN = ("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR", "BLOB", "DATE", "NESTED")
"""Types that Delta has, too."""

OWN_CASTS = {**CASTS, "UTINYINT": "SMALLINT", "TIME": "VARCHAR"}
"""The types that others are written as."""

UNKNOWN = ("TIMESTAMP_NS", "TIME WITH TIME ZONE", "BIT", "UNION", "VARIANT", "GEOMETRY")
"""Types that lists, structs and maps must not have in them."""


def export_to_delta(
    lake: Lakehouse, spec: TableExport, folder: str, storage: Mapping[str, str], *, run_id: str = "", full: bool = False
) -> Committed:
    """Export a table in one commit: what changed since the last one by the key, or all rows.

    Raises PlatformError for a table that this export did not make, and for types and values that Delta cannot keep.
    """
    from deltalake import CommitProperties, DeltaTable, Transaction

    require_folder_name(spec.name)
    where = f"{folder.rstrip('/')}/{spec.name}"
    there = origin(lake, spec)
    columns = tuple(delta_column(spec.label, name, there.types[name]) for name in names(spec, there))
    application = f"data_platform/{owner_of(lake, spec)}"
    with _explained(where):
        table = DeltaTable(where, storage_options=dict(storage)) if _exists(where, storage) else None
        before = table.transaction_version(application) if table is not None else None
        if table is not None and before is None and not spec.adopt:
            raise PlatformError(
                f"{where} is a table that this export did not make. It was left as it is. Give the table another name "
                "in defs.yaml, or, to have its rows replaced by those of this export, write `adopt: true`."
            )
        said, later = _last(table)
        others = _first_change(Folder(where, storage), later) if before is not None else None
        whole, changes = _why_whole(lake, spec, there, columns, before, said, others, full=full)
        if table is not None and changes is not None and not has_rows(lake, changes):
            return Committed(there, where, 0, 0, 0, int(table.count()), table.version(), unchanged=True)
        require_kept(lake.connection, spec.label, columns, there.rows, "Delta", key=spec.shown_key)
        if spec.key:
            require_key(lake.connection, spec.label, spec.key, there.rows)
        properties = CommitProperties(
            custom_metadata={METADATA: position(spec, there, columns, run_id)},
            app_transactions=[Transaction(application, there.snapshot)],
        )
        if table is None or changes is None or spec.mode == "replace":
            figures = _overwritten(lake, there, columns, where, storage, properties)
        else:
            figures = _merged(lake, spec, there, columns, changes, table, properties)
        written = DeltaTable(where, storage_options=dict(storage))
        return Committed(there, where, *figures, int(written.count()), written.version(), whole)


def delta_column(table: str, name: str, kind: str) -> Column:
    """A column as Delta keeps it; `text` is its value in DuckDB's SQL. Raises PlatformError for a type without
    a place."""
    simple, value = simple_kind(kind), quote(name)
    if simple == "NESTED":
        if within(kind, dict.fromkeys(UNKNOWN, "")) != kind:
            raise unplaced(table, name, kind, "Delta")
        kept = within(kind, OWN_CASTS)
        text = value if kept == kind else f"{value}::{kept}"
        return Column(name, simple, kept, text, tuple(infinities_within(value, kind)))
    if simple in PLAIN or simple.startswith("DECIMAL("):
        return Column(
            name, simple, kind, value, ((f"NOT isfinite({value})", "infinities"),) if simple == "DATE" else ()
        )
    if simple not in OWN_CASTS:
        raise unplaced(table, name, kind, "Delta")
    refusals = []
    if simple.startswith("TIMESTAMP"):
        refusals.append((f"NOT isfinite({value})", "infinities"))
    if simple == "TIMESTAMP_NS":
        lost = f"isfinite({value}) AND {value}::TIMESTAMP::TIMESTAMP_NS <> {value}"
        refusals.append((lost, "fractions below a microsecond"))
    return Column(name, simple, OWN_CASTS[simple], f"{value}::{OWN_CASTS[simple]}", tuple(refusals))


def _exists(where: str, storage: Mapping[str, str]) -> bool:
    from deltalake import DeltaTable

    return DeltaTable.is_deltatable(where, storage_options=dict(storage))


def _last(table: "DeltaTable | None") -> tuple[dict[str, Any], list[int]]:
    """What the last commit of ours said, and the versions that others made since, the oldest first. Empty if the log
    forgot it."""
    later: list[int] = []
    for commit in table.history() if table is not None else ():
        if METADATA in commit:
            said = commit[METADATA]
            return dict(orjson.loads(said)) if isinstance(said, str) else dict(said), later[::-1]
        later.append(int(commit["version"]))
    return {}, []


def _first_change(folder: Folder, versions: Sequence[int]) -> int | None:
    """The first of some versions that changed rows; those that optimize or vacuum do not."""
    for version in versions:
        commit = folder.commit(version)
        if commit is None or not commit.is_silent:
            return version
    return None


def _why_whole(
    lake: Lakehouse,
    spec: TableExport,
    there: Origin,
    columns: Sequence[Column],
    before: int | None,
    said: Mapping[str, Any],
    others: int | None,
    *,
    full: bool,
) -> tuple[str, str | None]:
    """Why all rows are written, or the query of what changed."""
    if before is None:
        return "the first export", None
    if said.get("snapshot") != before and not full:
        return "the log of the table does not tell what was exported last", None
    if others is not None and not full:
        return f"others wrote to it (its version {others})", None
    return changes_since(lake, spec, there, columns, {**said, "snapshot": before}, full=full)


def _overwritten(
    lake: Lakehouse,
    there: Origin,
    columns: Sequence[Column],
    where: str,
    storage: Mapping[str, str],
    properties: "CommitProperties",
) -> tuple[int, int, int]:
    from deltalake import write_deltalake

    write_deltalake(
        where,
        reader(lake, f"SELECT {selected(columns)} FROM {there.rows}"),
        mode="overwrite",
        schema_mode="overwrite",
        storage_options=dict(storage),
        commit_properties=properties,
    )
    found = lake.connection.execute(f"SELECT count(*) FROM {there.rows}").fetchone()
    return int(found[0]) if found is not None else 0, 0, 0


def _merged(
    lake: Lakehouse,
    spec: TableExport,
    there: Origin,
    columns: Sequence[Column],
    changes: str,
    table: "DeltaTable",
    properties: "CommitProperties",
) -> tuple[int, int, int]:
    keys = quote_all(spec.key)
    named = {column.name: column for column in columns}
    of_keys = ", ".join(f"{named[name].text} AS {quote(name)}" for name in spec.key)
    source = (
        f"WITH changed AS (SELECT DISTINCT {keys} FROM ({changes})) "
        f"SELECT {selected(columns)}, false AS {GONE} FROM {there.rows} SEMI JOIN changed USING ({keys}) "
        f"UNION ALL BY NAME SELECT {of_keys}, true AS {GONE} FROM changed ANTI JOIN {there.rows} USING ({keys})"
    )
    values = {_named(column.name): f"s.{_named(column.name)}" for column in columns}
    same = " AND ".join(f"t.{_named(name)} = s.{_named(name)}" for name in spec.key)
    done = (
        table.merge(reader(lake, source), same, source_alias="s", target_alias="t", commit_properties=properties)
        .when_matched_delete(predicate=f"s.{GONE}")
        .when_matched_update(values, predicate=f"NOT s.{GONE}")
        .when_not_matched_insert(values, predicate=f"NOT s.{GONE}")
        .execute()
    )
    counts = [int(done[f"num_target_rows_{what}"]) for what in ("inserted", "updated", "deleted")]
    return counts[0], counts[1], counts[2]


def _named(name: str) -> str:
    """A column as the expressions of a merge name it: in lower case otherwise."""
    return quote(name)


@contextmanager
def _explained(where: str) -> "Iterator[None]":
    """What goes wrong, as a person may act upon it."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise TransientError(
            f"{where} was written by another at the same time: {_said(error)}. Nothing changed."
        ) from None
    except (DeltaError, OSError) as error:
        raise TransientError(f"{where} cannot be written: {_said(error)}. Nothing was changed.") from None


def _said(error: Exception) -> str:
    return shortened(str(error).split("\n\nDebug source:")[0].replace("\n", " "), 300)
