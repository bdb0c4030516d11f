"""Exports to PostgreSQL: rows by COPY, and the position in the same transaction. A killed export leaves nothing of
itself; of two at once the second waits, and then goes on from where the first came.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

import psycopg
import pyarrow as pa
from psycopg import sql

from data_platform.errors import PlatformError, TransientError
from data_platform.exports.agreement import summary_of
from data_platform.exports.columns import POSTGRESQL_NAME_BYTES, Column, copy_line, postgresql_column
from data_platform.exports.statements import (
    POSITION,
    additions,
    besides_key,
    declarations,
    insertion,
    matched,
    merged,
    names,
    of_key,
    require_alike,
    rows_replaced,
    values_of,
)
from data_platform.exports.target import POSITIONS, Lines, Position, Written
from data_platform.ingestion.sql.dialects import PostgresqlSession, Timeouts
from data_platform.ingestion.sql.dialects.session import one_line
from data_platform.ingestion.sql.elsewhere import REDSHIFT_VERSION
from data_platform.lakehouse.settings import redact_url, require_encoded
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.watchdog import libpq_options
from data_platform.redaction import register_url

LOCK_TIMEOUT = "120s"
"""How long an export waits for another one of the same table, or for whoever has the table locked."""

SETTINGS = {
    "application_name": "data_platform",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "lock_timeout": LOCK_TIMEOUT,
    "standard_conforming_strings": "on",
    "search_path": "pg_catalog",
}

COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute a
where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped order by a.attnum
"""

DEPENDENTS = """
select distinct 'view ' || d.refobjid::regclass::text || ' -> ' || r.ev_class::regclass::text
from pg_depend d join pg_rewrite r on r.oid = d.objid
where d.classid = 'pg_rewrite'::regclass and d.refobjid = to_regclass(%(table)s) and r.ev_class <> d.refobjid
union all select 'foreign key ' || conname from pg_constraint
where contype = 'f' and (confrelid = to_regclass(%(table)s) or conrelid = to_regclass(%(table)s))
union all select 'trigger ' || tgname from pg_trigger where tgrelid = to_regclass(%(table)s) and not tgisinternal
union all select 'policy ' || polname from pg_policy where polrelid = to_regclass(%(table)s)
union all select 'publication ' || pubname from pg_publication_rel join pg_publication p on p.oid = prpubid
where prrelid = to_regclass(%(table)s)
union all select 'inheritance' from pg_inherits
where inhparent = to_regclass(%(table)s) or inhrelid = to_regclass(%(table)s)
"""
"""What hangs on a table, and would be lost with it."""

GRANTS = """
select format('grant %%s (%%s) on %%s to %%s', privilege, names, {new}, grantee) from (
    select a.privilege_type as privilege, string_agg(quote_ident(t.attname), ', ') as names,
        case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as grantee
    from pg_attribute t, aclexplode(t.attacl) a where t.attrelid = to_regclass(%(old)s) and not t.attisdropped
    group by a.privilege_type, a.grantee
) as of_columns
union all select format('grant %%s on %%s to %%s%%s', a.privilege_type, {new},
    case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
    case when a.is_grantable then ' with grant option' else '' end)
from pg_class c, aclexplode(c.relacl) a where c.oid = to_regclass(%(old)s) and a.grantee <> c.relowner
"""

DENIED = frozenset({"28P01", "28000", "3D000"})
"""The SQLSTATEs of a wrong password, a user who may not enter, and a database that is not there."""


