"""Raw rows that are staged once more, by a backfill or a replay: which staged rows were made of them before, and go;
and of the keys that these leave, which version from another raw row shows now. How rows are staged is in `passing`,
which of the versions wins in `merge`.

Those other versions were staged once and gave way, so the staged table does not have them any more. A history has them;
else they are read from raw, the rows of just these keys. So the cost follows the rows that are staged again and the
keys that they leave, not the table.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

from data_platform.contracts.quarantine import SpooledEntries
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.lakehouse.tables import ROW_ID, column_types, key_bounds
from data_platform.lakehouse.transaction import DataFile, TempRelation, copy_to, temp_relation
from data_platform.staging.batches import DELETE, TRUNCATE
from data_platform.staging.history import GENERATION
from data_platform.staging.passing import keys_of_others, stage_others
from data_platform.staging.plan import Plan
from data_platform.staging.recipe import ADDED, OPERATION, ORDER

IDS = quote_all(ROW_ID)


@dataclass(frozen=True)
class Former:
    """What was made before of the raw rows that a step stages again: `rows` has the staged rows' keys and what orders
    versions. `others` is a file, in the spool folder, of versions from other raw rows of the keys that have none of
    these rows any more, or only an older one; `judged` stands after FROM and names those raw rows."""

    rows: TempRelation | None = None
    others: DataFile | None = None
    judged: str | None = None

    @property
    def count(self) -> int:
        return self.rows.rows if self.rows is not None else 0


def find_former(plan: Plan, accepted: DataFile | None, spool: SpooledEntries, temporary: ExitStack) -> Former:
    """Find what was made before of the raw rows of which the `accepted` ones are made now. Raw rows that are judged
    along and fail are added to the spool. What is made along the way lives as long as `temporary`."""
    recipe, connection, again = plan.recipe, plan.lake.connection, plan.chosen.again
    if again is None or not plan.stays:
        return Former()
    columns = quote_all(dict.fromkeys([*recipe.key, *recipe.order] if recipe.key else ROW_ID))
    query = f"SELECT {columns} FROM {recipe.staged.sql} WHERE {again}"
    former = temporary.enter_context(temp_relation(connection, query))
    if not former.rows or not recipe.key:
        return Former(former)
    left = temporary.enter_context(temp_relation(connection, _left(plan, former, accepted)))
    if not left.rows:
        return Former(former)
    if recipe.history:
        path = _spool_path(plan, temporary)
        return Former(former, copy_to(plan.lake, _from_history(plan, left), path))
    rows = _raw_rows(plan, left, temporary)
    if rows is None:
        return Former(former)
    read = f"{key_bounds(connection, ROW_ID, rows)} AND ({IDS}) IN (SELECT ({IDS}) FROM {rows})"
    wanted = f"({quote_all(recipe.key)}) IN (SELECT ({quote_all(recipe.key)}) FROM {left.sql})"
    if recipe.changes:
        wanted += f" OR {OPERATION} = {literal(TRUNCATE)}"
    return Former(former, stage_others(plan, spool, read, wanted, _spool_path(plan, temporary)), rows)


def at_least_as_new(order: Sequence[str], new: str, old: str) -> str:
    """A condition on two versions, by their aliases, and the columns that order them. Compared as rows, nulls last: an
    unknown version is the oldest."""
    sides = (", ".join(f"{alias}.{quote(c)} IS NOT NULL, {alias}.{quote(c)}" for c in order) for alias in (new, old))
    return "({}) >= ({})".format(*sides)


def same_key(plan: Plan, one: str, other: str) -> str:
    """A condition on two rows, by their aliases."""
    return " AND ".join(f"{one}.{quote(k)} = {other}.{quote(k)}" for k in plan.recipe.key)


def _spool_path(plan: Plan, temporary: ExitStack) -> str:
    path = plan.lake.settings.spool / f"restaged-{uuid4()}.parquet"
    temporary.callback(path.unlink, missing_ok=True)
    return str(path)


def _left(plan: Plan, former: TempRelation, accepted: DataFile | None) -> str:
    """A query for the former rows whose key is not made again in a version that is as new: others may be newer."""
    if accepted is None:
        return f"FROM {former.sql}"
    made = (
        f"SELECT {', '.join(f's.{quote(k)}' for k in plan.recipe.key)} FROM {former.sql} AS s "
        f"JOIN read_parquet({literal(accepted.path)}) AS n ON {same_key(plan, 'n', 's')} "
        f"WHERE {at_least_as_new(plan.recipe.order, 'n', 's')}"
    )
    return f"FROM {former.sql} ANTI JOIN ({made}) USING ({quote_all(plan.recipe.key)})"


def _from_history(plan: Plan, left: TempRelation) -> str:
    """A query for the newest version that the history has of each key from rows that are not staged again."""
    recipe = plan.recipe
    keys, order, since = quote_all(recipe.key), [GENERATION, *recipe.order], plan.chosen.since
    # A row that a full refresh left as it was has no version of its own but stands for the one before. If it is staged
    # again, that one is replaced with it.
    refreshed = plan.chosen.kind == "backfill" and plan.chosen.load_from <= since
    earlier = "false" if refreshed else f"({keys}) IN (SELECT ({keys}) FROM {left.sql} WHERE _load_id > {since})"
    others = f"(FROM {recipe.versions.sql} WHERE NOT ({plan.chosen.again}) AND (_load_id >= {since} OR {earlier}))"
    newest = ", ".join(f"{quote(column)} DESC NULLS LAST" for column in order)
    values = [
        f"{quote(name)}" if name in plan.versions else f"NULL::{kind} AS {quote(name)}"
        for name, kind in plan.types.items()
        if name not in (*ADDED, "_load_id")
    ]
    values.append(f"greatest(_load_id, {since}) AS _load_id")
    values += [OPERATION] if recipe.removes else []
    after = ""
    if recipe.changes:
        after = (
            f" AND NOT EXISTS (FROM {others} AS t WHERE t.{OPERATION} = {literal(TRUNCATE)} AND "
            f"({', '.join(f't.{quote(c)}' for c in order)}) > ({', '.join(f'v.{quote(c)}' for c in order)}))"
        )
    return (
        f"SELECT {', '.join(values)}, {plan.staging_id}::BIGINT AS _staging_id, "
        f"TIMESTAMPTZ {literal(plan.started.isoformat())} AS _staged_at FROM ("
        f"FROM {others} WHERE {key_bounds(plan.lake.connection, recipe.key, left.sql)} "
        f"AND ({keys}) IN (SELECT ({keys}) FROM {left.sql}) "
        f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {newest}) = 1) AS v "
        f"WHERE {OPERATION} <> {literal(DELETE)}{after}"
    )


def _raw_rows(plan: Plan, left: TempRelation, temporary: ExitStack) -> str | None:
    """What stands after FROM for the raw rows, other than those staged again, that may hold a version of the keys:
    their ROW_ID. None if there are none."""
    connection, recipe = plan.lake.connection, plan.recipe
    others = f"_load_id BETWEEN {plan.chosen.since} AND {plan.staged_to} AND NOT ({plan.chosen.again})"
    if not connection.execute(f"SELECT 1 FROM {recipe.raw.sql} WHERE {others} LIMIT 1").fetchall():
        return None
    path = _spool_path(plan, temporary)
    spellings = _spellings(plan, left, temporary)
    if spellings is None:
        wanted = f"({quote_all(recipe.key)}) IN (SELECT ({quote_all(recipe.key)}) FROM {left.sql})"
        file = keys_of_others(plan, wanted, path)
    else:
        keys = quote_all(recipe.key)
        bounds = key_bounds(connection, recipe.key, spellings.sql)
        file = copy_to(
            plan.lake,
            f"SELECT {IDS} FROM {recipe.raw.sql} WHERE {others} AND {bounds} "
            f"AND ({keys}) IN (SELECT ({keys}) FROM {spellings.sql})",
            path,
        )
    if file is None:
        return None
    rows = f"read_parquet({literal(path)})"
    return _with_truncates(plan, rows, others, temporary) if recipe.changes else rows


def _spellings(plan: Plan, left: TempRelation, temporary: ExitStack) -> TempRelation | None:
    """The keys as raw rows have them: as those did that the former rows were made of, or as they are staged. None if
    raw rows do not have them, because the staging function makes them."""
    connection, recipe = plan.lake.connection, plan.recipe
    types = column_types(connection, recipe.raw)
    if not set(recipe.key) <= set(types):
        return None
    keys = quote_all(recipe.key)
    unknown = " OR ".join(f"{quote(name)} IS NULL" for name in recipe.key)
    staged = ", ".join(f"TRY_CAST({quote(name)} AS {types[name]}) AS {quote(name)}" for name in recipe.key)
    bounds = key_bounds(connection, ROW_ID, left.sql)
    given = f"SELECT {keys} FROM {recipe.raw.sql} WHERE {bounds} AND ({IDS}) IN (SELECT ({IDS}) FROM {left.sql})"
    query = f"{given} UNION FROM (SELECT {staged} FROM {left.sql}) WHERE NOT ({unknown})"
    found = temporary.enter_context(temp_relation(connection, query))
    return None if connection.execute(f"SELECT 1 FROM {found.sql} WHERE {unknown} LIMIT 1").fetchall() else found


def _with_truncates(plan: Plan, rows: str, others: str, temporary: ExitStack) -> str:
    """The raw rows, and the truncates that came after the first of them in the log."""
    raw = plan.recipe.raw.sql
    bounds = key_bounds(plan.lake.connection, ROW_ID, rows)
    first = f"(SELECT min({ORDER}) FROM {raw} WHERE {bounds} AND ({IDS}) IN (SELECT ({IDS}) FROM {rows}))"
    path = _spool_path(plan, temporary)
    truncates = f"SELECT {IDS} FROM {raw} WHERE {others} AND {OPERATION} = {literal(TRUNCATE)} AND {ORDER} >= {first}"
    copy_to(plan.lake, f"SELECT {IDS} FROM {rows} UNION {truncates}", path)
    return f"read_parquet({literal(path)})"
