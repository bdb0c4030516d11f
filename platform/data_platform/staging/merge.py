"""Newest wins: audited rows against each other and against what is staged. Finds out before the commit, so that the
commit itself only deletes by key and registers a file.

MERGE would rewrite whole files of the table; deleting the outdated keys and adding a file does not.

Of a log of changes a delete is one more version of its key: if it is the newest, the key leaves the table; so is a
tombstone (`tombstones`). A truncate takes away what came before it, in the step and in the table.

What was made before of raw rows that are staged again goes in any case, and versions of its keys from other raw rows
take part (`restaging`). They are numbered below zero: they count in no figure of the step.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace

import duckdb

from data_platform.lakehouse.sql import literal, nulls, quote, quote_all
from data_platform.lakehouse.tables import ROW_ID, column_types, filtered, key_bounds
from data_platform.lakehouse.transaction import DataFile, TempRelation, copy_to, discard, new_path, temp_relation
from data_platform.staging.batches import DELETE, TRUNCATE
from data_platform.staging.plan import Plan
from data_platform.staging.recipe import OPERATION, StagingResult
from data_platform.staging.restaging import Former, at_least_as_new, same_key

NUMBER = "__number"
"""The number of a row in the file of audited rows."""

ROWID = "__rowid"
"""The number that DuckLake gave to a staged row (`rowid`). It stays when files are rewritten."""

EXAMPLES = 3
"""Keys that are shown of those that are not unique."""

Place = tuple[int, int, int]
"""A place in a log of changes: order, load, row."""


@dataclass(frozen=True)
class Newest:
    """The newest version of each key among the rows of a step, deletes included: `relation` stands after FROM and has
    the key and the columns that order versions. `truncated` is the last truncate."""

    relation: str | None = None
    truncated: Place | None = None


@dataclass(frozen=True)
class Merge:
    """What a step changes in the staged table: the file to register, and which staged rows go: the `outdated` ones
    (replaced or deleted, by key and ROWID), those before the truncate, and those made of raw rows that are staged
    `again` (a condition)."""

    result: StagingResult
    file: DataFile | None = None
    outdated: TempRelation | None = None
    truncated: Place | None = None
    again: str | None = None
    newest: Newest = Newest()


def merge(plan: Plan, accepted: DataFile | None, former: Former, result: StagingResult, temporary: ExitStack) -> Merge:
    """Keep the newest version of each key, among the `accepted` rows and those that come back for `former` ones, and,
    if the staged rows stay, against them.

    `accepted` is a file of the staged table (`Recipe.direct`), or one in the spool folder, which the caller removes.
    What is made along the way lives as long as `temporary`.
    """
    again = plan.chosen.again if former.count else None
    if accepted is None and former.others is None:
        return Merge(replace(result, rows_deleted=former.count), again=again)
    connection = plan.lake.connection
    incoming = _incoming(plan, accepted, former.others)
    truncated = _last_truncate(plan, incoming)
    remaining = f"(FROM {incoming} WHERE {_after(plan, truncated)})" if truncated else incoming
    losers = temporary.enter_context(temp_relation(connection, _losers(plan, incoming, remaining, truncated)))
    winners = incoming
    if losers.rows:
        winners = f"(FROM {incoming} ANTI JOIN {losers.sql} USING ({NUMBER}))"
    ambiguous = _same_key(plan, incoming, losers, temporary) if losers.rows else SameKey()
    found = _compare(plan, winners, truncated, temporary) if plan.recipe.key and plan.stays else _Compared()
    back = _count_versions(plan, f"{winners} WHERE {NUMBER} < 0") if former.others is not None else 0
    versions = accepted.rows if accepted is not None else 0
    if plan.recipe.removes:
        versions = _count_versions(plan, f"{incoming} WHERE {NUMBER} >= 0")
    unchanged = former.others is None and not losers.rows and not found.newer_rows
    file = _write_kept(plan, accepted, winners, found, unchanged=unchanged)
    rows = (file.rows if file is not None else 0) - back
    gone = _count_truncated(plan, truncated, again) if truncated and plan.stays else 0
    return Merge(
        replace(
            result,
            rows_inserted=rows - found.replaced,
            rows_updated=found.replaced,
            rows_deleted=found.deleted + gone + former.count - found.former,
            rows_superseded=versions - rows,
            bytes=file.bytes if file is not None else 0,
            rows_same_key=ambiguous.rows,
            same_keys=ambiguous.examples,
        ),
        file,
        found.outdated if found.outdated_rows > found.former else None,  # the former ones go in any case
        truncated if gone else None,
        again,
        _newest(plan, winners, file, truncated),
    )


def numbered(plan: Plan, file: DataFile) -> str:
    """What stands after FROM for the rows of a file with their NUMBER. DuckDB numbers them itself, unless they have a
    column of the name that it gives to that."""
    path = literal(file.path)
    if "file_row_number" in {column.name.lower() for column in plan.recipe.columns}:
        return f"(SELECT *, row_number() OVER () AS {NUMBER} FROM read_parquet({path}))"
    return f"(SELECT * RENAME (file_row_number AS {NUMBER}) FROM read_parquet({path}, file_row_number = true))"


def _incoming(plan: Plan, accepted: DataFile | None, others: DataFile | None) -> str:
    """What stands after FROM for all versions that take part."""
    if others is None:
        assert accepted is not None  # noqa: S101 - without either there is nothing to merge
        return numbered(plan, accepted)
    rows = f"SELECT * REPLACE (-1 - {NUMBER} AS {NUMBER}) FROM {numbered(plan, others)}"
    return f"({rows})" if accepted is None else f"(FROM {numbered(plan, accepted)} UNION ALL BY NAME {rows})"


def _newest(plan: Plan, winners: str, file: DataFile | None, truncated: Place | None) -> Newest:
    if not plan.recipe.key:
        return Newest(None, truncated)
    if not plan.recipe.direct:
        return Newest(winners, truncated)
    return Newest(f"read_parquet({literal(file.path)})" if file is not None else None)


def _last_truncate(plan: Plan, incoming: str) -> Place | None:
    if not plan.recipe.changes:
        return None
    order = quote_all(plan.recipe.order)
    row = plan.lake.connection.execute(
        f"SELECT {order} FROM {incoming} WHERE {OPERATION} = {literal(TRUNCATE)} ORDER BY ({order}) DESC LIMIT 1"
    ).fetchone()
    return None if row is None else (row[0], row[1], row[2])


def before(plan: Plan, truncated: Place) -> str:
    """A condition on rows that carry their order: they come before the truncate."""
    return f"({quote_all(plan.recipe.order)}) < {truncated}"


def _after(plan: Plan, truncated: Place) -> str:
    return f"({quote_all(plan.recipe.order)}) > {truncated}"


def _losers(plan: Plan, incoming: str, remaining: str, truncated: Place | None) -> str:
    """A query for the numbers of the incoming rows that are not the newest of their key. Only keys that repeat are
    ordered, and of them only the columns that decide."""
    before = f"SELECT {NUMBER} FROM {incoming} WHERE NOT {_after(plan, truncated)}" if truncated else ""
    if not plan.recipe.key:
        return before or f"SELECT {NUMBER} FROM {incoming} WHERE false"
    keys = quote_all(plan.recipe.key)
    order = ", ".join(f"{quote(column)} DESC NULLS LAST" for column in plan.recipe.order)
    repeated = f"(SELECT {keys} FROM {remaining} GROUP BY ALL HAVING count(*) > 1)"
    beaten = (
        f"SELECT {NUMBER} FROM {remaining} SEMI JOIN {repeated} USING ({keys}) "
        f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}, {NUMBER} DESC) > 1"
    )
    return f"{before} UNION ALL ({beaten})" if before else beaten


@dataclass(frozen=True)
class SameKey:
    """Rows that gave way to one of the same key, delivery and version, but other values; and examples of their keys."""

    rows: int = 0
    examples: tuple[str, ...] = ()


def _same_key(plan: Plan, incoming: str, losers: TempRelation, temporary: ExitStack) -> SameKey:
    """Whether a key is not unique in one delivery: one load, or one file of it. Of a log of changes several versions of
    a key are what it is for, and so are rows that a declared order tells apart."""
    recipe, connection = plan.recipe, plan.lake.connection
    if recipe.changes or not recipe.key:
        return SameKey()
    if recipe.marks_deletes:
        incoming = f"(FROM {incoming} WHERE {OPERATION} <> {literal(DELETE)})"
    keys = quote_all(recipe.key)
    version = [recipe.version] if recipe.version is not None else []
    values = quote_all(column.name for column in recipe.columns)
    beaten = f"SELECT DISTINCT {keys} FROM {incoming} SEMI JOIN {losers.sql} USING ({NUMBER})"
    met = temporary.enter_context(
        temp_relation(
            connection,
            f"SELECT {quote_all(dict.fromkeys([*recipe.key, *version, *ROW_ID]))}, hash({values}) AS __content "
            f"FROM {incoming} SEMI JOIN ({beaten}) USING ({keys})",
        )
    )
    relation, delivery = met.sql, ["_load_id"]
    if "_file" in column_types(connection, recipe.raw):
        bounds = key_bounds(connection, ROW_ID, met.sql)
        files = f"(SELECT _load_id, _row, _file FROM {recipe.raw.sql} WHERE {bounds})"
        relation, delivery = f"(FROM {met.sql} JOIN {files} USING (_load_id, _row))", ["_load_id", "_file"]
    groups = quote_all(dict.fromkeys([*delivery, *recipe.key, *version]))
    found = temporary.enter_context(
        temp_relation(
            connection,
            f"SELECT {keys}, count(DISTINCT __content) AS __contents FROM {relation} GROUP BY {groups} "
            "HAVING count(DISTINCT __content) > 1",
        )
    )
    row = connection.execute(f"SELECT sum(__contents - 1) FROM {found.sql}").fetchone()
    shown = " || ', ' || ".join(
        f"{literal(name + ' = ')} || coalesce({quote(name)}::VARCHAR, 'null')" for name in recipe.key
    )
    examples = connection.execute(
        f"SELECT {shown} || ' (' || __contents || ' rows)' FROM {found.sql} "
        f"ORDER BY __contents DESC, 1 LIMIT {EXAMPLES}"
    ).fetchall()
    return SameKey(int(row[0] or 0) if row is not None else 0, tuple(str(one)[:100] for (one,) in examples))


@dataclass(frozen=True)
class _Compared:
    """New rows against staged rows of the same key: `outdated` are the staged rows that a new row replaces or deletes,
    `newer` the keys whose staged row is newer than the new one. `replaced` and `deleted` count the staged rows of which
    the step's own rows made something, `former` those that were made of raw rows staged again."""

    outdated: TempRelation | None = None
    newer: TempRelation | None = None
    replaced: int = 0
    deleted: int = 0
    former: int = 0

    @property
    def newer_rows(self) -> int:
        return self.newer.rows if self.newer is not None else 0

    @property
    def outdated_rows(self) -> int:
        return self.outdated.rows if self.outdated is not None else 0


