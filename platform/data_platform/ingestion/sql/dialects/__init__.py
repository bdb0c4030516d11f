"""Relational databases: one module for each, behind one `Session`. What they share is in `session`; what is done with
the rows belongs in `ingestion.sql.reading`."""

from data_platform.ingestion.sql.dialects.duckdb import DuckdbSession
from data_platform.ingestion.sql.dialects.mysql import MysqlSession
from data_platform.ingestion.sql.dialects.postgresql import PostgresqlSession
from data_platform.ingestion.sql.dialects.session import Column, NoPlaceError, Session, Timeouts
from data_platform.ingestion.sql.dialects.sqlite import SqliteSession

__all__ = [
    "Column",
    "DuckdbSession",
    "MysqlSession",
    "NoPlaceError",
    "PostgresqlSession",
    "Session",
    "SqliteSession",
    "Timeouts",
]
