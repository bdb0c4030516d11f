"""Snowflake, whose results are Arrow as its own connector hands them on, one downloaded part after the other. Only
SELECT and SHOW are sent; each statement sees the tables as they are when it begins.

A part has the narrowest type that holds its values, so each is cast to what the column declares. A name in capital
letters, as Snowflake makes of all that is written without quotes, is given in small letters; any other stays as it is.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import pyarrow as pa
from snowflake.connector import errors

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.sql.dialects.session import Column, Kind, NoPlaceError, Session, Timeouts
from data_platform.ingestion.sql.dialects.snowflake_account import account_of, broken, connect, given, identifier
from data_platform.lakehouse.sql import quote

MISSING, NO_WAREHOUSE, TOO_LONG, CANCELLED = (2003, 2043), 606, 630, 604

SETTINGS = {
    # An account or a user may have set a limit, which would cut a table off without a word.
    "ROWS_PER_RESULTSET": 0,
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "ARROW",
    # MB of a part of a result: some are downloaded ahead.
    "CLIENT_RESULT_CHUNK_SIZE": 64,
    "ABORT_DETACHED_QUERY": True,
    "USE_CACHED_RESULT": True,
    "DATE_OUTPUT_FORMAT": "YYYY-MM-DD",
    "TIME_OUTPUT_FORMAT": "HH24:MI:SS.FF9",
    "TIMESTAMP_NTZ_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF9",
    "TIMESTAMP_LTZ_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF9TZH:TZM",
    "TIMESTAMP_TZ_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF9TZH:TZM",
    "BINARY_OUTPUT_FORMAT": "HEX",
}
"""Of the session, beside its time zone, UTC: what others have set for the account decides nothing."""

TABLES = """
select table_schema as "s", table_name as "n" from {database}.information_schema.tables where {condition}
union
select table_schema as "s", table_name as "n" from {database}.information_schema.views where {condition}
order by 2
"""

COLUMNS = """
select column_name as "n", data_type as "t", is_nullable as "o", numeric_precision as "p", numeric_scale as "s",
    collation_name as "c"
