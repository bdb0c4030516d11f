"""The history of a table (`history: true`): every accepted version of each row, and every delete, in
`<table>_versions`, and the view `<table>_history`, which says from when to when each version held. Both are written in
the commit of the step. Which version the staged table shows is decided in `merge`.

A version holds from `_valid_from`: what the contract's column `newest_by` (or else the cursor) says, if it is an
instant, else when the row was loaded. Of a full refresh only the rows that differ from what was known are versions,
and what is not in it any more is deleted. The versions of the loads that a step stages again are made again; those
before the last full refresh stay as they are, as raw may have no rows of that time any more.
"""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import duckdb
import polars as pl

from data_platform.contracts.audit import ContractError
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.lakehouse.tables import ensure_table
from data_platform.lakehouse.transaction import DataFile, TempRelation, copy_to, new_path, register, temp_relation
from data_platform.staging.batches import DELETE, TRUNCATE
from data_platform.staging.plan import Plan
from data_platform.staging.recipe import APPLIED, OPERATION, VALID_FROM, Recipe

GENERATION = "_full_refresh"
"""The load of the last full refresh before a version; 1 if there was none. What orders versions does so only within
one: a full refresh may bring older ones back."""

UPSERT = "upsert"
"""The operation of a version of which the source did not say whether it is new."""


@dataclass(frozen=True)
class Versions:
    """What a step changes in the versions: the file to register, and a condition on those that are made again."""

    file: DataFile | None = None
    again: str | None = None


def require_versions(plan: Plan) -> None:
    """Raises ContractError if the history was switched on and rows were staged before, or if something else has the
    name of its table."""
    table = plan.recipe.versions
    if plan.recipe.history and plan.versions and not _is_ours(plan):
        raise ContractError(
            f"{plan.recipe.name}: `history` would keep its versions in {table}, but that is a table of another kind. "
            "Rename that table in defs.yaml (`table:` keeps the source's own spelling)."
        )
    if plan.recipe.history and not plan.versions and plan.stays:
        raise ContractError(
            f"{plan.recipe.name}: `history` was switched on for a table that is staged already. Nothing was staged. "
            f"Make its history from raw: `dp run staged/{plan.recipe.name} --rebuild`."
        )


def _is_ours(plan: Plan) -> bool:
    return {VALID_FROM, GENERATION} <= set(plan.versions)


def write_versions(plan: Plan, accepted: DataFile | None, temporary: ExitStack) -> Versions:
    """Write the versions that a step adds to an unseen file. What is made along the way lives as long as
    `temporary`."""
    recipe, chosen = plan.recipe, plan.chosen
    if not recipe.history:
        return Versions()
    incoming = f"read_parquet({literal(accepted.path)})" if accepted is not None else None
    refreshed = chosen.load_from == chosen.since and chosen.kind != "replay"
    known = temporary.enter_context(_known(plan)) if refreshed and _is_ours(plan) else None
    queries = []
    if incoming is not None:
        queries.append(_added(plan, incoming, known))
    if known is not None and known.rows:
        queries.append(_vanished(plan, incoming, known))
    file = None
    if queries:
        # None of them has all columns: those that it lacks are null.
        empty = ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in _columns(plan).items())
        query = " UNION ALL BY NAME ".join([f"(SELECT {empty} LIMIT 0)", *queries])
        file = copy_to(plan.lake, query, new_path(plan.lake, recipe.versions))
    return Versions(file, f"_load_id >= {chosen.load_from}" if chosen.kind == "rebuild" else chosen.again)


def version_types(plan: Plan) -> dict[str, str]:
    """The columns of the versions with their DuckDB types."""
    types = {name: kind for name, kind in plan.types.items() if name != "_staged_at"}
    return {**types, OPERATION: "VARCHAR", VALID_FROM: "TIMESTAMP WITH TIME ZONE", GENERATION: "BIGINT"}


def _columns(plan: Plan) -> dict[str, str]:
    """The columns of the table: if it stays, those too that it has from an earlier contract."""
    wanted = version_types(plan)
    return {**plan.versions, **wanted} if _stays(plan) else wanted


def _stays(plan: Plan) -> bool:
    return _is_ours(plan) and all(plan.versions.get(name, kind) == kind for name, kind in version_types(plan).items())


def land_versions(connection: duckdb.DuckDBPyConnection, plan: Plan, versions: Versions) -> None:
    """Show the versions and the view, within the caller's transaction; drop them if the table has no history any
    more. A contract with other types begins the history anew."""
    table, view = plan.recipe.versions, plan.recipe.history_view
    stored = plan.versions
    wanted = version_types(plan)
    if not plan.recipe.history:
        if _is_ours(plan):
            connection.execute(f"DROP VIEW IF EXISTS {view.sql}")
            connection.execute(f"DROP TABLE {table.sql}")
        return
    if stored and not _stays(plan):
        connection.execute(f"DROP TABLE {table.sql}")
        stored = {}
    elif stored and versions.again is not None:
        connection.execute(f"DELETE FROM {table.sql} WHERE {versions.again}")
    ensure_table(connection, table, wanted)
    if versions.file is not None:
        register(connection, table, [versions.file])
    if not set(wanted) <= set(stored):
        connection.execute(f"CREATE OR REPLACE VIEW {view.sql} AS {_history(plan.recipe)}")


