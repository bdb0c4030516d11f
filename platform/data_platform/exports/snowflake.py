"""Exports to Snowflake: rows go to a temporary stage as Parquet, and from there by COPY INTO into a temporary table.
What is merged or replaced is one transaction of DELETE and INSERT with the position: all else (CREATE, ALTER) commits
by itself there. Of two exports at once the later one finds another position than it began with, and changes nothing.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import snowflake.connector
from snowflake.connector import errors

from data_platform.errors import PlatformError, TransientError
from data_platform.exports.columns import JSONS, Column, common_era, simple_kind, unplaced
from data_platform.exports.json_rows import ISO, json_object
from data_platform.exports.statements import POSITION, merged, of_key, values_of
from data_platform.exports.target import POSITIONS, Lines, Position, Written
from data_platform.ingestion.sql.dialects.session import one_line
from data_platform.lakehouse.settings import redact_url, require_encoded
from data_platform.lakehouse.sql import quote
from data_platform.redaction import register_url

LOGIN_SECONDS, ANSWER_SECONDS = 30, 600

FILE_BYTES = 64 * 1024**2
"""Text of a file that is put into the stage, before it is compressed."""

TEXT_BYTES = 16_777_216
"""What Snowflake keeps of one text, or of one row as JSON."""

PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")
"""Names that stand there in capital letters, so that they are found without quotes."""

STAGE, INCOMING, GONE = "data_platform_stage", "data_platform_incoming", "data_platform_gone"

TYPES = {
    "BOOLEAN": "BOOLEAN",
    "TINYINT": "NUMBER(3,0)",
    "SMALLINT": "NUMBER(5,0)",
    "INTEGER": "NUMBER(10,0)",
    "BIGINT": "NUMBER(19,0)",
    "UTINYINT": "NUMBER(3,0)",
    "USMALLINT": "NUMBER(5,0)",
    "UINTEGER": "NUMBER(10,0)",
    "UBIGINT": "NUMBER(20,0)",
    "HUGEINT": "VARCHAR",
    "UHUGEINT": "VARCHAR",
    "FLOAT": "FLOAT",
    "DOUBLE": "FLOAT",
    "VARCHAR": "VARCHAR",
    "BLOB": "BINARY",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "TIMESTAMP_NTZ",
    "TIMESTAMP_S": "TIMESTAMP_NTZ",
    "TIMESTAMP_MS": "TIMESTAMP_NTZ",
    "TIMESTAMP_NS": "TIMESTAMP_NTZ",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP_TZ",
    "INTERVAL": "VARCHAR",
    "UUID": "VARCHAR",
    "ENUM": "VARCHAR",
    "JSON": "VARIANT",
    "NESTED": "VARIANT",
}

MISSING, FORBIDDEN = 2003, (3001, 3041)
NAMES_ONLY = (MISSING, 1003, 2002, 2040, 2043, *FORBIDDEN)
"""Errors whose texts quote names and SQL, and no values of rows."""

DECLARED = (
    "table_name varchar not null, lakehouse varchar not null, export varchar not null, source_table varchar not null, "
    "source_id varchar not null, snapshot number(19,0), shape varchar not null, row_count number(19,0) not null, "
    "run_id varchar not null, exported_at timestamp_ntz"
)


def snowflake_column(table: str, name: str, kind: str, *, is_key: bool = False) -> Column:
    """A column as Snowflake keeps it; its `text` is what is sent, in DuckDB's SQL. Raises PlatformError for a name or a
    type that it cannot have."""
    if "\0" in name or len(name) > 255 or given(identifier(name)[1:-1]) != name:
        raise PlatformError(
            f"Column {name} of {table} cannot have its name in Snowflake: names are up to 255 characters, and one in "
            "capital letters is what the same in small ones becomes there. Rename it."
        )
    simple, value = simple_kind(kind), quote(name)
    declared = f"NUMBER{kind.removeprefix('DECIMAL')}" if kind.startswith("DECIMAL(") else TYPES.get(simple)
    if declared is None or (is_key and simple in (*JSONS, "INTERVAL")):
        raise unplaced(table, name, kind, "Snowflake" if declared is None else "a key in Snowflake")
    text, refusals = f"{value}::VARCHAR", []
    if simple == "BLOB":
        text = f"hex({value})"
        refusals.append((f"octet_length({value}) > {TEXT_BYTES // 2}", f"more than {TEXT_BYTES // 2:,} bytes"))
    elif simple in ("VARCHAR", "ENUM", *JSONS):
        text = text if simple != "NESTED" else f"to_json({value})::VARCHAR"
        refusals.append((f"strlen({text}) > {TEXT_BYTES}", f"more than {TEXT_BYTES:,} bytes"))
    elif simple == "DATE":
        refusals.append(common_era(value, simple))
    elif simple.startswith("TIMESTAMP"):
        refusals.append(common_era(value, simple))
        text = f"strftime({value}::TIMESTAMP, '{ISO}')"
        if simple == "TIMESTAMP WITH TIME ZONE":
            text = f"strftime({value} AT TIME ZONE 'UTC', '{ISO}+00:00')"
        elif simple == "TIMESTAMP_NS":
            text = f"strftime({value}, '{ISO.replace('%f', '%n')}')"
    if simple == "NESTED":
        bare = f"regexp_replace({text}, '\"(\\\\.|[^\"\\\\])*\"', '', 'g')"
        refusals.append((f"regexp_matches({bare}, 'NaN|nan|Infinity|inf')", "infinities or NaN, which JSON has not"))
    return Column(name, simple, declared, text, tuple(refusals))


def identifier(name: str) -> str:
    """A name in Snowflake's SQL."""
    return quote(name.upper() if PLAIN_NAME.fullmatch(name) else name)


