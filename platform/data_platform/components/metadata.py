"""What an asset shows of itself in the UI: schema, sample, figures, lineage, place. Never a private value."""

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from data_platform.components.keys import raw_key
from data_platform.components.spec import SourceSpec, TableSpec
from data_platform.contracts.contract import Column, Contract, contract_columns
from data_platform.contracts.quarantine import newest_entries, open_reasons, open_rows
from data_platform.contracts.violations import PRIVATE, Violation, counted
from data_platform.errors import shortened
from data_platform.ingestion.load import LoadResult
from data_platform.ingestion.source import SourceUse
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import Table, column_types, quarantine_table, raw_table
from data_platform.staging.recipe import StagingResult

SAMPLE_ROWS = 5
CELL_CHARACTERS = 60
RECORD_CHARACTERS = 300
REASONS = 10
WHY = ("column", "rule", "rows", "example")
BARS = 30
BAR_CHARACTERS = 30


def contract_schema(contract: type[Contract]) -> dg.TableSchema:
    """The contract as Dagster shows a table's columns: type, meaning with unit, rules."""
    return dg.TableSchema(columns=[_table_column(column) for column in contract_columns(contract)])


def _table_column(column: Column) -> dg.TableColumn:
    rules = list(column.rules)
    if column.references is not None:
        rules.append(f"in {column.references.table}.{column.references.column}")
    unit = f" [{column.unit}]" if column.unit else ""
    return dg.TableColumn(
        column.name,
        str(column.dtype),
        description=f"{column.description}{unit}",
        constraints=dg.TableColumnConstraints(nullable=column.nullable, unique=column.unique, other=rules),
        tags={"private": ""} if column.private else {},
    )


OWN_COLUMNS = {
    "_load_id": "Number of the load that brought the row: `platform.loads` says when, and in which run.",
    "_loaded_at": "When the load began that brought the row.",
    "_row": "Number of the row within its load.",
    "_file": "The file that the row comes from.",
    "_line": "The line of the file on which the row begins.",
    "_operation": "What the source did with the row: insert, update, delete or truncate.",
    "_order": "The place of the change in the source's log.",
    "_committed_at": "When the transaction of the change was committed at the source.",
    "_unchanged": "Columns that the update left as they were and the log does not repeat: they are null here.",
    "_deleted_load_id": "Of a tombstone: the load of the row that the source no longer has.",
    "_deleted_row": "Of a tombstone: the number of that row within its load.",
}
"""What the columns mean that the platform adds to raw tables."""


def raw_schema(lake: Lakehouse, spec: SourceSpec, table: TableSpec) -> dg.TableSchema:
    """The columns of a raw table as they are stored, with where each comes from and what becomes of it."""
    stored = column_types(lake.connection, raw_table(spec.name, table.name))
    needed = needed_columns(table, empty_frame(lake, raw_table(spec.name, table.name))) or {}
    meaning = {column.name: column for column in contract_columns(table.contract)}
    masked = {*table.table.mask, *table.table.mask_within}
    columns = []
    for name, kind in stored.items():
        if name in OWN_COLUMNS:
            columns.append(dg.TableColumn(name, kind, description=OWN_COLUMNS[name]))
            continue
        becomes = [staged for staged, raw in needed.items() if name in raw]
        words = [f"`{name}` as {spec.name} gives it" + (", hashed before the first write." if name in masked else ".")]
        if becomes == [name]:
            words.append(meaning[name].description)
        elif becomes:
            words.append(f"Staged as {', '.join(_meaning(meaning[one]) for one in becomes)}")
        columns.append(dg.TableColumn(name, kind, description=" ".join(filter(None, words))))
    return dg.TableSchema(columns=columns)


def _meaning(column: Column) -> str:
    return f"`{column.name}` ({column.description.rstrip('.')})" if column.description else f"`{column.name}`"


def sample(lake: Lakehouse, table: Table, private: Sequence[str] = ()) -> dg.TableMetadataValue | None:
    """A few rows of a table, private columns blanked; None while there is no table."""
    stored = column_types(lake.connection, table)
    if not stored:
        return None
    rows = lake.connection.execute(f"SELECT * FROM {table.sql} LIMIT {SAMPLE_ROWS}").fetchall()
    names = list(stored)
    records = [
        dg.TableRecord(
            {name: PRIVATE if name in private else _cell(value) for name, value in zip(names, row, strict=True)}
        )
        for row in rows
    ]
    schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in names])
    return dg.MetadataValue.table(records=records, schema=schema)


