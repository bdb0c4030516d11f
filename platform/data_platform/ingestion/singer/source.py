"""Streams of a Singer tap as a source: one run of the tap is one reading of all of its tables, and the STATE that it
prints is the position, kept in our ledger with the rows that came before it. How a tap is run is in `tap`, what it
prints in `messages`.

A stream whose records have a `version` other than the one that is known, or that is replicated as a full table, is read
as a whole table: it replaces what was there when the run ends well, with all that the tap printed beside it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.singer.messages import (
    Message,
    Stream,
    Wanted,
    batch_records,
    method_of,
    read_message,
    selected_catalog,
    stream_of,
)
from data_platform.ingestion.singer.options import SingerTable, SingerTap
from data_platform.ingestion.singer.tap import Tap, prepared
from data_platform.ingestion.source import UNKNOWN, Batch, Kind, Overlap, Position, Probe

STATE = "state"
"""The entry of the position that holds the last STATE, as JSON."""

VERSION = "version "
"""What the entries of a position begin with that hold the version of a stream's table; the table's name follows."""

BATCH_ROWS, BATCH_BYTES, BATCH_SECONDS = 50_000, 32 * 2**20, 2.0
"""Records, their bytes, or time after which the next STATE ends a batch."""

FULL_TABLE = "FULL_TABLE"

NO_ROWS = pa.table({})


class Singer:
    """The tables of a tap. Implements `source.Source`.

    `home` is where environments of taps are, `spool` where files are that it is given for a run. A run ends after
    `seconds`, if they are given: for drafts and their trials. The tap is asked for its catalog once."""

    def __init__(
        self,
        options: SingerTap,
        tables: Mapping[str, SingerTable],
        home: Path,
        spool: Path,
        *,
        seconds: float | None = None,
    ) -> None:
        self.options, self.tables, self.home, self.spool = options, dict(tables), home, spool
        self.seconds = seconds
        self._catalog: dict[str, Any] | None = None

    @property
    def is_private(self) -> bool:
        """Whether values of its rows must not be shown."""
        return any(table.masks for table in self.tables.values())

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:  # noqa: ARG002
        """Nothing: a tap has no look at its source short of reading it."""
        return dict.fromkeys(tables, UNKNOWN)

    def streams(self) -> list[str]:
        """The streams that the tap has."""
        return list(self.catalog())

    def catalog(self) -> dict[str, dict[str, Any]]:
        """The entries of the tap's catalog, by the names of their streams."""
        with self._prepared() as tap:
            return {
                str(one.get("tap_stream_id") or one.get("stream")): one
                for one in self._discovered(tap).get("streams") or ()
            }

    @contextmanager
    def _prepared(self) -> Iterator[Tap]:
        with prepared(self.options, self.home, self.spool, private=self.is_private, seconds=self.seconds) as tap:
            yield tap

    def _discovered(self, tap: Tap) -> dict[str, Any]:
        if self._catalog is None:
            self._catalog = tap.discover()
        return self._catalog

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["TapReading"]:
        """Run the tap once, for all of `tables`. Raises PlatformError if it is not there, or lacks a stream."""
        with self._prepared() as tap:
            catalog = self._discovered(tap) if self.options.discover else None
            yield TapReading(tap, {name: self.tables[name] for name in tables}, after, catalog)


