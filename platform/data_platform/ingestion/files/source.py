"""Files in a folder as a source: each delivered once, known by content, landed whole or not at all.
How a format's bytes become rows is in `formats`, where files come from in `storage`.

A position has two entries a file: `<path>` tells by size and time of modification whether to look at it again,
`<path>#sha256` by content whether there is anything new in it.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import AfterValidator, Field

from data_platform.errors import PlatformError
from data_platform.ingestion.files import storage
from data_platform.ingestion.files.formats import Format, Parsed, read
from data_platform.ingestion.files.storage import CONTENT, Delivery
from data_platform.ingestion.source import BATCH_ROWS, REJECTS_SCHEMA, Batch, Overlap, Position, TableOptions

logger = logging.getLogger(__name__)

BATCH_BYTES = 64 << 20
"""Bytes in a batch at most, give or take a block: wide rows would fill memory long before BATCH_ROWS of them."""


def _below(pattern: str) -> str:
    parts = PurePosixPath(pattern).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(f"{pattern!r} must be a pattern of paths below the source's folder, such as 'web/*.jsonl.gz'")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError(f"in {pattern!r}, '**' must stand alone between slashes, such as '**/*.csv'")
    return pattern


class FileTable(TableOptions):
    """A table delivered as files. Gzip is unpacked wherever it is met, by its first bytes and not by its name."""

    path: Annotated[str, AfterValidator(_below)] = Field(
        description="Pattern of the files' paths below the source's folder: `airports*.txt`, `web/**/*.jsonl.gz`."
    )
    format: Format = Field(description="How the files are written.")
    deliveries: Literal["additions", "snapshot"] = Field(
        default="additions",
        description="What a file is: rows to add, or the whole table, which replaces what was there.",
    )
    stable_for: float = Field(
        default=0,
        ge=0,
        description="Seconds that a file must have been left alone before it is read; 0 where files appear whole "
        "(written elsewhere and renamed), more where they are written or copied in place.",
    )


class Files:
    """A folder, and below it the files of each table. `spool` takes unpacked files too large for memory; by default
    the system's folder for temporary files."""

    def __init__(self, root: Path, tables: Mapping[str, FileTable], spool: Path | None = None) -> None:
        self._root = root
        self._tables = tables
        self._spool = spool

    def full_refresh(self, table: str) -> bool:
        """True for snapshots: each file is the whole table."""
        return self._table(table).deliveries == "snapshot"

    def position(self, table: str) -> Position:
        """Size and time of modification of each file there is, without opening any."""
        found = self._find(table)
        return {delivery.path: delivery.version for delivery in found if not storage.unrecordable(delivery.path)}

    def overlap(self, table: str, after: Position) -> Overlap | None:  # noqa: ARG002 (the protocol's signature)
        """None: a file is delivered once."""
        return None

    def read(self, table: str, after: Position) -> Iterator[Batch]:
        """Yield the files that are new or changed, oldest first; the last batch of each file has its position.

        A file with content that was loaded before only moves its position: under its own path always; under another
        path unless files are snapshots and another came in between, for then the older content is news again.
        Files that cannot be read are passed over and named in a PlatformError at the end; their position stays, so
        they are tried again. A file that turns bad after some of its rows were yielded (it was changed meanwhile, the
        disk failed) ends the read at once, since those rows must not land.
        """
        options = self._table(table)
        known = dict(after)
        contents = _contents(after)
        broken: list[str] = []
        for delivery in self._find(table):
            if known.get(delivery.path) == delivery.version:
                continue
            yielded = False
            try:
                for batch in self._deliver(options, delivery, known, contents):
                    if batch.position is not None:
                        known.update(batch.position)
                        contents.update(_contents(batch.position))
                    yielded = True
                    yield batch
            except (PlatformError, OSError) as error:
                if isinstance(error, FileNotFoundError) and not yielded and not storage.exists(self._root, delivery):
                    logger.info("%s vanished before it was read", delivery.path)
                    continue
                broken.append(f"{delivery.path.encode(errors='backslashreplace').decode()}: {error}")
                if yielded:
                    raise self._error(table, broken) from error
        if broken:
            raise self._error(table, broken)

    def _deliver(
        self, options: FileTable, delivery: Delivery, known: Position, contents: Mapping[str, str]
    ) -> Iterator[Batch]:
        if reason := storage.unrecordable(delivery.path):
            raise PlatformError(reason)
        if storage.leads_out(self._root, delivery):
            raise PlatformError("it is a link that leads out of the folder; have the file itself delivered")
        if not delivery.size and options.deliveries == "snapshot":
            raise PlatformError(
                "it is empty (0 bytes), and a snapshot without even a header is taken for a truncated one. "
                "Have it sent again, or delete it."
            )
        content = storage.sha256(self._root, delivery)
        position = {delivery.path: delivery.version, delivery.path + CONTENT: content}
        same = _loaded_as(options, delivery.path, content, known, contents)
        if same or not delivery.size:
            if storage.changed(self._root, delivery):
                raise PlatformError(_CHANGED)
            if same:
                logger.info("%s has the content of %s, which is loaded already", delivery.path, same)
            yield Batch(_located(pa.table({"_line": pa.array([], pa.int64())}), delivery.path), position)
            return
        with storage.unpacked(self._root, delivery, self._spool) as stream:
            waiting: Batch | None = None
            for batch in _batches(read(options.format, stream), delivery.path):
                if waiting:
                    yield waiting
                waiting = batch
            if storage.changed(self._root, delivery):
                raise PlatformError(_CHANGED)
            if waiting:
                yield Batch(waiting.rows, position, waiting.rejects)

    def _find(self, table: str) -> list[Delivery]:
        options = self._table(table)
        return storage.find(self._root, options.path, options.stable_for)

    def _table(self, table: str) -> FileTable:
        if table not in self._tables:
            raise PlatformError(f"No table {table!r} in this source; there are: {', '.join(sorted(self._tables))}.")
        return self._tables[table]

    def _error(self, table: str, broken: list[str]) -> PlatformError:
        files = "1 file" if len(broken) == 1 else f"{len(broken)} files"
        return PlatformError(
            f"Table {table}: {files} below {self._root} could not be read and will be tried again:\n  "
            + "\n  ".join(broken)
        )


