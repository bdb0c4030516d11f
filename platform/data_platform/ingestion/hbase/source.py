"""Tables of HBase as a source: read as a whole, or by the times of their cells. How the gateway is asked is in
`gateway`, what cells become in `values`.

A scan of a range of times gives cells, not rows, and of rows that have such cells no others. So it is used to find
their keys, and the rows are then got whole. The first reading scans everything. Each reading goes from the end of the
range before it, less the lag, up to now, in the order of the keys: where it was within a range is a part of the
position, so that one that ends early is gone on with.
"""

import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.digest import Digest
from data_platform.ingestion.hbase.gateway import Gateway, Row, Scan, chunks, connected, shown
from data_platform.ingestion.hbase.options import TIMESTAMP, HbaseServer, HbaseTable, key_bytes
from data_platform.ingestion.hbase.values import LATEST, Reader, gathered
from data_platform.ingestion.http.options import HttpApi
from data_platform.ingestion.scanned import ScannedComparison, scanned_column
from data_platform.ingestion.source import (
    REJECTS_SCHEMA,
    UNKNOWN,
    Batch,
    Overlap,
    Position,
    Probe,
    SourceUse,
    probe_each,
    the_only,
)

UNTIL = "until"
"""The entry of the position up to which times were read, in milliseconds since 1970."""

PASS, ROW = "pass", "row"
"""The entries of a position within a range of times: where the range ends, and the last key that was read in it."""

BATCH_ROWS, BATCH_BYTES = 10_000, 32 * 2**20
"""Rows, or bytes of their values, that complete a batch."""

KEYS_AT_ONCE, KEY_BYTES = 200, 6_000
"""Rows that are got by their keys in one request, and bytes of the keys: an address has an end."""

PROBE_RETRIES, PROBE_PATIENCE = 1, timedelta(seconds=10)
"""How a probe meets a gateway that is busy: no sensor's tick may wait for minutes."""


