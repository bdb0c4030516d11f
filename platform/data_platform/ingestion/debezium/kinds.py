"""The databases that Debezium reads: its connectors, and what is particular to each. Nothing is read here."""

from dataclasses import dataclass, field
from typing import Literal

VERSION = "3.5.0.Final"
"""The last release of Debezium of which Maven has the connectors of all these databases."""

ENGINE = (f"io.debezium:debezium-api:{VERSION}", f"io.debezium:debezium-embedded:{VERSION}")
"""The engine, without a connector."""

LOGGER = "org.slf4j:slf4j-simple:1.7.36"
"""What writes the warnings of the engine to its standard error; of the version of the interface that it brings."""


@dataclass(frozen=True)
class Kind:
    """A database. `namespace` is the schema of tables that name none. `end` says how the end of its log is known, and
    `ends_late` that it tells the end of a transaction only when the next one begins. `tables` is the property that
    names what is read."""

    connector: str
    artifact: str
    port: int | None = None
    namespace: str | None = None
    database: str | None = "database.dbname"
    end: Literal["postgresql", "binlog", "silence"] = "silence"
    ends_late: bool = True
    has_history: bool = True
    tables: str = "table.include.list"
    also: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)


BASE = "io.debezium.connector"

KINDS = {
    "oracle": Kind(
        f"{BASE}.oracle.OracleConnector",
        "debezium-connector-oracle",
        1521,
        # A buffer outside of the heap that nobody here asks for; what it needs in turn is not in Maven Central.
        excludes=("org.ehcache:ehcache",),
        settings={"time.precision.mode": "isostring"},
    ),
    "sqlserver": Kind(
        f"{BASE}.sqlserver.SqlServerConnector",
        "debezium-connector-sqlserver",
        1433,
        "dbo",
        "database.names",
        settings={"time.precision.mode": "isostring"},
    ),
    "db2": Kind(
        f"{BASE}.db2.Db2Connector",
        "debezium-connector-db2",
        50000,
        also=("com.ibm.db2:jcc:12.1.0.0",),
        settings={"time.precision.mode": "isostring"},
    ),
    "mongodb": Kind(
        f"{BASE}.mongodb.MongoDbConnector",
        "debezium-connector-mongodb",
        database=None,
        has_history=False,
        tables="collection.include.list",
        settings={"capture.mode": "change_streams_update_full"},
    ),
    "postgresql": Kind(
        f"{BASE}.postgresql.PostgresConnector",
        "debezium-connector-postgres",
        5432,
        "public",
        end="postgresql",
        ends_late=False,
        has_history=False,
        settings={
            "plugin.name": "pgoutput",
            "message.prefix.include.list": "data-platform",
            "interval.handling.mode": "string",
            "hstore.handling.mode": "json",
            "include.unknown.datatypes": "true",
            "slot.max.retries": "20",
            "slot.retry.delay.ms": "500",
        },
    ),
    "mysql": Kind(
        f"{BASE}.mysql.MySqlConnector",
        "debezium-connector-mysql",
        3306,
        database=None,
        end="binlog",
        ends_late=False,
        settings={"bigint.unsigned.handling.mode": "precise"},
    ),
    "mariadb": Kind(
        f"{BASE}.mariadb.MariaDbConnector",
        "debezium-connector-mariadb",
        3306,
        database=None,
        end="binlog",
        ends_late=False,
        settings={"bigint.unsigned.handling.mode": "precise"},
    ),
}
"""By the names that `defs.yaml` has for them."""
