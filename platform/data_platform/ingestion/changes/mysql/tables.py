"""Tables of MySQL and MariaDB as they are now: which columns are read of them, and the key by which their first copy is
cut into stretches. What the log says of their columns is in `images`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.mysql.connection import Connection
from data_platform.ingestion.sql.dialects.mysql import backquote, described_column, text_literal
from data_platform.ingestion.sql.dialects.session import Column, checked_names, known
from data_platform.ingestion.sql.source import SqlTable

ORDERED = frozenset({"integer", "decimal", "date", "timestamp", "timestamptz", "text"})
"""Kinds of columns whose values are ordered alike in a statement and as constants."""


KINDS = ("BASE TABLE", "SYSTEM VERSIONED")
"""Kinds of tables whose rows are in the log."""


@dataclass(frozen=True)
class KeyColumn:
    """A column of the primary key. Its values are kept as text; the hexadecimal digits of bytes."""

    name: str
    kind: str
    charset: str = ""
    collation: str = ""

    @property
    def select(self) -> str:
        """The SQL of a value as text."""
        return f"hex({backquote(self.name)})" if self.kind == "binary" else f"cast({backquote(self.name)} as char)"

    def literal(self, text: str) -> str:
        """The SQL of a value, which compares as the column does."""
        if self.kind in ("integer", "decimal"):
            return text
        if self.kind == "binary":
            return f"x'{text}'"
        if self.kind == "text":
            return f"(convert({text_literal(text)} using {self.charset}) collate {self.collation})"
        return f"cast({text_literal(text)} as {'date' if self.kind == 'date' else 'datetime(6)'})"


@dataclass(frozen=True)
class SourceTable:
    """A table of the source under its name in the platform, and as the server has it. `columns` are those that are
    read, none if the table is not there any more; `declared` the types of all; `key` the columns by which it is copied
    in stretches, none if it is copied as a piece; `cascades` say which foreign keys change it without the log, `ends`
    is the column that says until when a version of a row was one, of a table that keeps them and names it."""

    name: str
    schema: str
    table: str
    options: SqlTable
    columns: tuple[Column, ...] = ()
    declared: Mapping[str, str] | None = None
    key: tuple[KeyColumn, ...] = ()
    engine: str = ""
    cascades: tuple[str, ...] = ()
    ends: str = ""

    @property
    def relation(self) -> str:
        return backquote(self.schema, self.table)

    def takes(self, column: str) -> bool:
        """Whether a column of this name is read."""
        return self.options.columns is None or column in self.options.columns

    def pick(self, columns: Sequence[Column]) -> list[Column]:
        """The columns that are read of those there are, as text where that is asked for."""
        chosen = [
            replace(column, type=pa.string(), select=f"cast({backquote(column.name)} as char)", kind=None)
            if column.name in self.options.as_text
            else column
            for column in columns
            if self.takes(column.name)
        ]
        checked_names(chosen, self.relation)
        return chosen


def source_table(connection: Connection, name: str, options: SqlTable) -> SourceTable:
    """A table as it is now; without columns if there is none. Raises PlatformError for one whose changes the log does
    not have, or that lacks what the options name."""
    wanted = options.table or name
    candidates = [(connection.database, wanted)]
    if "." in wanted:
        schema, _, table = wanted.partition(".")
        candidates.append((schema, table))
    for schema, table in candidates:
        at = f"table_schema = {text_literal(schema)} and table_name = {text_literal(table)}"
        rows = connection.rows(f"select table_name, table_type, engine from information_schema.tables where {at}")
        if rows:
            found, kind, engine = (value or "" for value in rows[0])
            if kind not in KINDS:
                raise PlatformError(
                    f"Table {name}: {schema}.{found} is a {kind.lower()}, whose changes the binary log does not "
                    "have as rows of it. Take the tables that it is made of, or read it by a cursor."
                )
            return _described(connection, SourceTable(name, schema, found, options, engine=engine), at)
    schema, table = candidates[-1]
    return SourceTable(name, schema, table, options)


def missing(connection: Connection, table: SourceTable) -> PlatformError:
    """What to raise for a table that is not there and was never read."""
    rows = connection.rows(
        "select table_schema, table_name from information_schema.tables where table_schema not in "
        "('information_schema', 'mysql', 'performance_schema', 'sys') order by 1, 2"
    )
    there = [str(name) if schema == connection.database else f"{schema}.{name}" for schema, name in rows]
    wanted = table.options.table or table.name
    return PlatformError(f"There is no table {wanted} in {connection.where}. {known('table', wanted, there)}")


def _described(connection: Connection, table: SourceTable, at: str) -> SourceTable:
    rows = connection.table(
        "select column_name as n, column_type as t, data_type as d, is_nullable as o, column_key as k, "
        "numeric_precision as p, numeric_scale as s, character_set_name as charset, collation_name as collation, "
        "generation_expression as made "
        f"from information_schema.columns where {at} order by ordinal_position"
    )
    texts = [{name: value or "" for name, value in row.items()} for row in rows]
    columns = [described_column(row) for row in texts]
    there = [column.name for column in columns]
    for named in (*(table.options.columns or ()), *table.options.as_text):
        if named not in there:
            raise PlatformError(
                f"Table {table.name} has no column {named} in the source. {known('column', named, there)}"
            )
    declared = {row["n"]: row["d"].lower() for row in texts}
    collations = {row["n"]: (row["charset"], row["collation"]) for row in texts}
    key = _key(connection, {column.name: column for column in columns}, collations, at)
    ends = next((row for row in texts if row["made"].upper() == "ROW END"), None)
    if ends is not None and ends["d"].lower() != "timestamp":
        raise PlatformError(
            f"Table {table.name}: {table.schema}.{table.table} keeps its versions by transactions ({ends['n']} is "
            f"{ends['t']}), of which the log does not have the rows. Read it by a cursor, in a source of its own."
        )
    private = {*table.options.mask, *table.options.mask_within, *table.options.as_text}
    if any(column.name in private for column in key):
        key = ()
    table = replace(table, declared=declared, key=key, cascades=_cascades(connection, table))
    table = replace(table, ends=ends["n"] if ends is not None else "")
    return replace(table, columns=tuple(table.pick(columns)))


def _key(
    connection: Connection, columns: Mapping[str, Column], collations: Mapping[str, tuple[str, str]], at: str
) -> tuple[KeyColumn, ...]:
    """The columns of the primary key in its order, if all of them are ordered as constants are."""
    rows = connection.rows(
        f"select column_name from information_schema.statistics where {at} and index_name = 'PRIMARY' "
        "order by seq_in_index"
    )
    found = []
    for (name,) in rows:
        column = columns[str(name)]
        kind = "binary" if pa.types.is_binary(column.type) else column.kind
        if kind != "binary" and kind not in ORDERED:
            return ()
        found.append(KeyColumn(column.name, kind, *collations[column.name]))
    return tuple(found)


def _cascades(connection: Connection, table: SourceTable) -> tuple[str, ...]:
    """Foreign keys by which the server deletes or changes rows of the table without a word of it in the log."""
    silent = "('CASCADE', 'SET NULL', 'SET DEFAULT')"
    rows = connection.rows(
        "select constraint_name, referenced_table_name, delete_rule, update_rule from "
        f"information_schema.referential_constraints where constraint_schema = {text_literal(table.schema)} and "
        f"table_name = {text_literal(table.table)} and (delete_rule in {silent} or update_rule in {silent})"
    )
    return tuple(
        f"{constraint} (to {parent}, on delete {(on_delete or '').lower()}, on update {(on_update or '').lower()})"
        for constraint, parent, on_delete, on_update in rows
    )