class Postgresql:
    """The schema of a PostgreSQL database that tables are exported to."""

    product = "PostgreSQL"

    def __init__(self, url: str, schema: str) -> None:
        register_url(url)
        require_encoded(url, "The address of the target")
        self.url, self.schema = url, schema
        self.where = f"PostgreSQL at {redact_url(url)}"
        self.require_name(schema)

    def column(self, table: str, name: str, kind: str, *, is_key: bool) -> Column:
        return postgresql_column(table, name, kind, is_key=is_key)

    def require_name(self, name: str) -> None:
        if len(name.encode()) > POSTGRESQL_NAME_BYTES or "\0" in name or name == POSITIONS:
            raise PlatformError(
                f"No table or schema that is exported to PostgreSQL can be called {name!r}: a name has no more than "
                f"{POSTGRESQL_NAME_BYTES} bytes, and is not {POSITIONS}. Give it another name in defs.yaml."
            )

    def line(self, columns: Sequence[Column]) -> str:
        return copy_line(columns)

    def ping(self) -> None:
        with self.connected() as connection:
            connection.execute("select 1")

    def summary(self, table: str, columns: Sequence[Column], *, hashed: bool) -> tuple[int, str | None, str | None]:
        with PostgresqlSession(self.url, Timeouts()) as session:
            return summary_of(session, quote(self.schema, table), columns, hashed=hashed)

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection]:
        """A connection, for the time of the block, which is one transaction. Raises PlatformError for whatever the
        server reports, without values of rows."""
        try:
            with psycopg.connect(libpq_options(self.url)) as connection:
                if connection.info.server_version <= REDSHIFT_VERSION:
                    raise PlatformError(
                        f"{self.where} is Redshift, which is not exported to: it has neither the COPY nor the "
                        "transactions of PostgreSQL that an export needs. Export `to: {type: files, folder: s3://...}` "
                        "as Parquet, and have Redshift COPY the files that latest.json names."
                    )
                for name, value in SETTINGS.items():
                    connection.execute("select set_config(%s, %s, true)", [name, value])
                yield connection
        except psycopg.Error as error:
            raise self._explained(error) from None

    @contextmanager
    def open(self, table: str) -> Iterator["PostgresqlTable"]:
        self.require_name(table)
        self._ensure_positions()
        with self.connected() as connection:
            connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{POSITIONS} {self.schema} {table}"]
            )
            yield PostgresqlTable(connection, self, table)

    def _ensure_positions(self) -> None:
        """Make the schema and the table of positions, in a transaction of their own."""
        positions = quote(self.schema, POSITIONS)
        with self.connected() as connection:
            if connection.execute("select to_regclass(%s)", [positions]).fetchone() != (None,):
                return
            connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [POSITIONS])
            if connection.execute("select to_regnamespace(%s)", [quote(self.schema)]).fetchone() == (None,):
                run(connection, f"create schema {quote(self.schema)}")
            run(
                connection,
                f"create table if not exists {positions} (table_name text primary key, lakehouse text not null, "
                "export text not null, source_table text not null, source_id text not null, snapshot bigint, "
                "shape text not null, row_count bigint not null, run_id text not null, "
                "exported_at timestamptz not null)",
            )

    def _explained(self, error: psycopg.Error) -> PlatformError:
        state, said = error.sqlstate, one_line(str(error))
        if isinstance(error, psycopg.OperationalError) and (state is None or state[:2] in ("08", "57", "53")):
            if any(sign in said for sign in ("authentication", "password", "does not exist", "pg_hba.conf", "role ")):
                return PlatformError(f"{self.where} does not let us in: {said}. Check user, password and database.")
            return TransientError(
                f"{self.where} cannot be reached, or the connection broke: {said} Nothing was written: the export is "
                "in one transaction."
            )
        if state in DENIED:
            return PlatformError(f"{self.where} does not let us in: {said}. Check user, password and database.")
        kind = type(error).__name__
        if state in ("55P03", "40001", "40P01"):
            return TransientError(
                f"{self.where}: the table is locked by another session, or by another export of it, for longer than "
                f"{LOCK_TIMEOUT} ({kind}). Nothing was written."
            )
        if state == "42501":
            return PlatformError(
                f"{self.where} forbids it: {said}. The account needs CREATE on the schema, and has to own the tables. "
                "Nothing was written."
            )
        diagnosis = error.diag
        named = {
            "constraint": diagnosis.constraint_name,
            "column": diagnosis.column_name,
            "table": diagnosis.table_name,
        }
        place = ", ".join(f"{what} {name}" for what, name in named.items() if name)
        # What it says otherwise may quote values of rows.
        shown = said if state is not None and state[:2] in ("42", "2B") else ""
        return PlatformError(
            f"{self.where} refused the rows: {kind} (SQLSTATE {state}){f' at {place}' if place else ''}"
            f"{f': {shown}' if shown else ''}. Nothing was written."
        )


