"""The first copy of tables: each in the order of its primary key, in one snapshot for all, resumable after every batch.
What is done with the log meanwhile is `log`'s work; what a copy has seen, `copied`'s.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.postgresql.copied import ENTRY, Copied, Snapshot
from data_platform.ingestion.changes.postgresql.place import from_lsn
from data_platform.ingestion.changes.postgresql.tables import LoggedTable
from data_platform.ingestion.source import BATCH_ROWS, Batch, Position
from data_platform.ingestion.sql.dialects.postgresql import PostgresqlSession
from data_platform.ingestion.sql.dialects.session import Column
from data_platform.ingestion.sql.reach import schema_of, selected
from data_platform.ingestion.sql.source import BATCH_BYTES, batches, columns_to_read
from data_platform.lakehouse.sql import literal, quote

CHANGES = pa.schema(
    [
        ("_operation", pa.string()),
        ("_order", pa.int64()),
        ("_committed_at", pa.timestamp("us", "UTC")),
        ("_unchanged", pa.list_(pa.string())),
    ]
)
"""The columns that every change has besides those of its table."""

KEY = "/key"
"""What the names of the columns begin with that hold a key as text: no column of a table is called so here."""

UNLIMITED = """
select count(set_config(name, '0', true)) as value from pg_settings
where name in ('transaction_timeout', 'idle_in_transaction_session_timeout')
"""

FILES = """
select coalesce(string_agg(pg_relation_filenode(relid)::text, ',' order by relid), pg_relation_filenode({0})::text, '')
    as value
from pg_partition_tree({0}) where isleaf
"""


def with_changes(operation: str, order: int, rows: pa.Table) -> pa.Table:
    """Rows as changes of one operation and order, of an unknown time."""
    count = rows.num_rows
    columns = [
        pa.repeat(pa.scalar(operation), count),
        pa.repeat(pa.scalar(order, pa.int64()), count),
        pa.nulls(count, CHANGES.field("_committed_at").type),
        pa.nulls(count, CHANGES.field("_unchanged").type),
    ]
    return pa.table([*columns, *rows.columns], schema=pa.schema([*CHANGES, *rows.schema]))


def copy(
    session: PostgresqlSession,
    tables: Sequence[LoggedTable],
    copied: dict[str, Copied],
    columns: Mapping[str, Sequence[str]],
    rows: Mapping[str, str | None],
    order: int,
    base: Position,
    *,
    anew: Collection[str],
) -> Iterator[Batch]:
    """Copy what `copied` says is missing of tables, and bring that up to date. `columns` are those that the log gives
    of each, `rows` the condition of those that it gives, if it does not give all. A copy that begins has `order` + 2,
    and a truncate before it if it is one of `anew`, of which older rows may have landed; `base` are entries that every
    position has. Ends with all tables complete."""
    # It is one transaction for as long as the copy takes, in which nothing is asked while a batch is committed.
    session.scalar(UNLIMITED, pa.int64())
    # The first statement of a session that is one transaction has taken its snapshot.
    snapshot = Snapshot.parse(str(session.scalar("select pg_current_snapshot()::text as value", pa.string())))
    until = from_lsn(str(session.scalar("select pg_current_wal_insert_lsn()::text as value", pa.string())))
    for table in tables:
        state = copied[table.name]
        file = str(session.scalar(FILES.format(f"{literal(table.relation)}::regclass"), pa.string()))
        file = f"{file} {', '.join(table.key)}"
        if state.stretches and state.file != file:
            # It was truncated or rewritten since, or has another key: what was copied of it and the rest do not fit.
            state, anew = Copied(table.oid, state.member), {*anew, table.name}
        found = [
            column
            for column in columns_to_read(session, table.name, table.relation, table.options)
            if column.name in columns[table.name]
        ]
        if not state.stretches:
            state = replace(state, file=file, order=order + 2)
            if table.name in anew:
                yield Batch(table.name, with_changes("truncate", order + 1, _one_null(found)), "changes", None)
        yield from _copy(session, table, found, rows[table.name], copied, state, snapshot, until, base)


def _one_null(columns: Sequence[Column]) -> pa.Table:
    schema = schema_of(list(columns))
    return pa.table([pa.nulls(1, field.type) for field in schema], schema=schema)


def _copy(
    session: PostgresqlSession,
    table: LoggedTable,
    columns: list[Column],
    condition: str | None,
    copied: dict[str, Copied],
    state: Copied,
    snapshot: Snapshot,
    until: int,
    base: Position,
) -> Iterator[Batch]:
    entry = ENTRY + table.name
    every = {column.name: column for column in session.columns(table.relation)}
    if gone := [name for name in table.key if name not in every]:
        raise PlatformError(f"Table {table.name}: its primary key was altered ({gone[0]} is gone). Try again.")
    key = [every[name] for name in table.key]
    statement = f"select {', '.join([selected(session, columns), *_key_texts(key)])} from {table.relation}"
    conditions = [] if condition is None else [f"({condition})"]
    if state.last is not None:
        values = (f"{literal(text)}::{column.declared}" for text, column in zip(state.last, key, strict=True))
        names = ", ".join(session.quote(column.name) for column in key)
        conditions.append(f"({names}) > ({', '.join(values)})")
    if conditions:
        statement += f" where {' and '.join(conditions)}"
    if key:
        statement += f" order by {', '.join(session.quote(column.name) for column in key)}"
    texts = [f"{KEY}{number}" for number in range(len(key))]
    schema = schema_of(columns)
    streamed = pa.schema([*schema, *((name, pa.string()) for name in texts)])
    held = streamed.empty_table()
    for rows in batches(session.stream(statement, streamed), streamed, BATCH_ROWS, BATCH_BYTES):
        if held.num_rows:
            position = None
            if key:
                state = state.reaching([held[name][-1].as_py() for name in texts], snapshot, until)
                copied[table.name] = state
                position = {**base, entry: str(state)}
            yield Batch(table.name, with_changes("insert", state.order, held.select(schema.names)), "changes", position)
        held = rows
    state = state.reaching(None, snapshot, until)
    copied[table.name] = state
    rows = with_changes("insert", state.order, held.select(schema.names))
    yield Batch(table.name, rows, "changes", {**base, entry: str(state)})


def _key_texts(key: Sequence[Column]) -> list[str]:
    return [f"cast({quote(column.name)} as text) as {quote(f'{KEY}{number}')}" for number, column in enumerate(key)]
