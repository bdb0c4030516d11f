"""Quarantine: rows that failed, as they were, with every reason, in `quarantine_<source>.<table>`, until they are
replayed or discarded. Judging rows is `audit`'s work, replaying them `staging.step`'s.

A row has one entry however often it fails: its id names the raw row (`load:row`) or the malformed record's place.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_platform.contracts.violations import REASON, counted, reason_text
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import literal, quote_all
from data_platform.lakehouse.tables import QUARANTINE, Table, all_tables, column_types, ensure_table, quarantine_table
from data_platform.lakehouse.transaction import (
    ConcurrentStepError,
    DataFile,
    TempRelation,
    copy_to,
    new_path,
    storage_error,
)

COLUMNS = {
    "quarantine_id": "VARCHAR",
    "layer": "VARCHAR",
    "load_id": "BIGINT",
    "row": "BIGINT",
    "file": "VARCHAR",
    "line": "BIGINT",
    "record": "VARCHAR",
    "reasons": 'STRUCT("column" VARCHAR, "check" VARCHAR, "value" VARCHAR)[]',
    "key": "VARCHAR[]",
    "version": "VARCHAR",
    "status": "VARCHAR",
    "run_id": "VARCHAR",
    "quarantined_at": "TIMESTAMP WITH TIME ZONE",
    "resolved_at": "TIMESTAMP WITH TIME ZONE",
}
"""`layer` is where the row failed: `raw` (it could not be read: `file`, `line`) or `staged` (it broke its contract:
`load_id`, `row` name the raw row). `record` is the row as JSON, or the malformed text. `key` and `version` are what
identifies the row and orders its versions, as text, as far as they are known. `status` is `open`, `replayed`,
`discarded`, or `superseded` by a later full refresh, or by a later version of the row that passed."""

FRAME_SCHEMA: dict[str, Any] = {
    "quarantine_id": pl.String,
    "layer": pl.String,
    "load_id": pl.Int64,
    "row": pl.Int64,
    "file": pl.String,
    "line": pl.Int64,
    "record": pl.String,
    "reasons": pl.List(REASON),
    "key": pl.List(pl.String),
    "version": pl.String,
}


def rejects_frame(rejects: pa.Table, load_id: int, *, withhold: bool) -> pl.DataFrame:
    """Malformed records as quarantine entries.

    `withhold` leaves their text out: a line that cannot be taken apart cannot be masked either, so a table that masks
    anything keeps only the place, where the text can still be found. A place that is no line of a file stands in the
    entry's `file`.
    """
    frame = pl.DataFrame(pl.from_arrow(rejects)).with_row_index("index")
    record = pl.lit("(withheld: this table masks columns; see file and line)") if withhold else pl.col("record")
    place = pl.coalesce("place", pl.format("{}:{}", "_file", "_line"))
    # What is withheld is not hashed into the id either: a hash lets one test a guess. A word stands in its place, for
    # line 5 of a file called `1` is not row 5 of load 1.
    named = pl.format("{}:{}", place, pl.lit("withheld") if withhold else pl.col("record").hash())
    return frame.select(
        pl.coalesce(named, pl.format("{}:reject:{}", pl.lit(load_id), "index")).alias("quarantine_id"),
        pl.lit("raw").alias("layer"),
        pl.lit(load_id, dtype=pl.Int64).alias("load_id"),
        pl.lit(None, dtype=pl.Int64).alias("row"),
        pl.coalesce("_file", "place").alias("file"),
        pl.col("_line").alias("line"),
        record.alias("record"),
        pl.concat_list(
            pl.struct(
                pl.lit("").alias("column"),
                pl.col("reason").alias("check"),
                pl.lit(None, dtype=pl.String).alias("value"),
            ).cast(REASON)
        ).alias("reasons"),
        pl.lit(None, dtype=pl.List(pl.String)).alias("key"),
        pl.lit(None, dtype=pl.String).alias("version"),
    )


class SpooledEntries:
    """Quarantine entries (frames of FRAME_SCHEMA) gathered in a file of the spool folder: what is in memory does not
    grow with their number. Made by `spooled_entries`."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def add(self, frame: pl.DataFrame) -> None:
        """Append entries."""
        if frame.is_empty():
            return
        rows = frame.select(*FRAME_SCHEMA).to_arrow(compat_level=pl.CompatLevel.oldest())
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, rows.schema, compression="zstd", compression_level=1)
            self._writer.write_table(rows)
        except OSError as error:
            raise storage_error(error, str(self._path.parent)) from error
        self.rows += len(frame)

    def close(self) -> None:
        """Finish the file: nothing is added any more."""
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            raise storage_error(error, str(self._path.parent)) from error

    @property
    def sql(self) -> str:
        """What stands for the entries after FROM, with their number in the file; only after `close`, and if there are
        any."""
        return f"read_parquet({literal(str(self._path))}, file_row_number = true)"


