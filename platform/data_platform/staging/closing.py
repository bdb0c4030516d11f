"""Which quarantine entries a staging step closes: those whose raw row passed now, and those that no longer matter,
because a full refresh replaced the row or a later version of it passed. What an entry holds is told in
`contracts.quarantine`.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.tables import column_types
from data_platform.lakehouse.transaction import DataFile
from data_platform.staging.recipe import Recipe, version_of


def later_version(recipe: Recipe, types: Mapping[str, str], file: DataFile | None) -> str:
    """A condition on an entry `e` of quarantine: `file`, of staged rows, has the same key in a later version. `types`
    are the DuckDB types of the staged columns.

    Later is what has a higher version, or where none is known, what the source delivered later.
    """
    if file is None:
        return "false"
    same = [f"n.{quote(name)} = TRY_CAST(e.key[{at}] AS {types[name]})" for at, name in enumerate(recipe.key, 1)]
    version = version_of(recipe)
    delivered = "(n._load_id, n._row) > (e.load_id, e.row)"
    later = delivered
    if version is not None:
        new, old = f"n.{quote(version)}", f"TRY_CAST(e.version AS {types[version]})"
        later = f"({new} > {old} OR (({new} = {old} OR {old} IS NULL) AND {delivered}))"
    return f"EXISTS (FROM read_parquet({literal(file.path)}) AS n WHERE {' AND '.join(same)} AND {later})"


def find_closing(
    lake: Lakehouse, recipe: Recipe, *, judged: str, older: str, later: str, failed: Sequence[pl.DataFrame]
) -> list[str]:
    """Put into the temporary table `closing` the open entries that a step closes, and return their new statuses.

    `judged`, `older` and `later` are conditions on an entry `e`: its raw row was judged again, a full refresh replaced
    it, a later version of the row passed.
    `failed` are the entries of this step: what failed again stays open, however it was judged.
    """
    connection = lake.connection
    columns = column_types(connection, recipe.quarantine)
    if not columns:
        return []
    # A quarantine of an earlier release does not tell keys yet.
    superseded = f"({older} OR {later})" if "key" in columns else older
    none = pl.DataFrame(schema={"quarantine_id": pl.String})
    again = pl.concat([none, *(frame.select("quarantine_id") for frame in failed)])
    connection.register("failed", again.to_arrow(compat_level=pl.CompatLevel.oldest()))
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE closing AS SELECT quarantine_id, "
        f"CASE WHEN {judged} THEN 'replayed' ELSE 'superseded' END AS new_status FROM {recipe.quarantine.sql} AS e "
        f"WHERE status = 'open' AND layer = 'staged' AND ({judged} OR {superseded}) "
        "AND quarantine_id NOT IN (SELECT quarantine_id FROM failed)"
    )
    connection.unregister("failed")
    return [row[0] for row in connection.execute("SELECT DISTINCT new_status FROM closing").fetchall()]
