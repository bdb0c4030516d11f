"""PostgreSQL, streamed by ADBC: one COPY in binary, record batches as they come, memory bounded by a batch.
One transaction, read-only and repeatable: all statements of a session see one snapshot, and nothing is written.

What Arrow, Parquet or DuckDB have no equal for is cast to text by PostgreSQL itself, since the driver hands it on as
opaque bytes: intervals (ISO 8601), JSON, UUIDs, enums, ranges, addresses, ...; arrays and composites become JSON.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

import adbc_driver_manager
import adbc_driver_postgresql.dbapi
import pyarrow as pa
import pyarrow.compute as pc

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.sql.dialects.session import (
    Column,
    Kind,
    NoPlaceError,
    ServerSession,
    Session,
    Timeouts,
    number_parts,
    one_line,
    opened,
    valid_text,
)
from data_platform.ingestion.sql.elsewhere import is_redshift
from data_platform.lakehouse.catalog import PORT
from data_platform.lakehouse.failures import BROKEN
from data_platform.lakehouse.settings import redact_url
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.watchdog import connect_seconds, libpq_options

SETTINGS = {
    "application_name": "data_platform",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
}
"""Of the transaction only, so that a pooler between us and the server hands nothing of them to others."""

PLAIN: dict[str, tuple[pa.DataType, Kind | None]] = {
    "bool": (pa.bool_(), None),
    "int2": (pa.int16(), "integer"),
    "int4": (pa.int32(), "integer"),
    "int8": (pa.int64(), "integer"),
    "float4": (pa.float32(), "float"),
    "float8": (pa.float64(), "float"),
    "date": (pa.date32(), "date"),
    "time": (pa.time64("us"), None),
    "timestamp": (pa.timestamp("us"), "timestamp"),
    "timestamptz": (pa.timestamp("us", "UTC"), "timestamptz"),
    "bytea": (pa.binary(), None),
    "text": (pa.string(), "text"),
    "varchar": (pa.string(), "text"),
    "bpchar": (pa.string(), "text"),
}
"""Types that arrive as they are."""

COLUMNS = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as declared, not a.attnotnull as nullable,
    coalesce(a.attnum = any(p.conkey), false) as primary_key, b.typname::text as base, b.typtype::text as class,
    (b.typelem <> 0 and b.typlen = -1 and b.typcategory = 'A') as is_array,
    case when t.typtype = 'd' then t.typtypmod else a.atttypmod end as modifier
from pg_attribute a join pg_type t on t.oid = a.atttypid
    join pg_type b on b.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end
    left join pg_constraint p on p.conrelid = a.attrelid and p.contype = 'p'
where a.attrelid = {relation}::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum
"""

TABLES = """
select case when n.nspname = 'public' then c.relname else n.nspname || '.' || c.relname end as name
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname not in ('information_schema', 'pg_catalog', 'pg_toast')
    and n.nspname !~ '^pg_(temp|toast)' and not c.relispartition order by n.nspname <> 'public', 1
"""

WRITES = """
select concat_ws(':', sum(s.n_tup_ins), sum(s.n_tup_upd), sum(s.n_tup_del), sum(pg_relation_filenode(s.relid)::bigint))
    as value
from pg_stat_all_tables s
where s.relid in (select {relation}::regclass union select relid from pg_partition_tree({relation}::regclass))
    and not pg_is_in_recovery()
having count(*) > 0
"""
"""Counters of the rows written to a table and its partitions, and the files they lie in (TRUNCATE makes new ones)."""

BLOCKS = """
with recursive held (oid) as (
    select {relation}::regclass::oid union select i.inhrelid from pg_inherits i join held h on h.oid = i.inhparent
)
select max(pg_relation_size(c.oid) / current_setting('block_size')::bigint) as value
from held h join pg_class c on c.oid = h.oid left join pg_am a on a.oid = c.relam
where c.relkind <> 'p'
having bool_and(c.relkind in ('r', 'm') and a.amname = 'heap')
    and current_setting('server_version_num')::int >= 140000
"""
"""The blocks of the largest of a table and its partitions; nothing if any of them is not stored in such."""

LAG = """
select case
    when not pg_is_in_recovery() then 'primary'
    when pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()
        and exists (select from pg_stat_wal_receiver where coalesce(status, 'streaming') = 'streaming') then '0'
    else extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::text
end as value
"""
"""The seconds that a replica is behind. Who may not look at the receiver (pg_monitor) sees only that it is there."""

EPOCH = 946_684_800_000_000
"""Microseconds from 1970 to 2000, where PostgreSQL begins to count; the driver adds it to infinity as to any value."""

