"""A look at a database that is to be read by its log of changes: what it must allow and does not yet, which tables
cannot be read that way, and what the first load will make there. Nothing is made by looking.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from data_platform.drafting.databases import for_changes
from data_platform.drafting.profile import UNUSED, Profile, TableProfile
from data_platform.errors import PlatformError
from data_platform.ingestion.changes.options import Changes
from data_platform.ingestion.sql.source import TIMEOUTS, SqlTable


@dataclass(frozen=True)
class Look:
    """What a database says: `notes` on what it is like and what will be made there, `missing` on what has to be done
    first, and why single tables cannot be read by the log."""

    notes: Sequence[str]
    missing: Sequence[str]
    refused: dict[str, str]


def with_changes(profile: Profile, address: str, label: str) -> Profile:
    """The profile of a database as one that is read by its log; `label` makes the names of what is made there. Raises
    PlatformError for a database that has no log, or of which no table can be read by it."""
    scheme = address.split("://")[0] if "://" in address else "sqlite"
    looks: dict[str, Callable[[str, Sequence[TableProfile], str], Look]] = {
        "postgresql": look_at_postgresql,
        "postgres": look_at_postgresql,
        "mysql": look_at_mysql,
    }
    if scheme not in looks:
        raise PlatformError(
            f"--changes reads the log of PostgreSQL, MariaDB and MySQL, and a database {scheme}:// has none. Leave it "
            "out: tables are then read by a cursor, or as a whole."
        )
    look = looks[scheme](address, profile.tables, label)
    tables = [for_changes(table) for table in profile.tables if table.name not in look.refused]
    if not tables:
        raise PlatformError(" ".join(look.refused.values()))
    return replace(
        profile,
        tables=tables,
        attributes={**profile.attributes, "changes": True},
        failures={**profile.failures, **look.refused},
        notes=look.notes,
        missing=look.missing,
    )


def look_at_postgresql(url: str, tables: Sequence[TableProfile], label: str) -> Look:
    """The log level, the rights of the account, and the identity of the tables' rows."""
    from data_platform.ingestion.changes.postgresql import slot as slots
    from data_platform.ingestion.changes.postgresql.place import place_of
    from data_platform.ingestion.changes.postgresql.server import Server
    from data_platform.ingestion.changes.postgresql.tables import LoggedTable, logged_tables
    from data_platform.ingestion.sql.dialects.postgresql import PostgresqlSession

    place = place_of(Changes(), label)
    logged: list[LoggedTable] = []
    refused: dict[str, str] = {}
    with Server(url, TIMEOUTS, withholds=False) as server:
        missing = _reasons(
            lambda: slots.require_ready(server),
            lambda: slots.require_rights(server, place),
        )
        with PostgresqlSession(url, TIMEOUTS) as session:
            for table in tables:
                try:
                    logged += logged_tables(server, session, {table.name: _options(table)})
                except PlatformError as error:
                    refused[table.name] = str(error)
        relations = [table.relation for table in logged]
        others = server.rows(
            "select c.oid::regclass::text as name from pg_class c where c.oid = any(%s::oid[]) "
            "and not pg_has_role(c.relowner, 'usage')",
            [[table.oid for table in logged]],
        )
        row = server.row(
            "select current_user::text as account, current_database()::text as database, "
            "has_database_privilege(current_database(), 'create') as may_create, current_setting('wal_level') as level"
        )
    if others or not row["may_create"]:
        lacks = [] if row["may_create"] else [f"CREATE on the database {row['database']}"]
        lacks += [f"the ownership of {', '.join(other['name'] for other in others)}"] if others else []
        missing.append(
            f"The account {row['account']} cannot make the publication: it lacks {' and '.join(lacks)}. Have the "
            f"owner say: CREATE PUBLICATION {place.publication} FOR TABLE {', '.join(relations)} WITH "
            f"(publish_via_partition_root = true); and write `changes: {{publication: {place.publication}}}`."
        )
    made = f"the replication slot {place.slot} and a publication of that name, of {len(logged)} tables"
    notes = [
        f"PostgreSQL: wal_level = {row['level']}, read as {row['account']}",
        f"the first load makes {made}; from then on the server keeps its log until it was read",
        "dp changes list shows both, dp changes drop removes them",
    ]
    return Look(notes, missing, refused)


def look_at_mysql(url: str, tables: Sequence[TableProfile], label: str) -> Look:
    """The form of the binary log, the rights of the account, and the engines of the tables."""
    from data_platform.ingestion.changes.mysql.connection import Connection
    from data_platform.ingestion.changes.mysql.copy import require_snapshots
    from data_platform.ingestion.changes.mysql.log import Log
    from data_platform.ingestion.changes.mysql.server import end_of_log, examined
    from data_platform.ingestion.changes.mysql.source import MysqlChanges
    from data_platform.ingestion.changes.mysql.tables import source_table

    refused: dict[str, str] = {}
    reader = MysqlChanges(url, {}, Changes(), label).server_id

    def readable() -> None:
        with Connection(url, TIMEOUTS, withholds=False) as other:
            next(Log(other, reader, end_of_log(other)).events(), None)

    with Connection(url, TIMEOUTS, withholds=False) as connection:
        missing = _reasons(lambda: examined(connection), readable)
        rows = connection.rows(
            "show global variables where variable_name in ('log_bin', 'binlog_format', 'binlog_row_image', "
            "'binlog_row_metadata')"
        )
        for table in tables:
            try:
                require_snapshots(connection, [source_table(connection, table.name, _options(table))])
            except PlatformError as error:
                refused[table.name] = str(error)
        product = "MariaDB" if connection.is_mariadb else "MySQL"
    notes = [
        f"{product}: {', '.join(f'{name} = {value}' for name, value in rows)}",
        f"nothing is made at the server; it knows the reader as a replica with the server_id {reader}",
    ]
    return Look(notes, missing, refused)


def _options(table: TableProfile) -> SqlTable:
    return SqlTable.model_validate({**UNUSED, **for_changes(table).place, "key": list(table.key)})


def _reasons(*looks: Callable[[], object]) -> list[str]:
    """Why some of the looks fail, each once."""
    found = []
    for look in looks:
        try:
            look()
        except PlatformError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))
