"""Tables of Apache Iceberg as a source, read by PyIceberg: which snapshots came since a position, and what they did.

Snapshots that append are read by the files that they added. One that replaces files without changing rows (compaction)
moves the position alone. After one that deletes or overwrites, the whole table is read, and so it is where the
snapshots between are not known any more, or columns changed their names. Nothing is written, neither to the catalog nor
to the table.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    NoSuchNamespaceError,
    NoSuchTableError,
    NotInstalledError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    SignError,
    UnauthorizedError,
)
from pyiceberg.exceptions import ValidationError as InvalidMetadataError
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _read_all_delete_files, schema_to_pyarrow
from pyiceberg.schema import Schema, index_name_by_id
from pyiceberg.table import FileScanTask, StaticTable, Table
from pyiceberg.table.snapshots import Operation, Snapshot
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.ingestion.lakes.options import IcebergTable
from data_platform.ingestion.lakes.reading import (
    PART_ROWS,
    TABLE,
    VERSION,
    Described,
    LakeReading,
    Part,
    Plan,
    Rows,
    as_a_whole,
    chosen,
    reshaped,
)
from data_platform.ingestion.source import Position, Probe, differences, probe_each, the_only
from data_platform.ingestion.sql.dialects.session import known
from data_platform.lakehouse.settings import redact_url, require_encoded

SCHEMA = "schema"
"""The entry of a position that names the table's schema: names may change without a snapshot."""

DEFAULT = "default"
"""The name of a catalog that is given none: a catalog in a database may hold several, told apart by their names."""

NONE = "none"
"""The version of a table that has no snapshot yet."""

UNCHANGED = ("added-data-files", "deleted-data-files", "added-delete-files", "removed-delete-files")
"""Figures of a snapshot that are all nought, or not there, if it changed nothing."""


@dataclass(frozen=True)
class Iceberg:
    """The tables of one catalog. Implements `source.Source`; `name` is what the source is called, `catalog` are the
    catalog's properties, with the values of the environment."""

    name: str
    catalog: Mapping[str, str]
    tables: Mapping[str, IcebergTable]

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """The newest snapshot of each table: one look into the catalog, and one at the table's metadata."""
        catalog = self._catalog() if any(self._options(name).table for name in tables) else None

        def probe(name: str) -> Probe:
            table = self._table(catalog, name)
            now = position_of(table, self._head(table, name))
            return Probe(differences(now, after.get(name, {})))

        return probe_each(tables, probe)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[LakeReading]:
        """What came to a table after `after`, up to the newest snapshot there is. Raises PlatformError if the catalog
        or the table cannot be read."""
        name = the_only(tables)
        catalog = self._catalog() if self._options(name).table else None
        table = self._table(catalog, name)
        head = self._head(table, name)
        with explained(self._label(name)):
            plan = self._plan(name, table, head, after)
        yield LakeReading(name, plan)

    def names(self) -> list[str]:
        """The tables of the catalog, with their namespaces."""
        catalog = self._catalog()
        found: list[str] = []
        with explained(f"The catalog of {self.name}"):
            waiting = catalog.list_namespaces()
            while waiting:
                namespace = waiting.pop(0)
                found += [".".join(one) for one in catalog.list_tables(namespace)]
                waiting += catalog.list_namespaces(namespace)
        return sorted(found)

    def described(self, name: str) -> Described:
        """What a table says of itself: its identifier fields, types, comments."""
        table = self._table(self._catalog() if self._options(name).table else None, name)
        schema = table.schema()
        return Described(
            sorted(schema.identifier_field_names()),
            {each.name: (str(each.field_type), not each.required) for each in schema.fields},
            table.properties.get("comment", ""),
            {each.name: each.doc for each in schema.fields if each.doc},
        )

    def _label(self, name: str) -> str:
        return f"{self.name}/{name}"

    def _options(self, name: str) -> IcebergTable:
        if name not in self.tables:
            raise PlatformError(f"The source has no table {name!r}. It has {', '.join(self.tables) or 'none'}.")
        return self.tables[name]

    def _catalog(self) -> Catalog:
        file = Path(self.catalog.get("uri", "").removeprefix("sqlite:///"))
        if self.catalog.get("uri", "").startswith("sqlite:///") and not file.is_file():
            raise PlatformError(f"The catalog of {self.name} is to be the SQLite file {file}, which is not there.")
        # Reading makes no tables in the catalog's database.
        return catalog_of(self.name, {"init_catalog_tables": "false", **self.catalog})

    def _table(self, catalog: Catalog | None, name: str) -> Table:
        options = self._options(name)
        if catalog is None or options.path is not None:
            with explained(f"{self._label(name)} at {options.path}"):
                return _of_metadata(str(options.path), self.catalog)
        label = f"{self._label(name)} ({options.table})"
        with explained(label):
            try:
                return catalog.load_table(str(options.table))
            except (NoSuchTableError, NoSuchNamespaceError):
                there = known("table", str(options.table), self.names())
                raise PlatformError(
                    f"{label}: the catalog has no such table, or its user may not see it. {there}"
                ) from None

    def _head(self, table: Table, name: str) -> Snapshot | None:
        """The snapshot that is read: the newest of the branch, or the one of the tag."""
        ref = self._options(name).ref
        if ref is None:
            return table.current_snapshot()
        if ref not in table.refs():
            raise PlatformError(
                f"{self._label(name)}: the table has no branch or tag {ref} (`ref`). It has: "
                f"{', '.join(sorted(table.refs())) or 'none'}."
            )
        return table.snapshot_by_name(ref)

    def _plan(self, name: str, table: Table, head: Snapshot | None, after: Position) -> Plan:
        label, options = self._label(name), self._options(name)
        fields = table.schema()
        schema = chosen(label, schema_to_pyarrow(fields, include_field_ids=False), options.columns)
        wanted = fields.select(*schema.names) if options.columns is not None else fields
        now = position_of(table, head)

        def whole(*notes: str) -> Plan:
            if head is None:
                return Plan(schema, [Part(now)], "whole", notes)
            return Plan(schema, [Part(now, lambda: self._whole(name, table, wanted, head))], "whole", notes)

        if not after:
            return whole()
        if now == {entry: after.get(entry) for entry in now}:
            return Plan(schema)
        why = _no_way(table, after)
        if why is None:
            lineage = _since(table, head, after[VERSION])
            why = lineage if isinstance(lineage, str) else next(filter(None, map(_rewrites, lineage)), None)
        if why is not None:
            return whole(as_a_whole(label, why))
        assert not isinstance(lineage, str)  # noqa: S101 - that would be a reason
        parts = []
        for stretch in _stretches(lineage):
            reached = {**now, VERSION: str(stretch[-1].snapshot_id)}
            appends = [one for one in stretch if operation_of(one) == Operation.APPEND]
            rows = partial(self._appended, name, table, wanted, appends) if appends else None
            parts.append(Part(reached, rows))
        return Plan(schema, parts or [Part(now)])

    def _whole(self, name: str, table: Table, schema: Schema, head: Snapshot) -> Rows:
        """The rows of a snapshot. Where what was delivered last is the newest, it is what was committed last."""
        options = self._options(name)
        with explained(f"{self._label(name)} ({table.metadata_location})"):
            files = list(table.scan(snapshot_id=head.snapshot_id).plan_files())
            if options.key and options.newest_by is None:
                entries = (entry for one in head.manifests(table.io) for entry in one.fetch_manifest_entry(table.io))
                order = {entry.data_file.file_path: entry.sequence_number or 0 for entry in entries}
                files.sort(key=lambda task: order[task.file.file_path])
            yield from rows_of_files(table, schema, files)

    def _appended(self, name: str, table: Table, schema: Schema, snapshots: Sequence[Snapshot]) -> Rows:
        """The rows that snapshots added, one after the other."""
        with explained(f"{self._label(name)} ({table.metadata_location})"):
            for one in snapshots:
                scan = table.incremental_append_scan(
                    from_snapshot_id_exclusive=one.parent_snapshot_id, to_snapshot_id_inclusive=one.snapshot_id
                )
                yield from rows_of_files(table, schema, list(scan.plan_files()))


