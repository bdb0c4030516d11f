"""What a cursor reaches: its options, and in SQL the column that is one, its highest value, the rows from a position
on. How its values are written is in `cursor`; what is done with the rows, in `source`.
"""

from datetime import timedelta
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field

from data_platform.errors import PlatformError
from data_platform.ingestion.sql.cursor import last_position, less, shape_of
from data_platform.ingestion.sql.dialects import Column, Session
from data_platform.ingestion.sql.dialects.session import COUNTED_ROWS
from data_platform.options import DurationText, Options, duration

CURSOR = "cursor"
"""The entry of the position of a table that is read by a cursor."""

NOTHING = ""
"""The position of a table of which no row with a cursor value was read yet."""


def _lag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a lag is a duration, such as 15m, or a number")
    return value if value is None or isinstance(value, int | float | timedelta) else duration(value)


class Cursor(Options):
    """The column that grows with each change of a row, and how far it may be trusted."""

    column: str = Field(min_length=1, description="Column of the source that is raised whenever a row is written.")
    lag: Annotated[
        timedelta | int | float | None, BeforeValidator(_lag, json_schema_input_type=DurationText | int | float | None)
    ] = Field(
        default=None,
        description="How late a row may appear behind its cursor value: a duration for times (15m if nothing is said, "
        "0 for none), a number for numbers (none if nothing is said). That stretch is read again by each load; rows "
        "that are as they were are dropped. What comes later than that, deletes and changed keys a cursor cannot see: "
        "`reconcile` finds them.",
    )
    nulls: Literal["include", "exclude", "refuse"] = Field(
        default="include",
        description="Rows without a cursor value: read them each time, leave them out, or refuse to load.",
    )


def newest(session: Session, relation: str, columns: list[Column], cursor: Cursor) -> dict[str, str]:
    """The position of the highest cursor value; empty if no row has one."""
    column = cursor_column(columns, cursor, relation, session)
    for batch in session.stream(session.highest(column, relation), schema_of([column])):
        if batch.num_rows > batch.column(0).null_count:
            assert column.kind is not None  # noqa: S101 - cursor_column refuses a column that cannot be one
            position = last_position(pa.chunked_array([batch.column(0)]), column.kind)
            return {} if position is None else {CURSOR: position}
    if cursor.nulls == "include" and column.nullable:
        some = session.scalar(f"select 1 as value from {relation} limit 1", pa.int64())
        return {} if some is None else {CURSOR: NOTHING}
    return {}


def cursor_column(columns: list[Column], cursor: Cursor, relation: str, session: Session) -> Column:
    for column in columns:
        if column.name == cursor.column:
            if column.kind is None:
                raise PlatformError(
                    f"Column {column.name} of {relation} has the type {column.declared}, which cannot be a cursor: "
                    "take a number, a date, a time stamp or text."
                )
            return column
    typed = ", ".join(f"{column.name} ({column.declared or 'no type'})" for column in columns)
    raise PlatformError(
        f"{relation} in {session.product} has no column {cursor.column} to be the cursor. It has: {typed}. "
        "Name one that grows with every change, or leave `cursor` out to read the whole table each time."
    )


def new_rows(session: Session, relation: str, columns: list[Column], column: Column, cursor: Cursor, lower: str) -> str:
    """The statement: rows from `lower` on in the order of the cursor, and those without a value before them."""
    statement = f"select {selected(session, columns)} from {relation}"
    condition = reached(session, column, cursor, lower)
    statement += f" where {condition}" if condition is not None else ""
    with_nulls = column.nullable and cursor.nulls == "include"
    return statement + f" order by {column.order}" + (session.nulls_first if with_nulls else "")


def reached(session: Session, column: Column, cursor: Cursor, lower: str) -> str | None:
    """The condition on rows from `lower` on, those without a value among them if they are included; None if that is on
    none."""
    with_nulls = column.nullable and cursor.nulls == "include"
    if lower:
        assert column.kind is not None  # noqa: S101 - cursor_column refuses a column that cannot be one
        later = f"{column.order} >= {session.literal(column.kind, lower)}"
        return f"{later} or {column.order} is null" if with_nulls else later
    return f"{column.order} is not null" if column.nullable and not with_nulls else None


def count_reached(
    session: Session, relation: str, columns: list[Column], cursor: Cursor, position: str, table: str
) -> str:
    """How many rows a load would read that goes on from `position`, as text; COUNTED_ROWS if there are more."""
    column = cursor_column(columns, cursor, relation, session)
    assert column.kind is not None  # noqa: S101 - cursor_column refuses a column that cannot be one
    condition = reached(session, column, cursor, less(position, column.kind, cursor.lag, f"Table {table}"))
    where = f" where {condition}" if condition is not None else ""
    rows = f"select 1 as one from {relation}{where} limit {COUNTED_ROWS}"
    return str(session.scalar(f"select count(*) as value from ({rows}) as counted", pa.int64()))


def refuse_nulls(session: Session, relation: str, column: Column, table: str) -> None:
    count = session.scalar(f"select count(*) as value from {relation} where {column.order} is null", pa.int64())
    if count:
        raise PlatformError(
            f"Table {table}: {count:,} rows have no {column.name}, the cursor, and `nulls: refuse` forbids it. "
            "Nothing was read. Fill the column in the source, or set `nulls` to include or exclude."
        )


def require_one_shape(session: Session, relation: str, column: Column, table: str, after: str) -> None:
    """Raise PlatformError if a text cursor has values of two shapes, whose order as texts means nothing: those that
    sort below the position would never be read. It takes a scan of the column, as comparing texts does."""

    def one(where: str) -> str | None:
        value: str | None = session.scalar(
            f"select {column.select} as value from {relation} where {column.order} is not null{where} limit 1",
            pa.string(),
        )
        return value

    example = after or one("")
    if example is None:
        return
    unlike = [f"{column.order} not like {session.literal('text', one)}" for one in shape_of(example).patterns]
    other = one("".join(f" and {condition}" for condition in unlike))
    if other is not None:
        raise PlatformError(
            f"Table {table}: the cursor {column.name} is text of two shapes, such as {example[:60]!r} and "
            f"{other[:60]!r}, which compared as text are in no order: rows would be missed. Nothing was read. Write "
            "all values in one shape in the source (numbers with leading zeros), take another cursor, give it its type "
            "in a view, or leave `cursor` out to read the whole table each time."
        )


def schema_of(columns: list[Column]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


def selected(session: Session, columns: list[Column]) -> str:
    return ", ".join(f"{column.select} as {session.quote(column.name)}" for column in columns)
