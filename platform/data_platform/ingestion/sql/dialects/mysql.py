"""MySQL and MariaDB, read by DuckDB's scanner with `mysql_query`: the server runs the statement, by its indexes.
One connection, read-only; the session's time zone is UTC.

Each column is cast by DuckDB, so that types come from the declaration and not from what the driver makes of a result.
Dates that are none (0000-00-00, 2024-00-10) are refused by name, unless the column is read as text.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.sql.dialects.session import (
    Column,
    Kind,
    NoPlaceError,
    ServerSession,
    Timeouts,
    one_line,
)
from data_platform.lakehouse.connect import database
from data_platform.lakehouse.settings import redact_url, settings_from_environment
from data_platform.lakehouse.sql import literal, quote

PORT = 3306
"""MySQL's own, where a URL names none."""

DRIVER_ROWS = 65_536

INTEGERS = {"tinyint": 8, "smallint": 16, "mediumint": 32, "int": 32, "year": 16}
NO_DATE = re.compile(r"no date: ([0-9a-f]+) ([0-9a-f]+) <([^>]*)>")

LOST = re.compile(
    r"gone away|Lost connection|Server shutdown in progress|Connection was killed|^INTERRUPT Error: Interrupted|"
    r'Failed to fetch result row for MySQL query ".*":$'
)
"""What DuckDB says of a connection that broke: of one that breaks among the rows of an answer it gives no reason, and
where several of its threads wait, the others were interrupted."""

TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext")