class TapReading:
    """One run of a tap."""

    def __init__(
        self, tap: Tap, tables: Mapping[str, SingerTable], after: Position, catalog: dict[str, Any] | None
    ) -> None:
        self._tap, self._tables, self._after = tap, tables, after
        self._names = {table.stream or name: name for name, table in tables.items()}
        self._catalog = self._selected(catalog) if catalog is not None else None

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 (the protocol's signature)
        """None: where a tap begins again is its own affair. What it repeats is a version of its key like any other."""
        return None

    def committed(self, position: Position) -> None:
        """Nothing: the tap gets the position with its next run."""

    def __iter__(self) -> Iterator[Batch]:
        with self._tap.running(self._catalog, self._after.get(STATE)) as lines:
            yield from _Pass(self._tap, self._names, self._tables, self._after, self._full_tables()).batches(lines)

    def _selected(self, catalog: dict[str, Any]) -> dict[str, Any]:
        wanted = [
            Wanted(stream, table.replication, table.replication_key, tuple(table.columns) if table.columns else None)
            for stream, table in ((table.stream or name, table) for name, table in self._tables.items())
        ]
        return selected_catalog(catalog, wanted)

    def _full_tables(self) -> set[str]:
        """The streams that are read as whole tables, as far as that is known beforehand."""
        found = {stream for stream, name in self._names.items() if self._tables[name].replication == "full_table"}
        for one in (self._catalog or {}).get("streams") or ():
            if method_of(one) == FULL_TABLE:
                found.add(str(one.get("tap_stream_id") or one.get("stream")))
        return found & set(self._names)


class _Pass:
    """What a tap printed so far, and what of it waits for a STATE."""

    def __init__(
        self,
        tap: Tap,
        names: Mapping[str, str],
        tables: Mapping[str, SingerTable],
        after: Position,
        full_tables: set[str],
    ) -> None:
        self.tap, self.names, self.tables, self.after, self.full = tap, names, tables, after, set(full_tables)
        self.streams: dict[str, Stream] = {}
        self.given: set[str] = set()
        self.position: dict[str, str] = {}
        self.whole_open = False
        self.unplaced = 0
        self.flushed_at = time.monotonic()

    def batches(self, lines: Iterator[bytes]) -> Iterator[Batch]:
        """Each batch up to a STATE, or of whole tables up to the end."""
        for number, line in enumerate(lines, 1):
            message = read_message(line, number, private=self.tap.private)
            if message.type == "RECORD":
                yield from self._record(message, number)
            elif message.type == "SCHEMA":
                yield from self._schema(message, number)
            elif message.type == "STATE" and bytes(message.value):
                self.position[STATE] = bytes(message.value).decode()
                if not self.whole_open and self._is_worth_a_batch():
                    yield from self._flush()
            elif message.type == "BATCH":
                yield from self._batch(message, number)
            elif message.type == "ACTIVATE_VERSION" and (stream := self._stream(message, number)) is not None:
                self._note_version(stream.name, message.version)
        yield from self._empty_tables()
        yield from self._flush()

    def _stream(self, message: Message, number: int) -> Stream | None:
        """The stream of a record; None if nobody asked for it, which some taps print for all that."""
        name = message.stream or ""
        if name not in self.names:
            return None
        if name not in self.streams:
            raise PlatformError(
                f"Line {number:,} of what {self.tap.name} printed: a {message.type} of {name} before its SCHEMA."
            )
        return self.streams[name]

    def _schema(self, message: Message, number: int) -> Iterator[Batch]:
        stream = message.stream or ""
        if stream not in self.names:
            return
        if stream in self.streams and self.streams[stream].records:
            yield from self._flush_stream(self.streams[stream])
        self.streams[stream] = stream_of(message, number)

    def _record(self, message: Message, number: int) -> Iterator[Batch]:
        stream = self._stream(message, number)
        if stream is None:
            return
        if not bytes(message.record):
            raise PlatformError(f"Line {number:,} of what {self.tap.name} printed: a RECORD without a record.")
        self._note_version(stream.name, message.version)
        stream.add(bytes(message.record), number)
        if len(stream.records) >= BATCH_ROWS or stream.size >= BATCH_BYTES:
            yield from self._flush_stream(stream)

    def _batch(self, message: Message, number: int) -> Iterator[Batch]:
        stream = self._stream(message, number)
        if stream is None:
            return
        self._note_version(stream.name, message.version)
        for record in batch_records(message, number):
            stream.add(record, number)
            if len(stream.records) >= BATCH_ROWS or stream.size >= BATCH_BYTES:
                yield from self._flush_stream(stream)

    def _note_version(self, stream: str, version: int | None) -> None:
        if version is not None:
            entry = f"{VERSION}{self.names[stream]}"
            if self.position.get(entry, self.after.get(entry)) != str(version):
                self.full.add(stream)
            self.position[entry] = str(version)
        self.whole_open = self.whole_open or stream in self.full

    def _is_worth_a_batch(self) -> bool:
        waiting = self.unplaced + sum(len(stream.records) for stream in self.streams.values())
        return waiting >= BATCH_ROWS or time.monotonic() - self.flushed_at >= BATCH_SECONDS

    def _kind(self, stream: str) -> Kind:
        return "whole" if stream in self.full else "rows"

    def _flush_stream(self, stream: Stream) -> Iterator[Batch]:
        """What waits of a stream, with no position: other streams' rows may come before the next STATE."""
        name = self.names[stream.name]
        rows, rejects = stream.take(self.tables[name].max_columns)
        if rows.num_rows or rejects.num_rows:
            self.given.add(stream.name)
            self.unplaced += rows.num_rows + rejects.num_rows
            yield Batch(name, rows, self._kind(stream.name), None, rejects)

    def _flush(self) -> Iterator[Batch]:
        """All that waits, the last of it with the position."""
        for stream in self.streams.values():
            yield from self._flush_stream(stream)
        self.flushed_at, self.unplaced = time.monotonic(), 0
        last = next(iter(self.streams), next(iter(self.names)))
        yield Batch(self.names[last], NO_ROWS, self._kind(last), dict(self.position))

    def _empty_tables(self) -> Iterator[Batch]:
        """Whole tables of which the tap had no row: they are empty now."""
        for stream in self.streams:
            if stream in self.full and stream not in self.given:
                yield Batch(self.names[stream], NO_ROWS, "whole", None)
