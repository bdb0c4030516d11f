"""Which lakehouse this is. A catalog and the folder of its data belong together by an identity that both hold, and that
begins the name of each file that is written. So a second catalog on the same data is refused, and so is a new one in
the place of one that was lost; and maintenance deletes only what this lakehouse wrote.
"""

import uuid

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import Settings, redact_url
from data_platform.lakehouse.sql import literal

KEY = "data_platform_lakehouse"
"""Where the catalog holds it, among DuckLake's own settings of the catalog."""

MARKER = "lakehouse.json"
"""Where the data does: a file beside the folders of the schemas."""

LENGTH = 12
"""Letters, enough for as many lakehouses as there will ever be."""


def identity_in_catalog(connection: duckdb.DuckDBPyConnection, metadata: str) -> str:
    """The identity that a catalog holds; empty for one of an earlier release. `metadata` is DuckLake's name for the
    database with its tables."""
    found = connection.execute(f"SELECT value FROM {metadata}.ducklake_metadata WHERE key = ?", [KEY])
    # All of it: until then the transaction stays open in the catalog, and with it its locks.
    rows = found.fetchall()
    return str(rows[0][0]) if rows else ""


def give_identity(connection: duckdb.DuckDBPyConnection, settings: Settings, metadata: str) -> str:
    """Give a catalog that has none an identity, and its data. The caller holds the writer lock.

    Raises PlatformError if the data belongs to another lakehouse.
    """
    other = _identity_of_data(connection, settings)
    if other:
        raise _refusal(settings, f"belongs to another lakehouse, {other}")
    identity = uuid.uuid4().hex[:LENGTH]
    connection.execute(f"INSERT INTO {metadata}.ducklake_metadata (key, value) VALUES (?, ?)", [KEY, identity])
    _mark(connection, settings, identity)
    return identity


def require_no_data(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Raise PlatformError if there is data where a new lakehouse is to begin."""
    other = _identity_of_data(connection, settings)
    if other:
        raise _refusal(settings, f"holds the data of lakehouse {other}")
    found = connection.execute(f"SELECT file FROM glob({literal(_at(settings, '**/*.parquet'))}) LIMIT 1").fetchone()
    if found is not None:
        raise _refusal(settings, f"holds files already ({found[0]})")


def require_own_data(connection: duckdb.DuckDBPyConnection, settings: Settings, identity: str) -> None:
    """Raise PlatformError if the data is marked as that of another lakehouse; mark it if it is not marked."""
    found = _identity_of_data(connection, settings)
    if not found:
        _mark(connection, settings, identity)
    elif found != identity:
        raise PlatformError(
            f"The catalog {redact_url(settings.catalog)} is that of lakehouse {identity}, but {settings.data} is "
            f"marked as that of {found} (`{MARKER}`): two catalogs share one folder. Nothing was deleted. Give each "
            "lakehouse a LAKEHOUSE_DATA of its own."
        )


def require_marked_data(connection: duckdb.DuckDBPyConnection, settings: Settings, identity: str) -> None:
    """Raise PlatformError if the data is not marked as that of this lakehouse, as when its disk is not mounted: then no
    file is lost."""
    if _identity_of_data(connection, settings) != identity:
        raise PlatformError(
            f"{settings.data} is not marked as the data of lakehouse {identity} (`{MARKER}`). Nothing was changed. Is "
            "its disk mounted, and LAKEHOUSE_DATA right? If the folder was emptied, restore it from its backup."
        )


def _refusal(settings: Settings, why: str) -> PlatformError:
    return PlatformError(
        f"The catalog {redact_url(settings.catalog)} holds no lakehouse yet, but {settings.data} {why}. Nothing was "
        "changed. If that catalog was lost or emptied, restore it from its backup: without it the files are of no use. "
        "For a new lakehouse set LAKEHOUSE_DATA to an empty folder, or empty this one."
    )


def _identity_of_data(connection: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    # Of a name without a pattern an object store is not asked whether it is there.
    if not connection.execute(f"FROM glob({literal(_at(settings, MARKER[:-1] + '[n]'))})").fetchall():
        return ""
    marker = literal(_at(settings, MARKER))
    row = connection.execute(f"SELECT content ->> 'lakehouse' FROM read_text({marker})").fetchone()
    return str(row[0]) if row is not None else ""


def _mark(connection: duckdb.DuckDBPyConnection, settings: Settings, identity: str) -> None:
    catalog = literal(redact_url(settings.catalog))
    connection.execute(
        f"COPY (SELECT {literal(identity)} AS lakehouse, {catalog} AS catalog, now() AS since) "
        f"TO {literal(_at(settings, MARKER))} (FORMAT json)"
    )


def _at(settings: Settings, path: str) -> str:
    return f"{settings.data.rstrip('/')}/{path}"
