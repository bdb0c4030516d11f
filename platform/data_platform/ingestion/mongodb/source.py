"""Collections of MongoDB as a source. How a server is reached is in `connection`, how a collection is read in
`reading`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
from pymongo.database import Database

from data_platform.errors import PlatformError
from data_platform.ingestion.mongodb.connection import Raw, collection, collections, connected, translated
from data_platform.ingestion.mongodb.options import MongodbServer, MongodbTable
from data_platform.ingestion.mongodb.reading import CollectionReading
from data_platform.ingestion.scanned import ScannedComparison, scanned_column
from data_platform.ingestion.source import Position, Probe, probe_each, the_only
from data_platform.lakehouse.tables import LOAD_COLUMNS, TOMBSTONE_COLUMNS


@dataclass(frozen=True)
class Mongodb:
    """The collections of one database. Implements `source.Source`."""

    server: MongodbServer
    tables: Mapping[str, MongodbTable]

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """With a cursor: its highest value, and how many documents the next load would read. Without: how many there
        are, as the server keeps count. Neither shows all: tables are read every `refresh` as well."""
        with connected(self.server, withholds=self.withholds) as database:

            def probe(name: str) -> Probe:
                with translated(self.server, withholds=self.withholds):
                    return Probe(self._opened(database, name, after.get(name, {})).changes(), complete=False)

            return probe_each(tables, probe)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[CollectionReading]:
        """Read one collection. Raises PlatformError if the server does not answer, or has no such collection."""
        with connected(self.server, withholds=self.withholds) as database:
            with translated(self.server, withholds=self.withholds):
                opened = self._opened(database, the_only(tables), after)
            yield opened

    @contextmanager
    def comparing(self, table: str, after: Position, stored: Collection[str]) -> Iterator[ScannedComparison]:
        """Compare one table, read up to `after`, with what is `stored` of it; all its documents are read, or their
        `_id` alone. Raises PlatformError if its key is not `_id`."""
        options = self._table(table)
        key, cursor = options.id_column, options.cursor
        assert cursor is not None  # noqa: S101 - the options have one, or no `reconcile`
        if [name.lower() for name in options.key] != [key.lower()]:
            raise PlatformError(
                f"Table {table} cannot be compared with its source: its key ({', '.join(options.key)}) is not the "
                f"column of `_id` ({key}). Take out `reconcile`, and read the table afresh now and then: "
                "--full-refresh."
            )
        with self.reading([table], after) as reading:
            names = [name for name in stored if name.lower() not in (*LOAD_COLUMNS, *TOMBSTONE_COLUMNS)]
            columns = [scanned_column(name, pa.string(), is_key=name.lower() == key.lower()) for name in names]

            def rows(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
                mark = "reach"
                while mark in {name.lower() for name in wanted}:
                    mark += "_"
                only = [reading.column] if [name.lower() for name in wanted] == [key.lower()] else None
                for found in reading.scanned(only):
                    made = []
                    for one in found:
                        given = {name.lower(): value for name, value in reading.row(one).items()}
                        values = {name: given.get(name.lower()) for name in wanted}
                        made.append({**values, mark: int(one.fault is not None or reading.is_ahead(one))})
                    schema = pa.schema([*((name, pa.string()) for name in wanted), (mark, pa.int64())])
                    yield pa.RecordBatch.from_pylist(made, schema)

            yield ScannedComparison([one for one in columns if one.primary_key], columns, rows)

    def names(self) -> list[str]:
        """The collections that the database has."""
        with connected(self.server) as database, translated(self.server):
            return collections(database)

    @cached_property
    def withholds(self) -> bool:
        """Whether errors are shown without what the server says of values."""
        return any(table.masks for table in self.tables.values())

    def _opened(self, database: Database[Raw], name: str, after: Position) -> CollectionReading:
        table = self._table(name)
        found = collection(database, table.collection or name)
        return CollectionReading(found, name, table, after, lambda: translated(self.server, withholds=self.withholds))

    def _table(self, name: str) -> MongodbTable:
        if name not in self.tables:
            raise PlatformError(f"The source has no table {name!r}. It has {', '.join(self.tables) or 'none'}.")
        return self.tables[name]
