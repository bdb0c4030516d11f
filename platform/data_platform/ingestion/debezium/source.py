"""Tables of a database that Debezium reads, as a source of changes: a first copy, then its log, all tables in one
reading with one position. What becomes of the events is in `reading`.

The engine has no memory of its own: it begins with the offset and the history of schemas that the ledger holds, and a
position that the source no longer has is refused.
"""

import json
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.changes.held import Held
from data_platform.ingestion.debezium.kinds import KINDS, Kind
from data_platform.ingestion.debezium.options import DebeziumOptions, DebeziumTable
from data_platform.ingestion.debezium.process import running
from data_platform.ingestion.debezium.protocol import UNAVAILABLE
from data_platform.ingestion.debezium.reading import COPIED, HISTORY, OFFSET, SLOT, DebeziumReading, Limits, Ways
from data_platform.ingestion.debezium.runtime import Runtime, runtime
from data_platform.ingestion.source import UNKNOWN, Position, Probe

SETTINGS = {
    "snapshot.mode": "initial",
    "provide.transaction.metadata": "true",
    "tombstones.on.delete": "false",
    "include.schema.changes": "false",
    "skipped.operations": "none",
    "unavailable.value.placeholder": UNAVAILABLE,
    "heartbeat.interval.ms": "500",
    "poll.interval.ms": "100",
    "decimal.handling.mode": "string",
    # Failures end the load; Dagster tries again.
    "errors.max.retries": "0",
    "offset.flush.interval.ms": "0",
    "schema.history.internal.store.only.captured.tables.ddl": "true",
    "schema.history.internal.store.only.captured.databases.ddl": "true",
}
"""What is asked of every connector. `initial` copies where there is no offset, and fails where the source no longer has
what comes after one."""

DROP_SLOTS = (
    "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like ? and not active and "
    "slot_name <> ?"
)

SLOTS = (
    "select slot_name, coalesce(wal_status, ''), active, (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint, "
    "(pg_current_wal_lsn() - restart_lsn)::bigint from pg_replication_slots where slot_name like %s"
)

PUBLICATIONS = "select pubname from pg_publication where pubname = %s"

ACTIVE = "active"