from {database}.information_schema.columns where table_schema = {schema} and table_name = {table}
order by ordinal_position
"""

TABLE_TYPE = """
select table_type as "value" from {database}.information_schema.tables
where table_schema = {schema} and table_name = {table}
"""

ALTERED = """
select to_varchar(last_altered) || ':' || row_count || ':' || bytes as "value"
from {database}.information_schema.tables
where table_schema = {schema} and table_name = {table} and table_type = 'BASE TABLE'
"""

PLAIN: dict[str, tuple[pa.DataType, Kind | None]] = {
    "BOOLEAN": (pa.bool_(), None),
    "FLOAT": (pa.float64(), "float"),
    "DATE": (pa.date32(), "date"),
    "TIME": (pa.time64("us"), None),
    "TIMESTAMP_NTZ": (pa.timestamp("us"), "timestamp"),
    "TIMESTAMP_LTZ": (pa.timestamp("us", "UTC"), "timestamptz"),
    "TIMESTAMP_TZ": (pa.timestamp("us", "UTC"), "timestamptz"),
    "BINARY": (pa.binary(), None),
    "TEXT": (pa.string(), "text"),
}
"""Types that arrive as they are; times and instants lose what is finer than a microsecond."""

AS_TEXT = {
    "VARIANT": "to_json({})",
    "OBJECT": "to_json({}::variant)",
    "ARRAY": "to_json({}::variant)",
    "MAP": "to_json({}::variant)",
    "VECTOR": "to_json({}::array)",
    "GEOGRAPHY": "st_aswkt({})",
    "GEOMETRY": "st_aswkt({})",
}
"""How types that Arrow has no equal for are read as text; any other by to_varchar."""


class SnowflakeSession(Session):
    """A session of a Snowflake account, `snowflake://user:password@account/database/schema?warehouse=name`."""

    product = "Snowflake"
    nulls_first = " nulls first"
    enforces_keys = False
    LITERALS: ClassVar[dict[Kind, str]] = {
        "float": "float",
        "date": "date",
        "timestamp": "timestamp_ntz",
        "timestamptz": "timestamp_tz",
    }

    def __init__(self, url: str, timeouts: Timeouts, *, withholds: bool = False) -> None:
        super().__init__(url, withholds=withholds)
        self.account = account_of(url)
        self.database, self.schema = (quote_given(part) for part in self.account.path)
        limit = max(1, timeouts.statement // timedelta(seconds=1))
        with self._reporting():
            self._connection = connect(
                self.account,
                timeouts.connect.total_seconds(),
                timeouts.idle.total_seconds(),
                {**SETTINGS, "STATEMENT_TIMEOUT_IN_SECONDS": limit},
                # Decimals as such, not as floating-point numbers.
                arrow_number_to_decimal=True,
                client_prefetch_threads=2,
            )
        try:
            with self._reporting(), self._connection.cursor() as cursor:
                cursor.execute(f"use schema {quote(self.database, self.schema)}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()  # it reports nothing that goes wrong here

    def tables(self) -> list[str]:
        """Those of the schema that the URL names: an account may hold thousands, and each look at one costs."""
        return [given(name) for _, name in self._named(f"table_schema = {text_literal(self.schema)}")]

    def relation(self, table: str) -> str:
        candidates = [(self.schema, table)]
        if "." in table:
            schema, name = table.split(".", 1)
            candidates.append((quote_given(schema), name))
        for schema, name in candidates:
            names = sorted({name, quote_given(name)})
            either = ", ".join(text_literal(one) for one in names)
            found = self._named(f"table_schema = {text_literal(schema)} and table_name in ({either})")
            if found:
                # The one in capital letters, as without quotes, if there are both.
                return quote(self.database, *next((one for one in found if one[1] == quote_given(name)), found[0]))
        raise self.missing_table(table)

    def _named(self, condition: str) -> list[tuple[str, str]]:
        statement = TABLES.format(database=quote(self.database), condition=condition)
        shape = pa.schema([("s", pa.string()), ("n", pa.string())])
        return [(row["s"], row["n"]) for row in self._rows(statement, shape)]

    def columns(self, relation: str, cursor: str | None = None) -> list[Column]:  # noqa: ARG002 - types are known
        shape = pa.schema(
            [(name, pa.int64() if name in "ps" else pa.string()) for name in ("n", "t", "o", "p", "s", "c")]
        )
        rows = self._rows(COLUMNS.format(**place(relation)), shape)
        key = self._primary_key(relation)
        return [
            column_of(row, name, is_key=row["n"] in key)
            for row, name in zip(rows, names_of([row["n"] for row in rows]), strict=True)
        ]

    def _primary_key(self, relation: str) -> set[str]:
        """The columns of the key that is declared, which a table alone has."""
        if self.scalar(TABLE_TYPE.format(**place(relation)), pa.string()) != "BASE TABLE":
            return set()
        with self._reporting(), self._connection.cursor() as cursor:
            cursor.execute(f"show primary keys in table {relation}")
            names = [column.name for column in cursor.description]
            return {row[names.index("column_name")] for row in cursor.fetchall()}

    def _rows(self, statement: str, schema: pa.Schema) -> list[dict[str, Any]]:
        return [row for batch in self.stream(statement, schema) for row in batch.to_pylist()]

    def _stream(self, statement: str, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        cursor = self._connection.cursor()
        try:
            with self._reporting():
                cursor.execute(statement)
                parts = cursor.fetch_arrow_batches(force_microsecond_precision=True)
            while True:
                with self._reporting():
                    part = next(parts, None)
                    batches = [] if part is None else [_conform(batch, schema) for batch in part.to_batches()]
                if part is None:
                    return
                yield from batches
        finally:
            cursor.close()

    def quote(self, *parts: str) -> str:
        return quote(*parts)

    def literal(self, kind: Kind, text: str) -> str:
        if kind in ("integer", "decimal"):
            return text
        return f"{text_literal(text)}::{self.LITERALS[kind]}" if kind in self.LITERALS else text_literal(text)

    def shown(self, column: Column) -> str:
        return column.select if pa.types.is_string(column.type) else f"to_varchar({column.order})"

    def finite(self, column: Column) -> str | None:
        if column.kind == "float":
            return f"{column.order} not in ('NaN'::float, 'inf'::float, '-inf'::float)"
        return None

    def highest(self, column: Column, relation: str) -> str:
        """By max(), which Snowflake answers from what it keeps of each part of a table."""
        where = "" if (finite := self.finite(column)) is None else f" where {finite}"
        return f"select max({column.order}) as {self.quote(column.name)} from {relation}{where}"

    def hint(self, relation: str) -> str | None:
        """When the table was altered last, its rows and bytes. None for views and external tables."""
        found: str | None = self.scalar(ALTERED.format(**place(relation)), pa.string())
        return found

    def peers(self, count: int) -> list[Session]:  # noqa: ARG002 - there are none
        raise PlatformError(
            "`parallel` cannot be had of Snowflake: it runs a statement on all of its warehouse, and the parts of the "
            "result are downloaded ahead as they are. Take it out, and choose a larger warehouse if need be."
        )

    def hold(self, relations: Sequence[str]) -> None:  # noqa: ARG002 - it has no such view
        raise PlatformError(
            "`snapshot` cannot be had of Snowflake: each statement sees the tables as they are when it begins. Take "
            "it out, and read the tables one by one."
        )

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what Snowflake and the connector report into PlatformError."""
        try:
            yield
        except errors.Error as error:
            raise self._explained(error) from None
        except pa.ArrowException as error:
            raise PlatformError(f"{self.account.where} could not be read: {self.said(str(error))}") from None

    def _explained(self, error: errors.Error) -> PlatformError:
        afterwards = "What was committed stays; the next load goes on from it."
        if (lost := broken(error, self.account, afterwards)) is not None:
            return lost
        where, number = self.account.where, error.errno
        said = self.said(error.raw_msg or str(error.msg), error.sqlstate)
        if number == NO_WAREHOUSE:
            return PlatformError(
                f"{where} has no warehouse to run it: {said}. Name one in the URL by ?warehouse=name, and grant the "
                "role USAGE of it."
            )
        if number == TOO_LONG:
            return PlatformError(
                f"{where} gave up: {said}. Raise `statement_timeout`, read the table by a cursor, or choose a larger "
                "warehouse."
            )
        if number == CANCELLED:
            return TransientError(f"Somebody ended the statement on {where}: {said}. {afterwards}")
        if number in MISSING:
            return PlatformError(
                f"{where} does not show it: {said}. Check database and schema in the URL; the role needs USAGE of both "
                "and SELECT on the table."
            )
        return PlatformError(f"{where} could not answer: {said} (error {number})")