def catalog_of(name: str, given: Mapping[str, str]) -> Catalog:
    """The catalog of a source or an export, by its properties. Raises PlatformError if it cannot be reached."""
    properties, uri = dict(given), given.get("uri", "")
    require_encoded(uri, f"The catalog of {name}")
    if uri.startswith(("postgresql://", "postgres://")):
        properties["uri"] = f"postgresql+psycopg://{uri.partition('://')[2]}"
    with explained(f"The catalog of {name}" + (f" at {redact_url(uri)}" if uri else "")):
        return load_catalog(properties.pop("name", DEFAULT), **properties)


def rows_of_files(table: Table, schema: Schema, files: Sequence[FileScanTask]) -> Rows:
    """The rows of files, one file after the other: PyIceberg's own reader holds all rows of several."""
    deletes = _read_all_delete_files(table.io, files)
    scan = ArrowScan(table.metadata, table.io, schema, AlwaysTrue())
    for file in files:
        yield from scan._record_batches_from_scan_tasks_and_deletes([file], deletes)


def position_of(table: Table, head: Snapshot | None) -> dict[str, str]:
    """The position of a table that is read up to a snapshot."""
    version = NONE if head is None else str(head.snapshot_id)
    return {TABLE: str(table.metadata.table_uuid), VERSION: version, SCHEMA: str(table.schema().schema_id)}


def _of_metadata(path: str, properties: Mapping[str, str]) -> Table:
    """The table that a metadata file, or the hint in a folder, describes."""
    try:
        return StaticTable.from_metadata(path, dict(properties))
    except FileNotFoundError:
        if path.endswith(".metadata.json"):
            raise
        raise PlatformError(
            f"The folder {path} has no metadata/version-hint.text, which would name its newest metadata: nobody can "
            "tell then which is in force. Name the metadata file itself, or read the table by its catalog."
        ) from None


