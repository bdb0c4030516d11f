"""Files in a folder as a source: each delivered once, known by content, landed whole or not at all.
How a format's bytes become rows is in `formats`, where files come from in `storage`.

A position has an entry a file, `<path>` -> `<size>:<time of modification [ns]>:<time of change [ns]>:<sha256>`: all but
the last tell without opening it whether to read it (the time of change shows a file that was replaced by one of the
same size and time), the last whether there is anything new in it. Entries of earlier releases have no time of change;
those of objects in buckets have the etag in its place.
"""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import AfterValidator, ByteSize, Field, field_validator, model_validator

from data_platform.errors import PlatformError
from data_platform.ingestion.files import storage
from data_platform.ingestion.files.after_load import AfterLoad, movable, refuse_moved, tidy
from data_platform.ingestion.files.batches import NO_ROWS, Gathered, batches_of, counted, joined, repeated_note
from data_platform.ingestion.files.formats import Excel, Format, read
from data_platform.ingestion.files.formats.typed import TypedFormat
from data_platform.ingestion.files.loaded import Loaded, by_name, is_known, modified
from data_platform.ingestion.files.partitions import Partitions, identity, path_values, with_path_values
from data_platform.ingestion.files.storage import CHANGED, Delivery, Place, Storage, StorageUnavailableError
from data_platform.ingestion.files.storage.ahead import Opened, opening
from data_platform.ingestion.files.storage.encryption import NO_KEYS, Keys
from data_platform.ingestion.files.storage.local import LocalFolder
from data_platform.ingestion.files.storage.unpacking import Part, Unpacking, contents
from data_platform.ingestion.source import (
    EMPTY,
    REJECTS_SCHEMA,
    Batch,
    Kind,
    Overlap,
    Position,
    Probe,
    TableOptions,
    probe_each,
    the_only,
)
from data_platform.options import Duration

logger = logging.getLogger(__name__)

SHOWN_FILES = 50
"""Files that an error names at most."""


class FileTable(TableOptions):
    """A table delivered as files. What is compressed, or an archive, is unpacked wherever it is met, by its first bytes
    and not by its name."""

    path: Annotated[str, AfterValidator(storage.below)] = Field(
        description="Pattern of the files' paths below the source's folder: `airports*.txt`, `web/**/*.jsonl.gz`."
    )
    format: Format = Field(description="How the files are written.")
    deliveries: Literal["additions", "snapshot"] = Field(
        default="additions",
        description="What a file is: rows to add, or the whole table, which replaces what was there.",
    )
    order: Literal["arrival", "name"] = Field(
        default="arrival",
        description="Of snapshots, which is the newest: the one that was modified last, or the one whose path sorts "
        "last (`prices_2024-05-02.csv`; digits are compared as numbers, 10 comes after 9), so that one which comes "
        "late with an earlier name is passed over.",
    )
    stable_for: float = Field(
        default=0,
        ge=0,
        description="Seconds that a file must have been left alone before it is read; 0 where files appear whole "
        "(written elsewhere and renamed), more where they are written or copied in place. A file of additions whose "
        "last line has no end is taken to be still written: it waits until it was left alone for at least 10 s.",
    )
    max_unpacked: ByteSize = Field(
        default=ByteSize(10 * 10**9),
        gt=0,
        description="What a packed file may hold at most, unpacked: 10GB. It is unpacked whole into the spool folder.",
    )
    members: Annotated[str, AfterValidator(storage.below)] | None = Field(
        default=None,
        description="Of archives (zip, tar): pattern of the members that are read, `orders_*.csv` in any folder of "
        "theirs, `eu/*.csv` in that one. They are read in the order of their paths. Default: all that are not hidden.",
    )
    forget_after: Duration | None = Field(
        default=None,
        description="Files that are gone from the folder and were modified longer ago than this are forgotten: 90d. "
        "The position then stops growing, and such a file is loaded again if it ever comes back. With `partitions`, "
        "those that are no longer looked at are forgotten as well. Default: never.",
    )
    after_load: AfterLoad | None = Field(
        default=None,
        description="What becomes of a file once it is loaded: `{move: done}` or `{delete: true}`. It is done after "
        "the rows are committed, with files that were loaded before too. Default: nothing is touched.",
    )
    partitions: Partitions | None = Field(
        default=None,
        description="Where paths begin with a date: only files of the newest dates are looked at, so that a bucket of "
        "a million is not listed each time. A file that comes, or is mended, later than `late` is not seen before a "
        "full refresh. Files are read in the order of their paths.",
    )

    partition_columns: list[Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")]] = Field(
        default=[],
        description="Columns whose values stand in the names of folders, as Hive and Spark write them: [dt, country] "
        "of dt=2026-01-01/country=CH/. They land as text; __HIVE_DEFAULT_PARTITION__ is null.",
    )

    def lands_as_text(self) -> bool:
        """Formats without types give nothing but text."""
        return self.format.values_are_text

    @model_validator(mode="after")
    def _order_of_snapshots(self) -> "FileTable":
        if self.order == "name" and self.deliveries != "snapshot":
            raise ValueError("`order: name` says which snapshot is the newest: it needs `deliveries: snapshot`")
        return self

    @field_validator("partition_columns")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        if len({name.lower() for name in names}) < len(names):
            raise ValueError("it names a column twice")
        return names

    @model_validator(mode="after")
    def _partitions_of_its_path(self) -> "FileTable":
        if self.partitions is not None:
            self.partitions.refuse_other(self.path)
            if self.after_load is not None:
                raise ValueError("`after_load` leaves nothing but new files in the folder: remove `partitions`")
            if self.partitions.by_name and self.stable_for:
                raise ValueError(
                    "`stable_for` would pass over files for good where `partitions` are by name: remove one"
                )
            if self.deliveries == "snapshot" and self.order == "arrival":
                raise ValueError("`partitions` are read by their dates: snapshots of them need `order: name`")
        return self