_CHANGED = "it changed while it was read; it is read next time. If that repeats, set `stable_for`"


def _contents(position: Position) -> dict[str, str]:
    """Contents that were loaded, each with the last path that had it."""
    return {value: entry.removesuffix(CONTENT) for entry, value in position.items() if entry.endswith(CONTENT)}


def _loaded_as(options: FileTable, path: str, content: str, known: Position, contents: Mapping[str, str]) -> str | None:
    """The path under which this content was loaded, if it is no news."""
    if known.get(path + CONTENT) == content:
        return path
    if options.deliveries == "additions":
        return contents.get(content)
    latest = max(
        (entry for entry in known if not entry.endswith(CONTENT)),
        key=lambda entry: (int(known[entry].partition(":")[2]), entry),
        default="",
    )
    return latest if known.get(latest + CONTENT) == content else None


def _batches(parsed: Iterator[Parsed], path: str) -> Iterator[Batch]:
    """Gather blocks into batches of at most BATCH_ROWS rows and about BATCH_BYTES; one at least, with the columns."""
    tables: list[pa.Table] = []
    rejects: list[tuple[str, int, str, str]] = []
    rows, size = 0, 0
    for block in parsed:
        tables.append(block.rows)
        rejects.extend((path, reject.line, reject.record, reject.reason) for reject in block.rejects)
        rows += block.rows.num_rows
        size += block.rows.nbytes + sum(len(reject.record) for reject in block.rejects)
        while rows > BATCH_ROWS or size > BATCH_BYTES:
            gathered = pa.concat_tables(tables, promote_options="default")
            yield _batch(gathered.slice(0, BATCH_ROWS), rejects, path)
            rest = gathered.slice(BATCH_ROWS)
            tables, rejects, rows, size = [rest], [], rest.num_rows, rest.nbytes
    yield _batch(pa.concat_tables(tables, promote_options="default"), rejects, path)


def _batch(rows: pa.Table, rejects: list[tuple[str, int, str, str]], path: str) -> Batch:
    columns = zip(*rejects, strict=True) if rejects else [()] * len(REJECTS_SCHEMA)
    arrays = [pa.array(values, kind.type) for values, kind in zip(columns, REJECTS_SCHEMA, strict=True)]
    return Batch(_located(rows, path), None, pa.table(arrays, schema=REJECTS_SCHEMA))


def _located(rows: pa.Table, path: str) -> pa.Table:
    """The rows with `_file` beside `_line`, both last."""
    names = [name for name in rows.column_names if name != "_line"]
    file = pa.repeat(pa.scalar(path, pa.string()), rows.num_rows)
    return rows.select([*names, "_line"]).add_column(len(names), "_file", file)
