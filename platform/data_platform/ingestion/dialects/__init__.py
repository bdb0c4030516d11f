"""Relational databases: one module for each, behind one `Session`. What they share is in `session`; what is done with
the rows belongs in `ingestion.relational`."""

from data_platform.ingestion.dialects.mysql import MysqlSession
from data_platform.ingestion.dialects.postgresql import PostgresqlSession
from data_platform.ingestion.dialects.session import Column, Session
from data_platform.ingestion.dialects.sqlite import SqliteSession

__all__ = ["Column", "MysqlSession", "PostgresqlSession", "Session", "SqliteSession"]
