"""Tables of a DuckLake as a source, read by DuckDB: what the snapshots of its catalog did to a table since a position.

Snapshots that insert are read by DuckLake's own list of changes, maintenance (merged, rewritten, flushed files) moves
the position alone, and after any other the whole table is read. With `changes`, what is different by key is read: the
two versions of the table are compared. The list would tell each change, but of files that were merged at any time it
names deletes by the snapshot at which their rows came, or not at all, and shows rows of rewritten files as new ones.
Where the earlier version has expired, the whole table is read.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.ingestion.lakes.options import DuckLakeTable
from data_platform.ingestion.lakes.reading import (
    CHANGE_FIELDS,
    TABLE,
    VERSION,
    Described,
    LakeReading,
    Part,
    Plan,
    Rows,
    as_a_whole,
    chosen,
    require_key,
    reshaped,
)
from data_platform.ingestion.source import Kind, Position, Probe, differences, probe_each, the_only
from data_platform.ingestion.sql.dialects.session import known
from data_platform.lakehouse.catalog import catalog_address
from data_platform.lakehouse.connect import BUSY_MILLISECONDS, database
from data_platform.lakehouse.settings import Settings, redact_url, require_encoded
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.redaction import first_line, scrub

FILES = "files"
"""The entry of a position that tells one set of the table's files from another, once snapshots have expired."""

SOURCE = "source"
"""What the DuckLake is attached as."""

METADATA = f"__ducklake_metadata_{SOURCE}"
"""DuckLake's own name for the database with its catalog's tables."""

EXTENSIONS = ("ducklake", "sqlite_scanner", "postgres_scanner", "httpfs")

ROWS = 100_000
"""Rows in a batch that DuckDB gives."""

INSERTS = frozenset({"tables_inserted_into", "inlined_insert"})
MAINTENANCE = frozenset({"merge_adjacent", "rewrite_delete", "flushed_inlined", "tables_compacted", "compacted_tables"})
ALTERS = frozenset({"tables_altered"})
"""What snapshots say that they did to a table; anything else changes rows."""

PLACE = re.compile(r" at path \+ \".*?\"")
"""How DuckDB quotes the whole address of a catalog."""

EARLIER = quote("temp", "main", "earlier")
"""The rows of a table as it was when it was read before."""

SQLITE = b"SQLite format 3\x00"


@dataclass(frozen=True)
class Found:
    """A table as the catalog has it: its identity, when it was made, the snapshot that changed it last, of those that
    did not expire, and the catalog's newest snapshot, at which it is read: it never expires."""

    schema: str
    name: str
    number: int
    uuid: str
    made: int
    changed: int
    newest: int

    @property
    def sql(self) -> str:
        return f"{SOURCE}.{quote(self.schema)}.{quote(self.name)}"

    def at(self, version: int) -> str:
        return f"{self.sql} AT (VERSION => {version})"