def _compare(plan: Plan, winners: str, truncated: Place | None, temporary: ExitStack) -> _Compared:
    recipe, connection = plan.recipe, plan.lake.connection
    keys = quote_all(recipe.key)
    order = _undecided_order(plan)
    columns = quote_all(dict.fromkeys([*recipe.key, *order]))
    deletes = f"{OPERATION} = {literal(DELETE)}" if recipe.removes else "false"
    arriving = temporary.enter_context(
        temp_relation(connection, f"SELECT {columns}, {deletes} AS __deletes, {NUMBER} < 0 AS __other FROM {winners}")
    )
    if not arriving.rows:
        return _Compared()
    bounds = key_bounds(connection, recipe.key, arriving.sql)
    if truncated:
        bounds += f" AND {_after(plan, truncated)}"
    known = f"{columns}, {rowid(plan)} AS {ROWID}, {plan.chosen.again or 'false'} AS __former"
    wins = f"s.__former OR {at_least_as_new(order, 'n', 's')}" if order else "true"
    matched = temporary.enter_context(
        temp_relation(
            connection,
            f"SELECT n.*, s.{ROWID}, s.__former, {wins} AS __wins "
            f"FROM (SELECT {known} FROM {recipe.staged.sql} WHERE {bounds}) AS s "
            f"JOIN {filtered(arriving.sql, recipe.key)} AS n ON {same_key(plan, 's', 'n')}",
        )
    )
    outdated, newer = (
        temporary.enter_context(
            temp_relation(
                connection,
                f"SELECT {keys}, {ROWID}, __deletes, __other, __former FROM {matched.sql} WHERE {condition}",
            )
        )
        for condition in ("__wins", "NOT __wins")
    )
    row = connection.execute(
        "SELECT count(*) FILTER (NOT (__deletes OR __other)), count(*) FILTER (__deletes), count(*) FILTER (__former) "
        f"FROM {outdated.sql}"
    ).fetchone()
    return _Compared(outdated, newer, *(row or ()))


