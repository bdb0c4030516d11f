"""Databases that a SqlSource does not read, and what reads them: none is read that could not be tried. What is read is
in `dialects`.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import redact_url

DLT = (
    "Read it by dlt's `sql_database` (a DltSource) or by a Singer tap (a SingerSource): .readme/sources.md shows both "
    "under SQL Server and Oracle"
)
OR_DLT = DLT.replace("Read it", "Or read it", 1)
WAREHOUSES = ".readme/sources.md shows it under Other warehouses"

ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "mssql": ("SQL Server", f"{DLT}."),
    "sqlserver": ("SQL Server", f"{DLT}."),
    "oracle": ("Oracle", f"{DLT}."),
    "db2": ("Db2", f"{DLT}."),
    "redshift": (
        "Redshift",
        (
            "It speaks PostgreSQL's protocol, but has neither its catalog nor the COPY by which tables are read. Have "
            f"it UNLOAD them as Parquet to S3, and read those files by a FileSource: {WAREHOUSES}. {OR_DLT}."
        ),
    ),
    "bigquery": (
        "BigQuery",
        (
            "Have it EXPORT DATA as Parquet to Cloud Storage, and read those files by a FileSource, or read tables "
            f"that it keeps as Iceberg by an IcebergSource: {WAREHOUSES}. {OR_DLT}."
        ),
    ),
    "databricks": (
        "Databricks",
        (
            "Read its tables where they lie: those of Delta Lake in a bucket of yours by a DeltaSource, those of Unity "
            f"Catalog that can be read as Iceberg by an IcebergSource: {WAREHOUSES}."
        ),
    ),
    "clickhouse": (
        "ClickHouse",
        (
            "Have it write tables as Parquet (INTO OUTFILE, or INSERT INTO FUNCTION s3), and read those files by a "
            f"FileSource: {WAREHOUSES}. {OR_DLT}."
        ),
    ),
}
"""The databases by the schemes of their addresses: what they are called, and what to do instead."""

REDSHIFT_HOSTS = (
    ".redshift.amazonaws.com",
    ".redshift-serverless.amazonaws.com",
    ".redshift.amazonaws.com.cn",
    ".redshift-serverless.amazonaws.com.cn",
)

REDSHIFT_VERSION = 80_002
"""The version of PostgreSQL that each Redshift says it is."""


def elsewhere(url: str) -> PlatformError | None:
    """What to raise for the address of a database that is not read here; None for any other."""
    scheme = url.partition("://")[0].partition("+")[0] if "://" in url else ""
    if scheme in ("postgresql", "postgres") and (urlsplit(url).hostname or "").endswith(REDSHIFT_HOSTS):
        scheme = "redshift"
    if scheme not in ELSEWHERE:
        return None
    product, instead = ELSEWHERE[scheme]
    return PlatformError(f"{redact_url(url)} is {product}, which a SqlSource does not read. {instead}")


def is_redshift(url: str) -> PlatformError:
    """What to raise for an address of PostgreSQL's at which Redshift answers."""
    return PlatformError(f"{redact_url(url)} is Redshift, not PostgreSQL. {ELSEWHERE['redshift'][1]}")
