"""Which versions a step adds to the history, so that the newest version of each key is always the row that the staged
table shows. What the history is, and how it is shown, is in `history`.

Of a full refresh only what differs from what was known are versions: of a key whose current version it has again, what
comes after that one; what is not in it any more is deleted. So the row that the staged table shows of such a key has
no version of its own in the generation that the full refresh begins. If a version of this generation comes that is
older than this row, late or by a replay, the row is added after all, to stay the newest.

The versions of the loads that a step stages again are made again; those before the last full refresh stay as they are,
as raw may have no rows of that time any more.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.lakehouse.tables import ROW_ID, key_bounds
from data_platform.lakehouse.transaction import DataFile, TempRelation, copy_to, new_path, temp_relation
from data_platform.staging.batches import DELETE, TRUNCATE, UPSERT
from data_platform.staging.history import (
    GENERATION,
    Versions,
    history_query,
    is_ours,
    kept,
    made_again,
    stored_versions,
    version_columns,
    version_types,
)
from data_platform.staging.merge import NUMBER, Merge, numbered
from data_platform.staging.plan import Plan
from data_platform.staging.recast import retyped
from data_platform.staging.recipe import APPLIED, COMMITTED_AT, OPERATION, VALID_FROM, Recipe
from data_platform.staging.restaging import same_key


def write_versions(plan: Plan, accepted: DataFile | None, merged: Merge, temporary: ExitStack) -> Versions:
    """Write the versions that a step adds to an unseen file. What is made along the way lives as long as
    `temporary`."""
    if not plan.recipe.history:
        return Versions()
    work = _Work(plan, accepted, merged.result.rows_superseded > 0, temporary)
    queries, again = work.of_full_refresh() if work.has_full_refresh else work.of_others()
    file = None
    if queries:
        # None of them has all columns: those that it lacks are null.
        empty = ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in version_columns(plan).items())
        query = " UNION ALL BY NAME ".join([f"(SELECT {empty} LIMIT 0)", *queries])
        file = copy_to(plan.lake, query, new_path(plan.lake, plan.recipe.versions))
    return Versions(file, again, _write_recast(plan))


def _write_recast(plan: Plan) -> DataFile | None:
    """The versions that stay in the types that the contract wants now, if one is another."""
    if not retyped(plan.versions, version_types(plan)):
        return None
    return copy_to(plan.lake, f"FROM {stored_versions(plan, kept(plan))}", new_path(plan.lake, plan.recipe.versions))


@dataclass(frozen=True)
class _Work:
    """A step, its accepted rows in a file, and whether some of them have the same key. Relations are what stands after
    FROM; a base is the row of a key that needs no version of its own, as it is the one that was known."""

    plan: Plan
    accepted: DataFile | None
    repeated: bool
    temporary: ExitStack

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    @property
    def generation(self) -> int:
        """The last full refresh that the staged table shows after the step."""
        return self.plan.chosen.since

    @cached_property
    def has_full_refresh(self) -> bool:
        """Whether the step reads all of the load that began the generation."""
        return self.plan.chosen.load_from == self.generation and self.plan.chosen.kind != "replay"

    @cached_property
    def incoming(self) -> str | None:
        """The accepted rows; of those that one raw row gave for one key, the one that is staged."""
        if self.accepted is None:
            return None
        rows = numbered(self.plan, self.accepted)
        if not self.repeated or self.recipe.function is None:
            return rows
        same = quote_all([*self.recipe.key, *self.recipe.order])
        beaten = self._temp(
            f"SELECT {NUMBER} FROM {rows} QUALIFY row_number() OVER (PARTITION BY {same} ORDER BY {NUMBER} DESC) > 1"
        )
        return f"(FROM {rows} ANTI JOIN {beaten.sql} USING ({NUMBER}))" if beaten.rows else rows

    @cached_property
    def has_older(self) -> bool:
        """Whether there are versions of earlier generations."""
        if not is_ours(self.plan):
            return False
        older = f"SELECT 1 FROM {self.recipe.versions.sql} WHERE _load_id < {self.generation} LIMIT 1"
        return bool(self.plan.lake.connection.execute(older).fetchall())

    def of_full_refresh(self) -> tuple[list[str], str | None]:
        """Queries for the versions of a step that reads the full refresh, and perhaps what came after it; and which
        versions go."""
        again = made_again(self.plan)
        if not self.has_older:
            return [self._added(self.incoming)] if self.incoming is not None else [], again
        known = self._known()
        if self.incoming is None:
            return [self._vanished(known)], again
        base = self._base(self.incoming, known)
        added = self.incoming
        if base.rows:
            dropped = self._temp(
                f"SELECT row.{NUMBER} FROM {self.incoming} AS row JOIN {base.sql} AS base ON {self._same_key('row')} "
                f"WHERE row._load_id = {self.generation} AND {self._rank('row')} <= {self._rank('base')}"
            )
            added = f"(FROM {self.incoming} ANTI JOIN {dropped.sql} USING ({NUMBER}))"
        queries = [self._added(added), self._vanished(known)]
        of_generation = [f"(FROM {added}{self._not_applied})"]
        if self.plan.chosen.kind == "backfill":
            of_generation.append(stored_versions(self.plan, f"{GENERATION} = {self.generation} AND {kept(self.plan)}"))
        if base.rows:
            preceded = self._temp(" UNION ".join(self._preceded(base.sql, rows) for rows in of_generation))
            if preceded.rows:
                since = f"(SELECT {NUMBER}, {VALID_FROM} FROM {preceded.sql})"
                rows = f"(FROM {self.incoming} JOIN {since} USING ({NUMBER}))"
                queries.append(self._select(rows, self._operation, VALID_FROM))
        return queries, again

    def of_others(self) -> tuple[list[str], str | None]:
        """Queries for the versions of a step that does not read all of the full refresh, and which versions go."""
        again = made_again(self.plan)
        if not self.has_older:
            return [self._added(self.incoming)] if self.incoming is not None else [], again
        queries, unchanged, added = [], None, self.incoming
        if again is not None:
            former = self._staged_bases(again)
            if former.rows:
                queries.append(self._gone(former))
                unchanged = self._unchanged(former)
        if added is not None and unchanged is not None and unchanged.rows:
            added = f"(FROM {added} ANTI JOIN {unchanged.sql} USING ({NUMBER}))"
        if added is not None:
            queries += [
                self._added(added),
                *self._preceded_bases(f"(FROM {added}{self._not_applied})", again, unchanged),
            ]
        return queries, again

    def _staged_bases(self, condition: str) -> TempRelation:
        """The staged rows that meet a condition and have no version in the generation."""
        recipe = self.recipe
        rows = (
            f"(SELECT * REPLACE (greatest(_load_id, {self.generation}) AS _load_id) FROM {recipe.staged.sql} "
            f"WHERE _load_id <= {self.generation} AND ({condition}))"
        )
        stored = stored_versions(self.plan, f"{GENERATION} = {self.generation} AND _load_id = {self.generation}")
        return self._temp(f"FROM {rows} ANTI JOIN {stored} USING ({quote_all([*recipe.key, *ROW_ID])})")

    def _unchanged(self, former: TempRelation) -> TempRelation | None:
        """The accepted rows that make a base again as it was: what passed of a raw row of which another part failed
        passes once more when it is replayed."""
        if self.incoming is None:
            return None
        columns = dict.fromkeys([*(column.name for column in self.recipe.columns), *ROW_ID])
        same = " AND ".join(f"base.{quote(name)} IS NOT DISTINCT FROM row.{quote(name)}" for name in columns)
        ids = ", ".join(f"row.{quote(name)}" for name in [NUMBER, *self.recipe.key, *ROW_ID])
        return self._temp(f"SELECT {ids} FROM {self.incoming} AS row JOIN {former.sql} AS base ON {same}")

    def _gone(self, former: TempRelation) -> str:
        """A delete for each base of which the raw row was staged again and gave nothing of its key."""
        keys = quote_all(self.recipe.key)
        made = ""
        if self.incoming is not None:
            made = f" ANTI JOIN (FROM {self.incoming} WHERE _load_id = {self.generation}) USING ({keys})"
        return self._deletes(f"{former.sql}{made}", self._started)

    def _preceded_bases(self, added: str, again: str | None, unchanged: TempRelation | None) -> list[str]:
        """The bases before which `added` rows come. Of raw rows that are staged again only those are bases still that
        were made as they were."""
        recipe, connection = self.recipe, self.plan.lake.connection
        of_row = quote_all([*recipe.key, *ROW_ID])
        condition = key_bounds(connection, recipe.key, added)
        if again is not None:
            same = f"({of_row}) IN (SELECT ({of_row}) FROM {unchanged.sql})" if unchanged is not None else "false"
            condition = f"({condition}) AND (NOT ({again}) OR {same})"
        rows = f"(FROM {recipe.staged.sql} WHERE _load_id <= {self.generation} AND {condition})"
        preceded = self._temp(self._preceded(rows, added))
        if not preceded.rows:
            return []
        base = self._staged_bases(f"({of_row}) IN (SELECT ({of_row}) FROM {preceded.sql})")
        if not base.rows:
            return []
        keys = quote_all(recipe.key)
        known = self._known(f"{OPERATION} = {literal(TRUNCATE)} OR ({keys}) IN (SELECT ({keys}) FROM {base.sql})")
        since = f"coalesce(known.{VALID_FROM}, {self._started})"
        found = (
            f"(SELECT base.*, coalesce(known.{OPERATION}, {literal(UPSERT)}) AS {OPERATION}, {since} AS {VALID_FROM} "
            f"FROM {base.sql} AS base LEFT JOIN {known.sql} AS known ON {self._same_key('known')})"
        )
        return [self._select(found, OPERATION, VALID_FROM)]

    def _base(self, incoming: str, known: TempRelation) -> TempRelation:
        """Of each key whose known version is in the full refresh again, the last row that equals it."""
        recipe = self.recipe
        same = " AND ".join(
            f"known.{quote(column.name)} {'=' if column.name in recipe.key else 'IS NOT DISTINCT FROM'} "
            f"row.{quote(column.name)}"
            for column in recipe.columns
        )
        removals = f"{literal(DELETE)}, {literal(TRUNCATE)}"
        versions = f" AND row.{OPERATION} NOT IN ({removals})" if recipe.removes else ""
        order = ", ".join(f"row.{quote(column)} DESC NULLS LAST" for column in recipe.order)
        keys = ", ".join(f"row.{quote(name)}" for name in recipe.key)
        last = f" QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1" if self.repeated else ""
        columns = ", ".join(f"row.{quote(name)}" for name in dict.fromkeys([*recipe.key, *recipe.order]))
        return self._temp(
            f"SELECT row.{NUMBER}, {columns}, known.{VALID_FROM} FROM {incoming} AS row JOIN {known.sql} AS known "
            f"ON {same} WHERE row._load_id = {self.generation}{versions}{last}"
        )

    def _preceded(self, base: str, rows: str) -> str:
        """A query for the bases before which one of `rows`, of the same key or a truncate, comes in the order."""
        older = f"{self._rank('row')} < {self._rank('base')}"
        query = f"SELECT base.* FROM {base} AS base JOIN {rows} AS row ON {self._same_key('row')} WHERE {older}"
        if not self.recipe.changes:
            return f"SELECT DISTINCT * FROM ({query})"
        truncates = f"(FROM {rows} AS row WHERE {OPERATION} = {literal(TRUNCATE)})"
        return f"{query} UNION SELECT base.* FROM {base} AS base JOIN {truncates} AS row ON {older}"

    def _known(self, condition: str = "true") -> TempRelation:
        """What was known before the generation: the current version of each key then, as the columns are now."""
        recipe = self.recipe
        columns = quote_all(column.name for column in recipe.columns)
        before = stored_versions(self.plan, f"_load_id < {self.generation} AND ({condition})")
        return self._temp(
            f"SELECT {columns}, {OPERATION}, valid_from AS {VALID_FROM} FROM ({history_query(recipe, before)}) "
            "WHERE is_current"
        )

    def _added(self, rows: str) -> str:
        operation = self._operation
        return self._select(f"(FROM {rows}{self._not_applied})", operation, _valid_from(self.recipe))

    def _select(self, rows: str, operation: str, valid_from: str) -> str:
        recipe = self.recipe
        columns = quote_all(dict.fromkeys([*(column.name for column in recipe.columns), *recipe.order]))
        return (
            f"SELECT {columns}, {operation} AS {OPERATION}, {valid_from} AS {VALID_FROM}, "
            f"{self.generation}::BIGINT AS {GENERATION}, {self.plan.staging_id}::BIGINT AS _staging_id FROM {rows}"
        )

    def _vanished(self, known: TempRelation) -> str:
        """A delete for each key that was known and is not in the full refresh."""
        keys = quote_all(self.recipe.key)
        absent, at = "", self._started
        if self.incoming is not None:
            refresh = f"(FROM {self.incoming} WHERE _load_id = {self.generation})"
            absent = f" ANTI JOIN {refresh} USING ({keys})"
            at = f"coalesce((SELECT min(_loaded_at) FROM {refresh}), {self._started})"
        return self._deletes(f"{known.sql}{absent}", at)

    def _deletes(self, rows: str, at: str) -> str:
        """A delete of the key of each of the rows, before whatever else the generation has of it."""
        return (
            f"SELECT {quote_all(self.recipe.key)}, {self.generation}::BIGINT AS _load_id, -1::BIGINT AS _row, "
            f"{literal(DELETE)} AS {OPERATION}, {at} AS {VALID_FROM}, {self.generation}::BIGINT AS {GENERATION}, "
            f"{self.plan.staging_id}::BIGINT AS _staging_id FROM {rows}"
        )

    @property
    def _not_applied(self) -> str:
        return f" WHERE NOT {APPLIED}" if self.recipe.removes else ""

    @property
    def _operation(self) -> str:
        return OPERATION if self.recipe.removes else literal(UPSERT)

    @property
    def _started(self) -> str:
        return f"TIMESTAMPTZ {literal(self.plan.started.isoformat())}"

    def _same_key(self, other: str) -> str:
        return same_key(self.plan, "base", other)

    def _rank(self, rows: str) -> str:
        """The place of a row among those of its key, nulls first."""
        columns = (f"{rows}.{quote(column)}" for column in self.recipe.order)
        return f"({', '.join(f'{column} IS NOT NULL, {column}' for column in columns)})"

    def _temp(self, query: str) -> TempRelation:
        return self.temporary.enter_context(temp_relation(self.plan.lake.connection, query))


def _valid_from(recipe: Recipe) -> str:
    instants = {column.name for column in recipe.columns if isinstance(column.dtype, pl.Datetime)}
    clock = recipe.newest_by or recipe.clock
    if clock not in instants:
        # The rows of a first copy were committed nobody knows when.
        return f"coalesce({COMMITTED_AT}, _loaded_at)" if recipe.dated else "_loaded_at"
    since = f"coalesce({quote(clock)}, _loaded_at)"
    # A tombstone has the values of the row that is gone: nothing but its load says since when.
    return f"CASE {OPERATION} WHEN {literal(DELETE)} THEN _loaded_at ELSE {since} END" if recipe.tombstones else since
