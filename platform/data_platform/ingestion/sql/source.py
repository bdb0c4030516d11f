"""Relational databases as a source: which server is read, by how many connections, in which snapshot. How rows are read
belongs in `reading`, how a database is spoken to in `dialects`; landing is `load`'s work.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.source import (
    HINT,
    UNKNOWN,
    Position,
    Probe,
    differences,
    entries_of_table,
    probe_each,
    the_only,
)
from data_platform.ingestion.sql.comments import Comments, comments
from data_platform.ingestion.sql.comparison import Comparison
from data_platform.ingestion.sql.cursor import less
from data_platform.ingestion.sql.dialects import (
    Column,
    DuckdbSession,
    MysqlSession,
    PostgresqlSession,
    Session,
    SqliteSession,
    Timeouts,
)
from data_platform.ingestion.sql.dialects.session import checked_names, known
from data_platform.ingestion.sql.elsewhere import elsewhere
from data_platform.ingestion.sql.options import Replica
from data_platform.ingestion.sql.options import SqlTable as SqlTable
from data_platform.ingestion.sql.reach import (
    CURSOR,
    NOTHING,
    count_reached,
    cursor_column,
    newest,
    reached,
    refuse_nulls,
)
from data_platform.ingestion.sql.reading import BATCH_BYTES as BATCH_BYTES
from data_platform.ingestion.sql.reading import SnapshotReading, TableReading
from data_platform.ingestion.sql.reading import batches as batches
from data_platform.ingestion.sql.replica import PRIMARY, Server, server_to_read
from data_platform.lakehouse.settings import redact_url, require_encoded

if TYPE_CHECKING:
    from data_platform.ingestion.sql.constraint_types import Constraints
    from data_platform.ingestion.sql.dialects.snowflake import SnowflakeSession

TIMEOUTS = Timeouts()


class Relational:
    """A database as a `Source`. `url` is `postgresql://`, `mysql://`, `sqlite://`, `duckdb://`, `snowflake://` or the
    path of a SQLite file.

    `timeouts` say how long a server is waited for. A `replica` is read in its place. With `snapshot` a reading is of
    all tables, in one view of the database. `most_readers` bounds the connections by which a table is read, for the
    reason `why`.
    Raises PlatformError, from any method, if the database cannot be reached or does not have what is asked for.
    """

    def __init__(
        self,
        url: str,
        tables: Mapping[str, SqlTable],
        timeouts: Timeouts = TIMEOUTS,
        replica: Replica | None = None,
        *,
        snapshot: bool = False,
        most_readers: int | None = None,
        why: str = "",
    ) -> None:
        self.url, self.options, self.timeouts = url, dict(tables), timeouts
        self.replica, self.snapshot, self.most_readers, self.why = replica, snapshot, most_readers, why
        if replica is not None and scheme_of(replica.url) != scheme_of(url):
            raise PlatformError(
                f"The replica at {redact_url(replica.url)} is {scheme_of(replica.url)}://, and the database that it is "
                f"to be one of is {scheme_of(url)}://: correct `replica` in the options of the source."
            )
        self._withholds = any(table.masks for table in tables.values())

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """With a cursor: the highest value (an index answers that), or else the number of rows that the next load would
        read again, up to COUNTED_ROWS; what neither shows is read every `refresh`.
        Without: what the database keeps of a table at hand (see `Session.hint`), which may miss rows that change in
        place."""
        session: Session | None = None
        server = self._server(after.values())

        def probe(table: str) -> Probe:
            nonlocal session
            try:
                session = session or self._session(server.url)
                position = after.get(table, {})
                return self._probe(session, table, entries_of_table(position, table) if self.snapshot else position)
            except PlatformError:
                # A statement that failed has spoilt PostgreSQL's transaction: the next table gets a session of its own.
                if session is not None:
                    session.close()
                    session = None
                raise

        try:
            return probe_each(tables, probe)
        finally:
            if session is not None:
                session.close()

    def _probe(self, session: Session, table: str, after: Position) -> Probe:
        cursor = self._options(table).cursor
        relation, columns = self._described(session, table)
        if cursor is None:
            hint = session.hint(relation)
            return UNKNOWN if hint is None else Probe(differences({HINT: hint}, after), complete=False)
        changes = differences(newest(session, relation, columns, cursor), after)
        if not changes and CURSOR in after:
            # Rows within the lag, at the position itself or without a value leave the highest value as it is. Those
            # that are new are counted; those that were changed in place are read every `refresh`.
            changes = differences(
                {HINT: count_reached(session, relation, columns, cursor, after[CURSOR], table)}, after
            )
        return Probe(changes, complete=False)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[TableReading | SnapshotReading]:
        """Read what is new in one table in the order of the cursor, or the whole of it; with `snapshot`, of all tables
        in one view."""
        for table in tables:
            self._options(table)
        server = self._server([after])
        with ExitStack() as stack:
            sessions = [stack.enter_context(self._session(server.url))]
            readers = {table: self._readers(table) for table in tables}
            if max(readers.values()) > 1:
                # Before anything is read: the peers see what the first session sees from then on.
                sessions += [stack.enter_context(one) for one in sessions[0].peers(max(readers.values()) - 1)]
            described = {table: self._described(sessions[0], table) for table in tables}

            def reading(table: str, position: Position, server: Server) -> TableReading:
                relation, columns = described[table]
                own, notes = sessions[: readers[table]], [*self._notes(table), *server.notes]
                return TableReading(own, table, relation, columns, self.options[table], position, server, notes)

            if not self.snapshot:
                yield reading(the_only(tables), after, server)
                return
            sessions[0].hold([relation for relation, _ in described.values()])
            plain = Server(server.url)  # of all tables together it is told which server was read
            parts = {table: reading(table, entries_of_table(after, table), plain) for table in tables}
            yield SnapshotReading(sessions, parts, server, after)

    def with_readers(self, most: int, why: str) -> "Relational":
        """The same source, of which no table is read by more connections at once than `most`; `why` is the sentence
        that says so where a table would be read by more."""
        return Relational(
            self.url,
            self.options,
            self.timeouts,
            self.replica,
            snapshot=self.snapshot,
            most_readers=most,
            why=why,
        )

    def _readers(self, table: str) -> int:
        parallel = self.options[table].parallel
        wanted = 1 if parallel is None else parallel.readers
        return wanted if self.most_readers is None else max(1, min(wanted, self.most_readers))

    def _notes(self, table: str) -> list[str]:
        parallel, readers = self.options[table].parallel, self._readers(table)
        if parallel is None or readers == parallel.readers:
            return []
        return [f"Read by {readers} of the {parallel.readers} connections that `parallel` asks for. {self.why}".strip()]

    def _server(self, positions: Collection[Position], *, may_be_primary: bool = True) -> Server:
        places = {position[PRIMARY] for position in positions if PRIMARY in position}
        replica = self.replica
        if replica is not None and not may_be_primary:
            replica = replica.model_copy(update={"when_late": "fail"})
        return server_to_read(self.url, replica, places, self._session)

    @contextmanager
    def comparing(self, table: str, after: Position, stored: Collection[str]) -> Iterator[Comparison]:
        """Compare one table, read up to `after`, with what is `stored` of it: the columns of these names, by the key of
        the table, or where staging makes that, the primary key of the source. Rows that the next load reads are marked.

        A replica is waited for, whatever the options say of loads: what the primary has more than the replica would be
        taken back as soon as that is compared.

        Raises PlatformError if the source does not have the key among its columns, and TransientError if a replica is
        not to be read now.
        """
        options = self._options(table)
        with self._session(self._server([after], may_be_primary=False).url) as session:
            relation, described = self._described(session, table)
            there = {name.lower() for name in stored}
            columns = [column for column in described if column.name.lower() in there]
            names = {column.name.lower(): column for column in columns}
            key = [names[name.lower()] for name in options.key if name.lower() in names]
            if len(key) < len(options.key):
                key = [column for column in columns if column.primary_key]
            if not key:
                raise PlatformError(
                    f"Table {table} cannot be compared with its source: {relation} has neither the columns of its key "
                    f"({', '.join(options.key)}), nor a primary key of its own. Take out `reconcile`, and read "
                    "the table afresh now and then: --full-refresh."
                )
            within = reach = None
            if options.cursor is not None:
                cursor = cursor_column(described, options.cursor, relation, session)
                assert cursor.kind is not None  # noqa: S101 - cursor_column refuses a column that cannot be one
                if options.cursor.nulls == "refuse" and cursor.nullable:
                    refuse_nulls(session, relation, cursor, table)
                if options.cursor.nulls == "exclude" and cursor.nullable:
                    within = f"{cursor.order} is not null"
                lower = less(after.get(CURSOR, NOTHING), cursor.kind, options.cursor.lag, f"Table {table}")
                reach = reached(session, cursor, options.cursor, lower) or "true"
            yield Comparison(session, relation, columns, key, within, reach)

    def tables(self) -> list[str]:
        """The tables and views that the database has."""
        with self._session(self.url) as session:
            return session.tables()

    def describe(self, table: str) -> list[tuple[str, str, bool, bool]]:
        """Name, declared type, nullability and membership of the primary key, for each column of a source table.

        `table` is a name of the source's, or one of `tables` in `defs.yaml`.
        """
        options = self.options.get(table)
        with self._session(self.url) as session:
            columns = session.columns(session.relation((options.table if options else None) or table))
            return [(c.name, c.declared, c.nullable, c.primary_key) for c in columns]

    def constraints(self, table: str) -> "Constraints":
        """What the database promises of the rows of a table; named as for `describe`."""
        from data_platform.ingestion.sql.constraints import constraints  # its parser is for drafts alone

        options = self.options.get(table)
        with self._session(self.url) as session:
            return constraints(session, session.relation((options.table if options else None) or table))

    def comments(self, table: str) -> Comments:
        """What the database says of a table and its columns in words; named as for `describe`."""
        options = self.options.get(table)
        with self._session(self.url) as session:
            return comments(session, session.relation((options.table if options else None) or table))

    def _options(self, table: str) -> SqlTable:
        if table not in self.options:
            raise PlatformError(
                f"The source has no table {table} in its defs.yaml. " + known("table", table, list(self.options))
            )
        return self.options[table]

    def _session(self, url: str) -> Session:
        require_encoded(url, "The address of the database")
        scheme = scheme_of(url)
        if (error := elsewhere(url)) is not None:
            raise error
        if scheme == "postgresql":
            return PostgresqlSession(url, self.timeouts, withholds=self._withholds)
        if scheme == "mysql":
            return MysqlSession(url, self.timeouts, withholds=self._withholds)
        if scheme == "sqlite":
            return SqliteSession(url, withholds=self._withholds)
        if scheme == "duckdb":
            return DuckdbSession(url, withholds=self._withholds)
        if scheme == "snowflake":
            return snowflake_session()(url, self.timeouts, withholds=self._withholds)
        raise PlatformError(
            f"{redact_url(url)} begins with {scheme}://, which is no database known here. "
            "Write postgresql://, mysql://, sqlite://, duckdb://, snowflake:// or the path of a SQLite file."
        )

    def _described(self, session: Session, table: str) -> tuple[str, list[Column]]:
        """The relation's quoted name and the columns to read, in the order of the source."""
        options = self.options[table]
        relation = session.relation(options.table or table)
        return relation, columns_to_read(session, table, relation, options)


