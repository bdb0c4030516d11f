"""The tables whose changes are read: what the server says of each, and which cannot be read by its log. What is made at
the server is in `slot`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.options import require_named_once
from data_platform.ingestion.changes.postgresql.server import Server
from data_platform.ingestion.sql.dialects import Session
from data_platform.ingestion.sql.source import SqlTable
from data_platform.lakehouse.sql import literal

FOUND = """
select c.oid, n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind,
    c.relpersistence::text as persistence, c.relreplident::text as identity,
    array(select a.attname::text from pg_index i join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey)
        where i.indrelid = c.oid and case c.relreplident when 'i' then i.indisreplident
            when 'd' then i.indisprimary and i.indimmediate else false end) as identity_columns,
    array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and a.attgenerated = 's'
        and not a.attisdropped) as stored,
    array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and a.attgenerated = 'v'
        and not a.attisdropped) as virtual,
    array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
        as columns,
    array(select inhrelid::regclass::text from pg_inherits where inhparent = c.oid and c.relkind = 'r' order by 1)
        as heirs
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = {}::regclass
"""

KEY = """
select a.attname::text as name
from pg_index i cross join unnest(i.indkey::int2[]) with ordinality as k(number, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
where i.indrelid = {}::regclass and {} and k.place <= i.indnkeyatts order by k.place
"""

IDENTITY = {
    "d": "has no primary key (or one that is deferrable), and its REPLICA IDENTITY is DEFAULT",
    "n": "has REPLICA IDENTITY NOTHING",
    "i": "has a REPLICA IDENTITY of an index that is gone",
}

KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence"}


@dataclass(frozen=True)
class LoggedTable:
    """A table at the server, under the name that it has here. `relation` is its quoted name there, `key` the columns
    that tell its rows apart in the log (of its primary key, or of the index that is its replica identity), in the order
    of their index, `row_key` the columns whose change makes another row of a row. `unlogged`
    are columns that are never in the log (computed when they are read), `stored` those that are if it is asked for.
    `heirs` are tables that inherit from it, whose rows it shows and the log gives under their own names."""

    name: str
    relation: str
    oid: int
    key: tuple[str, ...]
    row_key: tuple[str, ...]
    stored: tuple[str, ...]
    unlogged: tuple[str, ...]
    options: SqlTable
    heirs: tuple[str, ...] = ()
    is_partitioned: bool = False


def logged_tables(server: Server, session: Session, tables: Mapping[str, SqlTable]) -> list[LoggedTable]:
    """What the server says of tables. Raises PlatformError for one whose changes cannot be read: before anything is
    made, since of a published table that says nothing of its rows' identity, the server refuses UPDATE and DELETE."""
    found = [_logged(server, session, name, options) for name, options in tables.items()]
    require_named_once({table.name: (table.oid, table.relation) for table in found})
    return found


def _logged(server: Server, session: Session, name: str, options: SqlTable) -> LoggedTable:
    relation = session.relation(options.table or name)
    row = server.row(FOUND.format(literal(relation)))
    shown = f"Table {name} ({row['schema']}.{row['name']})"
    if row["kind"] not in ("r", "p"):
        raise PlatformError(
            f"{shown} is {KINDS.get(row['kind'], 'no table')}, of which the log says nothing. Nothing was made at the "
            "source. Read the tables that it is made of, or read it without `changes`, in a source of its own."
        )
    if row["persistence"] != "p":
        raise PlatformError(
            f"{shown} is {'unlogged' if row['persistence'] == 'u' else 'temporary'}: its changes are in no log. "
            "Nothing was made at the source. Read it without `changes`, in a source of its own."
        )
    _require_identity(shown, row, options)
    there = row["columns"]
    if any(column in there for column in options.key):
        row_key = [column for column in options.key if column in there]
    else:
        row_key = []
    by_index = "i.indisreplident" if row["identity"] == "i" else "i.indisprimary"
    key = tuple(each["name"] for each in server.rows(KEY.format(literal(relation), by_index)))
    return LoggedTable(
        name,
        relation,
        int(row["oid"]),
        key,
        tuple(dict.fromkeys([*key, *row_key])),
        tuple(row["stored"]),
        tuple(row["virtual"]),
        options,
        tuple(row["heirs"]),
        row["kind"] == "p",
    )


def require_no_heirs(tables: Sequence[LoggedTable]) -> None:
    """Raise PlatformError for a table that others inherit from: its first copy would have their rows, of which the log
    says nothing under its name."""
    for table in tables:
        if table.heirs:
            raise PlatformError(
                f"Table {table.name} ({table.relation}) has tables that inherit from it ({', '.join(table.heirs)}): "
                "reading it gives their rows as well, and the log gives them under their own names. Nothing was made "
                "at the source. Take the tables that inherit, or read it without `changes`, in a source of its own."
            )


PARTITIONS = """
select t.relid::int8::text as oid, t.relid::regclass::text as name, c.relfilenode::int8::text as file,
    i.xmin is distinct from y.xmin as was_attached
from pg_partition_tree({}) t join pg_class c on c.oid = t.relid join pg_type y on y.oid = c.reltype
    join pg_inherits i on i.inhrelid = t.relid
where t.isleaf and t.level > 0
"""


@dataclass(frozen=True)
class Partition:
    """A partition that holds rows: where these lie, and whether it was a table of its own before."""

    name: str
    file: str
    was_attached: bool


def partitions(server: Server, table: LoggedTable) -> dict[str, Partition]:
    """The partitions of a table that hold rows, by their numbers."""
    rows = server.rows(PARTITIONS.format(table.oid))
    return {row["oid"]: Partition(row["name"], row["file"], row["was_attached"]) for row in rows}


def _require_identity(shown: str, row: Mapping[str, Any], options: SqlTable) -> None:
    if row["identity"] == "f":
        return
    if not row["identity_columns"]:
        raise PlatformError(
            f"{shown} {IDENTITY[row['identity']]}: once its changes were published, the server would refuse every "
            "UPDATE and DELETE of it, the application's own included. Nothing was made at the source. Give it a "
            f"primary key, or: ALTER TABLE {row['schema']}.{row['name']} REPLICA IDENTITY FULL (its log then repeats "
            "the whole old row)."
        )
    unknown = [name for name in options.key if name in row["columns"] and name not in row["identity_columns"]]
    if unknown:
        raise PlatformError(
            f"{shown}: its `key` has the column {', '.join(unknown)}, which the log does not give of a deleted row "
            f"(it gives {', '.join(row['identity_columns'])}): deletes could not be followed. Nothing was made at the "
            "source. Take those columns for the `key`, or: "
            f"ALTER TABLE {row['schema']}.{row['name']} REPLICA IDENTITY FULL."
        )