@contextmanager
def spooled_entries(lake: Lakehouse) -> Iterator[SpooledEntries]:
    """An empty file of quarantine entries in the spool folder, removed after the block."""
    lake.settings.spool.mkdir(parents=True, exist_ok=True)
    path = lake.settings.spool / f"quarantine-{uuid.uuid4()}.parquet"
    entries = SpooledEntries(path)
    try:
        yield entries
    finally:
        try:
            # What kept the block from its end must be reported, not that the file cannot be finished after it.
            with suppress(PlatformError):
                entries.close()
        finally:
            path.unlink(missing_ok=True)


def write_quarantine(
    lake: Lakehouse, table: Table, frames: Iterable[pl.DataFrame], run_id: str, at: datetime
) -> DataFile | None:
    """`write_entries` for entries in frames of FRAME_SCHEMA, of which each is written once."""
    with spooled_entries(lake) as entries:
        for frame in frames:
            entries.add(frame)
        return write_entries(lake, table, entries, run_id, at, repeated=True)


def write_entries(
    lake: Lakehouse,
    table: Table,
    entries: SpooledEntries,
    run_id: str,
    at: datetime,
    superseded: TempRelation | None = None,
    *,
    repeated: bool = False,
) -> DataFile | None:
    """Write entries to a file of the quarantine table, leaving out those that are there already, open or discarded;
    None if nothing is left.

    `superseded` holds the `quarantine_id` of those that are closed already, because a later version of the row passed
    along with them. `repeated` says that an entry may be there several times; it is written once. The caller registers
    the file in its transaction, after `ensure_quarantine`.
    """
    entries.close()
    if not entries.rows:
        return None
    new = ["true"]
    if column_types(lake.connection, table):
        new.append(f"quarantine_id NOT IN (SELECT quarantine_id FROM {table.sql} WHERE status <> 'replayed')")
    if repeated:
        new.append(f"file_row_number IN (SELECT min(file_row_number) FROM {entries.sql} GROUP BY quarantine_id)")
    now = f"TIMESTAMPTZ '{at.isoformat()}'"
    closed = "false"
    if superseded is not None and superseded.rows:
        closed = f"quarantine_id IN (SELECT quarantine_id FROM {superseded.sql})"
    query = (
        f"SELECT {quote_all(FRAME_SCHEMA)}, CASE WHEN closed THEN 'superseded' ELSE 'open' END AS status, "
        f"{literal(run_id)} AS run_id, {now} AS quarantined_at, CASE WHEN closed THEN {now} END AS resolved_at "
        f"FROM (SELECT *, {closed} AS closed FROM {entries.sql}) WHERE {' AND '.join(new)}"
    )
    return copy_to(lake, query, new_path(lake, table))