INFINITE = {
    (2**63 - 1 + EPOCH) - 2**64: 2**63 - 1,
    -(2**63) + EPOCH: -(2**63) + 1,
}
"""What the driver makes of `infinity` and `-infinity`, and the value that DuckDB knows them by."""
EARLIEST = -211_813_488_000_000_000 + EPOCH
"""The first timestamp that PostgreSQL knows, 4713 BC."""

INFINITE_DATES = {(2**31 - 1 + 10_957) - 2**32: 2**31 - 1, -(2**31) + 10_957: -(2**31) + 1}


CATALOG_SINCE = "typarray"
"""A column of the catalog that the driver reads first, which PostgreSQL has had since 8.3, and Redshift has not."""


class PostgresqlSession(ServerSession):
    """A transaction on a PostgreSQL server, `postgresql://user:password@host:port/database`."""

    product = "PostgreSQL"
    nulls_first = " nulls first"
    LITERALS: ClassVar[dict[Kind, str]] = {
        "integer": "bigint",
        "decimal": "numeric",
        "float": "double precision",
        "date": "date",
        "timestamp": "timestamp",
        "timestamptz": "timestamptz",
        "text": 'text collate "C"',
    }

    def __init__(self, url: str, timeouts: Timeouts, *, withholds: bool = False, snapshot: str | None = None) -> None:
        """`snapshot` is the name of one that another session exports: this one sees the same."""
        # What the URL says of it comes first, and of one second libpq makes two.
        connect = max(2, connect_seconds(url, timeouts.connect.total_seconds()))
        limits = replace(timeouts, connect=timedelta(seconds=connect))
        super().__init__(url, limits, PORT, reconnects=False, withholds=withholds)
        try:
            with self.watchdog.connecting(connect):
                self._connection = adbc_driver_postgresql.dbapi.connect(libpq_options(url, connect))
        except adbc_driver_manager.Error as error:
            self.watchdog.close()
            if CATALOG_SINCE in str(error):
                raise is_redshift(url) from None
            raise self.overdue() or unreachable(url, limits, str(error)) from None
        try:
            settings = {**SETTINGS, "statement_timeout": str(timeouts.statement // timedelta(milliseconds=1))}
            self._run("set transaction isolation level repeatable read read only")
            if snapshot is not None:
                self._run(f"set transaction snapshot {literal(snapshot)}")
            calls = (f"set_config({literal(name)}, {literal(value)}, true)" for name, value in settings.items())
            self.scalar(f"select concat({', '.join(calls)}) as value", pa.string())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        # A statement in the middle of its rows is given up with the connection; there is nothing to commit.
        try:
            with self._reporting():
                self._connection.close()
        finally:
            self.watchdog.close()

    def tables(self) -> list[str]:
        return [row["name"] for row in self._rows(TABLES, pa.schema([("name", pa.string())]))]

    def relation(self, table: str) -> str:
        candidates = [quote(table)] + ([quote(*table.split(".", 1))] if "." in table else [])
        for candidate in candidates:
            if self.scalar(f"select to_regclass({literal(candidate)})::text as value", pa.string()) is not None:
                return candidate
        raise self.missing_table(table)

    def columns(self, relation: str, cursor: str | None = None) -> list[Column]:  # noqa: ARG002 - types are known
        text, flag = pa.string(), pa.bool_()
        shape = {"name": text, "declared": text, "nullable": flag, "primary_key": flag, "base": text, "class": text}
        schema = pa.schema([*shape.items(), ("is_array", flag), ("modifier", pa.int32())])
        return [column_of(row) for row in self._rows(COLUMNS.format(relation=literal(relation)), schema)]

    def _stream(self, statement: str, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        self.watchdog.begin()
        cursor = self._connection.cursor()
        try:
            with self._reporting():
                cursor.execute(statement)
                batches = cursor.fetch_record_batch()
            while True:
                with self._reporting():
                    batch = next(batches, None)
                    if batch is None:
                        break
                    batch = _conform(batch, schema)
                yield batch
        except BaseException:
            with suppress(PlatformError), self._reporting():  # what went wrong first is what must be reported
                cursor.close()
            raise
        with self._reporting():
            cursor.close()

    def quote(self, *parts: str) -> str:
        return quote(*parts)

    def literal(self, kind: Kind, text: str) -> str:
        return f"{literal(text)}::{self.LITERALS[kind]}"

    def text(self, column: Column) -> str | None:
        value, kind = column.select, column.type
        if value.endswith("::bpchar"):
            return f"case when {value} is not null then concat({value}) end"  # a cast would take the blanks away
        if pa.types.is_floating(kind):
            return f"('x' || encode(float8send(({value})::float8), 'hex'))::bit(64)::text"
        return f"encode({value}, 'hex')" if pa.types.is_binary(kind) else f"({value})::text"

    def digest(self, texts: Sequence[str]) -> str | None:
        return f"('x' || left(md5(convert_to({self.concat(texts)}, 'UTF8')), 15))::bit(60)::bigint"

    def hint(self, relation: str) -> str | None:
        """The statistics collector's counters of rows inserted, updated and deleted. They lag behind a commit by about
        a second. None for views, foreign tables and on a standby, which counts nothing."""
        found: str | None = self.scalar(WRITES.format(relation=literal(relation)), pa.string())
        return found

    def peers(self, count: int) -> list[Session]:
        """Sessions that import the snapshot of this one."""
        snapshot = self.scalar("select pg_export_snapshot() as value", pa.string())
        one = partial(PostgresqlSession, self.url, self.timeouts, withholds=self.withholds, snapshot=snapshot)
        return list(opened(one, count))

    def parts(self, relation: str, count: int) -> list[str] | None:
        """By the blocks of the table's file, of PostgreSQL 14 and later, which finds them without a scan. Until the end
        of the transaction nobody can write the table anew, so a row stays in its block."""
        self.hold([relation])
        blocks = self.scalar(BLOCKS.format(relation=literal(relation)), pa.int64())
        if blocks is None:
            return None
        return number_parts(0, max(0, blocks - 1), count, "ctid", lambda block: f"'({block},0)'::tid")

    def hold(self, relations: Sequence[str]) -> None:
        """Keeps them from being dropped, truncated or written anew until the end of the transaction."""
        for relation in relations:
            self.scalar(f"select 1::bigint as value from {relation} limit 0", pa.int64())

    def lag(self) -> timedelta | None:
        """Nothing, while the receiver of the log runs and all that it received is replayed; else the age of the last
        transaction that was replayed, by the clock of the replica."""
        found: str | None = self.scalar(LAG, pa.string())
        if found == "primary":
            raise PlatformError(
                f"PostgreSQL at {redact_url(self.url)} is no replica (pg_is_in_recovery() is false): it may have been "
                "promoted. Correct `replica` in the options of the source, or take it out."
            )
        return None if found is None else timedelta(seconds=max(0.0, float(found)))

    def place(self) -> str:
        return str(self.scalar("select pg_current_wal_insert_lsn()::text as value", pa.string()))

    def has_reached(self, place: str) -> bool:
        statement = f"select coalesce(pg_last_wal_replay_lsn() >= {literal(place)}::pg_lsn, false) as value"
        return bool(self.scalar(statement, pa.bool_()))

    def finite(self, column: Column) -> str | None:
        if column.kind in ("date", "timestamp", "timestamptz"):
            return f"isfinite({column.order})"
        if column.kind in ("float", "decimal"):
            return f"{column.order} not in ('NaN', 'Infinity', '-Infinity')"
        return None

    def _run(self, statement: str) -> None:
        with self._reporting(), self._connection.cursor() as cursor:
            cursor.execute(statement)

    def _rows(self, statement: str, schema: pa.Schema) -> list[dict[str, Any]]:
        return [row for batch in self.stream(statement, schema) for row in batch.to_pylist()]

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Wait for the server as long as `timeouts` say, and turn what it and the driver report into PlatformError."""
        try:
            with self.waited_for():
                yield
        except adbc_driver_manager.Error as error:
            raise self._refused(str(error), error.sqlstate) from None
        except (OSError, pa.ArrowException) as error:
            raise self._refused(str(error), None) from None

    def _refused(self, reason: str, state: str | None) -> PlatformError:
        return refused(self.url, self.said(reason, state), reason, state, withholds=self.withholds)


def unreachable(url: str, timeouts: Timeouts, reason: str) -> PlatformError:
    """What to raise for a server that took no connection; `reason` is what the driver says of it."""
    parts = urlsplit(url)
    where = f"{parts.hostname or 'the local socket'}:{parts.port or PORT}"
    reason = one_line(reason).removeprefix("IO: [libpq] Failed to connect: ")
    if "timeout expired" in reason:
        return TransientError(
            f"PostgreSQL at {where} ({redact_url(url)}) did not answer within "
            f"{timeouts.connect.total_seconds():g} s, the limit `connect_timeout`. Check that "
            "the server runs, that host and port are right, and that no firewall is between; if it is only slow, "
            "raise `connect_timeout` of the source in its defs.yaml."
        )
    if "password" in reason or "authentication" in reason:
        advice = "Check the user and the password in the URL, and the server's pg_hba.conf."
    elif "does not exist" in reason:
        advice = "Check the name of the database and of the user in the URL."
    else:
        advice = "Check that the server runs, that host and port are right, and that no firewall is between."
    return PlatformError(f"Cannot connect to PostgreSQL at {where} ({redact_url(url)}): {reason}. {advice}")


def refused(url: str, said: str, reason: str, state: str | None, *, withholds: bool) -> PlatformError:
    """What to raise for a statement that failed: `reason` is what the server says of it, `said` as much of it as may
    be shown, `state` the SQLSTATE."""
    where = f"PostgreSQL at {redact_url(url)}"
    if state == "42501" or "permission denied" in reason:
        return PlatformError(
            f"{where} forbids it: {said}. Grant the account SELECT on the table, and USAGE on its schema."
        )
    if state == "57014" or "statement timeout" in reason:
        return PlatformError(f"{where} gave up: {said}. Raise `statement_timeout`, or index the cursor column.")
    if state == "40001" or "conflict with recovery" in reason:
        return TransientError(
            f"{where}, a replica, ended the statement to go on replaying its log: {said}. What was committed stays; "
            "the next load goes on from it. If it happens often, raise `max_standby_streaming_delay` of the replica, "
            "or set `hot_standby_feedback = on`."
        )
    if any(sign in reason.lower() for sign in BROKEN):
        return TransientError(
            f"The connection to {where} broke: {said}. What was committed stays; the next load goes on from it."
        )
    where_else = " Look into the server's log for it." if withholds else ""
    return PlatformError(f"{where} could not answer: {said}.{where_else}")


def column_of(row: dict[str, Any]) -> Column:
    """A column as a row of COLUMNS describes it."""
    name, base = quote(row["name"]), row["base"]
    kind: Kind | None
    if row["class"] == "b" and base in PLAIN:
        arrow, kind = PLAIN[base]
        # The cast undoes a domain, which the driver takes for an unknown type.
        select = f"{name}::{base}"
    elif base == "numeric":
        arrow, kind = _decimal(row["modifier"]), "decimal"
        select = f"{name}::text"
    elif base in ("oid", "xid"):
        arrow, kind, select = pa.int64(), "integer", f"{name}::text::bigint"
    elif base == "money":
        # Text of money follows the server's locale; the number does not.
        arrow, kind, select = pa.string(), None, f"{name}::numeric::text"
    elif row["is_array"] or row["class"] == "c":
        arrow, kind, select = pa.string(), None, f"to_json({name})::text"
    else:
        arrow, kind, select = pa.string(), "text" if base in ("uuid", "citext", "name") else None, f"{name}::text"
    order = f'{select} collate "C"' if kind == "text" else name
    return Column(row["name"], row["declared"], row["nullable"], row["primary_key"], arrow, select, order, kind)


def _decimal(modifier: int) -> pa.DataType:
    """The decimal that `numeric(precision, scale)` declares, or text: without a scale there is no bound."""
    if modifier < 0:
        return pa.string()
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, (modifier - 4) & 0x7FF
    scale = (scale ^ 1024) - 1024
    return pa.decimal128(precision, scale) if 0 <= scale <= precision <= 38 else pa.string()


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [_array(array, field) for array, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(array: pa.Array, field: pa.Field) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_string(field.type):
        return valid_text(array)
    if pa.types.is_decimal(field.type):
        try:
            return array.cast(field.type)
        except pa.ArrowInvalid:
            raise NoPlaceError(field.name, f"a value that is no {field.type}, NaN for one") from None
    if pa.types.is_timestamp(field.type):
        numbers = _replaced(array.cast(pa.int64()), INFINITE)
        _require_earlier(field.name, numbers)
        return numbers.cast(field.type)
    if pa.types.is_date32(field.type):
        return _replaced(array.cast(pa.int32()), INFINITE_DATES).cast(field.type)
    return array.cast(field.type)


def _require_earlier(name: str, numbers: pa.Array) -> None:
    """Raise NoPlaceError if a timestamp is of the last thirty years that PostgreSQL knows: the driver makes one before
    the first of it."""
    finite = pc.and_(pc.less(numbers, EARLIEST), pc.greater(numbers, min(INFINITE.values())))
    if pc.any(finite).as_py():
        raise NoPlaceError(name, "a time after the year 294246")


def _replaced(array: pa.Array, values: dict[int, int]) -> pa.Array:
    lowest = pc.min(array).as_py()
    if lowest is None or lowest > max(values):
        return array
    for wrong, right in values.items():
        array = pc.if_else(pc.equal(array, pa.scalar(wrong, array.type)), pa.scalar(right, array.type), array)
    return array