class Debezium:
    """Tables of a database as a `ChangeSource`. `label` (letters, digits, underscores) is what this reader is called at
    the source; `home` is where jars are kept.

    Raises PlatformError, from any method, if Java is not there, or Debezium cannot read the database.
    """

    def __init__(self, options: DebeziumOptions, tables: Mapping[str, DebeziumTable], label: str, home: Path) -> None:
        self.options, self.tables, self.label, self.home = options, dict(tables), label, home
        self.kind = KINDS.get(options.kind, Kind(options.kind, ""))
        self._is_private = any(table.masks for table in tables.values())

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:  # noqa: ARG002
        """Nothing: a look at the log is a start of Java. The source is read every `refresh`."""
        return dict.fromkeys(tables, UNKNOWN)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[DebeziumReading]:
        """Copy the tables if there is no position, and read the log up to its end as it is now."""
        offsets = {entry.removeprefix(OFFSET): text for entry, text in after.items() if entry.startswith(OFFSET)}
        added = [name for name in tables if offsets and f"{COPIED}{name}" not in after]
        if added:
            raise PlatformError(
                f"{self.label}: the table {added[0]} came to defs.yaml after the others were copied, and the log does "
                "not have the rows that were there before. Nothing was loaded. Load all tables anew with "
                "--full-refresh, or read it from a source folder of its own."
            )
        addresses = {name: (self._address(name), self.tables[name]) for name in tables}
        slot = after.get(SLOT) or f"{self._prefix}{int(time.time()):x}"
        history = [after[entry] for entry in sorted(after) if entry.startswith(HISTORY)]
        given = {
            "properties": self._properties([address for address, _ in addresses.values()], slot),
            "offsets": offsets,
            "history": history,
            "settle": int(self.options.settle.total_seconds() * 1000),
            "jdbc": self._jdbc(),
            **self._clearing(slot, is_first=not offsets),
        }
        first = {SLOT: slot} if self.kind.end == "postgresql" else {}
        limits = Limits(self.options.connect_timeout.total_seconds(), self.options.idle_timeout.total_seconds())
        ways = Ways(self.kind.ends_late, truncates_alone=self.kind.end == "binlog")
        with running(self._runtime(), given, self.label, self.options.memory, private=self._is_private) as engine:
            reading = DebeziumReading(engine, self.label, addresses, after, first, limits, ways)
            yield reading
            reading.close()

    def held(self, after: Position) -> list[Held]:
        """PostgreSQL: the replication slots, and the publication. Others keep their log whoever reads it."""
        if self.kind.end != "postgresql":
            return [Held("log", self.options.kind, "kept for as long as the server is told to", is_ours=False)]
        with self._connected() as connection:
            slots = connection.execute(SLOTS, [self._like]).fetchall()
            publications = connection.execute(PUBLICATIONS, [self._publication]).fetchall()
        held = [
            Held("replication slot", name, _state(status, active, is_current=name == after.get(SLOT)), behind, kept)
            for name, status, active, behind, kept in slots
        ]
        return [*held, *(Held("publication", name) for (name,) in publications)]

    def drop(self) -> list[Held]:
        """Remove the slots and the publication. Raises PlatformError if a reading is under way."""
        held = [one for one in self.held({}) if one.is_ours]
        if any(ACTIVE in one.state for one in held):
            raise PlatformError(f"{self.label} is being read: its replication slot is active. Wait for the run to end.")
        if held:
            with self._connected() as connection:
                connection.execute(DROP_SLOTS.replace("?", "%s"), [self._like, ""])
                connection.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(self._publication)))
        return held

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection to a PostgreSQL, for what is no work of the engine. Raises PlatformError."""
        jdbc = self._jdbc()
        assert jdbc is not None  # noqa: S101 - the caller's condition
        options, host = self.options, self.options.host or ""
        reached: dict[str, Any] = {"host": host, "port": options.port or self.kind.port, "dbname": options.database}
        try:
            with psycopg.connect(autocommit=True, connect_timeout=10, **reached, **jdbc["properties"]) as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise TransientError(f"{self.label}: PostgreSQL at {self.options.host} does not answer: {error}") from None
        except psycopg.Error as error:
            raise PlatformError(f"{self.label}: {error}") from None

    @property
    def _prefix(self) -> str:
        """What the names of replication slots begin with that are ours: each first copy has one of its own, so that it
        does not take from the position before it what that needs."""
        return f"dp_{self.label[:45]}_"

    @property
    def _like(self) -> str:
        return self._prefix.replace("_", r"\_") + "%"

    @property
    def _publication(self) -> str:
        return f"dp_{self.label[:45]}"

    def _runtime(self) -> Runtime:
        return runtime(self.options.kind, self.options.jars, self.home)

    def _address(self, name: str) -> str:
        """The table as Debezium's lists name it. Raises PlatformError if it names no schema or database, and there is
        no default."""
        table = self.tables[name].table or name
        if "." in table:
            return table
        has_databases = self.options.kind in ("mysql", "mariadb", "mongodb")
        namespace = self.kind.namespace or (self.options.database if has_databases else None)
        if namespace is None:
            raise PlatformError(
                f"{self.label}/{name}: name the table with its schema or database, `table: schema.{table}`, as the "
                "source spells them."
            )
        return f"{namespace}.{table}"

    def _properties(self, addresses: Sequence[str], slot: str) -> dict[str, str]:
        options, kind = self.options, self.kind
        given: dict[str, Any] = {**SETTINGS, **kind.settings}
        reached = {"database.hostname": options.host, "database.port": options.port or kind.port}
        if options.kind == "mongodb":
            reached = {}
        reached["database.user" if reached else "mongodb.user"] = options.username
        secret = options.password.get_secret_value() if options.password is not None else None
        reached["database.password" if "database.user" in reached else "mongodb.password"] = secret
        if kind.database is not None:
            reached[kind.database] = options.database
        given |= {name: str(value) for name, value in reached.items() if value is not None}
        if kind.end == "postgresql":
            given |= {"publication.name": self._publication, "publication.autocreate.mode": "filtered"}
        if kind.end == "binlog":
            # High, where no one numbers replicas by hand.
            given["database.server.id"] = str(2**31 + zlib.crc32(self.label.encode()) % 2**31)
        given |= {name: _text(value) for name, value in options.settings.items()}
        given |= {
            "name": self.label,
            "topic.prefix": self.label,
            "connector.class": kind.connector,
            kind.tables: ",".join(re.escape(address) for address in addresses),
        }
        return given | ({"slot.name": slot} if kind.end == "postgresql" else {})

    def _jdbc(self) -> dict[str, Any] | None:
        """How the end of the log is asked for; None where it is not told."""
        options, kind = self.options, self.kind
        if kind.end == "silence":
            return None
        scheme = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mariadb"}[options.kind]
        secret = options.password.get_secret_value() if options.password is not None else ""
        given = {"user": options.username or "", "password": secret}
        if kind.end == "postgresql":
            names = {"sslmode": "sslmode", "sslrootcert": "sslrootcert", "sslcert": "sslcert", "sslkey": "sslkey"}
            for name, parameter in names.items():
                if f"database.{name}" in options.settings:
                    given[parameter] = str(options.settings[f"database.{name}"])
        elif "database.ssl.mode" in options.settings:
            mode = str(options.settings["database.ssl.mode"])
            given["sslMode"] = mode.replace("_", "-") if scheme == "mariadb" else mode
        database = options.database if kind.end == "postgresql" else ""
        url = f"jdbc:{scheme}://{options.host}:{options.port or kind.port}/{database or ''}"
        return {"kind": kind.end, "url": url, "properties": given}

    def _clearing(self, slot: str, *, is_first: bool) -> dict[str, list[list[str]]]:
        """What is run at the source before the engine, and after the first commit: slots of earlier copies go, which
        nobody reads any more. While there is no position it is unknown which of them is needed: the oldest stays."""
        if self.kind.end != "postgresql":
            return {"before": [], "after": []}
        others = [DROP_SLOTS, self._like, slot]
        if not is_first:
            return {"before": [others], "after": []}
        oldest = " and slot_name > (select min(slot_name) from pg_replication_slots where slot_name like ?)"
        return {"before": [[DROP_SLOTS + oldest, self._like, slot, self._like]], "after": [others]}


def _state(status: str, active: bool, *, is_current: bool) -> str:
    return ", ".join(word for word in (status, ACTIVE * active, "" if is_current else "of an earlier copy") if word)


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)