def _order(recipe: Recipe) -> list[str]:
    return [GENERATION, *recipe.order]


def _history(recipe: Recipe) -> str:
    """The view: each version with its validity. A delete ends one and is none; so does a truncate, for all keys. A
    version that arrives after one which replaces it, late or once more, held for no time and ends nothing earlier."""
    order = ", ".join(f"{quote(column)} NULLS FIRST" for column in _order(recipe))
    later = "ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING"
    ends = f"min({VALID_FROM}) OVER (PARTITION BY {quote_all(recipe.key)} ORDER BY {order} {later})"
    rows = f"(SELECT *, {ends} AS ended FROM {recipe.versions.sql} WHERE {OPERATION} <> {literal(TRUNCATE)})"
    valid_to = "version.ended"
    if recipe.changes:
        after = ", ".join(f"truncated.{quote(column)}" for column in _order(recipe))
        before = ", ".join(f"version.{quote(column)}" for column in _order(recipe))
        valid_to = (
            f"least(version.ended, (SELECT min(truncated.{VALID_FROM}) FROM {recipe.versions.sql} AS truncated "
            f"WHERE truncated.{OPERATION} = {literal(TRUNCATE)} AND ({after}) > ({before})))"
        )
    versions = f"SELECT * EXCLUDE (ended), {valid_to} AS valid_to FROM {rows} AS version"
    return (
        f"SELECT * EXCLUDE ({VALID_FROM}, valid_to), least({VALID_FROM}, valid_to) AS valid_from, valid_to, "
        f"valid_to IS NULL AS is_current FROM ({versions}) WHERE {OPERATION} <> {literal(DELETE)}"
    )


def _known(plan: Plan) -> AbstractContextManager[TempRelation]:
    """What was known before the last full refresh: the current version of each key then."""
    recipe = plan.recipe
    columns = quote_all(column.name for column in recipe.columns)
    before = f"(FROM {recipe.versions.sql} WHERE _load_id < {plan.chosen.since})"
    current = _history(recipe).replace(recipe.versions.sql, before)
    return temp_relation(plan.lake.connection, f"SELECT {columns} FROM ({current}) WHERE is_current")


def _added(plan: Plan, incoming: str, known: TempRelation | None) -> str:
    recipe, since = plan.recipe, plan.chosen.since
    operation = OPERATION if recipe.changes else f"{literal(UPSERT)} AS {OPERATION}"
    columns = quote_all(dict.fromkeys([*(column.name for column in recipe.columns), *recipe.order]))
    unchanged = ""
    if known is not None and known.rows:
        same = " AND ".join(
            f"known.{quote(column.name)} {'=' if column.name in recipe.key else 'IS NOT DISTINCT FROM'} "
            f"incoming.{quote(column.name)}"
            for column in recipe.columns
        )
        unchanged = f" ANTI JOIN {known.sql} AS known ON {same} AND incoming._load_id = {since}"
    new = f" WHERE NOT {APPLIED}" if recipe.changes else ""
    return (
        f"SELECT {columns}, {operation}, {_valid_from(recipe)} AS {VALID_FROM}, {since}::BIGINT AS {GENERATION}, "
        f"_staging_id FROM {incoming} AS incoming{unchanged}{new}"
    )


def _vanished(plan: Plan, incoming: str | None, known: TempRelation) -> str:
    """A delete for each key that was known and is not in the full refresh."""
    keys, since = quote_all(plan.recipe.key), plan.chosen.since
    started = f"TIMESTAMPTZ {literal(plan.started.isoformat())}"
    absent, at = "", started
    if incoming is not None:
        refresh = f"(FROM {incoming} WHERE _load_id = {since})"
        absent = f" ANTI JOIN {refresh} USING ({keys})"
        at = f"coalesce((SELECT min(_loaded_at) FROM {refresh}), {started})"
    return (
        f"SELECT {keys}, {since}::BIGINT AS _load_id, -1::BIGINT AS _row, {literal(DELETE)} AS {OPERATION}, "
        f"{at} AS {VALID_FROM}, {since}::BIGINT AS {GENERATION}, {plan.staging_id}::BIGINT AS _staging_id "
        f"FROM {known.sql}{absent}"
    )


def _valid_from(recipe: Recipe) -> str:
    instants = {column.name for column in recipe.columns if isinstance(column.dtype, pl.Datetime)}
    clock = recipe.newest_by or recipe.clock
    if clock in instants:
        return f"coalesce({quote(clock)}, _loaded_at)"
    return "_loaded_at"
