"""Which quarantine entries a staging step closes: those whose raw row passed now, and those that no longer matter,
because a full refresh replaced the row, or a later version of it passed or deleted it. What an entry holds is in
`contracts.quarantine`.
"""

from contextlib import ExitStack
from dataclasses import dataclass

from data_platform.contracts.quarantine import SpooledEntries
from data_platform.lakehouse.sql import quote, quote_all
from data_platform.lakehouse.tables import ROW_ID
from data_platform.lakehouse.transaction import TempRelation, temp_relation
from data_platform.staging.merge import Newest
from data_platform.staging.plan import Plan

REPLAYED, SUPERSEDED = "replayed", "superseded"


@dataclass(frozen=True)
class Closing:
    """The open entries that a step closes: `entries` has their `quarantine_id` and new `status`. `spooled` has the
    `quarantine_id` of this step's own entries that are superseded as soon as they are written."""

    entries: TempRelation | None = None
    spooled: TempRelation | None = None


def find_closing(
    plan: Plan,
    newest: Newest,
    failed: SpooledEntries,
    replayed: TempRelation | None,
    others: str | None,
    temporary: ExitStack,
) -> Closing:
    """What a step closes. `failed` are its own entries: what failed again is not passed, however it was judged.
    `replayed` holds `load_id` and `row` of the entries that a replay judged again; `others` (what stands after FROM)
    has the ROW_ID of raw rows that were judged besides those that the step reads."""
    connection, chosen = plan.lake.connection, plan.chosen
    spooled = None
    if failed.rows:
        query = f"SELECT DISTINCT quarantine_id FROM {failed.sql} AS entry WHERE {_later(plan, newest)}"
        spooled = temporary.enter_context(temp_relation(connection, query))
    columns = plan.quarantine
    if not columns:
        return Closing(None, spooled)
    judged = f"load_id BETWEEN {chosen.load_from} AND {chosen.load_to}"
    if replayed is not None:
        judged = f"(load_id, row) IN (SELECT (load_id, row) FROM {replayed.sql})"
    if others is not None:
        judged = f"({judged} OR (load_id, row) IN (SELECT ({quote_all(ROW_ID)}) FROM {others}))"
    if failed.rows:
        judged += f" AND quarantine_id NOT IN (SELECT quarantine_id FROM {failed.sql})"
    superseded = f"load_id < {chosen.load_from}" if chosen.replaces else "false"
    # A quarantine of an earlier release has no keys yet.
    if "key" in columns:
        superseded += f" OR {_later(plan, newest)}"
    entries = (
        f"SELECT quarantine_id, {judged} AS judged, {superseded} AS superseded "
        f"FROM {plan.recipe.quarantine.sql} AS entry WHERE status = 'open' AND layer = 'staged'"
    )
    query = (
        f"SELECT quarantine_id, CASE WHEN judged THEN '{REPLAYED}' ELSE '{SUPERSEDED}' END AS status FROM ({entries}) "
        "WHERE judged OR superseded"
    )
    return Closing(temporary.enter_context(temp_relation(connection, query)), spooled)


def _later(plan: Plan, newest: Newest) -> str:
    """A condition on a quarantine `entry`: the same key came in a later version, or all keys were truncated later.

    Later is what has a higher version, or where none is known, what the source delivered later.
    """
    conditions = []
    types, version = plan.types, plan.recipe.version
    stored = f"TRY_CAST(entry.version AS {types[version]})" if version is not None else ""
    if newest.truncated is not None:
        conditions.append(f"({stored}, entry.load_id, entry.row) < {newest.truncated}")
    if newest.relation is not None:
        same = [
            f"newer.{quote(name)} = TRY_CAST(entry.key[{at}] AS {types[name]})"
            for at, name in enumerate(plan.recipe.key, 1)
        ]
        delivered = "(newer._load_id, newer._row) > (entry.load_id, entry.row)"
        later = delivered
        if version is not None:
            new = f"newer.{quote(version)}"
            later = f"({new} > {stored} OR (({new} = {stored} OR {stored} IS NULL) AND {delivered}))"
        conditions.append(f"EXISTS (FROM {newest.relation} AS newer WHERE {' AND '.join(same)} AND {later})")
    return f"({' OR '.join(conditions) or 'false'})"
