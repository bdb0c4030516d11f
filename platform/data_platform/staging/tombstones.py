"""Tombstones: raw rows that say of an earlier one that the source no longer has it (`ingestion.reconcile` lands them).
To the merge each is a delete of its key, as in a log of changes; which of them are none any more is found out here.
"""

from contextlib import ExitStack
from uuid import uuid4

from data_platform.lakehouse.sql import literal, quote_all
from data_platform.lakehouse.tables import ROW_ID, key_bounds
from data_platform.lakehouse.transaction import DataFile, copy_to, temp_relation
from data_platform.staging.batches import DELETE
from data_platform.staging.plan import Plan
from data_platform.staging.recipe import OPERATION
from data_platform.staging.restaging import same_key


def without_void(plan: Plan, accepted: DataFile | None, temporary: ExitStack) -> DataFile | None:
    """The accepted rows without the tombstones of rows that had given way to another row of the source before they were
    deleted: where staging makes or normalises the key, two rows of the source may have one. Such a row, delivered
    between the deleted one and its tombstone, is there still."""
    recipe, connection = plan.recipe, plan.lake.connection
    if not (recipe.tombstones and recipe.key) or accepted is None:
        return accepted
    keys, ids = quote_all(recipe.key), quote_all(ROW_ID)
    rows = f"read_parquet({literal(accepted.path)})"
    deletes = f"{OPERATION} = {literal(DELETE)}"
    query = f"SELECT {keys}, {ids}, _deleted_load_id, _deleted_row FROM {rows} WHERE {deletes}"
    with temp_relation(connection, query) as tombstones:
        if not tombstones.rows:
            return accepted
        versions = f"SELECT {keys}, {ids} FROM {rows} WHERE NOT ({deletes})"
        if plan.stays:
            bounds = key_bounds(connection, recipe.key, tombstones.sql)
            stays = f"NOT ({plan.chosen.again or 'false'}) AND {bounds}"
            versions += f" UNION ALL SELECT {keys}, {ids} FROM {recipe.staged.sql} WHERE {stays}"
        void = (
            f"SELECT DISTINCT t._load_id, t._row FROM {tombstones.sql} AS t JOIN ({versions}) AS v "
            f"ON {same_key(plan, 't', 'v')} AND (v._load_id, v._row) > (t._deleted_load_id, t._deleted_row) "
            "AND (v._load_id, v._row) < (t._load_id, t._row)"
        )
        with temp_relation(connection, void) as found:
            if not found.rows:
                return accepted
            path = plan.lake.settings.spool / f"accepted-{uuid4()}.parquet"
            temporary.callback(path.unlink, missing_ok=True)
            return copy_to(plan.lake, f"FROM {rows} ANTI JOIN {found.sql} USING ({ids})", str(path))