FORGOTTEN = 1_000
"""Files that one load asks for whether they are gone, before it forgets them."""

UNENDED_FOR = 10.0
"""Seconds that a file of additions must have been left alone if its last line has no end: half a row would land as a
row of its own, under a key that does not exist, which nothing takes back when the line is completed."""


def _start(options: FileTable, after: Position) -> str:
    """What paths that are looked at do not sort before."""
    if options.partitions is None:
        return ""
    # An entry of what `path` was before must not hide what it is now.
    wanted = storage.pattern_of(options.path)
    return options.partitions.start(one for one in after if wanted.matches(one))


def _found(folder: Storage, options: FileTable, after: Position) -> list[Delivery]:
    """The files of a table that are ready to be read, as far as their times and their last bytes tell: all of them, or
    those of the newest partitions."""
    by_name = options.partitions is not None and options.partitions.by_name
    found = folder.find(options.path, options.stable_for, _start(options, after))
    if options.after_load is not None and options.after_load.move is not None:
        found = [one for one in found if not one.path.startswith(options.after_load.folder)]
    if options.deliveries == "snapshot":
        return found
    line_end = options.format.record_end()
    if line_end is None:
        return found
    before = (time.time() - max(UNENDED_FOR, options.stable_for)) * 1e9
    if by_name:
        found.sort(key=lambda delivery: delivery.path)
    ready = []
    for delivery in found:
        if before < delivery.mtime_ns <= time.time() * 1e9 and not folder.is_ended(delivery, line_end):
            logger.warning(
                "%s is not read yet: its last line has no end, and it was written to less than %g s ago",
                delivery.path,
                max(UNENDED_FOR, options.stable_for),
            )
            if by_name:  # those after it would move the beginning of the next look past it
                break
        else:
            ready.append(delivery)
    return ready


NOTHING_YET = {EMPTY: "nothing yet"}
"""The position of a table that was loaded before its first file was there."""


def _files(position: Position) -> Position:
    """The entries of a position that are of files."""
    return {path: entry for path, entry in position.items() if path != EMPTY}


