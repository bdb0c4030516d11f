"""The history of a table (`history: true`): every accepted version of each row, and every delete, in
`<table>_versions`, and the view `<table>_history`, which says from when to when each version held. What these two are,
and how a commit shows them, is here; which versions a step adds is in `versions`, which one the staged table shows in
`merge`.

A version holds from `_valid_from`: what the contract's column `newest_by` (or else the cursor) says, if it is an
instant, else when the row was loaded. Versions outlive the raw rows that they were made of, so they are kept through
every change of the contract: a column that they lack is null, one of another type is cast.
"""

from dataclasses import dataclass

import duckdb

from data_platform.contracts.audit import ContractError
from data_platform.contracts.contract import name_of
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.lakehouse.tables import ensure_table
from data_platform.lakehouse.transaction import DataFile, register
from data_platform.staging.batches import DELETE, TRUNCATE
from data_platform.staging.plan import Plan
from data_platform.staging.recast import Loss, as_wanted, losses, retyped
from data_platform.staging.recipe import OPERATION, VALID_FROM, VERSION, Recipe

GENERATION = "_full_refresh"
"""The load of the last full refresh before a version; 1 if there was none. What orders versions does so only within
one: a full refresh may bring older ones back."""


@dataclass(frozen=True)
class Versions:
    """What a step changes in the versions: the file to register, a condition on those that are made again, and, if a
    type changes, those that stay, written anew."""

    file: DataFile | None = None
    again: str | None = None
    recast: DataFile | None = None

    @property
    def files(self) -> list[DataFile]:
        return [file for file in (self.file, self.recast) if file is not None]


def require_versions(plan: Plan) -> None:
    """Raises ContractError if the history was switched on and rows were staged before, if something else has the name
    of its table, or if a type of the contract does not hold what the versions that stay have."""
    recipe = plan.recipe
    if not recipe.history:
        return
    if plan.versions and not is_ours(plan):
        raise ContractError(
            f"{recipe.name}: `history` would keep its versions in {recipe.versions}, but that is a table of another "
            "kind. Rename that table in defs.yaml (`table:` keeps the source's own spelling)."
        )
    if not plan.versions and plan.stays:
        raise ContractError(
            f"{recipe.name}: `history` was switched on for a table that is staged already. Nothing was staged. "
            f"Make its history from raw: `dp run staged/{recipe.name} --rebuild`."
        )
    if not plan.versions:
        return
    lost = losses(plan.lake.connection, f"{recipe.versions.sql} WHERE {kept(plan)}", plan.versions, version_types(plan))
    if lost:
        raise ContractError(_lost(plan, lost[0]))


def _lost(plan: Plan, lost: Loss) -> str:
    recipe = plan.recipe
    if lost.column == VERSION:
        return (
            f"{recipe.name}: `newest_by` names {recipe.newest_by}, whose values cannot be compared with those that "
            f"order the versions in {recipe.versions}: {lost}. Nothing was staged and every version is there. Give the "
            f"contract a column {recipe.newest_by}: it is then kept beside what ordered the earlier versions."
        )
    private = {column.name for column in recipe.columns if column.private}
    example = "" if lost.column in private else f", such as {lost.example!r}"
    return (
        f"{recipe.name}: {name_of(recipe.contract)} has another type than the versions in {recipe.versions}, and "
        f"{lost}{example}. Nothing was staged and every version is there. Give the column a type in the contract that "
        "holds both, or let the staging function give it under another name. To begin the history anew instead, with "
        f"what raw still has, switch `history` off, `dp run staged/{recipe.name}`, switch it on, and add `--rebuild`."
    )


def is_ours(plan: Plan) -> bool:
    """Whether there are versions, and not a table that happens to have their name."""
    return {VALID_FROM, GENERATION} <= set(plan.versions)


