"""What one staging step works with, found out once before it begins: the recipe as the raw table has it, the raw rows
that it reads, the columns that it makes. What is done with them is in `passing`, `merge`, `closing` and `step`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from data_platform.contracts.audit import ContractError
from data_platform.contracts.contract import name_of
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import TOMBSTONE_COLUMNS, column_types, duckdb_types
from data_platform.lakehouse.usage import cpu_seconds
from data_platform.staging.choice import Input
from data_platform.staging.recast import losses
from data_platform.staging.recipe import (
    ADDED,
    APPLIED,
    COMMITTED_AT,
    OPERATION,
    ORDER,
    VERSION,
    Recipe,
    audited_schema,
    resolved,
)
from data_platform.staging.rules import kept

SOFT_DELETE = "soft_delete"
"""The entry of a staged table's position that says by which column rows are marked as deleted."""

NOT_STAGED = frozenset({OPERATION, APPLIED, "_loaded_at", COMMITTED_AT, *TOMBSTONE_COLUMNS})
"""What audited rows carry as far as the merge, and staged rows do not have."""


@dataclass(frozen=True)
class Plan:
    """One step under way. `schema` has the columns of audited rows, `types` those of the staged table as the contract
    wants them (DuckDB types by name), `stored` as they are: empty if there is no table yet. `versions` are those of the
    history, `quarantine` those of the quarantine. `cpu_began` is the processor time of the process when the step
    `started`."""

    lake: Lakehouse
    recipe: Recipe
    head: ledger.Head
    chosen: Input
    run_id: str
    started: datetime
    cpu_began: float
    schema: pa.Schema
    types: dict[str, str]
    stored: dict[str, str]
    versions: dict[str, str]
    quarantine: dict[str, str]

    @property
    def staging_id(self) -> int:
        return self.head.number + 1

    @property
    def staged_to(self) -> int:
        """The last load that was staged."""
        return int(self.head.position.get("load_id", "0"))

    @property
    def position(self) -> dict[str, str]:
        """What the ledger keeps of the step: the last load that will be staged, by what rows are identified and their
        versions ordered, and the rules that all of them were held against."""
        return {
            "load_id": str(max(self.staged_to, self.chosen.load_to)),
            **_identity(self.recipe, self.head.position),
            **kept(self.head.position, self.recipe.contract, stays=self.stays),
        }

    @property
    def identified_otherwise(self) -> bool:
        """Whether the last step identified rows, or ordered their versions, by something else, or did not keep it."""
        before = self.head.position
        return any(before.get(what) != now for what, now in _identity(self.recipe, before).items())

    @property
    def left(self) -> dict[str, str]:
        """The columns that the staged table has from an earlier contract: null in new rows."""
        return {name: kind for name, kind in self.stored.items() if name not in self.types} if self.stays else {}

    @property
    def widened(self) -> dict[str, str]:
        """The columns of the staged table, if it stays and the type of VERSION has changed: that is the raw column's,
        which the source may widen at any time. Empty if it has not."""
        if not self.stays or self.stored.get(VERSION) in (None, self.types.get(VERSION)):
            return {}
        return {**self.stored, VERSION: self.types[VERSION]} if VERSION in self.types else {}

    @property
    def stays(self) -> bool:
        """Whether there are staged rows that the new ones meet."""
        return bool(self.stored) and not self.chosen.replaces


def plan_step(lake: Lakehouse, recipe: Recipe, head: ledger.Head, chosen: Input, run_id: str) -> Plan:
    """Find out what the step works with. Raises ContractError if the staged table was made with another contract or
    key, and stays. What it reads belongs into one transaction, with the head and what was chosen."""
    # What is staged again meets what came after it.
    recipe = resolved(lake, recipe, chosen.since if chosen.again is not None else chosen.load_from)
    schema = audited_schema(lake, recipe)
    types = {**duckdb_types(lake.connection, schema), **ADDED}
    types = {name: kind for name, kind in types.items() if name not in NOT_STAGED}
    stored = column_types(lake.connection, recipe.staged)
    versions = column_types(lake.connection, recipe.versions)
    quarantine = column_types(lake.connection, recipe.quarantine)
    started, began = datetime.now(UTC), cpu_seconds()
    plan = Plan(lake, recipe, head, chosen, run_id, started, began, schema, types, stored, versions, quarantine)
    if plan.stays:
        _require_same_key(plan)
        _require_same_contract(plan)
    return plan


def _identity(recipe: Recipe, before: Mapping[str, str]) -> dict[str, str]:
    """What decides which rows are one row, and which version of it is shown, as text. The order of the key's columns
    does not, nor does `newest_by` without a key; a log of changes has an order of its own. What marks deleted rows is
    named where it is, or was `before`."""
    newest_by = ORDER if recipe.changes else recipe.newest_by
    marks = {SOFT_DELETE: recipe.soft_delete or ""} if recipe.soft_delete or before.get(SOFT_DELETE) else {}
    return {"key": ", ".join(sorted(recipe.key)), "newest_by": (newest_by if recipe.key else None) or "", **marks}


def _require_same_key(plan: Plan) -> None:
    """Rows that are one row by another key were staged as several, and the versions that gave way to a newer one are
    not there any more. Of a table staged by a release that kept no key, the present one is taken for its own."""
    recipe, staged_with = plan.recipe, {SOFT_DELETE: "", **plan.head.position}
    changed = [
        f"`{what}` was {staged_with[what] or 'not given'}, now it is {now or 'not given'}"
        for what, now in _identity(recipe, staged_with).items()
        if staged_with.get(what, now) != now
    ]
    if changed:
        raise ContractError(
            f"{recipe.staged} was staged with another key, order of versions or mark of deleted rows than defs.yaml "
            f"now says: {'; '.join(changed)}. Nothing was staged. Stage it again from raw: "
            f"`dp run staged/{recipe.name} --rebuild`."
        )


def _require_same_contract(plan: Plan) -> None:
    """Rows staged before a contract changed do not have its new types, nor values in columns that now need them."""
    recipe, stored = plan.recipe, {**plan.stored, **plan.widened}
    lost = losses(plan.lake.connection, recipe.staged.sql, plan.stored, plan.widened)
    if lost:
        raise ContractError(
            f"{recipe.staged}: `newest_by` names {recipe.newest_by}, whose values cannot be compared with those that "
            f"ordered the staged rows: {lost[0]}. Nothing was staged. Stage it again from raw: "
            f"`dp run staged/{recipe.name} --rebuild`."
        )
    nullable = {column.name for column in recipe.columns if column.nullable}
    changed = [
        f"{column} is {stored[column]}" for column, kind in plan.types.items() if stored.get(column, kind) != kind
    ]
    changed += [f"{column} is not there" for column in plan.types if column not in stored and column not in nullable]
    if changed:
        raise ContractError(
            f"{recipe.staged} was staged with another contract than {name_of(recipe.contract)} now is: in the table "
            f"{', '.join(changed)}. Nothing was staged. Stage it again from raw: "
            f"`dp run staged/{recipe.name} --rebuild`."
        )
