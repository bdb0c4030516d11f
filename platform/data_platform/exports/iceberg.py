"""Exports to tables of Apache Iceberg: rows and position in one commit, the position among the properties of its
snapshot. So each change is there once, also after a kill: what was not committed are files that nobody names.

A merge copies on write: data files that hold a changed key are written anew without it, others stay as they are, and
the changed rows are a file more. Rows are read and written in batches; PyIceberg's own upsert, delete and overwrite
would hold whole files, or all of the rows, at once.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.io.pyarrow import bin_pack_record_batches, pyarrow_to_schema, schema_to_pyarrow, write_file
from pyiceberg.manifest import DataFile, DataFileContent, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table, Transaction, WriteTask
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update.snapshot import _OverwriteFiles
from pyiceberg.types import IntegerType, LongType, StringType

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.exports.columns import Column, require_kept, require_key
from data_platform.exports.commits import (
    METADATA,
    Committed,
    changes_since,
    has_rows,
    names,
    owner_of,
    position,
    reader,
    selected,
)
from data_platform.exports.export import Origin, TableExport, origin
from data_platform.exports.iceberg_schema import alike, evolve, iceberg_column, wanted_schema
from data_platform.ingestion.lakes.iceberg import catalog_of, explained, operation_of, rows_of_files
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote, quote_all
from data_platform.lakehouse.transaction import TempRelation, temp_relation

OWNER = "data_platform.export"
"""The property of a table that says which export it belongs to."""

FILE_BYTES = 64 * 1024**2
"""Rows of a data file in Arrow's memory, at most; compressed they are a third to a tenth."""

PROPERTIES = {
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
}
"""Properties of a table that an export makes: each commit writes a file of metadata, of which so many are kept."""

FEW_ROWS, MANY_FILES = 100_000, 50
"""So many files with fewer rows than that are written as one by the next merge."""

CONFLICTS = (CommitFailedException, ValidationException, TableAlreadyExistsError)
"""What PyIceberg raises where another writer came first."""

GONE, NUMBER = "_data_platform_gone", "_data_platform_number"