@dataclass(frozen=True)
class DuckLake:
    """The tables of one DuckLake. Implements `source.Source`; `name` is what the source is called, `catalog` the
    address of its catalog and `store` the options of DuckDB's secret for S3, with the values of the environment."""

    name: str
    catalog: str
    data: str | None
    store: Mapping[str, str]
    tables: Mapping[str, DuckLakeTable]
    settings: Settings

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """The snapshot at which each table was changed last, by the catalog alone."""
        with self._open() as connection:

            def probe(name: str) -> Probe:
                with self._explained():
                    found, stored = self._found(connection, name), after.get(name, {})
                    if _is_reached(connection, found, stored):
                        return Probe({})
                    return Probe(differences({TABLE: found.uuid, VERSION: str(found.newest)}, stored))

            return probe_each(tables, probe)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[LakeReading]:
        """What came to a table after `after`, up to the newest snapshot there is. Raises PlatformError if the catalog
        or the table cannot be read."""
        name = the_only(tables)
        with self._open(copied=True) as connection:
            with self._explained():
                # One transaction: the catalog is seen as it is now, whatever is committed meanwhile.
                connection.execute("BEGIN")
                plan = self._plan(connection, name, after)
            yield LakeReading(name, plan)

    def names(self) -> list[str]:
        """The tables of the catalog, as `schema.table`."""
        with self._open() as connection, self._explained():
            return self._names(connection)

    def described(self, name: str) -> Described:
        """What a table says of itself: types and comments. It has no keys."""
        with self._open() as connection, self._explained():
            found = self._found(connection, name)
            columns = connection.execute(
                "SELECT column_name, data_type, is_nullable, comment FROM duckdb_columns() "
                "WHERE database_name = ? AND schema_name = ? AND table_name = ? ORDER BY column_index",
                [SOURCE, found.schema, found.name],
            ).fetchall()
        return Described(
            (),
            {column: (kind, nullable) for column, kind, nullable, _ in columns},
            comments={column: comment for column, _, _, comment in columns if comment},
        )

    @contextmanager
    def _open(self, *, copied: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB to which the DuckLake is attached for reading alone; to a copy of the catalog if that is a SQLite
        file and `copied`: whoever reads one for long holds up those that write to it."""
        options = ["READ_ONLY", "CREATE_IF_NOT_EXISTS false"]
        if self.data is not None:
            options += [f"DATA_PATH {literal(self.data)}", "OVERRIDE_DATA_PATH true"]
        kind, address = self._address()
        if kind == "sqlite:":
            options.append(f"META_BUSY_TIMEOUT {BUSY_MILLISECONDS}")
        with closing(database(self.settings)) as connection, TemporaryDirectory(dir=self.settings.spool) as spool:
            with self._explained():
                if kind == "sqlite:" and copied:
                    address = _copied(address, Path(spool) / "catalog.sqlite")
                for extension in EXTENSIONS:
                    connection.execute(f"LOAD {extension}")
                if self.store:
                    given = ", ".join(f"{name} {literal(value)}" for name, value in self.store.items())
                    connection.execute(f"CREATE SECRET store (TYPE s3, {given})")
                url = literal(f"ducklake:{kind}{address}")
                connection.execute(f"ATTACH {url} AS {SOURCE} ({', '.join(options)})")
            yield connection

    def _address(self) -> tuple[str, str]:
        """The kind of the catalog, as DuckLake has it, and its address."""
        require_encoded(self.catalog, f"The catalog of {self.name}")
        if self.catalog.startswith(("postgresql://", "postgres://")):
            return "postgres:", catalog_address(replace(self.settings, catalog=self.catalog))
        file = Path(self.catalog.removeprefix("sqlite:///")).expanduser()
        try:
            with file.open("rb") as stream:
                return ("sqlite:" if stream.read(len(SQLITE)) == SQLITE else ""), str(file)
        except OSError as error:
            raise PlatformError(
                f"The catalog of {self.name} is to be the file {file}, which cannot be read ({error.strerror})."
            ) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(f"The DuckLake of {self.name} at {redact_url(self.catalog)}"):
            yield

    def _found(self, connection: duckdb.DuckDBPyConnection, name: str) -> Found:
        if name not in self.tables:
            raise PlatformError(f"The source has no table {name!r}. It has {', '.join(self.tables) or 'none'}.")
        wanted = self.tables[name].table or name
        schema, _, table = wanted.rpartition(".")
        rows = connection.execute(
            f"SELECT s.schema_name, t.table_name, t.table_id, t.table_uuid::VARCHAR, t.begin_snapshot, "
            f"(SELECT min(begin_snapshot) FROM {METADATA}.ducklake_table WHERE table_id = t.table_id), "
            f"(SELECT max(snapshot_id) FROM {METADATA}.ducklake_snapshot) "
            f"FROM {METADATA}.ducklake_table t JOIN {METADATA}.ducklake_schema s USING (schema_id) "
            "WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL AND t.table_name = ? AND s.schema_name = ?",
            [table, schema or "main"],
        ).fetchall()
        if not rows:
            raise PlatformError(
                f"{self.name}/{name}: the DuckLake has no table {wanted}. "
                + known("table", wanted, self._names(connection))
            )
        schema, table, number, uuid, _, made, newest = rows[0]
        changed = max((snapshot for snapshot, _ in _done(connection, number, -1)), default=made)
        return Found(schema, table, number, uuid, made, max(made, changed), newest)

    def _names(self, connection: duckdb.DuckDBPyConnection) -> list[str]:
        found = connection.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = ? ORDER BY 1", [SOURCE]
        ).fetchall()
        return [name for (name,) in found]

    def _plan(self, connection: duckdb.DuckDBPyConnection, name: str, after: Position) -> Plan:
        label, options = f"{self.name}/{name}", self.tables[name]
        found = self._found(connection, name)
        version = found.newest
        now = {TABLE: found.uuid, VERSION: str(version), FILES: _files(connection, found.number)}
        types = connection.sql(f"SELECT * FROM {found.at(version)} LIMIT 0").to_arrow_table().schema
        schema = chosen(label, types, options.columns)
        if options.changes:
            require_key(label, options.key, schema.names)
        names = quote_all(schema.names)
        shown = pa.schema([*schema, *(CHANGE_FIELDS if options.changes else ())])

        def part(*queries: str) -> Part:
            return Part(now, lambda: self._rows(connection, *queries))

        def whole(*notes: str) -> Plan:
            more = f", 'insert' AS _operation, {2 * version + 1}::BIGINT AS _order" if options.changes else ""
            return Plan(shown, [part(f"SELECT {names}{more} FROM {found.at(version)}")], "whole", notes)

        if not after:
            return whole()
        kind: Kind = "changes" if options.changes else "rows"
        if _is_reached(connection, found, after):
            # What comes next is told from here on, not from a snapshot that has expired.
            return Plan(shown, [Part(now)] if _is_unknown(connection, found, int(after[VERSION])) else (), kind)
        if after.get(TABLE) != found.uuid:
            return whole(as_a_whole(label, f"it was made anew (as {found.uuid})"))
        stored = int(after[VERSION])
        if _is_unknown(connection, found, stored):
            return whole(as_a_whole(label, f"snapshots from {stored} on, up to which it was read, have expired"))
        done = _done(connection, found.number, stored)
        what = {one for _, kinds in done for one in kinds}
        if what <= MAINTENANCE:
            return Plan(shown, [Part(now)], kind)
        why = self._no_way(connection, found, stored, what, changes=options.changes)
        if why is not None:
            return whole(as_a_whole(label, why))
        if what <= INSERTS | ALTERS:
            return Plan(shown, [part(_inserted(found, names, stored, changes=options.changes))], kind)
        news = _compared_by_key(found, names, options.key) if options.changes else _compared(found, names)
        return Plan(shown, [part(_earlier(found, names, stored), news)], kind)

    def _no_way(
        self, connection: duckdb.DuckDBPyConnection, found: Found, stored: int, what: set[str], *, changes: bool
    ) -> str | None:
        """Why what is new cannot be told, if that is so."""
        if not changes and (others := sorted(what - INSERTS - ALTERS - MAINTENANCE)):
            return f"snapshots after {stored} did not only insert ({', '.join(others)})"
        if not what & ALTERS:
            return None
        (before, _), (now, filled) = (_columns(connection, found.number, one) for one in (stored, found.newest))
        if not what <= INSERTS | ALTERS and before != now:
            return "its columns changed, and its rows not only by inserts"
        return reshaped(before, now, filled)

    def _rows(self, connection: duckdb.DuckDBPyConnection, *queries: str) -> Rows:
        """What the last of some queries gives."""
        with self._explained():
            for query in queries[:-1]:
                connection.execute(query)
            yield from connection.execute(queries[-1]).to_arrow_reader(ROWS)


def _copied(catalog: str, copy: Path) -> str:
    """A copy of a SQLite catalog as it is at this moment, made while nobody writes to it; where it is."""
    patience = BUSY_MILLISECONDS / 1000
    address = f"{Path(catalog).absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, patience, uri=True)) as there, closing(sqlite3.connect(copy)) as here:
        there.backup(here)
    return str(copy)


def _is_reached(connection: duckdb.DuckDBPyConnection, found: Found, after: Position) -> bool:
    """Whether a table was read up to its last change. Of changes whose snapshots expired only the files tell."""
    if found.uuid != after.get(TABLE) or found.changed > int(after[VERSION]):
        return False
    if not _is_unknown(connection, found, int(after[VERSION])):
        return True
    return _files(connection, found.number) == after.get(FILES)


def _is_unknown(connection: duckdb.DuckDBPyConnection, found: Found, stored: int) -> bool:
    """Whether nobody knows what happened after a version, or what the table was then, as snapshots have expired."""
    query = f"SELECT count(*) FROM {METADATA}.ducklake_snapshot WHERE snapshot_id BETWEEN ? AND ?"
    return connection.execute(query, [stored, found.newest]).fetchone() != (found.newest - stored + 1,)


def _files(connection: duckdb.DuckDBPyConnection, table: int) -> str:
    """What is another text whenever the columns of a table, its files, or rows in the catalog are others: numbers only
    grow."""
    rows = [
        name
        for (name,) in connection.execute(
            f"SELECT table_name FROM {METADATA}.ducklake_inlined_data_tables WHERE table_id = ? ORDER BY 1", [table]
        ).fetchall()
    ]
    live = f"table_id = {table} AND end_snapshot IS NULL"
    counted = [
        ("ducklake_column", "begin_snapshot", live),
        ("ducklake_data_file", "data_file_id", live),
        ("ducklake_delete_file", "delete_file_id", live),
        *((quote(name), "begin_snapshot", "end_snapshot IS NULL") for name in rows),
        (f"ducklake_inlined_delete_{table}", "begin_snapshot", "true"),
    ]
    said = []
    for name, number, which in counted:
        try:
            query = f"SELECT count(*), coalesce(max({number}), 0) FROM {METADATA}.{name} WHERE {which}"
            said.append(":".join(map(str, connection.execute(query).fetchone() or ())))
        except duckdb.CatalogException:  # DuckLake makes the last one at the first deletion
            said.append("0:0")
    return " ".join(said)


def _done(connection: duckdb.DuckDBPyConnection, table: int, after: int) -> list[tuple[int, list[str]]]:
    """The snapshots after one that did something to a table, and what."""
    rows = connection.execute(
        "SELECT snapshot_id, list_filter(map_keys(changes), lambda one: list_contains(changes[one], ?)) AS did "
        f"FROM ducklake_snapshots({literal(SOURCE)}) WHERE snapshot_id > ? AND len(did) > 0 ORDER BY 1",
        [str(table), after],
    ).fetchall()
    return [(snapshot, list(kinds)) for snapshot, kinds in rows]


def _columns(connection: duckdb.DuckDBPyConnection, table: int, version: int) -> tuple[dict[int, str], set[int]]:
    """The columns of a table at a version, those within structs too, by the numbers that they keep; and which of them
    have another value than null in rows that are older than they."""
    rows = connection.execute(
        f"SELECT column_id, column_name, parent_column, initial_default FROM {METADATA}.ducklake_column "
        "WHERE table_id = ? AND begin_snapshot <= ? AND (end_snapshot IS NULL OR end_snapshot > ?) ORDER BY column_id",
        [table, version, version],
    ).fetchall()
    names: dict[int, str] = {}
    for number, name, parent, _ in rows:  # a struct comes before what is in it
        names[number] = f"{names[parent]}.{name}" if parent in names else name
    return names, {number for number, _, _, filled in rows if filled is not None}


def _inserted(found: Found, names: str, stored: int, *, changes: bool) -> str:
    """The rows that were inserted after a version, of which the files are as they were written."""
    place = f"{literal(SOURCE)}, {literal(found.schema)}, {literal(found.name)}"
    more = ", 'insert' AS _operation, (2 * snapshot_id + 1)::BIGINT AS _order" if changes else ""
    return (
        f"SELECT {names}{more} FROM ducklake_table_changes({place}, {stored + 1}, {found.newest}) "
        "WHERE change_type = 'insert' ORDER BY snapshot_id, rowid"
    )


def _earlier(found: Found, names: str, stored: int) -> str:
    """What makes EARLIER of a version. A query that reads two versions of one table may apply the deletes of one to the
    files of the other, and then misses rows that are gone: so each is read by a query of its own."""
    return f"CREATE TEMP TABLE {EARLIER} AS SELECT {names} FROM {found.at(stored)}"


def _compared(found: Found, names: str) -> str:
    """The rows that a version has and the earlier one had not."""
    return f"SELECT {names} FROM {found.at(found.newest)} EXCEPT ALL SELECT {names} FROM {EARLIER}"


def _compared_by_key(found: Found, names: str, key: Sequence[str]) -> str:
    """The changes by key that make a version of the earlier one."""
    same = " AND ".join(f"a.{quote(one)} IS NOT DISTINCT FROM b.{quote(one)}" for one in key)
    return (
        f"SELECT {names}, 'delete' AS _operation, {2 * found.newest}::BIGINT AS _order FROM {EARLIER} b "
        f"WHERE NOT EXISTS (FROM (FROM {found.at(found.newest)}) a WHERE {same}) UNION ALL SELECT {names}, 'update', "
        f"{2 * found.newest + 1}::BIGINT FROM ({_compared(found, names)})"
    )


@contextmanager
def explained(what: str) -> Iterator[None]:
    """What DuckDB raises, as one message."""
    try:
        yield
    except (duckdb.Error, sqlite3.Error) as error:
        said = shortened(PLACE.sub("", scrub(first_line(error))).rstrip("."), 400)
        if "database is locked" in said or "Conflicting lock" in said or "Could not set lock" in said:
            raise TransientError(f"{what} is locked by another process: {said}.") from None
        if "readonly database" in said:
            raise TransientError(
                f"{what} was left amid a commit: what wrote to it was killed, and a part of the commit is still to be "
                "taken back. Whoever writes to it next does that; this source only reads, and can do so again then."
            ) from None
        if "Existing DuckLake at metadata catalog" in said:
            raise PlatformError(f"{what}: there is no DuckLake in this catalog. Name the catalog of one.") from None
        if "No such file" in said or "does not exist" in said or "HTTP 404" in said or "Not Found" in said:
            raise PlatformError(
                f"{what}: something that the catalog names is not there: {said}. If files were cleaned up while they "
                "were read, the next load reads the newest snapshot; if not, the lake is damaged."
            ) from None
        if "connection to server" in said or "Unable to connect" in said or "server closed" in said:
            raise TransientError(f"{what} does not answer: {said}.") from None
        raise PlatformError(f"{what} cannot be read: {said}.") from None
