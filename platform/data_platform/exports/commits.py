"""What exports to lakes have in common: the position, which stands in the commit that has the rows, and what came since
it. How a commit is made is in the module of each kind of table (`delta`, `iceberg`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from data_platform.exports.columns import Column, shape
from data_platform.exports.export import BATCH_ROWS, Origin, TableExport, changes_query, own_columns, require_columns
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote

METADATA = "data_platform"
"""The entry of a commit's own properties that says what was exported."""


CASTS = {
    "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT",
    "UBIGINT": "DECIMAL(20,0)",
    "HUGEINT": "VARCHAR",
    "UHUGEINT": "VARCHAR",
    "INTERVAL": "VARCHAR",
    "UUID": "VARCHAR",
    "ENUM": "VARCHAR",
    "JSON": "VARCHAR",
    "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP WITH TIME ZONE",
}
"""The types that others are written as in any lake."""


@dataclass(frozen=True)
class Committed:
    """What an export wrote, or found to be there already; `found` are the rows that the table has then. `whole` says
    why all rows were written, `others` what others did to the rows since."""

    origin: Origin
    table: str
    inserted: int
    updated: int
    deleted: int
    found: int
    commit: int
    whole: str = ""
    others: str = ""
    unchanged: bool = False


def owner_of(lake: Lakehouse, spec: TableExport) -> str:
    """What tells an exported table from those of other exports and of other lakehouses."""
    return f"{lake.identity}/{spec.export}/{spec.name}"


def names(spec: TableExport, there: Origin) -> list[str]:
    """The columns that are exported. Raises PlatformError for those that cannot be."""
    return require_columns(spec, own_columns(there))


def position(spec: TableExport, there: Origin, columns: Sequence[Column], run_id: str, **more: str) -> str:
    """What a commit says of what it holds, as JSON."""
    said = {
        "source_table": spec.label,
        "source_id": there.identity,
        "snapshot": there.snapshot,
        "shape": shape(columns, spec.key),
        "run_id": run_id,
        **more,
    }
    return orjson.dumps(said).decode()


def changes_since(
    lake: Lakehouse, spec: TableExport, there: Origin, columns: Sequence[Column], said: Mapping[str, Any], *, full: bool
) -> tuple[str, str | None]:
    """Why all rows are written, or the query of what changed since a commit that `said` its position."""
    before = said["snapshot"]
    if full:
        return "as asked for", None
    if said.get("source_table") != spec.label or said.get("source_id") != there.identity:
        return f"{spec.label} was made anew", None
    if said.get("shape") != shape(columns, spec.key):
        return "its columns or its key changed", None
    if before > there.snapshot:
        return f"the lakehouse is at an earlier version than the exported one, {before}", None
    changes = changes_query(lake, there, before, [column.name for column in columns])
    return ("", changes) if changes else (f"the version that was exported last, {before}, has expired", None)


def has_rows(lake: Lakehouse, query: str) -> bool:
    return bool(lake.connection.execute(f"SELECT 1 FROM ({query}) LIMIT 1").fetchall())


def selected(columns: Sequence[Column]) -> str:
    """The columns as the target keeps them, after SELECT."""
    return ", ".join(f"{column.text} AS {quote(column.name)}" for column in columns)


def reader(lake: Lakehouse, query: str) -> pa.RecordBatchReader:
    """Rows batch by batch. Nothing else may use the connection meanwhile."""
    return lake.connection.execute(query).to_arrow_reader(BATCH_ROWS)
