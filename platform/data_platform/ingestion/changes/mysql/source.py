"""Tables of MySQL or MariaDB as a source of changes: a first copy, then what the binary log says of them, all tables in
one reading with one position. How each of these is done is in the modules beside this one.

The position is a place of the log after a commit, who wrote it (the server, when it began the file, its GTIDs), the
number of the last change, and of each table how far its first copy came.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from data_platform.ingestion.changes.held import Held
from data_platform.ingestion.changes.mysql.connection import Connection, ServerError
from data_platform.ingestion.changes.mysql.copy import copied, entry_of, require_snapshots
from data_platform.ingestion.changes.mysql.images import named
from data_platform.ingestion.changes.mysql.log import Kind, Log, Place, statement
from data_platform.ingestion.changes.mysql.reading import AT, FILE, ChangesReading, Origin
from data_platform.ingestion.changes.mysql.server import end_of_log, examined
from data_platform.ingestion.changes.mysql.statements import Effects, effects
from data_platform.ingestion.changes.mysql.tables import SourceTable, missing, source_table
from data_platform.ingestion.changes.mysql.values import Values
from data_platform.ingestion.changes.options import Changes, require_named_once
from data_platform.ingestion.source import Position, Probe
from data_platform.ingestion.sql.dialects import Timeouts
from data_platform.ingestion.sql.source import SqlTable

LOOK_BYTES = 4 * 2**20
"""How much of the log a probe reads to see whether any of it is of the tables. Beyond, a load moves the position."""


class MysqlChanges:
    """Tables of a MySQL or MariaDB server as a `ChangeSource`. `label` (letters, digits, underscores) makes the default
    of `changes.server_id`.

    Raises PlatformError, from any method, if the server cannot be reached or its log cannot be read.
    """

    def __init__(
        self,
        url: str,
        tables: Mapping[str, SqlTable],
        changes: Changes,
        label: str,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - it cannot be changed
    ) -> None:
        self.url, self.options, self.changes, self.label, self.timeouts = url, dict(tables), changes, label, timeouts
        # High, where no one numbers replicas by hand.
        self.server_id = changes.server_id or 2**31 + zlib.crc32(label.encode()) % 2**31
        self._withholds = any(table.masks for table in tables.values())

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """The end of the log against the position; if they differ, a stretch of the log, to see of which tables it has
        rows: what is written to others makes no load."""
        position = next((one for one in after.values() if one), {})
        due = [table for table in tables if entry_of(table) not in position]
        if due:
            return {table: Probe({entry_of(table): ""} if table in due else {}, complete=False) for table in tables}
        with self.connect() as connection:
            end = end_of_log(connection)
            start = Place(position[FILE], int(position[AT]))
            if start == end:
                return {table: Probe() for table in tables}
            described = {table: source_table(connection, table, self.options[table]) for table in tables}
        ahead = {FILE: end.file, AT: str(end.at)}
        seen = self._seen(start, end, described)
        return {table: Probe(ahead if seen is None or table in seen else {}, complete=False) for table in tables}

    def _seen(self, start: Place, end: Place, tables: Mapping[str, SourceTable]) -> set[str] | None:
        """The tables of which the log has something from `start` on; None if that cannot be told from what is looked
        at."""
        names = {(table.schema, table.table): name for name, table in tables.items()}
        found: set[str] = set()
        size = 0
        with self.connect() as connection:
            try:
                # Another number than that of a load: of two readers with one number the server ends the first.
                log = Log(connection, zlib.crc32(f"{self.server_id} probe".encode()) | 1, start)
                for event in log.events():
                    size += len(event.body)
                    if event.kind == Kind.TABLE_MAP:
                        found |= {names[name] for name in [named(event.body)] if name in names}
                    elif event.kind in (Kind.QUERY, Kind.QUERY_COMPRESSED):
                        database, text = statement(event)
                        found |= {names[name] for name in _touched(effects(text, database), names)}
                    if log.place >= end or found == set(names.values()):
                        return found
                    if size >= LOOK_BYTES:
                        return found or None
            except ServerError:
                return None  # a load will say what is the matter
        return found

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[ChangesReading]:
        """Copy the tables that were not copied yet, and read the log from the position on to its end."""
        with self.connect() as connection:
            server = examined(connection)
            described = {name: source_table(connection, name, self.options[name]) for name in tables}
            require_named_once({name: (table.relation, table.relation) for name, table in described.items()})
            due = [table for name, table in described.items() if not copied(after, name).is_whole]
            for table in due:
                if not table.columns:
                    raise missing(connection, table)
            require_snapshots(connection, due)
            with closing(Values(connection)) as values:
                origin = Origin(self.connect, self.server_id, self.label)
                yield ChangesReading(origin, connection, server, described, values, after)

    def held(self, after: Position) -> list[Held]:
        """The binary log, which the server keeps for as long as it is told to, whoever reads it."""
        with self.connect() as connection:
            server = examined(connection)
        files = sorted((Place(name, 0) for name in server.files), key=lambda one: one.order)
        behind = None
        if FILE in after:
            start = Place(after[FILE], int(after[AT]))
            later = sum(size for name, size in server.files.items() if Place(start.file, 0) < Place(name, 0))
            behind = later + max(0, server.files.get(start.file, 0) - start.at)
        seconds = server.settings.get("binlog_expire_logs_seconds") or "0"
        days = server.settings.get("expire_logs_days") or "0"
        kept = f"{seconds} s" if float(seconds) else f"{days} days" if float(days) else "until somebody purges it"
        state = f"{len(files)} files, {sum(server.files.values()):,} bytes, kept {kept}"
        name = f"{files[0].file} to {files[-1].file}" if files else ""
        return [Held("binary log", name, state, behind, None, is_ours=False)]

    def drop(self) -> list[Held]:
        """Nothing: a reader of the binary log leaves nothing behind."""
        return []

    def connect(self) -> Connection:
        """A connection to the server."""
        return Connection(self.url, self.timeouts, withholds=self._withholds)


def _touched(done: Effects, names: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """The tables that a statement concerns."""
    named = {*done.emptied, *done.replaced, *done.partly}
    return [
        table
        for table in names
        if table in named or table[0] in done.databases or (done.changed and done.mentions(table[1]))
    ]