@dataclass(frozen=True)
class Swap:
    """Data files that leave a table and those that come, with figures of rows."""

    out: Sequence[DataFile]
    into: Sequence[DataFile]
    inserted: int
    updated: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class Writer:
    """Writes data files for a transaction, and knows which, so that none stays if it fails."""

    transaction: Transaction
    written: list[DataFile] = field(default_factory=list)

    def write(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[DataFile]:
        """Files of the rows: one after the other, as PyIceberg takes all the tasks it is given into memory."""
        metadata, io = self.transaction.table_metadata, self.transaction._table.io
        given = pyarrow_to_schema(
            schema, name_mapping=metadata.schema().name_mapping, format_version=metadata.format_version
        )
        name, made = uuid.uuid4(), list[DataFile]()
        full = (batch for batch in batches if batch.num_rows)
        for number, group in enumerate(bin_pack_record_batches(full, FILE_BYTES)):
            task = WriteTask(write_uuid=name, task_id=number, record_batches=group, schema=given)
            made += write_file(io=io, table_metadata=metadata, tasks=iter([task]))
            self.written.extend(made[-1:])
        return made

    def forget(self) -> None:
        """Remove what was written."""
        for file in self.written:
            with suppress(OSError):
                self.transaction._table.io.delete(file.file_path)


class OneSwap(_OverwriteFiles):
    """PyIceberg's overwrite of files, which is not repeated on top of what others committed meanwhile, and carries no
    manifests on that name no file."""

    def _existing_manifests(self) -> list[ManifestFile]:
        return [one for one in super()._existing_manifests() if one.has_added_files() or one.has_existing_files()]

    def _validate_concurrency(self) -> None:
        if self._commit_window is not None and not self._commit_window.is_empty():
            raise CommitFailedException("another snapshot came first")


def ping(name: str, catalog: Mapping[str, str]) -> None:
    """Raise PlatformError if the catalog of an export does not answer."""
    opened = catalog_of(name, catalog)
    with explained(f"The catalog of {name}"):
        opened.list_namespaces()


def export_to_iceberg(
    lake: Lakehouse,
    spec: TableExport,
    catalog: Mapping[str, str],
    namespace: str,
    *,
    run_id: str = "",
    full: bool = False,
) -> Committed:
    """Export a table in one commit: what changed since the last one by the key, or all rows.

    Raises PlatformError for a table that this export did not make, and for types and values that Iceberg cannot keep;
    TransientError if another writer came first.
    """
    where = f"{namespace}.{spec.name}"
    there = origin(lake, spec)
    columns = tuple(iceberg_column(spec.label, name, there.types[name]) for name in names(spec, there))
    opened = catalog_of(spec.export, catalog)
    with _explained(where), ExitStack() as block:
        table = _table(opened, (*namespace.split("."), spec.name))
        wanted = wanted_schema(lake, there, columns)
        said, others = _last(table, owner_of(lake, spec))
        if table is not None:
            _require_own(lake, spec, table, where)
        whole, changes = _why_whole(lake, spec, there, columns, table, said, full=full)
        if table is not None and changes is not None and not alike(table.schema(), wanted):
            whole, changes = "its columns were changed at the target", None
        changed = _changed(lake, spec, changes, block)
        if table is not None and changes is not None and not changed:
            return Committed(there, where, 0, 0, 0, *_held(table), others=others, unchanged=True)
        require_kept(lake.connection, spec.label, columns, there.rows, "Iceberg", key=spec.shown_key)
        if spec.key:
            require_key(lake.connection, spec.label, spec.key, there.rows)
        merges = isinstance(changed, TempRelation)
        more = {"owner": owner_of(lake, spec), "others": others if merges else ""}
        transaction = _transaction(opened, table, (*namespace.split("."), spec.name), wanted, more["owner"])
        writer = Writer(transaction)
        try:
            if table is not None and isinstance(changed, TempRelation):
                swap = _merged(lake, spec, there, columns, changed, table, writer)
            else:
                swap = _replaced(lake, there, columns, table, writer)
        except BaseException:
            writer.forget()
            raise
        try:
            _commit(transaction, swap, {METADATA: position(spec, there, columns, run_id, **more)})
        except CONFLICTS:
            # After any other error it may have been committed.
            writer.forget()
            raise
        written = opened.load_table((*namespace.split("."), spec.name))
        figures = (swap.inserted, swap.updated, swap.deleted)
        return Committed(there, where, *figures, *_held(written), whole, more["others"])


def _table(catalog: Catalog, identifier: tuple[str, ...]) -> Table | None:
    try:
        return catalog.load_table(identifier)
    except (NoSuchTableError, NoSuchNamespaceError):
        return None


def _require_own(lake: Lakehouse, spec: TableExport, table: Table, where: str) -> None:
    if table.properties.get(OWNER) != owner_of(lake, spec) and not spec.adopt:
        raise PlatformError(
            f"{where} is a table that this export did not make. It was left as it is. Give the table another name in "
            "defs.yaml, or, to have its rows replaced by those of this export, write `adopt: true`."
        )
    if not table.spec().is_unpartitioned():
        raise PlatformError(
            f"{where} is partitioned: exports write tables without partitions. It was left as it is. Take the "
            "partition fields out, or give the table another name in defs.yaml."
        )


def _held(table: Table) -> tuple[int, int]:
    """How many rows a table has, and its snapshot."""
    head = table.current_snapshot()
    return table.scan().count(), head.snapshot_id if head is not None else 0


def _last(table: Table | None, owner: str) -> tuple[dict[str, Any], str]:
    """What the last snapshot of this export said, and what others did to rows since all of them were written, which
    compaction does not. Empty if the table forgot it."""
    one = table.current_snapshot() if table is not None else None
    others: Snapshot | None = None
    while table is not None and one is not None:
        said = one.summary[METADATA] if one.summary is not None else None
        if said is not None and (found := dict(orjson.loads(said))).get("owner") == owner:
            return found, str(found.get("others", "")) or _did(others)
        if operation_of(one) is not Operation.REPLACE:
            others = one
        one = table.snapshot_by_id(one.parent_snapshot_id) if one.parent_snapshot_id is not None else None
    return {}, ""


def _did(snapshot: Snapshot | None) -> str:
    operation = operation_of(snapshot) if snapshot is not None else None
    return f"snapshot {snapshot.snapshot_id} ({operation.value if operation else 'unknown'})" if snapshot else ""


def _why_whole(
    lake: Lakehouse,
    spec: TableExport,
    there: Origin,
    columns: Sequence[Column],
    table: Table | None,
    said: Mapping[str, Any],
    *,
    full: bool,
) -> tuple[str, str | None]:
    """Why all rows are written, or the query of what changed."""
    if table is None:
        return "the first export", None
    if table.properties.get(OWNER) != owner_of(lake, spec):
        return "the table was taken over", None
    if not said:
        return "the snapshots of the table do not tell what was exported last", None
    return changes_since(lake, spec, there, columns, said, full=full)


def _changed(lake: Lakehouse, spec: TableExport, changes: str | None, block: ExitStack) -> TempRelation | bool:
    """The keys of what changed, kept for the block, where they are merged; otherwise whether anything did."""
    if changes is None or spec.mode == "replace":
        return changes is None or has_rows(lake, changes)
    found = block.enter_context(
        temp_relation(lake.connection, f"SELECT DISTINCT {quote_all(spec.key)} FROM ({changes})")
    )
    return found if found.rows else False


def _transaction(
    catalog: Catalog, table: Table | None, identifier: tuple[str, ...], wanted: Schema, owner: str
) -> Transaction:
    """A transaction on the table with the wanted columns. Nothing is there before it is committed but a namespace."""
    if table is None:
        catalog.create_namespace_if_not_exists(identifier[:-1])
        return catalog.create_table_transaction(identifier, wanted, properties={**PROPERTIES, OWNER: owner})
    transaction = table.transaction()
    if table.properties.get(OWNER) != owner:
        transaction.set_properties({OWNER: owner})
    if not alike(table.schema(), wanted):
        evolve(transaction, wanted)
    return transaction


def _commit(transaction: Transaction, swap: Swap, properties: Mapping[str, str]) -> None:
    """Put the new files in the place of the old ones, with the position."""
    has_rows = transaction.table_metadata.current_snapshot() is not None
    snapshot = OneSwap(
        operation=Operation.OVERWRITE if has_rows else Operation.APPEND,
        transaction=transaction,
        io=transaction._table.io,
        snapshot_properties=dict(properties),
    )
    for file in swap.out:
        snapshot.delete_data_file(file)
    for file in swap.into:
        snapshot.append_data_file(file)
    snapshot.commit()
    transaction.commit_transaction()


def _replaced(lake: Lakehouse, there: Origin, columns: Sequence[Column], table: Table | None, writer: Writer) -> Swap:
    rows = reader(lake, f"SELECT {selected(columns)} FROM {there.rows}")
    made = writer.write(rows.schema, rows)
    return Swap(_data_files(table), made, sum(file.record_count for file in made))


def _data_files(table: Table | None) -> list[DataFile]:
    """All files that hold rows, whatever is deleted in them."""
    head = table.current_snapshot() if table is not None else None
    if table is None or head is None:
        return []
    entries = (one for each in head.manifests(table.io) for one in each.fetch_manifest_entry(table.io))
    return [one.data_file for one in entries if one.data_file.content == DataFileContent.DATA]


def _merged(
    lake: Lakehouse,
    spec: TableExport,
    there: Origin,
    columns: Sequence[Column],
    changed: TempRelation,
    table: Table,
    writer: Writer,
) -> Swap:
    keys = quote_all(spec.key)
    as_kept = selected([column for column in columns if column.name in spec.key])
    query = (
        f"SELECT {as_kept}, false AS {GONE} FROM (FROM {changed.sql} SEMI JOIN {there.rows} USING ({keys})) "
        f"UNION ALL SELECT {as_kept}, true FROM (FROM {changed.sql} ANTI JOIN {there.rows} USING ({keys}))"
    )
    with temp_relation(lake.connection, query) as kept:
        tasks = list(table.scan().plan_files())
        hits = [_hits(lake, spec, table, task, kept.sql) for task in tasks]
        small = [task for task in tasks if task.file.record_count < FEW_ROWS]
        folded = small if len(small) >= MANY_FILES else []
        out = [task for task, hit in zip(tasks, hits, strict=True) if any(hit) or task in folded]
        schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
        into = writer.write(schema, _without(lake, spec, table, out, kept.sql))
    rows = reader(lake, f"SELECT {selected(columns)} FROM (FROM {there.rows} SEMI JOIN {changed.sql} USING ({keys}))")
    added = writer.write(rows.schema, rows)
    updated, deleted = sum(hit[0] for hit in hits), sum(hit[1] for hit in hits)
    inserted = sum(file.record_count for file in added) - updated
    return Swap([task.file for task in out], [*into, *added], inserted, updated, deleted)


def _hits(lake: Lakehouse, spec: TableExport, table: Table, task: FileScanTask, keys: str) -> tuple[int, int]:
    """How many rows of a file have a changed key: those that are there still, and those that are gone."""
    if not _may_hold(lake, spec, table, task.file, keys):
        return 0, 0
    updated = deleted = 0
    for batch in rows_of_files(table, table.schema().select(*spec.key), [task]):
        for gone in _matches(lake, spec, batch, keys)[GONE].to_pylist():
            updated, deleted = updated + (not gone), deleted + gone
    return updated, deleted


def _may_hold(lake: Lakehouse, spec: TableExport, table: Table, file: DataFile, keys: str) -> bool:
    """Whether a changed key lies between the least and the greatest of a file."""
    column = table.schema().find_field(spec.key[0])
    least, most = (bounds.get(column.field_id) for bounds in (file.lower_bounds or {}, file.upper_bounds or {}))
    if least is None or most is None or not isinstance(column.field_type, IntegerType | LongType | StringType):
        return True
    found = lake.connection.execute(
        f"SELECT 1 FROM {keys} WHERE {quote(spec.key[0])} BETWEEN ? AND ? LIMIT 1",
        [from_bytes(column.field_type, least), from_bytes(column.field_type, most)],
    )
    return bool(found.fetchall())


def _matches(lake: Lakehouse, spec: TableExport, batch: pa.RecordBatch, keys: str) -> pa.Table:
    """The numbers of the rows of a batch that have a changed key, and whether that is gone."""
    numbered = pa.table({**{name: batch[name] for name in spec.key}, NUMBER: pa.array(range(batch.num_rows))})
    lake.connection.register("exported_batch", numbered)
    try:
        return lake.connection.execute(
            f"SELECT {NUMBER}, {GONE} FROM exported_batch JOIN {keys} USING ({quote_all(spec.key)})"
        ).to_arrow_table()
    finally:
        lake.connection.unregister("exported_batch")


def _without(
    lake: Lakehouse, spec: TableExport, table: Table, tasks: Sequence[FileScanTask], keys: str
) -> Iterator[pa.RecordBatch]:
    """The rows of files but those with a changed key, as they are."""
    for batch in rows_of_files(table, table.schema(), tasks):
        gone = _matches(lake, spec, batch, keys)[NUMBER]
        kept = pc.invert(pc.is_in(pa.array(range(batch.num_rows)), value_set=gone))
        yield batch.filter(kept) if gone.length() else batch


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """What goes wrong, as a person may act upon it."""
    with explained(where, "written"):
        try:
            yield
        except CONFLICTS as error:
            raise TransientError(
                f"{where} was written by another at the same time: {shortened(str(error), 300)}. Nothing changed."
            ) from None
        except CommitStateUnknownException as error:
            raise TransientError(
                f"{where}: the catalog did not say whether it took the commit: {shortened(str(error), 300)}. The next "
                "export finds out."
            ) from None