def given(name: str) -> str:
    """The name in the lakehouse of what has a name in Snowflake."""
    return name.lower() if PLAIN_NAME.fullmatch(name.lower()) and name == name.upper() else name


class Snowflake:
    """The schema of Snowflake that tables are exported to."""

    product = "Snowflake"

    def __init__(self, url: str) -> None:
        register_url(url)
        require_encoded(url, "The address of the target")
        self.where = f"Snowflake at {redact_url(url)}"
        parts = urlsplit(url)
        path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
        if len(path) != 2 or not parts.hostname:
            raise PlatformError(
                f"{redact_url(url)} does not name an account, a database and a schema. Write "
                "snowflake://user:password@account/database/schema?warehouse=name."
            )
        self.path, self.more = path, dict(parse_qsl(parts.query))
        unknown = self.more.keys() - {"warehouse", "role", "host", "port", "protocol"}
        if unknown:
            raise PlatformError(
                f"{self.where}: {', '.join(sorted(unknown))} is not known. Known: warehouse, role, host."
            )
        self.account, self.user = parts.hostname, unquote(parts.username or "")
        self.password = unquote(parts.password or "")

    def column(self, table: str, name: str, kind: str, *, is_key: bool) -> Column:
        return snowflake_column(table, name, kind, is_key=is_key)

    def require_name(self, name: str) -> None:
        snowflake_column("the export", name, "VARCHAR")
        if name.lower() in (POSITIONS, STAGE, INCOMING, GONE):
            raise PlatformError(f"No table that is exported to Snowflake can be called {name!r}. Give it another name.")

    def line(self, columns: Sequence[Column]) -> str:
        return json_object([], {f"c{place}": column.text for place, column in enumerate(columns)})

    def ping(self) -> None:
        with self.connected() as cursor:
            cursor.execute("select 1")

    def summary(self, table: str, columns: Sequence[Column], *, hashed: bool) -> tuple[int, str | None, str | None]:  # noqa: ARG002 - rows are counted alone
        with self.connected() as cursor:
            return int(value(cursor, f"select count(*) from {identifier(table)}")), None, None

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A cursor in the schema, for the time of the block. Raises PlatformError for whatever Snowflake reports,
        without values of rows."""
        connection = None
        try:
            connection = snowflake.connector.connect(
                account=self.account,
                user=self.user,
                password=self.password,
                login_timeout=LOGIN_SECONDS,
                network_timeout=ANSWER_SECONDS,
                session_parameters={"TIMEZONE": "UTC", "QUOTED_IDENTIFIERS_IGNORE_CASE": False, "QUERY_TAG": POSITIONS},
                **self.more,
            )
            cursor = connection.cursor()
            cursor.execute(f"use schema {'.'.join(map(identifier, self.path))}")
            yield cursor
        except errors.Error as error:
            raise self._explained(error) from None
        finally:
            if connection is not None:
                connection.close()

    @contextmanager
    def open(self, table: str) -> Iterator["SnowflakeTable"]:
        self.require_name(table)
        with self.connected() as cursor:
            cursor.execute(f"create table if not exists {identifier(POSITIONS)} ({DECLARED})")
            found = SnowflakeTable(cursor, table)
            try:
                yield found
            except BaseException:
                found.end("rollback")
                raise
            found.end("commit")

    def _explained(self, error: errors.Error) -> PlatformError:
        number, said = error.errno or 0, one_line(error.raw_msg or str(error.msg))
        if number in (250001, 390100, 390144) or isinstance(error, errors.ForbiddenError):
            return PlatformError(f"{self.where} does not let us in: {said}. Check account, user and password.")
        if isinstance(error, errors.OperationalError | errors.InterfaceError | errors.InternalServerError):
            return TransientError(
                f"{self.where} cannot be reached, broke the connection, or is busy (error {number}). What was not "
                "committed is undone; the next export goes on from the position."
            )
        if number in NAMES_ONLY:
            return PlatformError(
                f"{self.where} refused it: {said} (error {number}). Nothing was changed. The schema must be there, and "
                "the role needs USAGE of it and of the warehouse, CREATE TABLE and CREATE STAGE."
            )
        # Other texts may quote values of rows.
        return PlatformError(f"{self.where} refused the rows (error {number}). Nothing was changed.")


def value(cursor: Any, statement: str) -> Any:
    """The first value of an answer."""
    return cursor.execute(statement).fetchone()[0]


class SnowflakeTable:
    """One table of the target, for one export."""

    def __init__(self, cursor: Any, table: str) -> None:
        self.cursor, self.table, self.sql = cursor, table, identifier(table)
        self.in_transaction = False
        ours = f"from {identifier(POSITIONS)} where table_name = %s"
        found = cursor.execute(f"select {POSITION} {ours}", (table,)).fetchall()
        if len(found) > 1:
            # Two first exports at once: keys are not enforced there.
            cursor.execute(f"delete {ours}", (table,))
            raise TransientError(f"Two exports of {table} began at once in Snowflake. Nothing was changed.")
        self.position = Position(*found[0]) if found else None

    def columns(self) -> list[tuple[str, str]] | None:
        try:
            found = self.cursor.execute(f"describe table {self.sql}").fetchall()
        except errors.ProgrammingError as error:
            if error.errno != MISSING:
                raise
            return None
        return [(given(str(row[0])), _kind(str(row[1]))) for row in found]

    def spelt(self, column: Column) -> str:
        return column.declared

    def claim(self, position: Position) -> None:
        self._write(position, None)

    def extend(self, columns: Sequence[Column]) -> None:
        for column in columns:
            self.cursor.execute(f"alter table {self.sql} add column {identifier(column.name)} {column.declared}")

    def merge(self, columns: Sequence[Column], key: Sequence[str], rows: Lines, gone: Lines | None) -> Written:
        exists = self.columns() is not None
        if not exists:
            self._create(columns)
        sent = self._incoming(INCOMING, columns, rows)
        if gone is not None:
            sent += self._incoming(GONE, of_key(columns, key), gone)
        self._begin()
        same = " and ".join(f"s.{identifier(name)} = {self.sql}.{identifier(name)}" for name in key)
        among = f"exists (select 1 from {{}} s where {same})"
        deleted = self._run(
            f"delete from {self.sql} where "
            + (among.format(identifier(GONE)) if gone is not None else f"not {among.format(identifier(INCOMING))}")
        )
        updated = self._run(f"delete from {self.sql} where {among.format(identifier(INCOMING))}")
        inserted = self._insert("into", columns) - updated
        count = int(value(self.cursor, f"select count(*) from {self.sql}"))
        return merged(self.position, inserted, updated, deleted, sent, count, whole=gone is None)

    def replace(self, columns: Sequence[Column], key: Sequence[str], rows: Lines, *, alike: bool) -> Written:  # noqa: ARG002 - keys are not kept
        there = self.columns()
        if there is None:
            self._create(columns)
        elif not alike:
            types, wanted = dict(there), {column.name: column.declared for column in columns}
            # One column is always left.
            self.extend([column for column in columns if column.name not in types])
            other = [name for name, kind in there if wanted.get(name) != kind]
            retyped = [column for column in columns if column.name in other]
            for name in other:
                spare = [column for column in columns if column.name not in other]
                if not spare:
                    raise PlatformError(
                        f"All columns of {self.table} have other types than they had in Snowflake: it cannot be "
                        "changed in its place. Drop it there, and export again."
                    )
                self.cursor.execute(f"alter table {self.sql} drop column {identifier(name)}")
            self.extend(retyped)
        sent = self._incoming(INCOMING, columns, rows)
        self._begin()
        deleted = int(value(self.cursor, f"select count(*) from {self.sql}"))
        count = self._insert("overwrite into", columns)
        return Written(inserted=count, deleted=deleted, bytes=sent, rows=count)

    def record(self, position: Position) -> None:
        self._begin()
        self._write(position, self.position)

    def end(self, how: str) -> None:
        """Commit or roll back, if a transaction was begun."""
        if self.in_transaction:
            self.in_transaction = False
            self.cursor.execute(how)

    def _begin(self) -> None:
        if not self.in_transaction:
            self.cursor.execute("begin")
            self.in_transaction = True

    def _run(self, statement: str) -> int:
        """Run a statement; the rows that it changed."""
        self.cursor.execute(statement)
        return int(self.cursor.rowcount or 0)

    def _create(self, columns: Sequence[Column]) -> None:
        declared = ", ".join(f"{identifier(column.name)} {column.declared}" for column in columns)
        self.cursor.execute(f"create table {self.sql} ({declared})")

    def _insert(self, into: str, columns: Sequence[Column]) -> int:
        listed = ", ".join(identifier(column.name) for column in columns)
        return self._run(f"insert {into} {self.sql} ({listed}) select {listed} from {identifier(INCOMING)}")

    def _incoming(self, name: str, columns: Sequence[Column], rows: Lines) -> int:
        """Bring rows into a temporary table; the bytes that were put into the stage."""
        place, sent, count = f"@{STAGE}/{uuid4().hex}", 0, 0
        self.cursor.execute(f"create temporary stage if not exists {STAGE}")
        with TemporaryDirectory(prefix="export-") as folder:
            for number, lines in enumerate(_grouped(rows)):
                file = Path(folder) / f"{number}.parquet"
                pq.write_table(pa.table({"line": lines}), file, compression="snappy")
                count, sent = count + len(lines), sent + file.stat().st_size
                self.cursor.execute(f"put 'file://{file}' {place} auto_compress=false")
                file.unlink()
        raw = f"{name}_lines"
        self.cursor.execute(f"create temporary table {identifier(raw)} (line varchar)")
        if count:
            self.cursor.execute(
                f"copy into {identifier(raw)} (line) from (select $1:line::varchar from {place}) "
                "file_format = (type = parquet)"
            )
        found = int(value(self.cursor, f"select count(*) from {identifier(raw)}"))
        if found != count:
            raise TransientError(f"{count:,} rows were sent to Snowflake, and {found:,} came. Nothing was changed.")
        typed = ", ".join(
            f"{_value(place, column)} as {identifier(column.name)}" for place, column in enumerate(columns)
        )
        parsed = f"(select parse_json(line) as line from {identifier(raw)})"
        self.cursor.execute(f"create temporary table {identifier(name)} as select {typed} from {parsed}")
        return sent

    def _write(self, position: Position, before: Position | None) -> None:
        """Keep the position where it is as it was read, or anew."""
        positions = identifier(POSITIONS)
        now = (*values_of(position),)
        if self.position is None:
            holes = ", ".join(["%s"] * len(now))
            self.cursor.execute(f"insert into {positions} ({POSITION}, exported_at) values ({holes}, sysdate())", now)
        else:
            ours = before or self.position
            settings = ", ".join(f"{name} = %s" for name in POSITION.split(", "))
            found = self.cursor.execute(
                f"update {positions} set {settings}, exported_at = sysdate() where table_name = %s and source_id = %s "
                "and coalesce(snapshot, -1) = %s and lakehouse = %s and export = %s",
                (
                    *now,
                    self.table,
                    ours.source_id,
                    -1 if ours.snapshot is None else ours.snapshot,
                    ours.lakehouse,
                    ours.export,
                ),
            )
            if found.rowcount != 1:
                raise TransientError(
                    f"{self.table} was exported to Snowflake by another at the same time. Nothing was changed."
                )
        self.position = position


def _kind(described: str) -> str:
    """A type as DESCRIBE gives it, without the lengths and precisions that no column here declares."""
    return described if described.startswith("NUMBER") else described.partition("(")[0]


def _value(place: int, column: Column) -> str:
    text = f"line:c{place}::varchar"
    if column.declared == "VARIANT":
        return f"parse_json({text})"
    return f"to_binary({text}, 'HEX')" if column.declared == "BINARY" else f"{text}::{column.declared}"


def _grouped(rows: Lines) -> Iterator[pa.ChunkedArray]:
    """The rows of one file after the other."""
    group: list[pa.Array] = []
    for batch in rows:
        group.append(batch)
        if sum(each.nbytes for each in group) >= FILE_BYTES:
            yield pa.chunked_array(group)
            group = []
    if group:
        yield pa.chunked_array(group)
