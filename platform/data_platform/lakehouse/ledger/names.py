"""How the ledger's schema and tables are spelt in SQL; what they hold is in `schema`."""

from data_platform.lakehouse.connect import CATALOG
from data_platform.lakehouse.sql import quote

SCHEMA = "platform"

OF_TABLE = "(layer, source, table_name) = (?, ?, ?)"
"""Compared as a row: DuckLake looks up file statistics for each column compared by itself, which costs more than
reading a ledger of this size."""


def name(table: str) -> str:
    """The quoted name of a ledger table."""
    return quote(CATALOG, SCHEMA, table)