def private_raw_columns(lake: Lakehouse, spec: SourceSpec, table: TableSpec) -> list[str]:
    """The raw columns whose values are not shown: those that are masked, and those that a private column of the
    contract has the name of or is made of; all of them if it is unknown what a private column is made of."""
    private = {column.name for column in contract_columns(table.contract) if column.private}
    raw = empty_frame(lake, raw_table(spec.name, table.name))
    needed = needed_columns(table, raw) if private else {}
    if needed is None:
        return sorted({*table.table.mask, *table.table.mask_within, *raw.columns})
    made_of = {name for column, names in needed.items() if column in private for name in names}
    if private or table.table.masks:
        # The key of a message is, as a rule, a value of its row once more.
        made_of |= {"_key", "_headers"} & set(raw.columns) if "_topic" in raw.columns else set()
    return sorted({*table.table.mask, *table.table.mask_within, *private, *made_of})


def empty_frame(lake: Lakehouse, table: Table) -> pl.DataFrame:
    """A table without its rows; without columns while there is no table."""
    if not column_types(lake.connection, table):
        return pl.DataFrame()
    return lake.connection.execute(f"SELECT * FROM {table.sql} LIMIT 0").pl()


def recent_loads(lake: Lakehouse, source: str, table: str) -> dg.MarkdownMetadataValue | None:
    """The rows that the last loads of a table brought, as bars, the latest first; None before the first."""
    loads = ledger.recent_loads(lake, source, table, BARS)
    if not loads:
        return None
    most = max(1, *(load.rows_landed for load in loads))
    lines = [
        f"{load.ended_at:%Y-%m-%d %H:%M}  {bar(load.rows_landed, most)} {load.rows_landed:,}"
        + (f", {load.rows_quarantined:,} quarantined" if load.rows_quarantined else "")
        + (" (refused)" if load.status == "refused" else "")
        for load in loads
    ]
    return dg.MetadataValue.md("\n".join(["```", *lines, "```"]))