@dataclass(frozen=True)
class Hbase:
    """The tables of one HBase. Implements `source.Source`."""

    server: HbaseServer
    tables: Mapping[str, HbaseTable]

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """Whether a cell was written since: the first that a scan of these times finds, which passes over all files of
        older ones. Late cells it does not see; they are read every `refresh`."""
        impatient = self._api.model_copy(
            update={
                "max_retries": min(PROBE_RETRIES, self._api.max_retries),
                "patience": min(PROBE_PATIENCE, self._api.patience),
                "answer_timeout": min(PROBE_PATIENCE, self._api.answer_timeout),
            }
        )
        with connected(impatient) as gateway:
            return probe_each(tables, lambda name: self._probe(gateway, name, after.get(name, {})))

    def _probe(self, gateway: Gateway, name: str, after: Position) -> Probe:
        table = self._table(name)
        scan = self._scan(gateway, name)
        if table.incremental is None:
            return UNKNOWN
        if UNTIL not in after:
            return Probe({UNTIL: str(now())}, complete=False)
        if PASS in after:
            return Probe({PASS: str(now())}, complete=False)
        found = gateway.first(replace(scan, since=int(after[UNTIL]), until=now()))
        return Probe({} if found is None else {UNTIL: str(found.written + 1)}, complete=False)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["TableReading"]:
        """Read one table. Raises PlatformError if the gateway does not answer, or the table or a family is missing."""
        name = the_only(tables)
        table = self._table(name)
        with connected(self._api) as gateway:
            yield TableReading(gateway, name, table, self._scan(gateway, name), after)

    @contextmanager
    def comparing(self, table: str, after: Position, stored: Collection[str]) -> Iterator[ScannedComparison]:
        """Compare one table, read up to `after`, with what is `stored` of it. All its keys are scanned, or all its
        rows. Raises PlatformError if its key is not the key of the rows in HBase."""
        options = self._table(table)
        if [name.lower() for name in options.key] != [options.row_key.name.lower()]:
            raise PlatformError(
                f"Table {table} cannot be compared with its source: its key ({', '.join(options.key)}) is not the "
                f"column of HBase's row key ({options.row_key.name}). Take out `reconcile`, and read the table afresh "
                "now and then: --full-refresh."
            )
        reader, there = Reader(options), {name.lower() for name in stored}
        names = [name for name in reader.schema.names if name.lower() in there]
        key = options.row_key.name
        columns = [scanned_column(name, reader.schema.field(name).type, is_key=name == key) for name in names]
        since = begins(options, after)
        with connected(self._api) as gateway:
            scan = self._scan(gateway, table)

            def rows(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
                mark = "reach"
                while mark in {name.lower() for name in wanted}:
                    mark += "_"
                asked = replace(scan, keys_alone=list(wanted) == [key])
                for some in gathered(gateway.scan(asked), BATCH_ROWS, BATCH_BYTES):
                    yield reader.scanned(some, wanted, mark, since)

            yield ScannedComparison([one for one in columns if one.name == key], columns, rows)

    def names(self) -> list[str]:
        """The tables that HBase has."""
        with connected(self._api) as gateway:
            return gateway.tables()

    def sample(self, table: str, most: int) -> list[Row]:
        """The first rows of a table of HBase, with all their cells."""
        rows: list[Row] = []
        with connected(self._api) as gateway:
            for some in gateway.scan(Scan(table, gateway.families(table))):
                rows += some
                if len(rows) >= most:
                    break
        return rows[:most]

    @cached_property
    def _api(self) -> HttpApi:
        return HttpApi.of(self.server, self.tables.values())

    def _table(self, name: str) -> HbaseTable:
        if name not in self.tables:
            raise PlatformError(f"The source has no table {name!r}. It has {', '.join(self.tables) or 'none'}.")
        return self.tables[name]

    def _scan(self, gateway: Gateway, name: str) -> Scan:
        """The scan of a table. Raises PlatformError if it, or a family of it, is not there: HBase would give none of
        the rows, and not say why."""
        options = self._table(name)
        table = options.table or name
        there = gateway.families(table)
        missing = [place for place in options.columns if place.partition(":")[0] not in there]
        if missing:
            raise PlatformError(
                f"Table {name}: {table} in HBase has no column family {missing[0].partition(':')[0]} (of the column "
                f"{missing[0]}). It has: {', '.join(there) or 'none'}. Nothing was read. Take the column out, or "
                "correct it."
            )
        return Scan(table, list(options.columns), *options.range, batch=options.batch)


@dataclass
class TableReading:
    """One pass over a table."""

    gateway: Gateway
    name: str
    table: HbaseTable
    scan: Scan
    after: Position

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 - the protocol's signature
        """Rows of which a cell was written within the lag. None for a whole table, and for the first reading."""
        if self.table.incremental is None or not {UNTIL, PASS} & self.after.keys():
            return None
        first = self.after if UNTIL in self.after else {UNTIL: self.after[PASS]}
        since = datetime.fromtimestamp(min(begins(self.table, first), LATEST) / 1000, UTC)
        return Overlap(TIMESTAMP, since, (self.table.row_key.name,))

    def committed(self, position: Position) -> None:
        """Nothing: HBase keeps no account of its readers."""

    def use(self, table: str) -> SourceUse:  # noqa: ARG002 - it is one
        """What was taken at the gateway."""
        return self.gateway.use

    def __iter__(self) -> Generator[Batch, None, None]:
        return self._whole() if self.table.incremental is None else self._new()

    def _whole(self) -> Generator[Batch, None, None]:
        """All rows. Only the last batch has a position, which tells whether anything is different at all."""
        reader = Reader(self.table)
        held = Batch(self.name, reader.schema.empty_table(), "whole", None)
        with closing(Digest(reader.schema)) as digest:
            for some in gathered(self.gateway.scan(self.scan), BATCH_ROWS, BATCH_BYTES):
                if held.rows.num_rows or held.rejects.num_rows:
                    yield held
                rows, rejects = reader.rows(some)
                digest.add(rows)
                digest.add_count(rejects.num_rows)
                held = Batch(self.name, rows, "whole", None, rejects)
            position = digest.position()
        yield replace(held, position=position)

    def _new(self) -> Generator[Batch, None, None]:
        after = self.after
        if PASS in after:
            # What a reading before left of its range; then comes what was written since.
            ends = yield from self._range(after, int(after[PASS]))
            yield ends
            after = ends.position or {}
        yield (yield from self._range(after, now()))

    def _range(self, after: Position, until: int) -> Generator[Batch, None, Batch]:
        """Read a range of times up to its end, or what is left of it. Returns the last batch, with which it is done."""
        reader = Reader(self.table)
        last = key_bytes(after[ROW]) if ROW in after else None
        held = Batch(self.name, reader.schema.empty_table(), "rows", None, REJECTS_SCHEMA.empty_table())
        try:
            for some in gathered(self._found(after, until, last), BATCH_ROWS, BATCH_BYTES):
                if held.position is not None:
                    yield held
                rows, rejects = reader.rows(some)
                held = Batch(self.name, rows, "rows", {PASS: str(until), ROW: shown(some[-1].key)}, rejects)
        except PlatformError:
            if held.position is not None:
                yield held
            raise
        return replace(held, position={UNTIL: str(until)}, forget=(PASS, ROW))

    def _found(self, position: Position, until: int, after: bytes | None) -> Iterator[list[Row]]:
        """The rows of which a cell was written in the range that ends at `until`, those after a key if it is given. The
        first range holds all rows, whatever their times."""
        if UNTIL not in position:
            yield from self.gateway.scan(self.scan, after)
            return
        since = begins(self.table, position)
        if since >= until:
            return
        keys = (
            row.key
            for rows in self.gateway.scan(replace(self.scan, since=since, until=until, keys_alone=True), after)
            for row in rows
        )
        for some in chunks(keys, KEYS_AT_ONCE, KEY_BYTES):
            found = self.gateway.by_keys(self.scan, some)
            yield [found[key] for key in some if key in found]


def begins(table: HbaseTable, after: Position) -> int:
    """Where the range of times begins that comes after a position, in milliseconds since 1970. Raises PlatformError if
    the position is none of this kind."""
    if UNTIL not in after or table.incremental is None:
        return 0
    if not after[UNTIL].isdecimal():
        raise PlatformError(
            f"The table was read up to {after[UNTIL]!r}, which is no time in milliseconds. Load it afresh with "
            "--full-refresh."
        )
    return max(0, int(after[UNTIL]) - int(table.incremental.lag.total_seconds() * 1000))


def now() -> int:
    """The time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
