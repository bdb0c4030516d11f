"""Dagster's own records in SQLite, where it lays them by default, with connections that are kept.

Dagster makes an engine and a connection for each statement, which costs more than the statement does: SQLAlchemy
compiles it anew each time. A run of twelve tables writes some two hundred events.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
    _event_logs_directory,
    _runs_directory,
    _schedule_directory,
)
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData

KEPT = 8
"""Databases of events whose connections are kept: each run has one of its own."""


def engine_of(url: str) -> Engine:
    """An engine whose connections are kept, and are as many as there are threads that ask at once."""
    timeout = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
    return create_engine(url, poolclass=QueuePool, pool_size=2, max_overflow=-1, connect_args=timeout)


class _Runs(SqliteRunStorage):
    def __init__(self, conn_string: str, inst_data: "ConfigurableClassData | None" = None) -> None:
        super().__init__(conn_string, inst_data)
        self._engine = engine_of(conn_string)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        self._engine.dispose()


class _Events(SqliteEventLogStorage):
    def __init__(self, base_dir: str, inst_data: "ConfigurableClassData | None" = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        # Before the lock is taken: making an engine asks for the one of `logging`, which another thread may hold that
        # waits for this lock, as it logs an event.
        engine = self._engine(shard)
        with self._db_lock:
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def _engine(self, shard: str) -> Engine:
        engine = self._engines.pop(shard, None) or engine_of(self.conn_string_for_shard(shard))
        self._engines[shard] = engine
        if len(self._engines) > KEPT:
            # A connection that is in use is closed when it is given back.
            self._engines.popitem(last=False)[1].dispose()
        return engine

    def dispose(self) -> None:
        super().dispose()
        while self._engines:
            self._engines.popitem()[1].dispose()


class KeptSqliteStorage(DagsterSqliteStorage):
    """Dagster's records below a folder, `DAGSTER_HOME` as a rule."""

    def __init__(self, base_dir: str, inst_data: "ConfigurableClassData | None" = None) -> None:
        self.base_dir = base_dir
        self._run_storage = _Runs.from_local(_runs_directory(base_dir))
        self._event_log_storage = _Events(_event_logs_directory(base_dir))
        # Ticks are few, and Dagster would never close its connections.
        self._schedule_storage = SqliteScheduleStorage.from_local(_schedule_directory(base_dir))
        self._inst_data = inst_data
        # That of DagsterSqliteStorage would open its own storages besides.
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def from_config_value(cls, inst_data: "ConfigurableClassData", config_value: Mapping[str, Any]) -> Self:
        return cls.from_local(inst_data=inst_data, **config_value)
