"""Tables of Delta Lake as a source, read by delta-rs: what the commits since a position did.

Commits that append are read by what they added, those that rearrange files (OPTIMIZE) move the position alone, and
after any other the whole table is read. With `changes`, every commit is read as inserts, updates and deletes by key:
from the table's change feed, and where a commit wrote none, from the files that it added and removed. Where the log or
the files of commits between are gone, the whole table is read.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import deltalake
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError, TableNotFoundError
from obstore.exceptions import BaseError

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.ingestion.lakes.log import Commit, Folder, with_patience
from data_platform.ingestion.lakes.options import DeltaTable
from data_platform.ingestion.lakes.reading import (
    CHANGE_FIELDS,
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
    plain_rows,
    require_key,
)
from data_platform.ingestion.source import Kind, Position, Probe, differences, probe_each, the_only
from data_platform.ingestion.sql.dialects.session import known

MOST_FOLDERS = 500
"""Folders that are looked into for tables where one is missing."""

PART_COMMITS = 200
"""Commits in one part, at most."""

FEED = "_change_type"
"""The column of a change feed that says what a row is."""

OPERATIONS = {"insert": "insert", "update_postimage": "update", "update_preimage": "delete", "delete": "delete"}
"""What the rows of a change feed are. The row before an update counts where its key is another than after it."""

NONE_MOVED = pl.DataFrame()

NO_CONNECTION = re.compile(
    r"error sending request|connection (?:refused|reset)|timed out|dns error|\b50[0234] (?:Int|Bad|Serv|Gate)",
    re.IGNORECASE,
)
NO_ACCESS = re.compile(
    r"\b40[13] (?:Unauthorized|Forbidden)|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|Missing \w*Key"
)
NO_TABLE = "there is no Delta table (no _delta_log), or its user may not see it."
NO_FILE = re.compile(r"not found|No such file|NoSuchKey", re.IGNORECASE)
CODES = re.compile(r"\x1b\[[0-9;]*m")
"""How delta-rs colours its messages."""


@dataclass(frozen=True)
class Delta:
    """The tables below one folder. Implements `source.Source`; `name` is what the source is called, `settings` are
    options of the store, with the values of the environment."""

    name: str
    folder: str
    settings: Mapping[str, str]
    tables: Mapping[str, DeltaTable]

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """The newest version of each table."""

        def probe(name: str) -> Probe:
            return Probe(differences(position_of(self._open(name)), after.get(name, {})))

        return probe_each(tables, probe)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[LakeReading]:
        """What came to a table after `after`, up to its version now. Raises PlatformError if it cannot be read."""
        name = the_only(tables)
        with self._explained(name):
            plan = self._plan(name, self._open(name), after)
        yield LakeReading(name, plan)

    def names(self) -> list[str]:
        """The tables in the folder: itself, or the folders in it that have a log."""
        with explained(f"The folder {self.folder}"):
            found = Folder(self.folder, self.settings).folders()
            if "_delta_log" in found:
                return ["."]
            return [one for one in found if deltalake.DeltaTable.is_deltatable(self._at(one), self._options())]

    def described(self, name: str) -> Described:
        """What a table says of itself: types, comments, whether it has a change feed."""
        table = self._open(name)
        fields = json.loads(table.schema().to_json())["fields"]
        has_feed = table.metadata().configuration.get("delta.enableChangeDataFeed", "").lower() == "true"
        return Described(
            (),
            {one["name"]: (_type_name(one["type"]), bool(one["nullable"])) for one in fields},
            table.metadata().description or "",
            {one["name"]: one["metadata"]["comment"] for one in fields if "comment" in one["metadata"]},
            notes=["it has a change feed: with a `key` and `changes: true` each change is read"] if has_feed else [],
        )

    def _open(self, name: str) -> deltalake.DeltaTable:
        if name not in self.tables:
            raise PlatformError(f"The source has no table {name!r}. It has {', '.join(self.tables) or 'none'}.")
        with self._explained(name):
            try:
                return deltalake.DeltaTable(self._uri(name), storage_options=self._options())
            except TableNotFoundError:
                raise PlatformError(f"{self._what(name)}: {NO_TABLE} {self._beside(name)}") from None

    def _beside(self, name: str) -> str:
        """What tables there are where a table is looked for, as a sentence."""
        parent, _, wanted = (self.tables[name].path or name).rstrip("/").rpartition("/")
        place = self._at(parent or ".")
        try:
            folders = Folder(place, self.settings).folders()[:MOST_FOLDERS]
            there = [one for one in folders if deltalake.DeltaTable.is_deltatable(f"{place}/{one}", self._options())]
        except (DeltaError, BaseError, OSError):
            return f"Nor can {place} be listed, in which it is to be."
        return f"In {place}: {known('table', wanted, there)}"

    def _uri(self, name: str) -> str:
        return self._at(self.tables[name].path or name)

    def _at(self, path: str) -> str:
        return self.folder if path == "." else f"{self.folder.rstrip('/')}/{path}"

    def _options(self) -> dict[str, str]:
        return with_patience(self.folder, self.settings)

    def _explained(self, name: str) -> Any:
        return explained(self._what(name))

    def _what(self, name: str) -> str:
        return f"{self.name}/{name} at {self._uri(name)}"

    def _plan(self, name: str, table: deltalake.DeltaTable, after: Position) -> Plan:
        label, options = f"{self.name}/{name}", self.tables[name]
        schema = chosen(label, pa.schema(table.schema().to_arrow()), options.columns)
        now, whole_rows = position_of(table), partial(self._whole, name, table, schema.names)
        shown = schema
        if options.changes:
            require_key(label, options.key, schema.names)
            shown = pa.schema([*schema, *CHANGE_FIELDS])

        def whole(*notes: str) -> Plan:
            return Plan(shown, [Part(now, whole_rows)], "whole", notes)

        if not after:
            return whole()
        if now == {entry: after.get(entry) for entry in now}:
            return Plan(shown)
        folder = Folder(self._uri(name), self.settings)
        commits = _commits(folder, table, after)
        if isinstance(commits, str):
            return whole(as_a_whole(label, commits))
        why = _no_way(folder, table, commits, changes=options.changes)
        if why is not None:
            return whole(as_a_whole(label, why))
        kind: Kind = "changes" if options.changes else "rows"
        parts = []
        for stretch in _stretches(commits):
            loud = [one for one in stretch if not one.is_silent]
            rows = partial(self._feed, name, table, schema.names, loud) if loud else None
            parts.append(Part({**now, VERSION: str(stretch[-1].version)}, rows))
        return Plan(shown, parts, kind)

    def _whole(self, name: str, table: deltalake.DeltaTable, columns: Sequence[str]) -> Rows:
        """The rows of the version that the table was opened at."""
        order = 2 * table.version() + 1
        with self._explained(name):
            for batch in pa.RecordBatchReader.from_stream(table.scan(columns=list(columns))):
                yield _as_changes(batch, ["insert"] * batch.num_rows, order) if self.tables[name].changes else batch

    def _feed(self, name: str, table: deltalake.DeltaTable, columns: Sequence[str], commits: Sequence[Commit]) -> Rows:
        """What commits did, one after the other: their rows, or changes by key. A delete comes before what else
        happened to its key in the same commit."""
        options = self.tables[name]
        with self._explained(name):
            for version, has_feed in ((one.version, bool(one.feed)) for one in commits):
                moved = _moved(table, version, options.key) if has_feed and options.changes else NONE_MOVED
                feed = table.load_cdf(version, version, columns=[*columns, FEED])
                for batch in map(plain_rows, pa.RecordBatchReader.from_stream(feed)):
                    if not options.changes:
                        yield batch.drop_columns([FEED])
                        continue
                    batch = _without_preimages(batch, options.key, moved)
                    told = [OPERATIONS[one] for one in batch[FEED].to_pylist()]
                    for is_delete in (True, False):
                        wanted = [(one == "delete") == is_delete for one in told]
                        if any(wanted):
                            some = batch.filter(pa.array(wanted)).drop_columns([FEED])
                            named = [one for one, yes in zip(told, wanted, strict=True) if yes]
                            yield _as_changes(some, named, 2 * version + (not is_delete))


def position_of(table: deltalake.DeltaTable) -> dict[str, str]:
    """The position of a table that is read up to the version at which it was opened."""
    return {TABLE: str(table.metadata().id), VERSION: str(table.version())}


def _commits(folder: Folder, table: deltalake.DeltaTable, after: Position) -> list[Commit] | str:
    """The commits after a position, in their order; or why they are not known."""
    stored, version = int(after[VERSION]), table.version()
    if after.get(TABLE) != str(table.metadata().id):
        return f"it was made anew (as {table.metadata().id})"
    if stored > version:
        return f"it is at version {version}, before version {stored}, up to which it was read"
    commits = []
    for number in range(stored + 1, version + 1):
        commit = folder.commit(number)
        if commit is None:
            return f"its log does not have version {number} any more, which was not read yet"
        commits.append(commit)
    return commits


def _no_way(folder: Folder, table: deltalake.DeltaTable, commits: Sequence[Commit], *, changes: bool) -> str | None:
    """Why what is new cannot be read by commits, if that is so."""
    loud = [one for one in commits if not one.is_silent]
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none" and any(one.describes for one in commits):
        return "it has column mapping, and columns of it may have been renamed or dropped"
    rewrites = next((one for one in loud if not one.appends), None)
    if rewrites is not None and not changes:
        return f"the commit {rewrites.version} did not only append"
    if loud and mapping != "none":
        return "it has column mapping, of which delta-rs reads no single commits"
    starves = next((one for one in loud if one.starves_feed), None)
    if starves is not None:
        return f"the commit {starves.version} changed its columns too, and it has no change feed"
    escaped = next((path for one in loud for path in (*one.added, *one.removed, *one.feed) if "%" in path), None)
    if escaped is not None:
        # delta-rs escapes such a path once more where it reads a commit, and then finds no file.
        return f"paths of its partitions are escaped ({escaped}), of which delta-rs reads no single commits"
    there = set(table.get_add_actions(flatten=False).column("path").to_pylist()) if loud else set()
    needed = [path for one in loud for path in (one.feed or [*one.added, *one.removed]) if path not in there]
    gone = folder.first_missing(needed)
    return None if gone is None else f"files of commits that were not read yet are gone ({gone})"


def _stretches(commits: Sequence[Commit]) -> Iterator[list[Commit]]:
    """Commits that are read together."""
    gathered: list[Commit] = []
    count = 0
    for one in commits:
        gathered.append(one)
        count += sum(one.added.values())
        if count >= PART_ROWS or len(gathered) >= PART_COMMITS:
            yield gathered
            gathered, count = [], 0
    if gathered:
        yield gathered


def _moved(table: deltalake.DeltaTable, version: int, key: Sequence[str]) -> pl.DataFrame:
    """The keys that rows had before an update in a commit, and none after it: they are gone."""
    feed = table.load_cdf(version, version, columns=[*key, FEED])
    rows = pl.DataFrame(pa.Table.from_batches(map(plain_rows, pa.RecordBatchReader.from_stream(feed))))
    before = rows.filter(pl.col(FEED) == "update_preimage").select(key)
    return before.join(rows.filter(pl.col(FEED) == "update_postimage"), on=list(key), how="anti", nulls_equal=True)


def _without_preimages(batch: pa.RecordBatch, key: Sequence[str], moved: pl.DataFrame) -> pa.RecordBatch:
    """The rows without those as they were before an update, save where that gave them another key."""
    is_before = pc.equal(batch[FEED], "update_preimage")
    if moved.is_empty():
        return batch.filter(pc.invert(is_before))
    keys = pl.DataFrame(pa.table({name: batch[name] for name in key})).with_row_index("__at")
    there = keys.join(moved, on=list(key), how="semi", nulls_equal=True)["__at"]
    has_moved = keys["__at"].is_in(there.implode()).to_arrow()
    return batch.filter(pc.or_(pc.invert(is_before), has_moved.cast(pa.bool_())))


def _as_changes(batch: pa.RecordBatch, operations: Sequence[str], order: int) -> pa.RecordBatch:
    more = {"_operation": pa.array(operations, pa.string()), "_order": pa.array([order] * batch.num_rows, pa.int64())}
    fields = [*batch.schema, *(pa.field(name, column.type) for name, column in more.items())]
    return pa.RecordBatch.from_arrays([*batch.columns, *more.values()], schema=pa.schema(fields))


def _type_name(kind: Any) -> str:
    return kind if isinstance(kind, str) else str(kind.get("type", ""))


def _said(error: BaseException) -> str:
    """What an error says, in one line without colours and places in the program."""
    text = CODES.sub("", str(error)).partition("\n   0: ")[0]
    text = text.partition("Debug source:")[0].replace("↳", "").replace("C Data interface error: ", "")
    return " ".join(text.replace("External error: ", "").split()).rstrip(".")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """What delta-rs, Arrow and the store raise, as one message."""
    try:
        yield
    except TableNotFoundError:
        raise PlatformError(f"{what}: {NO_TABLE}") from None
    except FileNotFoundError as error:
        raise PlatformError(f"{what}: there is nothing at {error.filename}. Correct `folder`, or mount it.") from None
    except (DeltaError, BaseError, OSError, pa.ArrowException, ValueError) as error:
        whole = _said(error)
        said = shortened(whole, 400)
        if NO_ACCESS.search(whole):
            raise PlatformError(f"{what}: access was refused ({said}). Check its credentials.") from None
        if NO_FILE.search(whole):
            raise PlatformError(
                f"{what}: a file of the table is not there: {said}. If it was vacuumed while it was read, the next "
                "load reads the newest version; if not, the table is damaged."
            ) from None
        if NO_CONNECTION.search(whole):
            raise TransientError(f"{what} does not answer: {said}.") from None
        if "not supported" in said or "unsupported" in said.lower() or "not yet supported" in said:
            raise PlatformError(f"{what} has something that delta-rs does not read: {said}.") from None
        raise PlatformError(f"{what} cannot be read, its log or a file may be damaged: {said}.") from None