class Files:
    """A folder, and below it the files of each table, as a `Source`: a path, or a `Place` elsewhere. `spool` takes
    unpacked files, and those that are fetched, which are too large for memory; by default the system's folder for
    temporary files."""

    def __init__(
        self,
        folder: Path | Place,
        tables: Mapping[str, FileTable],
        spool: Path | None = None,
        keys: Keys = NO_KEYS,
        *,
        starts_empty: bool = False,
    ) -> None:
        self._place: Place = LocalFolder(folder) if isinstance(folder, Path) else folder
        self._tables = tables
        self._spool, self._keys = spool, keys
        self._starts_empty = starts_empty

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """Which files are new or changed by size and times, without opening any."""
        if not tables:
            return {}
        try:
            with self._place.session() as folder:
                return probe_each(tables, lambda table: Probe(self._unread(folder, table, after.get(table, {}))))
        except StorageUnavailableError as error:
            return {table: Probe({}, failure=error) for table in tables}

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["FolderReading"]:
        """Read the files of one table that are new or changed: see `FolderReading`."""
        name = the_only(tables)
        options = self._table(name)
        with self._place.session() as folder:
            if (after_load := options.after_load) is not None:
                movable(folder, name)
                if not after:
                    refuse_moved(folder, name, options.path, after_load)
            begins = self._starts_empty and not after
            reading = FolderReading(folder, name, options, _files(after), self._spool, self._keys, begins=begins)
            others = {one: storage.pattern_of(table.path) for one, table in self._tables.items() if one != name}
            try:
                yield reading
            except StorageUnavailableError:
                raise
            except PlatformError:
                # What was committed before it is done with all the same; what fails here fails again in the next load.
                if after_load is not None:
                    try:
                        tidy(folder, name, after_load, reading.loaded(), others)
                    except PlatformError as error:
                        logger.warning("%s", error)
                raise
            if after_load is not None:
                tidy(folder, name, after_load, reading.loaded(), others)

    def _unread(self, folder: Storage, table: str, after: Position) -> dict[str, str]:
        options = self._table(table)
        unread = {
            delivery.path: delivery.version
            for delivery in _found(folder, options, _files(after))
            # One that is loaded and still there waits for what is to become of it.
            if (options.after_load is not None or not is_known(after, delivery))
            and not storage.unrecordable(delivery.path)
        }
        return NOTHING_YET if self._starts_empty and not after and not unread else unread

    def _table(self, table: str) -> FileTable:
        if table not in self._tables:
            raise PlatformError(f"No table {table!r} in this source; there are: {', '.join(sorted(self._tables))}.")
        return self._tables[table]