def version_types(plan: Plan) -> dict[str, str]:
    """The columns that the contract wants of the versions, with their DuckDB types."""
    types = {name: kind for name, kind in plan.types.items() if name != "_staged_at"}
    return {**types, OPERATION: "VARCHAR", VALID_FROM: "TIMESTAMP WITH TIME ZONE", GENERATION: "BIGINT"}


def version_columns(plan: Plan) -> dict[str, str]:
    """The columns of the table after the step: those too that it has from an earlier contract."""
    return {**(plan.versions if is_ours(plan) else {}), **version_types(plan)}


def stored_versions(plan: Plan, condition: str) -> str:
    """The stored versions that meet a condition, as the columns are after the step: what stands after FROM."""
    return (
        f"(SELECT {as_wanted(plan.versions, version_columns(plan))} FROM {plan.recipe.versions.sql} WHERE {condition})"
    )


def made_again(plan: Plan) -> str | None:
    """A condition on the versions of the raw rows that the step stages again; None if it stages none."""
    return f"_load_id >= {plan.chosen.load_from}" if plan.chosen.kind == "rebuild" else plan.chosen.again


def kept(plan: Plan) -> str:
    """A condition on the versions that are not made again."""
    again = made_again(plan)
    return f"NOT ({again})" if again is not None else "true"


def land_versions(connection: duckdb.DuckDBPyConnection, plan: Plan, versions: Versions) -> None:
    """Show the versions and the view, within the caller's transaction; drop them if the table has no history any
    more."""
    recipe = plan.recipe
    table, view = recipe.versions, recipe.history_view
    if not recipe.history:
        if is_ours(plan):
            connection.execute(f"DROP VIEW IF EXISTS {view.sql}")
            connection.execute(f"DROP TABLE {table.sql}")
        return
    columns = version_columns(plan)
    if retyped(plan.versions, columns):
        connection.execute(f"DROP TABLE {table.sql}")
    ensure_table(connection, table, columns)
    if versions.recast is not None:
        register(connection, table, [versions.recast])
    if plan.versions and versions.again is not None:
        connection.execute(f"DELETE FROM {table.sql} WHERE {versions.again}")
    if versions.file is not None:
        register(connection, table, [versions.file])
    if plan.versions != columns or plan.identified_otherwise:
        connection.execute(f"CREATE OR REPLACE VIEW {view.sql} AS {history_query(recipe, table.sql)}")


def version_order(recipe: Recipe) -> tuple[str, ...]:
    """The columns that order the versions of a row."""
    return (GENERATION, *recipe.order)


def history_query(recipe: Recipe, versions: str) -> str:
    """`versions` (what stands after FROM) with their validity. A delete ends one and is none; so does a truncate, for
    all keys. A version that arrives after one which replaces it, late or once more, held for no time and ends nothing
    earlier."""
    order = ", ".join(f"{quote(column)} NULLS FIRST" for column in version_order(recipe))
    later = "ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING"
    ends = f"min({VALID_FROM}) OVER (PARTITION BY {quote_all(recipe.key)} ORDER BY {order} {later})"
    rows = f"(SELECT *, {ends} AS __ended FROM {versions} AS stored WHERE {OPERATION} <> {literal(TRUNCATE)})"
    valid_to = "version.__ended"
    if recipe.changes:
        after = ", ".join(f"truncated.{quote(column)}" for column in version_order(recipe))
        before = ", ".join(f"version.{quote(column)}" for column in version_order(recipe))
        valid_to = (
            f"least(version.__ended, (SELECT min(truncated.{VALID_FROM}) FROM {versions} AS truncated "
            f"WHERE truncated.{OPERATION} = {literal(TRUNCATE)} AND ({after}) > ({before})))"
        )
    ended = f"SELECT * EXCLUDE (__ended), {valid_to} AS valid_to FROM {rows} AS version"
    return (
        f"SELECT * EXCLUDE ({VALID_FROM}, valid_to), least({VALID_FROM}, valid_to) AS valid_from, valid_to, "
        f"valid_to IS NULL AS is_current FROM ({ended}) WHERE {OPERATION} <> {literal(DELETE)}"
    )