def rowid(plan: Plan) -> str:
    """What gives the ROWID of a staged row: null if a column of the contract has the name that DuckLake gives to it, or
    if the rows are written anew and lose theirs."""
    named = any(name.lower() == "rowid" for name in plan.stored)
    return "NULL::BIGINT" if named or plan.widened else "rowid"


def _undecided_order(plan: Plan) -> tuple[str, ...]:
    """The columns that decide between a new row and a staged one. A row of a load that is read for the first time comes
    after all that are staged: only its version may be older."""
    recipe = plan.recipe
    if recipe.removes or plan.chosen.again is not None:
        return recipe.order
    return () if recipe.version is None else (recipe.version,)


def _write_kept(
    plan: Plan, accepted: DataFile | None, winners: str, found: _Compared, *, unchanged: bool
) -> DataFile | None:
    """The rows that stay as a file of the staged table: the accepted one, if all of them do and it is one already."""
    recipe = plan.recipe
    if unchanged and recipe.direct:
        return accepted
    anti = f" ANTI JOIN {found.newer.sql} USING ({quote_all(recipe.key)})" if found.newer and found.newer_rows else ""
    versions = f" WHERE {OPERATION} <> {literal(DELETE)}" if recipe.removes else ""
    kept = copy_to(
        plan.lake,
        f"SELECT {quote_all(plan.types)}{nulls(plan.left)} FROM {winners}{anti}{versions}",
        new_path(plan.lake, recipe.staged),
    )
    if recipe.direct and accepted is not None:
        discard(plan.lake, accepted.path)
    return kept


def _count_versions(plan: Plan, rows: str) -> int:
    """How many of some rows (what stands after FROM, up to its condition) do not take others away."""
    versions = f" AND {OPERATION} NOT IN ({literal(DELETE)}, {literal(TRUNCATE)})" if plan.recipe.removes else ""
    return _count(plan.lake.connection, rows + versions)


def _count_truncated(plan: Plan, truncated: Place, again: str | None) -> int:
    others = f" AND NOT ({again})" if again else ""
    return _count(plan.lake.connection, f"{plan.recipe.staged.sql} WHERE {before(plan, truncated)}{others}")


def _count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {relation}").fetchone()
    return int(row[0]) if row is not None else 0