def snowflake_session() -> "type[SnowflakeSession]":
    """The session of Snowflake. Raises PlatformError, saying what to install, if its connector is not there."""
    try:
        from data_platform.ingestion.sql.dialects.snowflake import SnowflakeSession
    except ImportError as error:
        raise PlatformError(
            f"Reading Snowflake needs the package snowflake-connector-python, which cannot be imported ({error}). "
            "Install it where Dagster runs: pip install 'data-platform[snowflake]'."
        ) from None
    return SnowflakeSession


def scheme_of(url: str) -> str:
    """The kind of database that a URL is of: postgresql, mysql, sqlite for a path, or what stands there."""
    scheme = url.split("://")[0] if "://" in url else "sqlite"
    return "postgresql" if scheme == "postgres" else scheme


def columns_to_read(session: Session, table: str, relation: str, options: SqlTable) -> list[Column]:
    """The columns of a relation that the options of a table ask for, in the order of the source. Raises PlatformError
    for one that is not there, or that has no place in the lakehouse."""
    columns = session.columns(relation, options.cursor.column if options.cursor else None)
    there = [column.name for column in columns]
    for name in [*(options.columns or ()), *options.as_text]:
        if name not in there:
            raise PlatformError(f"Table {table} has no column {name} in the source. " + known("column", name, there))
    columns = [
        replace(column, type=pa.string(), select=session.shown(column), kind=None)
        if column.name in options.as_text
        else column
        for column in columns
    ]
    if options.columns is not None:
        wanted = {*options.columns, *([options.cursor.column] if options.cursor else [])}
        columns = [column for column in columns if column.name in wanted]
    checked_names(columns, relation)
    return columns
