"""Exports to an HTTP endpoint: what changed between two versions of a table, in batches, in the order of the key. After
each batch that the endpoint acknowledged, the ledger of the lakehouse says so. A kill in between sends the last batch
again, under the same idempotency key: at least once, and once for an endpoint that heeds the key, or that writes rows
by their own. How a batch is sent is in `requests`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from data_platform.errors import PlatformError
from data_platform.exports.columns import Column, require_kept, require_key, shape
from data_platform.exports.export import (
    Origin,
    TableExport,
    changes_query,
    earlier_rows,
    origin,
    own_columns,
    require_columns,
)
from data_platform.exports.json_rows import json_column
from data_platform.exports.options import HttpTarget
from data_platform.exports.progress import Progress, keep_progress, read_progress
from data_platform.exports.requests import (
    GONE_COLUMN,
    NUMBER_COLUMN,
    RejectedError,
    Sending,
    require_paths,
    send_batch,
    table_address,
)
from data_platform.ingestion.http.calls import connected
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import is_kept
from data_platform.lakehouse.sql import quote_all
from data_platform.lakehouse.transaction import temp_relation


@dataclass(frozen=True)
class Sent:
    """What an export sent. `whole` says why all rows were, and is empty if only changes were, or nothing."""

    origin: Origin
    upserts: int
    deletes: int
    batches: int
    bytes: int
    whole: str = ""
    unchanged: bool = False
    notes: tuple[str, ...] = ()


def export_to_endpoint(lake: Lakehouse, spec: TableExport, target: HttpTarget, *, full: bool = False) -> Sent:
    """Send what changed since the version that was sent last, or all rows. A version that was begun is sent to its end
    first, unless the endpoint rejected a batch of it and the table changed since.

    Raises PlatformError for a batch that was rejected, with its rows, and for values that JSON does not have.
    """
    require_paths(spec, target)
    resumed, done = _export(lake, spec, target, full=full)
    if not resumed:
        return done
    _, newest = _export(lake, spec, target, full=False)
    return replace(
        newest,
        upserts=done.upserts + newest.upserts,
        deletes=done.deletes + newest.deletes,
        batches=done.batches + newest.batches,
        bytes=done.bytes + newest.bytes,
        unchanged=False,
        notes=(f"The sending of version {done.origin.snapshot} was ended first.", *newest.notes),
    )


def _export(lake: Lakehouse, spec: TableExport, target: HttpTarget, *, full: bool) -> tuple[bool, Sent]:
    """Send one version; whether it was begun earlier."""
    head, state = read_progress(lake, spec.export, spec.name)
    there = origin(lake, spec)
    names = require_columns(spec, own_columns(there))
    if target.deletes == "mark" and target.delete_field in names:
        raise PlatformError(f"{spec.label} has a column {target.delete_field}: give `delete_field` another name.")
    columns = tuple(_addressed(target, json_column(name, there.types[name])) for name in names)
    resumed = not full and _is_resumed(lake, spec, target, state, there, columns)
    whole, notes = "", tuple[str, ...]()
    if not resumed:
        state, whole, notes = _begun(lake, spec, target, state, there, columns, full=full)
    assert state.sending is not None  # noqa: S101 - either of the two above
    there, size, first = replace(there, snapshot=state.sending, version=state.version), 0, state.acknowledged
    ended = replace(state, bases=(state.sending,), sending=None, rejected=False)
    with _prepared(lake, spec, there, columns, state) as sending:
        if not sending.batches and not resumed and not whole:
            keep_progress(lake, head, ended)
            return False, Sent(there, 0, 0, 0, 0, unchanged=True)
        if not resumed:
            head = keep_progress(lake, head, state)
        with connected(target, withholds=spec.private) as api:
            for number in range(first, sending.batches):
                try:
                    size += send_batch(lake, api, spec, target, sending, number)
                except RejectedError:
                    keep_progress(lake, head, replace(state, rejected=True))
                    raise
                state = replace(state, acknowledged=number + 1, rejected=False)
                if number + 1 < sending.batches:
                    head = keep_progress(lake, head, state)
        keep_progress(lake, head, ended)
        count = sending.batches - first
        return resumed, Sent(there, sending.upserts, sending.deletes, count, size, whole, notes=notes)


def _addressed(target: HttpTarget, column: Column) -> Column:
    """A column whose values stand in the path of requests, where it does: some of them would name other places."""
    paths = (target.path, target.delete_path or "")
    if target.per != "row" or not any(f"{{{column.name}}}" in path for path in paths):
        return column
    refused = (f"{column.text}::VARCHAR IN ('', '.', '..')", "no text, or `.` or `..`, which no path names a row by,")
    return replace(column, refusals=(*column.refusals, refused))


def _is_resumed(
    lake: Lakehouse, spec: TableExport, target: HttpTarget, state: Progress, there: Origin, columns: Sequence[Column]
) -> bool:
    """Whether the sending that was begun goes on: its batches can be made again as they were."""
    if state.sending is None or state.source_id != there.identity:
        return False
    wanted = (table_address(target, spec), shape(columns, spec.key), target.batch_rows, target.deletes)
    if (state.target, state.shape, state.batch_rows, state.deletes) != wanted:
        return False
    changes = changes_query(lake, there, state.sending, [column.name for column in columns])
    if changes is None:
        return False
    # The endpoint would reject the same rows again; others may be right.
    return not (state.rejected and lake.connection.execute(f"SELECT 1 FROM ({changes}) LIMIT 1").fetchall())


def _begun(
    lake: Lakehouse,
    spec: TableExport,
    target: HttpTarget,
    state: Progress,
    there: Origin,
    columns: Sequence[Column],
    *,
    full: bool,
) -> tuple[Progress, str, tuple[str, ...]]:
    """The sending of the table as it is now, why all rows are sent, and what is to be said. Raises PlatformError if
    nobody knows what the endpoint holds, and all rows were not asked for."""
    where, now = table_address(target, spec), shape(columns, spec.key)
    whole, lost = "", ""
    if not state.held:
        whole = "the first export"
    elif full:
        whole = "as asked for"
    elif state.shape != now:
        whole = "its columns changed"
    if state.held and state.target != where:
        lost = f"it was sent to {state.target} up to now"
    elif state.held and state.source_id != there.identity:
        lost = "the table was made anew"
    elif state.held and state.shape.rpartition("; key ")[2] != now.rpartition("; key ")[2]:
        lost = "its key changed"
    elif not all(is_kept(lake, one) for one in state.held):
        lost = "the version that was sent last has expired"
    if lost and not full:
        raise PlatformError(
            f"What {where} holds of {spec.label} is not known: {lost}. Nothing was sent. To send all rows again: dp "
            f"run export/{spec.export}/{spec.name} --full-refresh. Rows that are gone are then not deleted there."
        )
    notes = (f"Rows that are gone were not deleted at the endpoint: {lost}.",) if lost else ()
    begun = Progress(
        number=state.number + 1,
        bases=() if lost else state.held,
        sending=there.snapshot,
        batch_rows=target.batch_rows,
        deletes=target.deletes,
        whole=bool(whole),
        shape=now,
        target=where,
        source_id=there.identity,
        version=there.version,
    )
    return begun, whole, notes


@contextmanager
def _prepared(
    lake: Lakehouse, spec: TableExport, there: Origin, columns: tuple[Column, ...], state: Progress
) -> Iterator[Sending]:
    """What is sent of a version: the same at each beginning, since it follows from versions alone."""
    connection, keys = lake.connection, quote_all(spec.key)
    listed = quote_all([column.name for column in columns])
    now = f"SELECT {listed} FROM {there.rows}"
    # Of other columns than there are now only the keys count, as all rows are sent then.
    wanted = list(spec.key) if state.whole else [column.name for column in columns]
    earlier = [earlier_rows(lake, there.table, base, wanted) for base in state.bases]
    changed = " UNION ".join(f"({now} EXCEPT ALL SELECT {listed} FROM {one})" for one in earlier)
    gone = " UNION ".join(f"(SELECT {keys} FROM {one} EXCEPT SELECT {keys} FROM {there.rows})" for one in earlier)
    require_key(connection, spec.label, spec.key, there.rows)
    query = f"SELECT 0 AS {GONE_COLUMN}, {listed} FROM ({now if state.whole else changed})"
    if gone and state.deletes != "ignore":
        query += f" UNION ALL BY NAME SELECT 1 AS {GONE_COLUMN}, {keys} FROM ({gone})"
    numbered = (
        f"SELECT *, row_number() OVER (ORDER BY {GONE_COLUMN}, {keys}) - 1 AS {NUMBER_COLUMN} FROM ({query}) "
        f"ORDER BY {NUMBER_COLUMN}"
    )
    with temp_relation(connection, numbered) as table:
        require_kept(connection, spec.label, columns, table.sql, "the endpoint", key=spec.shown_key)
        found = connection.execute(
            f"SELECT count(*) FILTER (WHERE {GONE_COLUMN} = 0), count(*) FROM {table.sql}"
        ).fetchone()
        assert found is not None  # noqa: S101 - an aggregate yields one row
        identity = (lake.identity, spec.export, spec.name, str(there.snapshot), str(state.number))
        yield Sending(table.sql, columns, int(found[0]), int(found[1] - found[0]), state.batch_rows, identity)
