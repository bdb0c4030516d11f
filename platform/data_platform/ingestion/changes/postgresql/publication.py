"""The publication at the server: which tables, columns and operations the log gives. The slot is in `slot`."""

from collections.abc import Sequence

import psycopg

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.postgresql.place import Place
from data_platform.ingestion.changes.postgresql.server import Server
from data_platform.ingestion.changes.postgresql.tables import LoggedTable
from data_platform.ingestion.sql.dialects.session import known
from data_platform.lakehouse.sql import quote

FILTERS_FROM = 150_000
"""The first release whose publications can leave out rows and columns."""

GENERATED_FROM = 180_000
"""The first release whose log can give generated columns."""

OPERATIONS = ("insert", "update", "delete", "truncate")

MEMBERS = """
select c.oid, p.oid as publication, coalesce(r.oid, 0) as member
from unnest(%s::oid[]) as c(oid) cross join pg_publication p
    left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = c.oid
where p.pubname = %s
"""


def publication_of(server: Server, place: Place) -> str | None:
    """The number of the publication; None if there is none. One that is made anew has another."""
    rows = server.rows("select oid::text as oid from pg_publication where pubname = %s", [place.publication])
    return str(rows[0]["oid"]) if rows else None


def options_of(server: Server, place: Place) -> str:
    """Text that is another once the options of the publication were set, be it that they were set back: the number of
    the transaction that wrote them. Which tables it has is not among them."""
    rows = server.rows("select xmin::text as written from pg_publication where pubname = %s", [place.publication])
    return str(rows[0]["written"]) if rows else ""


def members(server: Server, place: Place, tables: Sequence[LoggedTable]) -> dict[str, int]:
    """For each table the number of its membership in the publication: another once it was taken out and named again.
    0 where the publication is of all tables, or of a schema."""
    rows = server.rows(MEMBERS, [[table.oid for table in tables], place.publication])
    numbers = {int(row["oid"]): int(row["member"]) for row in rows}
    return {table.name: numbers[table.oid] for table in tables}


def ensure_publication(server: Server, place: Place, tables: Sequence[LoggedTable], version: int) -> None:
    """Make the publication of the tables, or bring ours to them and to all of their rows, columns and operations.
    Raises PlatformError if one that a person made lacks a table or an operation."""
    found = server.rows(
        "select puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot from pg_publication "
        "where pubname = %s",
        [place.publication],
    )
    name = quote(place.publication)
    options = f"publish = '{', '.join(OPERATIONS)}', publish_via_partition_root = true"
    if not found:
        if not place.publication_is_ours:
            raise PlatformError(
                f"There is no publication {place.publication} in the database, which `changes: publication:` names. "
                + known("publication", place.publication, publications(server))
                + " Leave it out to have one made."
            )
        generated = ", publish_generated_columns = stored" if version >= GENERATED_FROM else ""
        _make(
            server,
            place,
            f"create publication {name} for table {', '.join(table.relation for table in tables)} "
            f"with ({options}{generated})",
        )
        return
    if place.publication_is_ours and not (
        found[0]["pubviaroot"] and all(found[0][f"pub{operation}"] for operation in OPERATIONS)
    ):
        _make(server, place, f"alter publication {name} set ({options})")
    published = {
        int(row["oid"])
        for row in server.rows(
            "select c.oid from pg_publication_tables t join pg_namespace n on n.nspname = t.schemaname "
            "join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename where t.pubname = %s",
            [place.publication],
        )
    }
    if place.publication_is_ours and version >= FILTERS_FROM:
        partly = [int(row["oid"]) for row in server.rows(PARTLY, [place.publication])]
        if partly:
            # Published anew they have another number, by which they are known to be copied anew.
            _unpublish(server, place, partly)
            published -= {*partly}
    lacking = [table for table in tables if table.oid not in published]
    if not place.publication_is_ours:
        _require_published(place, found[0], lacking)
        return
    if lacking:
        _make(server, place, f"alter publication {name} add table {', '.join(table.relation for table in lacking)}")
    others = published - {table.oid for table in tables}
    if others:
        _unpublish(server, place, list(others))


PARTLY = """
select r.prrelid as oid from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
where p.pubname = %s and (r.prqual is not null or r.prattrs is not null)
"""


def _unpublish(server: Server, place: Place, tables: Sequence[int]) -> None:
    rows = server.rows("select oid::regclass::text as name from unnest(%s::oid[]) as oid", [list(tables)])
    names = ", ".join(row["name"] for row in rows)
    _make(server, place, f"alter publication {quote(place.publication)} drop table {names}")


def generated_columns(server: Server, place: Place, version: int) -> bool:
    """Whether the log gives generated columns that are stored."""
    if version < GENERATED_FROM:
        return False
    row = server.row("select pubgencols::text as kind from pg_publication where pubname = %s", [place.publication])
    return bool(row["kind"] == "s")


COLUMNS = """
select case when to_jsonb(t) -> 'attnames' is not null
    then array(select jsonb_array_elements_text(to_jsonb(t) -> 'attnames'))
    else array(select a.attname::text from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) end as columns
from pg_publication_tables t join pg_namespace n on n.nspname = t.schemaname
    join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
where t.pubname = %s and c.oid = %s
"""
"""Before release 15 a publication gives all columns, and does not name them."""


def published_columns(server: Server, place: Place, table: LoggedTable) -> list[str]:
    """The columns of a table that the publication gives."""
    return list(server.row(COLUMNS, [place.publication, table.oid])["columns"])


def published_rows(server: Server, place: Place, table: LoggedTable) -> str | None:
    """The SQL condition of the rows of a table that the publication gives; None if it gives all."""
    rows = server.rows(
        "select to_jsonb(t) ->> 'rowfilter' as condition from pg_publication_tables t "
        "join pg_namespace n on n.nspname = t.schemaname "
        "join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename where t.pubname = %s and c.oid = %s",
        [place.publication, table.oid],
    )
    return rows[0]["condition"] if rows else None


def publications(server: Server) -> list[str]:
    return [row["name"] for row in server.rows("select pubname::text as name from pg_publication order by 1")]


def _require_published(place: Place, row: dict[str, bool], lacking: Sequence[LoggedTable]) -> None:
    operations = [name for name in OPERATIONS if not row[f"pub{name}"]]
    name = quote(place.publication)
    if lacking:
        raise PlatformError(
            f"The publication {place.publication} has no table {', '.join(table.name for table in lacking)}. Its owner "
            f"can add it: ALTER PUBLICATION {name} ADD TABLE {', '.join(table.relation for table in lacking)}."
        )
    if operations:
        raise PlatformError(
            f"The publication {place.publication} leaves out {', '.join(operations)}: rows would be wrong without "
            f"notice. Its owner can mend it: ALTER PUBLICATION {name} SET (publish = '{', '.join(OPERATIONS)}')."
        )
    if not row["pubviaroot"]:
        raise PlatformError(
            f"The publication {place.publication} gives the changes of partitions under their own names. Its owner can "
            f"mend it: ALTER PUBLICATION {name} SET (publish_via_partition_root = true)."
        )


def _make(server: Server, place: Place, statement: str) -> None:
    try:
        server.rows_or_error(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise PlatformError(
            f"The account may not make the publication {place.publication} ({str(error).splitlines()[0]}): that takes "
            "CREATE on the database and the ownership of each table. Have their owner run it, and name the "
            f"publication under `changes: publication:`: {statement};"
        ) from None
    except psycopg.Error as error:
        raise server.refused(error) from None