class MysqlSession(ServerSession):
    """A connection to a MySQL or MariaDB server, `mysql://user:password@host:port/database`."""

    product = "MySQL"

    def __init__(self, url: str, timeouts: Timeouts, *, withholds: bool = False) -> None:
        # It keeps a pool; what is said of the connection holds no value.
        super().__init__(url, timeouts, PORT, reconnects=True)
        parts = urlsplit(url)
        self.schema = unquote(parts.path.lstrip("/"))
        if not self.schema:
            raise PlatformError(f"{redact_url(url)} names no database. Write mysql://user@host:port/database.")
        options = {
            "host": parts.hostname or "127.0.0.1",
            "port": str(parts.port or PORT),
            "database": self.schema,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
        }
        self._is_attached = False
        self._connection = database(settings_from_environment())
        try:
            with self._reporting():
                self._connection.execute("LOAD mysql_scanner")
                self._connection.execute("SET preserve_insertion_order = true")
                self._connection.execute("SET mysql_session_time_zone = '+00:00'")
                self._connection.execute("SET mysql_tinyint1_as_boolean = false")
                self._connection.execute("SET mysql_bit1_as_boolean = false")
                limit = timeouts.statement // timedelta(milliseconds=1)
                self._connection.execute("SET mysql_query_timeout_enabled = true")
                self._connection.execute(f"SET mysql_query_timeout_min_ms = {limit}")
                self._connection.execute(f"SET mysql_query_timeout_max_ms = {limit}")
                secret = ", ".join(f"{name} {literal(value)}" for name, value in options.items())
                self._connection.execute(f"CREATE SECRET source (TYPE mysql, {secret})")
            with self._reporting(), self.watchdog.connecting(timeouts.connect.total_seconds()):
                self._connection.execute("ATTACH '' AS source (TYPE mysql, SECRET source, READ_ONLY)")
            if (overdue := self.overdue()) is not None:  # the driver may go on without what it asked for
                raise overdue
        except BaseException:
            self.close()
            raise
        self._is_attached = True
        self.withholds = withholds

    def close(self) -> None:
        try:
            with self.waited_for():
                self._connection.close()
        finally:
            self.watchdog.close()

    def tables(self) -> list[str]:
        rows = self._rows(
            "select table_schema as s, table_name as n from information_schema.tables where table_schema not in "
            "('information_schema', 'mysql', 'performance_schema', 'sys') order by 1, 2",
            pa.schema([("s", pa.string()), ("n", pa.string())]),
        )
        inside = [row["n"] for row in rows if row["s"] == self.schema]
        return inside + [f"{row['s']}.{row['n']}" for row in rows if row["s"] != self.schema]

    def relation(self, table: str) -> str:
        candidates = [(self.schema, table)] + ([tuple(table.split(".", 1))] if "." in table else [])
        for schema, name in candidates:
            found = self.scalar(
                "select table_name as value from information_schema.tables "
                f"where table_schema = {text_literal(schema)} and table_name = {text_literal(name)}",
                pa.string(),
            )
            if found is not None:
                return self.quote(schema, found)
        raise self.missing_table(table)

    def columns(self, relation: str, cursor: str | None = None) -> list[Column]:  # noqa: ARG002 - types are known
        schema, table = (part.replace("``", "`") for part in relation[1:-1].split("`.`"))
        text = pa.string()
        rows = self._rows(
            "select column_name as n, column_type as t, data_type as d, is_nullable as o, column_key as k, "
            "cast(numeric_precision as char) as p, cast(numeric_scale as char) as s from information_schema.columns "
            f"where table_schema = {text_literal(schema)} and table_name = {text_literal(table)} "
            "order by ordinal_position",
            pa.schema([(name, text) for name in "ntdokps"]),
        )
        return [described_column(row) for row in rows]

    def _stream(self, statement: str, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        self.watchdog.begin()
        with self._reporting(), self.waited_for():
            reader = self._connection.execute(query(statement, schema)).to_arrow_reader(DRIVER_ROWS)
        while True:
            with self._reporting(), self.waited_for():
                batch = next(reader, None)
                if batch is None:
                    return
                arrays = [array.cast(field.type) for array, field in zip(batch.columns, schema, strict=True)]
                batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield batch

    def text(self, column: Column) -> str | None:
        value, kind = column.select, column.type
        if pa.types.is_floating(kind):
            return None
        if pa.types.is_timestamp(kind):
            # DuckDB writes no zeros at the end of a fraction.
            digits = f"date_format({value}, '%Y-%m-%d %H:%i:%s.%f')"
            trimmed = f"trim(trailing '.' from trim(trailing '0' from {digits}))"
            return f"concat({trimmed}, '+00')" if kind.tz is not None else trimmed
        return f"lower(hex({value}))" if pa.types.is_binary(kind) else f"convert({value} using utf8mb4)"

    def shown(self, column: Column) -> str:
        return f"cast({self.quote(column.name)} as char)"

    def digest(self, texts: Sequence[str]) -> str | None:
        return f"cast(conv(left(md5({self.concat(texts)}), 15), 16, 10) as unsigned)"

    def divide(self, number: str, divisor: int) -> str:
        return f"({number}) div {divisor}"

    def length(self, text: str) -> str:
        return f"cast(length({text}) as char)"

    def concat(self, texts: Sequence[str]) -> str:
        return f"concat({', '.join(texts)})"

    def hint(self, relation: str) -> str | None:
        """When the table was last written to, to the second; null for views, and until the first write after the server
        started. MySQL 8 itself keeps this for a day unless `information_schema_stats_expiry` is 0."""
        schema, table = (part.replace("``", "`") for part in relation[1:-1].split("`.`"))
        found: str | None = self.scalar(
            # A write within the same second would leave the time as it is: a fresh time is marked as one.
            "select concat(update_time, if(update_time > now() - interval 2 second, '?', '')) as value "
            f"from information_schema.tables where table_schema = {text_literal(schema)} "
            f"and table_name = {text_literal(table)}",
            pa.string(),
        )
        return found

    def lag(self) -> timedelta | None:
        """What the server says itself: the age of the event that it replays, by the clocks of both."""
        try:
            rows = self._status("SHOW REPLICA STATUS")
        except TransientError:
            raise
        except PlatformError as error:
            try:
                rows = self._status("SHOW SLAVE STATUS")  # MySQL before 8.0.22, MariaDB before 10.5
            except TransientError:
                raise
            except PlatformError:
                raise PlatformError(
                    f"{error} It is asked how far it is behind: grant the account REPLICA MONITOR (MariaDB) or "
                    "REPLICATION CLIENT (MySQL) on *.* of the replica."
                ) from None
        if not rows:
            raise PlatformError(
                f"MySQL at {redact_url(self.url)} is no replica: it may have been promoted. Correct `replica` in the "
                "options of the source, or take it out."
            )
        seconds = [
            None if "Yes" not in (row.get("Replica_IO_Running"), row.get("Slave_IO_Running")) else row.get(name)
            for row in rows
            for name in ("Seconds_Behind_Source", "Seconds_Behind_Master")
            if name in row
        ]
        return None if None in seconds else timedelta(seconds=max(int(one) for one in seconds if one is not None))

    def _status(self, statement: str) -> list[dict[str, Any]]:
        with self._reporting(), self.waited_for():
            found = self._connection.execute(f"SELECT * FROM mysql_query('source', {literal(statement)})")
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def place(self) -> str:
        """The GTID of each domain that MariaDB's log was last written to. MySQL is refused: there is none here to try
        what it has instead."""
        if not self._is_mariadb():
            return super().place()
        found: str | None = self.scalar("select cast(@@gtid_binlog_pos as char) as value", pa.string())
        if not found:
            raise PlatformError(
                f"MariaDB at {redact_url(self.url)} writes no binary log: nothing tells how far its replica has come. "
                "Take `when_late: primary` out: loads then wait for the replica."
            )
        return found

    def has_reached(self, place: str) -> bool:
        found = self.scalar("select cast(@@gtid_slave_pos as char) as value", pa.string()) or ""
        shown = _by_domain(found)
        return all(shown.get(domain, -1) >= number for domain, number in _by_domain(place).items())

    def _is_mariadb(self) -> bool:
        return "mariadb" in str(self.scalar("select cast(version() as char) as value", pa.string())).lower()

    def quote(self, *parts: str) -> str:
        return backquote(*parts)

    def literal(self, kind: Kind, text: str) -> str:
        if kind in ("integer", "decimal", "float"):
            return text
        if kind == "timestamptz":
            return text_literal(text.removesuffix("+00:00").replace("T", " "))
        return f"cast({text_literal(text)} as binary)" if kind == "text" else text_literal(text.replace("T", " "))

    def _rows(self, statement: str, schema: pa.Schema) -> list[dict[str, Any]]:
        return [row for batch in self.stream(statement, schema) for row in batch.to_pylist()]

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what DuckDB and the server report into PlatformError."""
        try:
            yield
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            if (overdue := self.overdue()) is not None:
                raise overdue from None
            reason = one_line(str(error))
        else:
            return
        if (no_date := NO_DATE.search(reason)) is not None:
            column, kind = (bytes.fromhex(no_date[part]).decode() for part in (1, 2))
            shown = "a value" if self.withholds else no_date[3]
            raise NoPlaceError(column, f"{shown}, which is no {kind}")
        where, said = f"MySQL at {redact_url(self.url)}", self.said(reason)
        refused = "Access denied for user" in reason or "Unknown database" in reason
        # The driver opens further connections for later statements: a server that had answered is gone then.
        is_lost = LOST.search(reason) is not None or (self._is_attached and "Failed to connect" in reason)
        if refused or ("Failed to connect" in reason and not is_lost):
            raise PlatformError(
                f"Cannot connect to {where}: {said}. Check that the server runs, and host, port, user, password and "
                "database in the URL."
            )
        if "command denied" in reason:
            raise PlatformError(f"{where} forbids it: {said}. Grant the account SELECT on the table.")
        if is_lost:
            raise TransientError(
                f"The connection to {where} broke: {said}. What was committed stays; the next load goes on from it."
            )
        raise PlatformError(f"{where} could not answer: {said}")


def backquote(*parts: str) -> str:
    """Quote a dotted identifier as MySQL does."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in parts)


def text_literal(text: str) -> str:
    """A MySQL string by its bytes: neither quotes nor backslashes mean anything in it, whatever the SQL mode."""
    return f"_utf8mb4 x'{text.encode().hex()}'" if text else "''"


def _by_domain(gtids: str) -> dict[str, int]:
    """The number of the last transaction of each domain, of `0-1-270,7-3-12`."""
    parts = [one.strip().split("-") for one in gtids.split(",") if one.strip()]
    return {domain: int(number) for domain, _, number in parts}


def query(statement: str, schema: pa.Schema) -> str:
    """The DuckDB statement that runs a MySQL statement and casts what comes to the types of `schema`."""
    columns = ", ".join(f"{cast_of(field)} AS {quote(field.name)}" for field in schema)
    return f"SELECT {columns} FROM mysql_query('source', {literal(statement)})"


def cast_of(field: pa.Field) -> str:
    """What comes, in the type of a field; of a date that is none an error that `NO_DATE` finds, with the name of the
    column and of its type in hexadecimal digits."""
    name, kind = quote(field.name), _duckdb_type(field.type)
    if not pa.types.is_temporal(field.type):
        return f"CAST({name} AS {kind})"
    said = literal(f"no date: {field.name.encode().hex()} {kind.lower().encode().hex()} <")
    failure = f"CAST(error({said} || {name} || '>') AS {kind})"
    return f"coalesce(TRY_CAST({name} AS {kind}), CASE WHEN {name} IS NOT NULL THEN {failure} END)"


def _duckdb_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    return {
        pa.int16(): "SMALLINT",
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.float32(): "FLOAT",
        pa.float64(): "DOUBLE",
        pa.date32(): "DATE",
        pa.timestamp("us"): "TIMESTAMP",
        pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
        pa.binary(): "BLOB",
        pa.string(): "VARCHAR",
    }[kind]


def described_column(row: Mapping[str, Any]) -> Column:
    """A column as `information_schema.columns` describes it: name n, column_type t, data_type d, is_nullable o,
    column_key k, numeric_precision p and numeric_scale s."""
    name = backquote(row["n"])
    arrow, select, kind = _reading(name, row)
    order = f"cast({name} as binary)" if kind == "text" else name
    return Column(row["n"], row["t"], row["o"] == "YES", row["k"] == "PRI", arrow, select, order, kind)


def _reading(name: str, row: Mapping[str, Any]) -> tuple[pa.DataType, str, Kind | None]:
    """The Arrow type of a column, the SQL that yields it, and its kind as a cursor."""
    data = row["d"].lower()
    if data in INTEGERS or data == "bigint":
        bits = INTEGERS.get(data, 64) * (2 if "unsigned" in row["t"] else 1)
        if bits > 64:
            return pa.decimal128(20, 0), f"cast({name} as char)", "integer"
        return (pa.int64() if bits > 32 else pa.int32() if bits > 16 else pa.int16()), name, "integer"
    if data == "bit":
        return pa.decimal128(20, 0), f"cast({name} + 0 as char)", None
    if data == "decimal":
        precision, scale = int(row["p"]), int(row["s"])
        return (pa.decimal128(precision, scale) if precision <= 38 else pa.string()), f"cast({name} as char)", "decimal"
    if data in ("float", "double"):
        return (pa.float32() if data == "float" else pa.float64()), name, "float"
    if data == "date":
        return pa.date32(), f"cast({name} as char)", "date"
    if data in ("datetime", "timestamp"):
        zone = "UTC" if data == "timestamp" else None
        return pa.timestamp("us", zone), f"cast({name} as char)", "timestamptz" if zone else "timestamp"
    if "binary" in data or "blob" in data:
        return pa.binary(), name, None
    if data in TEXTS:
        return pa.string(), f"cast({name} as char)", "text"
    if data in ("geometry", "point", "linestring", "polygon") or data.startswith(
        ("multi", "geometrycollection", "geomcollection")
    ):
        return pa.string(), f"ST_AsText({name})", None
    return pa.string(), f"cast({name} as char)", None