def ensure_quarantine(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Create the quarantine table if it is not there, and add what an older one lacks, within the caller's
    transaction."""
    ensure_table(connection, table, COLUMNS)


def has_open_rejects(connection: duckdb.DuckDBPyConnection, table: Table) -> bool:
    """Whether malformed records of a table are in quarantine."""
    if not column_types(connection, table):
        return False
    return bool(
        connection.execute(f"SELECT 1 FROM {table.sql} WHERE status = 'open' AND layer = 'raw' LIMIT 1").fetchall()
    )


def has_open_rows(connection: duckdb.DuckDBPyConnection, table: Table, load_id: int) -> bool:
    """Whether rows of a load are in quarantine, to be replayed or discarded. The table must exist."""
    return bool(
        connection.execute(
            f"SELECT 1 FROM {table.sql} WHERE (status, layer, load_id) = ('open', 'staged', ?) LIMIT 1", [load_id]
        ).fetchall()
    )


def supersede_rejects(connection: duckdb.DuckDBPyConnection, table: Table, load_id: int, at: datetime) -> None:
    """Close the malformed records of loads before a full refresh, which holds what is there now, within the caller's
    transaction."""
    connection.execute(
        f"UPDATE {table.sql} SET status = 'superseded', resolved_at = ? "
        "WHERE status = 'open' AND layer = 'raw' AND load_id < ?",
        [at, load_id],
    )


@dataclass(frozen=True)
class Selection:
    """Which open entries are meant: all of them, or those with these ids, or those with this reason's column."""

    ids: Sequence[str] = ()
    column: str | None = None

    def where(self) -> tuple[str, list[Any]]:
        """The SQL condition and its parameters."""
        condition, parameters = "status = 'open'", list[Any]()
        if self.ids:
            condition += " AND list_contains(?, quarantine_id)"
            parameters.append(list(self.ids))
        if self.column is not None:
            condition += ' AND len(list_filter(reasons, lambda reason: reason."column" = ?)) > 0'
            parameters.append(self.column)
        return condition, parameters


def quarantine_tables(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Source and table of every quarantine that exists."""
    return [(table.source, table.name) for table in all_tables(connection) if table.layer == QUARANTINE]


def require_quarantine(connection: duckdb.DuckDBPyConnection, source: str, table: str) -> Table:
    """The quarantine of a table; PlatformError, listing those that exist, if nothing of it was ever quarantined."""
    existing = quarantine_tables(connection)
    if (source, table) not in existing:
        names = ", ".join(f"{s}/{t}" for s, t in existing) or "none"
        raise PlatformError(f"{source}/{table} has no quarantine. Tables with one: {names}.")
    return quarantine_table(source, table)


def summary(connection: duckdb.DuckDBPyConnection) -> list[Mapping[str, Any]]:
    """Open entries by source, table, layer and reason, most frequent first."""
    return [
        {"source": source, "table": table, **reason}
        for source, table in quarantine_tables(connection)
        for reason in open_reasons(connection, quarantine_table(source, table))
    ]


def open_reasons(connection: duckdb.DuckDBPyConnection, table: Table) -> list[Mapping[str, Any]]:
    """Why entries of one quarantine are open, by layer and reason, most frequent first. A row that has several reasons
    counts once for each: how many rows there are is `open_rows`."""
    rows = connection.execute(
        # A row has its reasons in the order of the contract.
        f"""SELECT layer, reason."column", reason."check", count(*), any_value(reason.value), min(quarantined_at)
        FROM (SELECT layer, quarantined_at, unnest(reasons) AS reason, generate_subscripts(reasons, 1) AS place
              FROM {table.sql} WHERE status = 'open')
        GROUP BY ALL ORDER BY count(*) DESC, layer, max(place), 2, 3"""
    ).fetchall()
    names = ("layer", "column", "check", "rows", "example", "since")
    return [dict(zip(names, row, strict=True)) for row in rows]


def open_rows(connection: duckdb.DuckDBPyConnection, table: Table, layer: str | None = None) -> int:
    """How many entries of one quarantine are open, of one layer or of all."""
    row = connection.execute(
        f"SELECT count(*) FROM {table.sql} WHERE status = 'open' AND layer = coalesce(?, layer)", [layer]
    ).fetchone()
    return int(row[0]) if row is not None else 0


def open_rows_of_all(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], int]:
    """How many entries of each quarantine are open, by source and table."""
    stored = [table for table in all_tables(connection) if table.layer == QUARANTINE and table.source]
    if not stored:
        return {}
    counts = " UNION ALL ".join(
        f"SELECT {literal(table.source)}, {literal(table.name)}, count(*) FROM {table.sql} WHERE status = 'open'"
        for table in stored
    )
    return {(source, table): count for source, table, count in connection.execute(counts).fetchall()}


@dataclass(frozen=True)
class Entry:
    """An open entry, as people look at it: its id, the row as JSON or the malformed text, and its reasons in words."""

    id: str
    record: str
    reasons: Sequence[str]


def newest_entries(connection: duckdb.DuckDBPyConnection, table: Table, layer: str, limit: int) -> list[Entry]:
    """The open entries of one layer that came last."""
    rows = connection.execute(
        f"SELECT quarantine_id, record, reasons FROM {table.sql} WHERE (status, layer) = ('open', ?) "
        "ORDER BY quarantined_at DESC, quarantine_id LIMIT ?",
        [layer, limit],
    ).fetchall()
    return [Entry(name, record or "", [reason_text(one) for one in reasons or ()]) for name, record, reasons in rows]


def close_entries(
    connection: duckdb.DuckDBPyConnection, table: Table, status: str, at: datetime, selection: Selection
) -> int:
    """Mark the selected open entries `replayed` or `discarded`, within the caller's transaction; how many."""
    condition, parameters = selection.where()
    row = connection.execute(
        f"UPDATE {table.sql} SET status = ?, resolved_at = ? WHERE {condition}", [status, at, *parameters]
    ).fetchone()
    return int(row[0]) if row else 0


def close_found(connection: duckdb.DuckDBPyConnection, table: Table, entries: TempRelation, at: datetime) -> None:
    """Give the open entries in `entries` (`quarantine_id`, `status`) their new status, within the caller's
    transaction. Those that were closed meanwhile stay as they are."""
    statuses = connection.execute(f"SELECT DISTINCT status FROM {entries.sql}").fetchall()
    for (status,) in statuses:
        connection.execute(
            f"UPDATE {table.sql} SET status = $1, resolved_at = $2 WHERE status = 'open' AND quarantine_id IN "
            f"(SELECT quarantine_id FROM {entries.sql} WHERE status = $1)",
            [status, at],
        )


def require_open(connection: duckdb.DuckDBPyConnection, table: Table, rows: TempRelation) -> None:
    """Raises ConcurrentStepError, within the caller's transaction, if an entry of the raw `rows` (`load_id`, `row`) was
    closed since they were read: a row that was discarded is not let in."""
    still_open = f"(SELECT load_id, row FROM {table.sql} WHERE (status, layer) = ('open', 'staged'))"
    found = connection.execute(
        f"SELECT count(*) FROM {rows.sql} ANTI JOIN {still_open} USING (load_id, row)"
    ).fetchone()
    if found is not None and found[0]:
        raise ConcurrentStepError(
            f"{counted(found[0])} of {table} that this run was to replay left quarantine meanwhile: discarded, or "
            "replayed by another run. Nothing was changed; run it again for the rest."
        )