def quote_given(name: str) -> str:
    """The name in Snowflake of what is called so here."""
    return identifier(name)[1:-1].replace('""', '"')


def place(relation: str) -> dict[str, str]:
    """Where `information_schema` has a relation: the SQL of its database, and the literals of its schema and table."""
    database, schema, table = (part.replace('""', '"') for part in relation[1:-1].split('"."'))
    return {"database": quote(database), "schema": text_literal(schema), "table": text_literal(table)}


def names_of(stored: Sequence[str]) -> list[str]:
    """The names here of columns. Those that come to the same (`ID` and `id`) stay as they are."""
    names = [given(name) for name in stored]
    return [name if names.count(name) == 1 else as_stored for name, as_stored in zip(names, stored, strict=True)]


def text_literal(text: str) -> str:
    """A text in Snowflake's SQL, where a backslash begins an escape."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def column_of(row: Mapping[str, Any], name: str, *, is_key: bool) -> Column:
    """A column, to be called `name` here, as `information_schema.columns` describes it: column_name n, data_type t,
    is_nullable o, numeric_precision p, numeric_scale s and collation_name c."""
    sql, data = quote(row["n"]), row["t"]
    kind: Kind | None
    declared, select = data, sql
    if data == "NUMBER":
        precision, scale = int(row["p"]), int(row["s"])
        declared, kind = f"NUMBER({precision},{scale})", "decimal" if scale else "integer"
        arrow = pa.decimal128(precision, scale) if scale or precision > 18 else pa.int64()
    elif data in PLAIN:
        arrow, kind = PLAIN[data]
    else:
        arrow, kind, select = pa.string(), None, AS_TEXT.get(data, "to_varchar({})").format(sql)
    order = f"collate({sql}, 'utf8')" if row["c"] and kind == "text" else sql
    return Column(name, declared, row["o"] == "YES", is_key, arrow, select, order, kind)


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [_array(array, field) for array, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(array: pa.Array, field: pa.Field) -> pa.Array:
    kind = field.type
    if array.type == kind:
        return array
    if pa.types.is_time(kind):
        return array.cast(kind, safe=False)
    if pa.types.is_decimal(kind) and pa.types.is_integer(array.type):
        array = array.cast(pa.decimal128(38, 0))
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        raise NoPlaceError(field.name, f"a value that is no {kind}") from None