def bar(rows: int, most: int) -> str:
    """A bar in eighths of a character, as long as `rows` is to `most`; never nothing for something."""
    whole, part = divmod(max(1, round(8 * BAR_CHARACTERS * rows / most)) if rows else 0, 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[part].strip()


def _cell(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, int | float | bool):
        return value
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return shortened(str(value), CELL_CHARACTERS)


def place(lake: Lakehouse, table: Table) -> dict[str, Any]:
    """Where a table lies, how many rows it has."""
    count = 0
    if column_types(lake.connection, table):
        row = lake.connection.execute(f"SELECT count(*) FROM {table.sql}").fetchone()
        count = int(row[0]) if row is not None else 0
    return {
        "dagster/row_count": count,
        "dagster/table_name": str(table),
        "dagster/uri": f"{lake.settings.data}/{table.schema}/{table.name}",
    }


def load_metadata(result: LoadResult) -> dict[str, Any]:
    """The figures of a load."""
    return {
        "rows read": result.rows_read,
        "rows landed": result.rows_landed,
        "rows repeated": result.rows_repeated,
        "rows quarantined": result.rows_quarantined,
        "bytes": result.bytes,
        "loads": ", ".join(map(str, result.loads)) or "none: nothing new",
        **(source_metadata(result.use) if result.use is not None else {}),
        "position": dg.MetadataValue.json(_entries(result.position)),
        **({"notes": "\n".join(result.notes)} if result.notes else {}),
        **({"schema drift": dg.MetadataValue.json(result.drift.as_dict())} if result.drift else {}),
    }


def source_metadata(use: SourceUse) -> dict[str, Any]:
    """What a load took at its source."""
    return {
        "source statements": use.statements,
        "source rows": use.rows,
        "source bytes": use.bytes,
        "source seconds": round(use.seconds, 3),
    }


def _entries(position: Mapping[str, str]) -> dict[str, str]:
    entries = list(position.items())
    shown = dict(entries[-20:])
    return {**({"...": f"and {len(entries) - 20} more"} if len(entries) > 20 else {}), **shown}


def staging_metadata(result: StagingResult) -> dict[str, Any]:
    """The figures of a staging step."""
    names = ("read", "inserted", "updated", "deleted", "superseded", "filtered", "quarantined", "removals")
    return {
        **{f"rows {name}": getattr(result, f"rows_{name}") for name in names},
        "bytes": result.bytes,
        "staging step": result.staging_id,
        "loads": f"{result.load_from} to {result.load_to}" if result.load_to else "none: nothing new",
    }


def violations_table(violations: Mapping[str, Sequence[Violation]] | Sequence[Violation]) -> dg.TableMetadataValue:
    """Broken rules with how many rows broke them, for a check's page; with the table, if they are given by table."""
    by_table = violations if isinstance(violations, Mapping) else {"": violations}
    columns = ["column", "rule", "rows", "example", "consequence"]
    if isinstance(violations, Mapping):
        columns.insert(0, "table")
    schema = dg.TableSchema([dg.TableColumn(name, "int" if name == "rows" else "string") for name in columns])
    records = [
        dg.TableRecord({name: value for name, value in _violation_cells(table, one).items() if name in columns})
        for table, found in by_table.items()
        for one in found
    ]
    return dg.MetadataValue.table(records=records, schema=schema)


def _violation_cells(table: str, violation: Violation) -> dict[str, str | int | None]:
    return {
        "table": table,
        "column": violation.column or "(row)",
        "rule": violation.check,
        "rows": violation.rows,
        "example": "(empty)" if violation.value == "" else violation.value,
        "consequence": "not allowed" if violation.fatal else "kept",
    }


def quarantined(lake: Lakehouse, spec: SourceSpec, table: TableSpec, layer: str) -> dict[str, Any]:
    """What is in quarantine of a table, of those records that could not be read (`raw`) or of those rows that broke the
    contract (`staged`): how many, why, the latest of them, and what to do. Nothing if nothing is."""
    stored = quarantine_table(spec.name, table.name)
    if not column_types(lake.connection, stored):
        return {}
    count = open_rows(lake.connection, stored, layer)
    if not count:
        return {}
    reasons = [one for one in open_reasons(lake.connection, stored) if one["layer"] == layer][:REASONS]
    private = private_raw_columns(lake, spec, table)
    entries = newest_entries(lake.connection, stored, layer, SAMPLE_ROWS)
    why = dg.TableSchema([dg.TableColumn(name, "int" if name == "rows" else "string") for name in WHY])
    rows = dg.TableSchema([dg.TableColumn(name) for name in ("id", "why", "row")])
    name = f"{spec.name}/{table.name}"
    return {
        "in quarantine": f"{counted(count)}. All of them: dp quarantine show {name}. When the staging function or the "
        f"contract is corrected: dp quarantine replay {name}. If they are to stay out: dp quarantine discard {name}.",
        "in quarantine, why": dg.MetadataValue.table(
            [dg.TableRecord(dict(zip(WHY, _reason_cells(one), strict=True))) for one in reasons],
            why,
        ),
        "in quarantine, the latest": dg.MetadataValue.table(
            [
                dg.TableRecord({"id": one.id, "why": "; ".join(one.reasons), "row": _masked(one.record, private)})
                for one in entries
            ],
            rows,
        ),
    }


def _reason_cells(reason: Mapping[str, Any]) -> tuple[str, str, int, str | None]:
    example = "(empty)" if reason["example"] == "" else reason["example"]
    return reason["column"] or "(row)", reason["check"], reason["rows"], example


def _masked(record: str, private: Sequence[str]) -> str:
    """A quarantined row without the values of private columns; what cannot be taken apart is not shown where there are
    any."""
    if not private:
        return shortened(record, RECORD_CHARACTERS)
    try:
        row = json.loads(record)
    except ValueError:
        return PRIVATE
    if not isinstance(row, dict):
        return PRIVATE
    shown = {name: PRIVATE if name in private else value for name, value in row.items()}
    return shortened(json.dumps(shown, ensure_ascii=False), RECORD_CHARACTERS)


PROJECTED = re.compile(r"PROJECT(?:\[([^\]]*)\]| \*/)")
QUOTED = re.compile(r'"([^"]+)"')


def column_lineage(spec: SourceSpec, table: TableSpec, raw: pl.DataFrame) -> dg.TableColumnLineage:
    """Which raw columns each staged column is made of. `raw` is the raw table without its rows."""
    upstream = raw_key(spec.name, table.name)
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(upstream, name) for name in names]
            for column, names in (needed_columns(table, raw) or {}).items()
            if names
        }
    )


def needed_columns(table: TableSpec, raw: pl.DataFrame) -> dict[str, list[str]] | None:
    """The raw columns that each contract column needs: what Polars' optimiser would read for that column alone. None if
    that is unknown, as the staging function does not run without rows. That it fails is the staging step's to tell."""
    frame = raw.lazy()
    try:
        staged = table.function(frame) if table.function is not None else frame
        available = staged.collect_schema().names()
        wanted = [column.name for column in contract_columns(table.contract) if column.name in available]
        plans = {name: staged.select(name).explain() for name in wanted}
    except Exception:  # noqa: BLE001 - it is the user's code: it may raise anything
        return None
    needed: dict[str, list[str]] = {}
    for name, plan in plans.items():
        read: list[str] = []
        for match in PROJECTED.finditer(plan):
            read += raw.columns if match.group(1) is None else QUOTED.findall(match.group(1))
        needed[name] = [column for column in raw.columns if column in read and not column.startswith("_")]
    return needed
