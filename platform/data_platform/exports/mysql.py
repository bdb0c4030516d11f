"""Exports to MySQL and MariaDB: rows by INSERT, many in each. What is merged is one transaction with the position. A
table that is replaced is filled under another name and renamed into its place at once; as that is no part of a
transaction there, a kill just after it leaves the new rows with the old position, and the next export replaces them
by the same.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.constants import CR

from data_platform.errors import PlatformError, TransientError
from data_platform.exports.agreement import summary_of
from data_platform.exports.columns import MYSQL_NAME_CHARACTERS, Column, chunks, mysql_column, values_line
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
from data_platform.exports.target import POSITIONS, Lines, Position, Written, strings
from data_platform.ingestion.sql.dialects import MysqlSession, Timeouts
from data_platform.ingestion.sql.dialects.mysql import PORT, backquote
from data_platform.ingestion.sql.dialects.session import one_line
from data_platform.lakehouse.settings import redact_url, require_encoded
from data_platform.redaction import register_url

LOCK_SECONDS = 120
"""How long an export waits for another one of the same table."""

STATEMENT_BYTES = 4 * 2**20
"""The most that one INSERT holds, unless the server takes less."""

CONNECT_SECONDS, SILENT_SECONDS = 10, 600

SETUP = (
    "set session sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    "set session time_zone = '+00:00'",
    f"set session innodb_lock_wait_timeout = {LOCK_SECONDS}",
)

NO_ENTRANCE = {1044, 1045, 1049}
FORBIDDEN = {1142, 1143, 1227, 1370}
PASSING = {1205, 1213, 1040, 1053, 1129, 1158, 1159, 1160, 1161, 1203, 1927, 4031}
PASSING |= {CR.CR_CONN_HOST_ERROR, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, CR.CR_UNKNOWN_HOST, 0}
NAMES_ONLY = {1005, 1050, 1051, 1054, 1059, 1060, 1068, 1071, 1103, 1118, 1146, 1166, 1170, 1451, 3730}
"""Errors whose texts quote names of tables and columns, and no values."""

WIDTH = re.compile(r"\b(tinyint|smallint|mediumint|int|bigint)\(\d+\)")


class Mysql:
    """The database of MySQL or MariaDB that tables are exported to."""

    product = "MySQL"

    def __init__(self, url: str) -> None:
        register_url(url)
        require_encoded(url, "The address of the target")
        self.url, self.where = url, f"MySQL at {redact_url(url)}"
        self.schema = unquote(urlsplit(url).path.lstrip("/"))
        if not self.schema:
            raise PlatformError(f"{redact_url(url)} names no database. Write mysql://user@host:port/database.")

    def column(self, table: str, name: str, kind: str, *, is_key: bool) -> Column:
        return mysql_column(table, name, kind, is_key=is_key)

    def require_name(self, name: str) -> None:
        if len(name) > MYSQL_NAME_CHARACTERS or name.endswith(" ") or "\0" in name or name.lower() == POSITIONS:
            raise PlatformError(
                f"No table that is exported to MySQL can be called {name!r}: a name has no more than "
                f"{MYSQL_NAME_CHARACTERS} characters, and is not {POSITIONS}. Give it another name in defs.yaml."
            )

    def line(self, columns: Sequence[Column]) -> str:
        return values_line(columns)

    def ping(self) -> None:
        with self.connected() as connection:
            execute(connection, "select 1")

    def summary(self, table: str, columns: Sequence[Column], *, hashed: bool) -> tuple[int, str | None, str | None]:
        with MysqlSession(self.url, Timeouts()) as session:
            return summary_of(session, session.relation(table), columns, hashed=hashed)

    @contextmanager
    def connected(self) -> Iterator["pymysql.Connection[Any]"]:
        """A connection, for the time of the block. Raises PlatformError for whatever the server reports, without
        values of rows."""
        parts = urlsplit(self.url)
        connection = None
        try:
            connection = pymysql.connect(
                host=parts.hostname or "127.0.0.1",
                port=parts.port or PORT,
                user=unquote(parts.username or ""),
                password=unquote(parts.password or ""),
                database=self.schema,
                charset="utf8mb4",
                autocommit=False,
                connect_timeout=CONNECT_SECONDS,
                read_timeout=SILENT_SECONDS,
                write_timeout=SILENT_SECONDS,
            )
            for statement in SETUP:
                execute(connection, statement)
            yield connection
        except pymysql.Error as error:
            raise self._explained(error) from None
        finally:
            if connection is not None and connection.open:
                connection.close()

    @contextmanager
    def open(self, table: str) -> Iterator["MysqlTable"]:
        self.require_name(table)
        with self.connected() as connection:
            name = f"{POSITIONS}_{sha256(f'{self.schema} {table}'.lower().encode()).hexdigest()[:32]}"
            if value(connection, "select get_lock(%s, %s)", [name, LOCK_SECONDS]) != 1:
                raise TransientError(
                    f"{self.where}: another export of {table} has been at work for longer than {LOCK_SECONDS} s. "
                    "Nothing was written."
                )
            execute(
                connection,
                f"create table if not exists {backquote(POSITIONS)} (table_name varchar({MYSQL_NAME_CHARACTERS}) "
                "primary key, lakehouse varchar(100) not null, export varchar(200) not null, source_table "
                "varchar(300) not null, source_id varchar(100) not null, snapshot bigint, shape longtext not null, "
                "row_count bigint not null, run_id varchar(100) not null, exported_at datetime(6) not null) "
                "engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin",
            )
            connection.commit()
            yield MysqlTable(connection, self, table)
            connection.commit()

    def _explained(self, error: pymysql.Error) -> PlatformError:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        said = one_line(str(error.args[1])) if len(error.args) > 1 else type(error).__name__
        if code in NO_ENTRANCE:
            return PlatformError(f"{self.where} does not let us in: {said} Check user, password and database.")
        if code in PASSING:
            return TransientError(
                f"{self.where} cannot be reached, broke the connection, or is busy: {said} (error {code}). What was "
                "not committed is undone; the next export goes on from the position."
            )
        if code in FORBIDDEN:
            return PlatformError(
                f"{self.where} forbids it: {said} The account needs SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, "
                "DROP and CREATE TEMPORARY TABLES on the database."
            )
        # Other texts may quote values of rows.
        shown = f": {said}" if code in NAMES_ONLY else ""
        column = re.search(r"for column (?:`[^`]*`\.)*`?'?([\w$]+)", said) if not shown else None
        place = f", column {column[1]}" if column else ""
        return PlatformError(f"{self.where} refused the rows (error {code}{place}){shown}. Nothing was changed.")


def execute(connection: "pymysql.Connection[Any]", statement: str, values: Sequence[object] | None = None) -> int:
    """Run a statement that was composed of quoted names; the rows that it changed."""
    with connection.cursor() as cursor:
        return int(cursor.execute(statement, values))


def fetch(connection: "pymysql.Connection[Any]", statement: str, values: Sequence[object] = ()) -> list[Any]:
    """The rows of an answer."""
    with connection.cursor() as cursor:
        cursor.execute(statement, list(values) or None)
        return list(cursor.fetchall())


def value(connection: "pymysql.Connection[Any]", statement: str, values: Sequence[object] = ()) -> Any:
    """The first value of an answer; None without a row."""
    rows = fetch(connection, statement, values)
    return rows[0][0] if rows else None


class MysqlTable:
    """One table of the target, for one export."""

    def __init__(self, connection: "pymysql.Connection[Any]", database: Mysql, table: str) -> None:
        self.connection, self.database, self.table = connection, database, table
        self.sql = backquote(table)
        version = str(value(connection, "select version()"))
        self.is_mariadb = "mariadb" in version.lower()
        self.largest = int(value(connection, "select @@max_allowed_packet")) - 1024
        self.most = min(STATEMENT_BYTES, self.largest - 65_536)
        found = fetch(
            connection,
            f"select {POSITION} from {backquote(POSITIONS)} where table_name = %s",
            [table],
        )
        self.position = Position(*found[0]) if found else None

    def columns(self) -> list[tuple[str, str]] | None:
        rows = fetch(
            self.connection,
            "select column_name, column_type from information_schema.columns where table_schema = database() "
            "and table_name = %s order by ordinal_position",
            [self.table],
        )
        return [(str(name), _plain(str(kind))) for name, kind in rows] or None

    def spelt(self, column: Column) -> str:
        if column.declared == "json":
            return "longtext" if self.is_mariadb else "json"
        return "tinyint" if column.declared == "boolean" else _plain(column.declared)

    def claim(self, position: Position) -> None:
        self.record(position)
        self.connection.commit()

    def extend(self, columns: Sequence[Column]) -> None:
        execute(self.connection, f"alter table {self.sql} {additions(backquote, columns)}")

    def merge(self, columns: Sequence[Column], key: Sequence[str], rows: Lines, gone: Lines | None) -> Written:
        if self.columns() is None:
            self._create(self.sql, columns, key)
        keys, same = of_key(columns, key), matched(backquote, key)
        self._create("`_incoming`", columns, key, temporary=True)
        sent, count = self._insert("`_incoming`", columns, rows)
        if gone is None:
            joined = f"left join `_incoming` s on {same} where s.{backquote(key[0])} is null"
        else:
            self._create("`_leaving`", keys, key, temporary=True)
            sent += self._insert("`_leaving`", keys, gone)[0]
            joined = f"join `_leaving` s on {same}"
        deleted = execute(self.connection, f"delete t from {self.sql} t {joined}")
        others = besides_key(backquote, columns, key)
        updated = 0
        if others and count:
            assigned = ", ".join(f"t.{name} = s.{name}" for name in others)
            alike = " and ".join(f"t.{name} <=> s.{name}" for name in others)
            updated = execute(
                self.connection, f"update {self.sql} t join `_incoming` s on {same} set {assigned} where not ({alike})"
            )
        inserted = execute(self.connection, insertion(backquote, self.sql, "`_incoming`", columns, key))
        return merged(self.position, inserted, updated, deleted, sent, count, whole=gone is None)

    def replace(self, columns: Sequence[Column], key: Sequence[str], rows: Lines, *, alike: bool) -> Written:
        there = self.columns() is not None
        hanging = self._hanging() if there else []
        deleted = self.position.row_count if there and self.position is not None else 0
        require_alike(self.table, self.database.where, hanging, alike=alike)
        if hanging:
            deleted = execute(self.connection, f"delete from {self.sql}")
            sent, count = self._insert(self.sql, columns, rows)
            return rows_replaced(sent, count, deleted, hanging)
        digest = sha256(self.table.encode()).hexdigest()[:16]
        new, old = backquote(f"_new_{digest}"), backquote(f"_old_{digest}")
        execute(self.connection, f"drop table if exists {new}, {old}")
        if there and alike:
            execute(self.connection, f"create table {new} like {self.sql}")
        else:
            self._create(new, columns, key)
        sent, count = self._insert(new, columns, rows)
        self.connection.commit()
        renamed = f"{self.sql} to {old}, {new} to {self.sql}" if there else f"{new} to {self.sql}"
        execute(self.connection, f"rename table {renamed}")
        execute(self.connection, f"drop table if exists {old}")
        lost = "The columns or the key changed: the table was made anew, without indexes of others."
        notes = (lost,) if there and not alike else ()
        return Written(inserted=count, deleted=deleted, bytes=sent, rows=count, notes=notes)

    def record(self, position: Position) -> None:
        execute(
            self.connection,
            f"replace into {backquote(POSITIONS)} values (%s, %s, %s, %s, %s, %s, %s, %s, %s, utc_timestamp(6))",
            values_of(position),
        )

    def _hanging(self) -> list[str]:
        """What hangs on the table, and would be lost with it or go with it to another name."""
        rows = fetch(
            self.connection,
            "select concat('trigger ', trigger_name) from information_schema.triggers where event_object_schema = "
            "database() and event_object_table = %s union all select concat('foreign key ', constraint_name) from "
            "information_schema.referential_constraints where constraint_schema = database() and "
            "(table_name = %s or referenced_table_name = %s)",
            [self.table] * 3,
        )
        return [str(one) for (one,) in rows]

    def _create(self, name: str, columns: Sequence[Column], key: Sequence[str], *, temporary: bool = False) -> None:
        # By this collation keys are the same only if all their characters are.
        collation = "utf8mb4_nopad_bin" if self.is_mariadb else "utf8mb4_0900_bin"
        if temporary:
            execute(self.connection, f"drop temporary table if exists {name}")
        execute(
            self.connection,
            f"create {'temporary ' if temporary else ''}table {name} ({declarations(backquote, columns, key)}) "
            f"engine = InnoDB default charset = utf8mb4 collate = {collation}",
        )

    def _insert(self, into: str, columns: Sequence[Column], rows: Lines) -> tuple[int, int]:
        """Send rows; the bytes and the rows."""
        listed = names(backquote, columns)
        sent = count = 0
        for group in chunks(strings(rows), self.most):
            statement = f"insert into {into} ({listed}) values {','.join(group)}"
            size = len(statement.encode())
            if size > self.largest:
                raise PlatformError(
                    f"A row of {self.table} has {size:,} bytes, and {self.database.where} takes statements of "
                    f"{self.largest:,} at most. Raise its max_allowed_packet. What was sent is undone."
                )
            execute(self.connection, statement)
            sent += size
            count += len(group)
        return sent, count


def _plain(kind: str) -> str:
    """A type without the width by which its numbers would be shown."""
    return WIDTH.sub(r"\1", kind)
