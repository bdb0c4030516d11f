"""What people wrote in a database about a table and its columns (`comment on column ...`). Read for drafts; loading
does not ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from data_platform.ingestion.sql.dialects import MysqlSession, PostgresqlSession, Session
from data_platform.ingestion.sql.dialects.mysql import text_literal
from data_platform.lakehouse.sql import literal

POSTGRESQL = """
select '' as name, obj_description({relation}::regclass, 'pg_class')::text as said
union all
select a.attname::text, col_description(a.attrelid, a.attnum)::text from pg_attribute a
where a.attrelid = {relation}::regclass and a.attnum > 0 and not a.attisdropped
"""

MYSQL = """
select '' as name, table_comment as said from information_schema.tables
where table_schema = {schema} and table_name = {table} and table_type <> 'VIEW'
union all
select column_name, column_comment from information_schema.columns
where table_schema = {schema} and table_name = {table}
"""

SNOWFLAKE = """
select '' as "name", comment as "said" from {database}.information_schema.tables
where table_schema = {schema} and table_name = {table}
union all
select column_name as "name", comment as "said" from {database}.information_schema.columns
where table_schema = {schema} and table_name = {table}
"""


@dataclass(frozen=True)
class Comments:
    """The comment of a table, empty if it has none, and those of its columns by their names."""

    table: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def comments(session: Session, relation: str) -> Comments:
    """The comments of a relation, whose name is quoted as `Session.relation` does. None in a database that keeps none.
    Raises PlatformError if the database does not answer."""
    if isinstance(session, PostgresqlSession):
        statement = POSTGRESQL.format(relation=literal(relation))
    elif isinstance(session, MysqlSession):
        schema, table = (text_literal(part.replace("``", "`")) for part in relation[1:-1].split("`.`"))
        statement = MYSQL.format(schema=schema, table=table)
    elif session.product == "Snowflake":
        return _of_snowflake(session, relation)
    else:
        return Comments()
    return _found(session, statement)


def _of_snowflake(session: Session, relation: str) -> Comments:
    from data_platform.ingestion.sql.dialects.snowflake import names_of, place  # its connector is an extra

    found = _found(session, SNOWFLAKE.format(**place(relation)))
    names = names_of(list(found.columns))
    return Comments(found.table, dict(zip(names, found.columns.values(), strict=True)))


def _found(session: Session, statement: str) -> Comments:
    found: dict[str, str] = {}
    for batch in session.stream(statement, pa.schema([("name", pa.string()), ("said", pa.string())])):
        found |= {row["name"]: row["said"].strip() for row in batch.to_pylist() if (row["said"] or "").strip()}
    return Comments(found.pop("", ""), found)
