"""Questions to the ledger, each with one meaning and one answer, as values. All of them give nothing where nothing was
ever loaded, and raise PlatformError for a ledger that this release cannot read (see `schema.exists`).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.schema import exists
from data_platform.lakehouse.ledger.steps import AuditKind, Load, Publication
from data_platform.lakehouse.sql import literal
from data_platform.lakehouse.tables import DATASETS, SCORES

CHANGED_RAW = "(status = 'landed' AND (rows_landed > 0 OR kind = 'whole'))"
"""The condition on a row of `loads` that it changed the raw table: rows landed, or a whole table replaced what was
there, be it by nothing."""

STAGED_TO = (
    f"(SELECT source, table_name, value::BIGINT AS staged_to FROM {name('positions')} "
    "WHERE layer = 'staged' AND partition = 'load_id')"
)
"""The last load of each table that staging took in."""

AWAITING_STAGING = (
    f"(SELECT source, table_name, load_id, kind FROM {name('loads')} LEFT JOIN {STAGED_TO} USING (source, table_name) "
    f"WHERE {CHANGED_RAW} AND load_id > coalesce(staged_to, 0))"
)
"""The loads that await staging: they changed the raw table, and staging has not come so far."""


@dataclass(frozen=True)
class TableState:
    """What a sensor compares a table's source with: the raw position, how many loads await staging, when it was last
    loaded (None: never)."""

    position: Mapping[str, str] = field(default_factory=dict)
    awaiting: int = 0
    loaded_at: datetime | None = None


@dataclass(frozen=True)
class LandedBounds:
    """Loads that changed a raw table: the `last`, the last `whole` one, and `retired_to`, the last whose rows retention
    deleted from raw; each 0 if there is none."""

    last: int = 0
    whole: int = 0
    retired_to: int = 0


@dataclass(frozen=True)
class ReplacedLoad:
    """A whole load, its rows in raw, and when the next whole load replaced it."""

    source: str
    table: str
    load_id: int
    rows: int
    replaced_at: datetime


@dataclass(frozen=True)
class LastLoad:
    """How the last load of a table ended. `loaded_at` is when one last landed, `reason` why the last was refused."""

    source: str
    table: str
    status: str
    loaded_at: datetime | None
    reason: str | None


@dataclass(frozen=True)
class LastStaging:
    """How the last staging of a table ended. `staged_at` is when rows were last staged, `reason` why the last step was
    refused."""

    source: str
    table: str
    status: str
    staged_at: datetime | None
    reason: str | None


@dataclass(frozen=True)
class LastVerdict:
    """The last verdict on a table; `source` is None for models."""

    layer: str
    source: str | None
    table: str
    passed: bool
    rows_checked: int
    rows_failed: int


@dataclass(frozen=True)
class TableTotals:
    """The figures of all steps of a table together. `rows_quarantined` counts those that could not be read and those
    that broke the contract."""

    source: str
    table: str
    loads: int
    rows_landed: int
    rows_quarantined: int


def table_states(lake: Lakehouse, source: str) -> dict[str, TableState]:
    """The state of each table of a source that was ever loaded."""
    if not exists(lake):
        return {}
    connection = lake.connection
    heads = connection.execute(
        f"SELECT table_name, moved_at FROM {name('heads')} WHERE (layer, source) = ('raw', ?)", [source]
    ).fetchall()
    awaiting = dict(
        connection.execute(
            f"SELECT table_name, count(*) FROM {AWAITING_STAGING} WHERE source = ? GROUP BY table_name", [source]
        ).fetchall()
    )
    entries = connection.execute(
        f"SELECT table_name, partition, value FROM {name('positions')} WHERE (layer, source) = ('raw', ?)", [source]
    ).to_arrow_table()
    positions: dict[str, dict[str, str]] = {table: {} for table, _ in heads}
    columns = (entries[column].to_pylist() for column in entries.column_names)
    for table, partition, value in zip(*columns, strict=True):
        positions[table][partition] = value
    return {table: TableState(positions[table], awaiting.get(table, 0), at) for table, at in heads}


def loads_awaiting_staging(lake: Lakehouse) -> dict[tuple[str, str], int]:
    """How many loads await staging, by source and table; tables without one are left out."""
    if not exists(lake):
        return {}
    rows = lake.connection.execute(
        f"SELECT source, table_name, count(*) FROM {AWAITING_STAGING} GROUP BY ALL"
    ).fetchall()
    return {(source, table): count for source, table, count in rows}


def landed_bounds(lake: Lakehouse, source: str, table: str) -> LandedBounds:
    """The loads between which raw rows of a table lie."""
    if not exists(lake):
        return LandedBounds()
    row = lake.connection.execute(
        f"SELECT coalesce(max(load_id) FILTER ({CHANGED_RAW}), 0), "
        f"coalesce(max(load_id) FILTER ({CHANGED_RAW} AND kind = 'whole'), 0), "
        "coalesce(max(load_id) FILTER (retired_at IS NOT NULL), 0) "
        f"FROM {name('loads')} WHERE (source, table_name) = (?, ?)",
        [source, table],
    ).fetchone()
    return LandedBounds(*row) if row is not None else LandedBounds()


def last_landed(lake: Lakehouse, source: str, table: str) -> int:
    """The last load that changed a raw table; 0 if none did."""
    return landed_bounds(lake, source, table).last


def landed_without_rows(lake: Lakehouse, source: str, table: str) -> int:
    """The last load of a table of which no row ever landed; 0 if it was never loaded, or has rows."""
    if not exists(lake):
        return 0
    row = lake.connection.execute(
        f"SELECT max(load_id) FROM {name('loads')} WHERE (source, table_name) = (?, ?) AND status = 'landed' "
        "HAVING sum(rows_landed) = 0",
        [source, table],
    ).fetchone()
    return int(row[0]) if row is not None else 0


def rows_since_whole(lake: Lakehouse, source: str, table: str) -> int:
    """How many rows of a table landed with its last whole load and since; of all its loads if there was none."""
    if not exists(lake):
        return 0
    of_table = f"FROM {name('loads')} WHERE (source, table_name, status) = (?, ?, 'landed')"
    row = lake.connection.execute(
        f"SELECT coalesce(sum(rows_landed), 0)::BIGINT {of_table} "
        f"AND load_id >= (SELECT coalesce(max(load_id), 0) {of_table} AND kind = 'whole')",
        [source, table, source, table],
    ).fetchone()
    return int(row[0]) if row is not None else 0


def last_whole_rows(lake: Lakehouse, source: str, table: str) -> int | None:
    """How many rows the last whole load of a table landed; None if there was none."""
    if not exists(lake):
        return None
    row = lake.connection.execute(
        f"SELECT arg_max(rows_landed, load_id) FROM {name('loads')} "
        "WHERE (source, table_name, status, kind) = (?, ?, 'landed', 'whole')",
        [source, table],
    ).fetchone()
    return row[0] if row is not None else None


def whole_before(lake: Lakehouse, source: str, table: str, load_id: int) -> int:
    """The last whole load of a table before `load_id`; 0 if there was none."""
    row = lake.connection.execute(
        f"SELECT max(load_id) FROM {name('loads')} "
        "WHERE (source, table_name, status, kind) = (?, ?, 'landed', 'whole') AND load_id < ?",
        [source, table, load_id],
    ).fetchone()
    return int(row[0]) if row is not None and row[0] is not None else 0


def columns_added_after(lake: Lakehouse, source: str, table: str, load_id: int) -> tuple[str, ...]:
    """The columns that the first load with rows after `load_id` added to the raw table."""
    row = lake.connection.execute(
        f"SELECT arg_min(drift, load_id) FROM {name('loads')} "
        "WHERE (source, table_name, status) = (?, ?, 'landed') AND rows_landed > 0 AND load_id > ?",
        [source, table, load_id],
    ).fetchone()
    return tuple(json.loads(row[0]).get("added", ())) if row is not None and row[0] else ()


def columns_of_loads(
    lake: Lakehouse, source: str, table: str, loads: Collection[int], stored: Mapping[str, str]
) -> dict[int, dict[str, str]]:
    """The columns that each of some loads of a raw table gave, with the types in which they were stored then. `stored`
    has those of the table now."""
    if not loads:
        return {}
    rows = lake.connection.execute(
        f"SELECT load_id, drift FROM {name('loads')} WHERE (source, table_name, status) = (?, ?, 'landed') "
        "AND load_id >= ? AND drift <> '{}'",
        [source, table, min(loads)],
    ).fetchall()
    drift = {load_id: json.loads(text) for load_id, text in rows}
    given, then = {}, dict(stored)
    for load in sorted({*loads, *drift}, reverse=True):
        found = drift.get(load, {})
        lost = set(found.get("lost", ()))
        given[load] = {column: kind for column, kind in then.items() if column not in lost}
        for column in found.get("added", ()):
            then.pop(column, None)
        for column, _, types in (text.rpartition(": ") for text in found.get("widened", ())):
            if column in then:
                then[column] = types.partition(" to ")[0]
    return {load: given[load] for load in loads}


def replaced_loads(lake: Lakehouse) -> list[ReplacedLoad]:
    """The whole loads that still lie in raw although a later one landed and was staged; the first replaced first."""
    if not exists(lake):
        return []
    rows = lake.connection.execute(
        "SELECT source, table_name, load_id, rows_landed, replaced_at FROM ("
        "SELECT source, table_name, load_id, rows_landed, retired_at, lead(load_id) OVER later AS replaced_by, "
        f"lead(ended_at) OVER later AS replaced_at FROM {name('loads')} WHERE status = 'landed' AND kind = 'whole' "
        "WINDOW later AS (PARTITION BY source, table_name ORDER BY load_id)) "
        f"JOIN {STAGED_TO} USING (source, table_name) WHERE retired_at IS NULL AND replaced_by <= staged_to "
        "ORDER BY replaced_at, source, table_name, load_id"
    ).fetchall()
    return [ReplacedLoad(*row) for row in rows]


def recent_loads(lake: Lakehouse, source: str, table: str, limit: int) -> list[Load]:
    """The last loads of a table, the latest first."""
    if not exists(lake):
        return []
    columns = ", ".join("table_name" if one.name == "table" else one.name for one in fields(Load))
    rows = lake.connection.execute(
        f"SELECT {columns} FROM {name('loads')} WHERE (source, table_name) = (?, ?) ORDER BY load_id DESC LIMIT ?",
        [source, table, limit],
    ).fetchall()
    return [_load(row) for row in rows]


def _load(row: tuple[Any, ...]) -> Load:
    values = dict(zip((one.name for one in fields(Load)), row, strict=True))
    for column in ("position", "drift"):
        values[column] = json.loads(values[column] or "{}")
    return Load(**values)


def last_loads(lake: Lakehouse) -> list[LastLoad]:
    """How the last load of each table ended."""
    return [LastLoad(*row) for row in _last(lake, "loads", "load_id", "landed")]


def last_stagings(lake: Lakehouse) -> list[LastStaging]:
    """How the last staging of each table ended."""
    return [LastStaging(*row) for row in _last(lake, "stagings", "staging_id", "staged")]


def _last(lake: Lakehouse, table: str, number: str, done: str) -> list[Any]:
    if not exists(lake):
        return []
    return lake.connection.execute(
        f"SELECT source, table_name, arg_max(status, {number}), max(ended_at) FILTER (status = '{done}'), "
        f"CASE arg_max(status, {number}) WHEN 'refused' THEN arg_max(reason, {number}) END "
        f"FROM {name(table)} GROUP BY source, table_name"
    ).fetchall()


def staged_steps(lake: Lakehouse) -> dict[str, int]:
    """The number of the last step that changed each staged table (`source/table`): one that was refused did not."""
    if not exists(lake):
        return {}
    rows = lake.connection.execute(
        f"SELECT source || '/' || table_name, max(staging_id) FROM {name('stagings')} WHERE status = 'staged' "
        "GROUP BY source, table_name"
    ).fetchall()
    return dict(rows)


def input_steps(lake: Lakehouse) -> dict[str, int]:
    """The number of the last step that changed each table which models may be built from: staged ones (`source/table`,
    see `staged_steps`), datasets (`datasets.name`) and scores (`scores.name`), as far as they exist."""
    if not exists(lake):
        return {}
    there = f"SELECT table_name FROM duckdb_tables() WHERE database_name = {literal(CATALOG)} AND schema_name ="
    rows = lake.connection.execute(
        f"SELECT {literal(DATASETS)} || '.' || name, max(version) FROM {name('datasets')} "
        f"WHERE name IN ({there} {literal(DATASETS)}) GROUP BY name "
        # Each model that scores rows into a table has a head of its own there.
        f"UNION ALL SELECT layer || '.' || table_name, sum(number)::BIGINT FROM {name('heads')} "
        f"WHERE layer = {literal(SCORES)} AND table_name IN ({there} {literal(SCORES)}) GROUP BY layer, table_name"
    ).fetchall()
    return staged_steps(lake) | dict(rows)


def versions(lake: Lakehouse) -> dict[str, list[int]]:
    """The numbers of all steps that changed a staged table (`staged/source/table`) or a model (`modelled/model`)."""
    if not exists(lake):
        return {}
    rows = lake.connection.execute(
        "SELECT 'staged/' || source || '/' || table_name, list(staging_id ORDER BY staging_id) "
        f"FROM {name('stagings')} WHERE status = 'staged' GROUP BY source, table_name UNION ALL "
        f"SELECT 'modelled/' || model, list(publication_id ORDER BY publication_id) FROM {name('publications')} "
        "GROUP BY model"
    ).fetchall()
    return dict(rows)


def last_verdicts(lake: Lakehouse, kind: AuditKind | None = None) -> list[LastVerdict]:
    """The last verdict on each table, of any kind or of one."""
    if not exists(lake):
        return []
    rows = lake.connection.execute(
        "SELECT layer, source, table_name, arg_max(passed, audited_at), arg_max(rows_checked, audited_at), "
        f"arg_max(rows_failed, audited_at) FROM {name('audits')} WHERE kind = coalesce(?, kind) "
        "GROUP BY layer, source, table_name",
        [kind],
    ).fetchall()
    return [LastVerdict(*row) for row in rows]


def published(lake: Lakehouse) -> dict[str, Publication]:
    """The last publication of each model."""
    if not exists(lake):
        return {}
    columns = ", ".join(f'arg_max("{one.name}", publication_id)' for one in fields(Publication) if one.name != "model")
    rows = lake.connection.execute(f"SELECT model, {columns} FROM {name('publications')} GROUP BY model").fetchall()
    return {
        model: Publication(number, model, snapshot, run_id, at, count, json.loads(built_from or "{}"), *measured)
        for model, number, snapshot, run_id, at, count, built_from, *measured in rows
    }


def recorded_runs(lake: Lakehouse, run_ids: Sequence[str]) -> set[str]:
    """Those of the runs with these ids that are in the ledger: they have ended."""
    if not exists(lake):
        return set()
    found = f"SELECT run_id FROM {name('runs')} WHERE run_id IN (SELECT unnest(?::VARCHAR[]))"
    return {row[0] for row in lake.connection.execute(found, [[*run_ids]]).fetchall()}


def pinned_snapshots(lake: Lakehouse) -> set[int]:
    """The snapshots that a pin keeps."""
    if not exists(lake):
        return set()
    return {row[0] for row in lake.connection.execute(f"SELECT snapshot_id FROM {name('pins')}").fetchall()}


def totals(lake: Lakehouse) -> list[TableTotals]:
    """The figures of all steps of each table together, by source and table."""
    if not exists(lake):
        return []
    rows = lake.connection.execute(
        "SELECT source, table_name, loads, rows_landed, (rejected + coalesce(quarantined, 0))::BIGINT FROM ("
        "SELECT source, table_name, count(*) FILTER (status = 'landed') AS loads, sum(rows_landed)::BIGINT "
        f"AS rows_landed, sum(rows_quarantined) AS rejected FROM {name('loads')} GROUP BY source, table_name) "
        f"LEFT JOIN (SELECT source, table_name, sum(rows_quarantined) AS quarantined FROM {name('stagings')} "
        "GROUP BY source, table_name) USING (source, table_name) ORDER BY source, table_name"
    ).fetchall()
    return [TableTotals(*row) for row in rows]