def run(connection: psycopg.Connection, statement: str) -> int:
    """Run a statement that was composed of quoted names; the rows that it changed."""
    return connection.execute(sql.SQL(statement)).rowcount


class PostgresqlTable:
    """One table of the target within the transaction of an export."""

    def __init__(self, connection: psycopg.Connection, database: Postgresql, table: str) -> None:
        self.connection, self.database, self.table = connection, database, table
        self.sql = quote(database.schema, table)
        self.positions = quote(database.schema, POSITIONS)
        found = connection.execute(
            sql.SQL(f"select {POSITION} from {self.positions} where table_name = %s"), [table]
        ).fetchone()
        self.position = None if found is None else Position(*found)

    def columns(self) -> list[tuple[str, str]] | None:
        if self.connection.execute("select to_regclass(%s)", [self.sql]).fetchone() == (None,):
            return None
        return [(str(name), str(kind)) for name, kind in self.connection.execute(COLUMNS, [self.sql])]

    def spelt(self, column: Column) -> str:
        return column.declared

    def claim(self, position: Position) -> None:
        self.record(position)

    def extend(self, columns: Sequence[Column]) -> None:
        run(self.connection, f"alter table {self.sql} {additions(quote, columns)}")

    def merge(self, columns: Sequence[Column], key: Sequence[str], rows: Lines, gone: Lines | None) -> Written:
        if self.columns() is None:
            self._create(self.sql, columns, key)
            sent, count = self._copy(self.sql, columns, rows)
            return Written(inserted=count, bytes=sent, rows=count)
        incoming, leaving = quote("pg_temp", "incoming"), quote("pg_temp", "leaving")
        same = matched(quote, key)
        self._create_temporary("incoming", columns)
        sent, count = self._copy(incoming, columns, rows)
        if gone is None:
            deletion = f"not exists (select from {incoming} s where {same})"
        else:
            keys = of_key(columns, key)
            self._create_temporary("leaving", keys)
            sent += self._copy(leaving, keys, gone)[0]
            deletion = f"exists (select from {leaving} s where {same})"
        run(self.connection, f"analyze {incoming}")
        deleted = run(self.connection, f"delete from {self.sql} t where {deletion}")
        others = besides_key(quote, columns, key)
        updated = 0
        if others and count:
            assigned = ", ".join(f"{name} = s.{name}" for name in others)
            different = " or ".join(f"t.{name} is distinct from s.{name}" for name in others)
            updated = run(
                self.connection,
                f"update {self.sql} t set {assigned} from {incoming} s where {same} and ({different})",
            )
        inserted = run(self.connection, insertion(quote, self.sql, incoming, columns, key))
        return merged(self.position, inserted, updated, deleted, sent, count, whole=gone is None)

    def replace(self, columns: Sequence[Column], key: Sequence[str], rows: Lines, *, alike: bool) -> Written:
        if self.columns() is None:
            self._create(self.sql, columns, key)
            sent, count = self._copy(self.sql, columns, rows)
            return Written(inserted=count, bytes=sent, rows=count)
        hanging = [str(one) for (one,) in self.connection.execute(DEPENDENTS, {"table": self.sql})]
        require_alike(self.table, self.database.where, hanging, alike=alike)
        if hanging:
            return self._replace_rows(columns, rows, hanging)
        new = quote(self.database.schema, f"_new_{sha256(self.table.encode()).hexdigest()[:16]}")
        if alike:
            run(self.connection, f"create table {new} (like {self.sql} including all)")
        else:
            self._create(new, columns, key)
        sent, count = self._copy(new, columns, rows)
        notes = self._carry_over(new, whole=alike)
        deleted = self.position.row_count if self.position is not None else 0
        run(self.connection, f"drop table {self.sql}")
        run(self.connection, f"alter table {new} rename to {quote(self.table)}")
        return Written(inserted=count, deleted=deleted, bytes=sent, rows=count, notes=notes)

    def record(self, position: Position) -> None:
        self.connection.execute(
            sql.SQL(
                f"insert into {self.positions} values (%s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp()) "
                "on conflict (table_name) do update set (lakehouse, export, source_table, source_id, snapshot, shape, "
                "row_count, run_id, exported_at) = (excluded.lakehouse, excluded.export, excluded.source_table, "
                "excluded.source_id, excluded.snapshot, excluded.shape, excluded.row_count, excluded.run_id, "
                "excluded.exported_at)"
            ),
            values_of(position),
        )

    def _replace_rows(self, columns: Sequence[Column], rows: Lines, hanging: Sequence[str]) -> Written:
        """Replace the rows of the table and keep the table. Those who read it see the old rows until the commit."""
        incoming = quote("pg_temp", "incoming")
        self._create_temporary("incoming", columns)
        sent, count = self._copy(incoming, columns, rows)
        listed = names(quote, columns)
        deleted = run(self.connection, f"delete from {self.sql}")
        run(self.connection, f"insert into {self.sql} ({listed}) select {listed} from {incoming}")
        return rows_replaced(sent, count, deleted, hanging)

    def _carry_over(self, new: str, *, whole: bool) -> tuple[str, ...]:
        """Give the new table the grants and the comment of the old one; what is not kept."""
        from_old = {"old": self.sql}
        # Grants on columns that are no more would fail.
        statements = [
            str(one)
            for (one,) in self.connection.execute(
                sql.SQL(GRANTS.format(new="'" + new.replace("'", "''").replace("%", "%%") + "'")), from_old
            )
        ]
        lost = []
        for statement in statements:
            if not whole and "(" in statement.split(" on ")[0]:
                lost.append("grants on columns")
                continue
            run(self.connection, statement)
        comment = self.connection.execute("select obj_description(to_regclass(%s), 'pg_class')", [self.sql]).fetchone()
        if comment is not None and comment[0] is not None:
            self.connection.execute(sql.SQL("comment on table {} is {}").format(sql.SQL(new), sql.Literal(comment[0])))
        if not whole:
            lost += ["indexes, defaults and comments of its columns"]
            return (f"The columns changed: the table was made anew, without {', '.join(dict.fromkeys(lost))}.",)
        return ()

    def _create(self, name: str, columns: Sequence[Column], key: Sequence[str]) -> None:
        run(self.connection, f"create table {name} ({declarations(quote, columns, key)})")

    def _create_temporary(self, name: str, columns: Sequence[Column]) -> None:
        run(self.connection, f"create temporary table {quote(name)} ({declarations(quote, columns)}) on commit drop")

    def _copy(self, into: str, columns: Sequence[Column], rows: Lines) -> tuple[int, int]:
        """Send rows; the bytes and the rows."""
        copying = sql.SQL(f"copy {into} ({names(quote, columns)}) from stdin")
        sent = count = 0
        with self.connection.cursor() as cursor, cursor.copy(copying) as copy:
            for batch in rows:
                data = text_of(batch)
                copy.write(data)
                sent += len(data)
                count += len(batch)
        return sent, count


def text_of(lines: pa.Array) -> memoryview:
    """All lines one after the other, as they lie in memory."""
    lines = lines.cast(pa.large_string())
    _, offsets, data = lines.buffers()
    if not len(lines) or data is None:
        return memoryview(b"")
    bounds = memoryview(offsets).cast("q")
    return memoryview(data)[bounds[lines.offset] : bounds[lines.offset + len(lines)]]