def _no_way(table: Table, after: Position) -> str | None:
    """Why what is new cannot be told by snapshots, if that is so before any is looked at."""
    if after.get(TABLE) != str(table.metadata.table_uuid):
        return f"it was made anew (as {table.metadata.table_uuid})"
    before = {str(one.schema_id): one for one in table.metadata.schemas}.get(after.get(SCHEMA, ""))
    if before is None:
        return "the schema by which it was read last is not known any more"
    schema = table.schema()
    filled = {each.field_id for each in schema.fields if each.initial_default is not None}
    return reshaped(index_name_by_id(before), index_name_by_id(schema), filled)


def _since(table: Table, head: Snapshot | None, version: str) -> list[Snapshot] | str:
    """The snapshots after a version up to the newest, the oldest first; or why they are not known."""
    found: list[Snapshot] = []
    one = head
    while one is not None and str(one.snapshot_id) != version:
        found.append(one)
        if one.parent_snapshot_id is None:
            one = None
            break
        parent = table.snapshot_by_id(one.parent_snapshot_id)
        if parent is None:
            return f"snapshots after {version}, up to which it was read, have expired"
        one = parent
    if one is None and version != NONE:
        expired = table.snapshot_by_id(int(version)) is None
        return f"the snapshot {version}, up to which it was read, " + (
            "has expired" if expired else "is not in its history any more: it was set back, or another took its place"
        )
    return found[::-1]


def operation_of(snapshot: Snapshot) -> Operation | None:
    return None if snapshot.summary is None else snapshot.summary.operation


def _rewrites(snapshot: Snapshot) -> str | None:
    """What a snapshot did besides appending, if anything."""
    operation, summary = operation_of(snapshot), snapshot.summary
    if operation in (Operation.APPEND, Operation.REPLACE):
        return None
    if summary is None or operation is None:
        return f"the snapshot {snapshot.snapshot_id} does not say what it did"
    if not any(int(summary[figure] or 0) for figure in UNCHANGED):
        return None
    return f"the snapshot {snapshot.snapshot_id} did not only append ({operation.value})"


def _stretches(lineage: Sequence[Snapshot]) -> Iterator[list[Snapshot]]:
    """Snapshots that are read together: many that append little are planned at once."""
    gathered: list[Snapshot] = []
    count = 0
    for one in lineage:
        gathered.append(one)
        count += int((one.summary["added-records"] if one.summary is not None else None) or 0)
        if count >= PART_ROWS:
            yield gathered
            gathered, count = [], 0
    if gathered:
        yield gathered


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return shortened(text.splitlines()[0].rstrip("."), 300)


@contextmanager
def explained(what: str, done: str = "read") -> Iterator[None]:
    """What PyIceberg, Arrow, the catalog and the store raise, as one message; `done` says what was done."""
    try:
        yield
    except (NoSuchTableError, NoSuchNamespaceError) as error:
        raise PlatformError(
            f"{what}: the catalog has no such table, or its user may not see it ({_first_line(error)})."
        ) from None
    except UnauthorizedError as error:
        raise PlatformError(f"{what}: access was refused ({_first_line(error)}). Check its credentials.") from None
    except (ServerError, ServiceUnavailableError, RequestException, ConnectionError, TimeoutError) as error:
        raise TransientError(f"{what} does not answer: {_first_line(error)}.") from None
    except (RESTError, SignError) as error:
        raise PlatformError(f"{what}: the catalog refused to answer: {_first_line(error)}.") from None
    except SQLAlchemyError as error:
        raise TransientError(f"{what}: the database of the catalog cannot be read: {_first_line(error)}.") from None
    except FileNotFoundError as error:
        raise PlatformError(
            f"{what}: a file of the table is not there: {_first_line(error)}. If snapshots were expired while it was "
            "read, the next load reads the newest one; if not, the table is damaged."
        ) from None
    except (ValidationError, InvalidMetadataError, json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
        raise PlatformError(f"{what}: its metadata is damaged: {_first_line(error)}.") from None
    except (NotInstalledError, ImportError) as error:
        raise PlatformError(f"{what} needs a package that is not installed: {_first_line(error)}.") from None
    except NotImplementedError as error:
        raise PlatformError(f"{what} cannot be {done} by PyIceberg: {_first_line(error)}.") from None
    except ValueError as error:
        if "equality deletes" in str(error):
            raise PlatformError(
                f"{what} has equality deletes (as Flink writes them), which PyIceberg does not read: which rows are "
                "gone cannot be told. Have them compacted into the data files "
                "(`rewrite_data_files` of Spark), after which it can be."
            ) from None
        raise PlatformError(f"{what} cannot be {done}: {_first_line(error)}.") from None
    except (OSError, pa.ArrowException) as error:
        if re.search(r"NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|timed out", str(error)):
            raise TransientError(f"{what} does not answer: {_first_line(error)}.") from None
        if re.search(r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|HTTP status 403", str(error)):
            raise PlatformError(f"{what}: access was refused ({_first_line(error)}). Check its credentials.") from None
        raise PlatformError(f"{what} cannot be {done}: {_first_line(error)}.") from None
