"""Positions: how far each table was loaded and staged. A *head* numbers the steps of one table in one layer. Moving it
from n to n+1 is the compare-and-swap that keeps two runs which started from the same position from both landing.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import duckdb
import pyarrow as pa

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger.names import OF_TABLE, name
from data_platform.lakehouse.ledger.schema import VERSION, ensure_ledger, exists
from data_platform.lakehouse.transaction import ConcurrentStepError


@dataclass(frozen=True)
class Head:
    """Where one table stands in one layer: the number of its last step, and the position that step reached (text by
    partition of the source)."""

    layer: str
    source: str
    table: str
    number: int
    position: Mapping[str, str]


def head(lake: Lakehouse, layer: str, source: str, table: str) -> Head:
    """Read where a table stands; number 0 and an empty position if it was never loaded. Creates the ledger, or brings
    that of an earlier release up to date. Raises PlatformError if it is newer than this release."""
    if not exists(lake):
        ensure_ledger(lake)
        return Head(layer, source, table, 0, {})
    key = [layer, source, table]
    # One query, so that number and position are of the same moment.
    found = lake.connection.execute(
        f"SELECT number, partition, value FROM (SELECT number FROM {name('heads')} WHERE {OF_TABLE}) "
        f"LEFT JOIN (SELECT partition, value FROM {name('positions')} WHERE {OF_TABLE}) ON true",
        [*key, *key],
    ).to_arrow_table()
    if not found.num_rows:
        return Head(layer, source, table, 0, {})
    entries = found.filter(found["partition"].is_valid())
    position = dict(zip(entries["partition"].to_pylist(), entries["value"].to_pylist(), strict=True))
    return Head(layer, source, table, found["number"][0].as_py(), position)


def entries(lake: Lakehouse, layer: str, partition: str) -> dict[tuple[str, str], str]:
    """One entry of the positions of a layer, by source and table."""
    if not exists(lake):
        return {}
    rows = lake.connection.execute(
        f"SELECT source, table_name, value FROM {name('positions')} WHERE (layer, partition) = (?, ?)",
        [layer, partition],
    ).fetchall()
    return {(source, table): value for source, table, value in rows}


def tables_of(lake: Lakehouse, layer: str) -> list[tuple[str, str]]:
    """Source and table of all heads of a layer."""
    if not exists(lake):
        return []
    return lake.connection.execute(
        f"SELECT source, table_name FROM {name('heads')} WHERE layer = ?", [layer]
    ).fetchall()


def heads_of_tables(lake: Lakehouse, layer: str, source: str, tables: Collection[str]) -> dict[str, Head]:
    """The heads of tables whose position is kept under another name, that of the reading which covers them: numbers
    without positions."""
    if not exists(lake):
        ensure_ledger(lake)
    numbers = dict(
        lake.connection.execute(
            f"SELECT table_name, number FROM {name('heads')} WHERE (layer, source) = (?, ?)", [layer, source]
        ).fetchall()
    )
    return {table: Head(layer, source, table, numbers.get(table, 0), {}) for table in tables}


def advance_tables(connection: duckdb.DuckDBPyConnection, heads: Sequence[Head], at: datetime) -> list[Head]:
    """Move the heads of several tables by one step each, within the caller's transaction, which has moved the head of
    the reading that covers them. Raises ConcurrentStepError if one of them is no longer where it was found."""
    if not heads:
        return []
    layer, source = heads[0].layer, heads[0].source
    tables, numbers = [head.table for head in heads], [head.number for head in heads]
    started = "(SELECT unnest(?::VARCHAR[]) AS table_name, unnest(?::BIGINT[]) AS number)"
    before = dict(
        connection.execute(
            f"SELECT table_name, number FROM {name('heads')} WHERE (layer, source) = (?, ?)", [layer, source]
        ).fetchall()
    )
    for head in heads:
        if before.get(head.table, 0) != head.number:
            raise _moved(connection, head)
    connection.execute(
        f"DELETE FROM {name('heads')} WHERE (layer, source) = (?, ?) AND table_name IN (SELECT unnest(?::VARCHAR[]))",
        [layer, source, tables],
    )
    connection.execute(
        f"INSERT INTO {name('heads')} SELECT ?, ?, table_name, number + 1, ? FROM {started}",
        [layer, source, at, tables, numbers],
    )
    return [replace(head, number=head.number + 1) for head in heads]


def advance(
    connection: duckdb.DuckDBPyConnection,
    head: Head,
    position: Mapping[str, str],
    at: datetime | None,
    *,
    forget: Collection[str] = (),
) -> Head:
    """Move a head by one step, set the entries of its position that `position` names, and remove those in `forget`,
    within the caller's transaction. `at` is when; None for a step after which the source was not read any more than
    before. The cost follows the entries that move, not those that there are.

    Raises ConcurrentStepError if the head is no longer where `head` found it: another run landed first.
    """
    key = [head.layer, head.source, head.table]
    if _swap(connection, head, at) != 1:
        raise _moved(connection, head)
    moved = {partition: value for partition, value in position.items() if head.position.get(partition) != value}
    gone = {partition for partition in forget if partition in head.position and partition not in moved}
    replaced = [*gone, *(partition for partition in moved if partition in head.position)]
    if replaced:
        # As rows, for the reason that OF_TABLE gives.
        with _relation(connection, partition=replaced) as entries:
            connection.execute(
                f"DELETE FROM {name('positions')} WHERE {OF_TABLE} "
                f"AND (table_name, partition) IN (SELECT (?::VARCHAR, partition) FROM {entries})",
                [*key, head.table],
            )
    if moved:
        with _relation(connection, partition=list(moved), value=list(moved.values())) as entries:
            connection.execute(f"INSERT INTO {name('positions')} SELECT ?, ?, ?, partition, value FROM {entries}", key)
    stands = {**head.position, **moved}
    for partition in gone:
        del stands[partition]
    return Head(head.layer, head.source, head.table, head.number + 1, stands)


@contextmanager
def _relation(connection: duckdb.DuckDBPyConnection, **columns: list[str]) -> Iterator[str]:
    """The name of a relation with these columns of text, for the block. A hundred thousand entries bound as a list take
    half a minute, as Arrow no time."""
    relation = f"entries_{uuid.uuid4().hex}"
    connection.register(
        relation, pa.table({column: pa.array(values, pa.string()) for column, values in columns.items()})
    )
    try:
        yield relation
    finally:
        connection.unregister(relation)


def _swap(connection: duckdb.DuckDBPyConnection, head: Head, at: datetime | None) -> int:
    """Set the head's number to the next one if it is what it was, and the ledger's version is ours; rows changed."""
    key = [head.layer, head.source, head.table]
    ours = f"(SELECT max(version) FROM {name('schema_version')}) = {VERSION}"
    if head.number:
        row = connection.execute(
            f"UPDATE {name('heads')} SET number = number + 1, moved_at = coalesce(?, moved_at) "
            f"WHERE (layer, source, table_name, number) = (?, ?, ?, ?) AND {ours}",
            [at, *key, head.number],
        ).fetchone()
    else:
        row = connection.execute(
            f"INSERT INTO {name('heads')} SELECT ?, ?, ?, 1, ? WHERE {ours} "
            f"AND NOT EXISTS (SELECT 1 FROM {name('heads')} WHERE {OF_TABLE})",
            [*key, at, *key],
        ).fetchone()
    return int(row[0]) if row is not None else 0


def _moved(connection: duckdb.DuckDBPyConnection, head: Head) -> ConcurrentStepError:
    row = connection.execute(
        f"SELECT number FROM {name('heads')} WHERE {OF_TABLE}", [head.layer, head.source, head.table]
    ).fetchone()
    number = row[0] if row is not None else 0
    if number == head.number:
        return ConcurrentStepError(
            "The ledger was brought up to a newer release while this run was under way. Nothing was changed: use the "
            "newer release here too."
        )
    return ConcurrentStepError(
        f"{head.layer} {head.source}/{head.table} stands at step {number}, this run started from {head.number}: "
        "another run landed first. Nothing was changed; what is new is taken up by the next run."
    )