class FolderReading:
    """The files of one table that are new or changed, oldest first (by date with `partitions`). Small ones are gathered
    into batches, each of which moves the position of all its files; of a large one, only the last batch has a position.

    A file that has the content which was loaded last under its path only moves its position. The same content under
    another name, or again after another, is news of a table with a key, whose rows may go back to an earlier state; it
    is passed over, with a note, where rows are only added, for they would be there twice. Of snapshots it is news
    unless it is what the newest one holds.

    Files that cannot be read are passed over and named in a PlatformError at the end; their position stays, so they are
    tried again. A file that turns bad after some of its rows were yielded (it was changed meanwhile, the disk failed)
    ends the reading at once, since those rows must not land; so does a storage that can no longer be reached, once what
    was read before is delivered.
    """

    def __init__(
        self,
        folder: Storage,
        table: str,
        options: FileTable,
        after: Position,
        spool: Path | None,
        keys: Keys,
        *,
        begins: bool = False,
    ) -> None:
        """`begins` says that the table is to be there, without rows, if there are no files yet."""
        self._folder, self._name, self._options, self._spool = folder, table, options, spool
        self._unpacking = Unpacking(
            options.max_unpacked, options.members, by_name, zip_is_data=isinstance(options.format, Excel), keys=keys
        )
        self._after, self._begins = after, begins
        self._committed = dict(after)
        self._found: list[Delivery] = []
        self._orders = options.order == "name"
        self._loaded = Loaded(after, named=self._orders)
        self._kind: Kind = "whole" if options.deliveries == "snapshot" else "rows"

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 (the protocol's signature)
        """None: a file is delivered once."""
        return None

    def committed(self, position: Position) -> None:
        """Take note of the files that are loaded; what becomes of them is done when the reading is at its end."""
        if self._options.after_load is not None:
            self._committed.update(position)

    def loaded(self) -> list[Delivery]:
        """The files that were found and are loaded as they stood, by what was committed."""
        return [one for one in self._found if is_known(self._committed, one)]

    def __iter__(self) -> Iterator[Batch]:
        broken: list[str] = []
        gathered = Gathered(self._name)
        self._found = found = _found(self._folder, self._options, self._after)
        if self._orders:
            found.sort(key=lambda delivery: by_name(delivery.path))
        elif self._options.partitions:
            # A load that ends early must not have loaded a date before one that is older: that would not be looked at.
            found.sort(key=lambda delivery: delivery.path)
        unread = [one for one in found if not is_known(self._after, one)]
        with opening(self._folder, unread, self._spool) as opened:
            yield from self._all(unread, opened, broken, gathered)
        yield from gathered.batches()
        if self._begins and not found:
            yield Batch(self._name, NO_ROWS, "rows", NOTHING_YET)
        if self._options.forget_after is not None:
            forgotten = self._forgotten({delivery.path for delivery in found}, self._options.forget_after)
            if forgotten:
                yield Batch(self._name, NO_ROWS, "rows", {}, forget=forgotten)
        if broken:
            raise self._error(broken)

    def _all(
        self, unread: Sequence[Delivery], opened: Opened, broken: list[str], gathered: Gathered
    ) -> Iterator[Batch]:
        """The batches of files, but for those of small ones that are still gathered at the end. `broken` takes those
        that cannot be read, and why."""
        for delivery in unread:
            begun = False
            try:
                for batch in self._deliver(delivery, opened):
                    if batch.position is None or begun or batch.kind == "whole" or not gathered.takes(batch):
                        yield from gathered.batches()
                    if batch.position is not None:
                        self._loaded.add(batch.position)
                    if batch.position is None or begun or batch.kind == "whole":
                        begun = True
                        yield batch
                    else:
                        gathered.add(batch)
            except StorageUnavailableError:
                if not begun:
                    yield from gathered.batches()
                raise
            except (PlatformError, OSError) as error:
                if isinstance(error, FileNotFoundError) and not begun and not self._folder.exists(delivery):
                    logger.info("%s vanished before it was read", delivery.path)
                    continue
                broken.append(f"{delivery.path.encode(errors='backslashreplace').decode()}: {error}")
                if begun:
                    raise self._error(broken) from error
                if self._options.partitions and self._options.partitions.by_name:
                    yield from gathered.batches()
                    raise self._error(broken) from error

    def _deliver(self, delivery: Delivery, opened: Opened) -> Iterator[Batch]:
        """The batches of one file; the last one has its position."""
        if reason := storage.unrecordable(delivery.path):
            raise PlatformError(reason)
        if self._folder.leads_out(delivery):
            raise PlatformError("it is a link that leads out of the folder; have the file itself delivered")
        if not delivery.size:
            self._refuse_empty()
        with opened(delivery) as file:
            content = identity(storage.sha256(file), delivery.path, self._options.partition_columns)
            position = {delivery.path: f"{delivery.version}:{content}"}
            note = self._known_content(delivery.path, content)
            if note is not None or not delivery.size:
                self._refuse_changed(delivery)
                yield Batch(self._name, NO_ROWS, "rows", position, notes=[note] if note else [])
                return
            with contents(file, delivery.path, self._spool, self._unpacking) as held:
                waiting: tuple[pa.Table, pa.Table] = NO_ROWS, REJECTS_SCHEMA.empty_table()
                begun = False
                repeated: Counter[str] = Counter()
                parsed = self._parsed(held.parts, held.archive, repeated)
                for rows, rejects in joined(parsed) if len(held.parts) > 1 else parsed:
                    if begun:
                        yield Batch(self._name, waiting[0], self._kind, None, waiting[1])
                    waiting, begun = (rows, rejects), True
                self._refuse_changed(delivery)
                notes = [*held.notes, *(repeated_note(path, count) for path, count in repeated.items() if count)]
                yield Batch(self._name, waiting[0], self._kind if begun else "rows", position, waiting[1], notes=notes)

    def _refuse_empty(self) -> None:
        """Raise PlatformError where a file without a byte is none of its format, or none that may come."""
        if self._kind == "whole":
            raise PlatformError(
                "it is empty (0 bytes), and a snapshot without even a header is taken for a truncated one. "
                "Have it sent again, or delete it."
            )
        if isinstance(self._options.format, TypedFormat):
            raise PlatformError("it is empty (0 bytes), which no file of its format is. Have it sent again.")

    def _refuse_changed(self, delivery: Delivery) -> None:
        if self._folder.changed(delivery):
            raise PlatformError(CHANGED)

    def _parsed(
        self, parts: Sequence[Part], archive: bool, repeated: Counter[str]
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Rows and rejects of each part; `repeated` gets the records of each that repeat its header."""
        most = self._options.max_columns
        if archive and not parts and self._kind == "whole":
            raise PlatformError("the archive holds no file, which no snapshot is. Have it sent again, or delete it.")
        names = self._options.partition_columns
        for part in parts:
            try:
                if archive and not part.stream.read(1):
                    self._refuse_empty()
                    continue
                part.stream.seek(0)
                blocks = counted(read(self._options.format, part.stream, most), part.path, repeated)
                parsed = batches_of(blocks, part.path, most)
                yield from with_path_values(parsed, path_values(part.path, names)) if names else parsed
            except PlatformError as error:
                if not archive:
                    raise
                raise PlatformError(f"{part.inner}: {error}") from error

    def _known_content(self, path: str, content: str) -> str | None:
        """Why a file is not read, though it is new or was touched; empty if that needs no word. None if it is read."""
        loaded, options = self._loaded, self._options
        if loaded.content_of(path) == content:
            return ""
        if options.deliveries == "snapshot":
            newest = loaded.newest_path if self._orders else loaded.newest
            if self._orders and newest is not None and by_name(path) < by_name(newest):
                return f"{path} was passed over: by name it comes before {newest}, which is loaded."
            return "" if newest is not None and loaded.content_of(newest) == content else None
        same = None if options.key else loaded.path_of(content)
        if same is None:
            return None
        return (
            f"{path} was passed over: it has the content of {same}, which is loaded, and without a `key` its rows "
            "would be there twice."
        )

    def _forgotten(self, there: Collection[str], after: timedelta) -> list[str]:
        """The entries of files that are gone and were last modified longer ago than `after`. A folder without any file
        is rather one that is not mounted, and a file that was not found may lie where nobody may look: what is
        forgotten by mistake would be loaded again."""
        before = (time.time() - after.total_seconds()) * 1e9
        gone = [path for path, entry in self._after.items() if path not in there and modified(entry) < before]
        if self._options.after_load is not None:  # all of them go
            # An empty position would say that nothing was ever loaded.
            return [path for path in gone if path != self._loaded.newest]
        if not there:
            return []
        wanted, first = storage.pattern_of(self._options.path), _start(self._options, self._after)
        looked_for = [path for path in gone if path >= first and wanted.matches(path)]
        kept = {path for path in looked_for[:FORGOTTEN] if self._may_be_there(path)}
        return [path for path in gone if path not in kept.union(looked_for[FORGOTTEN:])]

    def _may_be_there(self, path: str) -> bool:
        try:
            return self._folder.exists(Delivery(path, 0, 0))
        except StorageUnavailableError:
            raise
        except (PlatformError, OSError):
            return True

    def _error(self, broken: list[str]) -> PlatformError:
        files = "1 file" if len(broken) == 1 else f"{len(broken)} files"
        more = [f"and {len(broken) - SHOWN_FILES:,} more"] if len(broken) > SHOWN_FILES else []
        return PlatformError(
            f"Table {self._name}: {files} below {self._folder} could not be read and will be tried again:\n  "
            + "\n  ".join([*broken[:SHOWN_FILES], *more])
        )
