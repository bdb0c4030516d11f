"""Changes of MariaDB to raw: inserts in its binary log, of 8 columns, by our load (the ledger's commit included),
beside a bare consumer of mysql-replication that makes Arrow of its rows; and the first copy of the same table. How they
are timed is `measure`'s work.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from platform_tests.benchmarks.measure import Case, Say, measure
from platform_tests.benchmarks.places import lakehouse_in
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale
from platform_tests.servers import mariadb_is_installed, own_mariadb

from data_platform.ingestion.changes.mysql.source import MysqlChanges
from data_platform.ingestion.changes.options import Changes
from data_platform.ingestion.load import load_tables
from data_platform.ingestion.source import Position
from data_platform.ingestion.sql.source import SqlTable
from data_platform.lakehouse.connect import open_lakehouse

HERE = "platform_tests.benchmarks.mysql_changes_to_raw"

TABLE = """
create table orders (
    id bigint primary key, name varchar(60), email varchar(60), amount decimal(12, 2), quantity int, gift bool,
    changed_at datetime(6), note varchar(60)
)
"""

ROWS = """
insert into orders select seq, concat('name ', seq), concat('u', seq, '@example.com'), seq * 1.25, seq % 1000, seq % 2,
'2013-01-01' + interval seq second, concat('note ', md5(seq)) from seq_{first}_to_{last}
"""

CHUNK = 50_000
"""Rows that the bare consumer makes one table of."""


def mariadb(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """Inserts in the log, and the first copy of what they make. Nothing where there is no MariaDB."""
    if not mariadb_is_installed():
        say("no MariaDB here: apt-get install mariadb-server")
        return
    rows = scale.changes
    with own_mariadb() as server:
        import pymysql

        say("filling MariaDB")
        with pymysql.connect(**_address(server.url), autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("create database shop")
            cursor.execute("use shop")
            cursor.execute(TABLE)
            url = f"{server.url}/shop"
            start = _start(url)
            for first in range(1, rows + 1, 10_000):
                cursor.execute(ROWS.format(first=first, last=min(rows, first + 9_999)))
        cases = {
            "ours": Case(f"{HERE}:ours", {"url": url, "start": json.dumps(start)}),
            "copy": Case(f"{HERE}:ours", {"url": url, "start": "{}"}),
            "library": Case(f"{HERE}:library", {"url": url, "start": json.dumps(start)}),
        }
        measured = measure(cases, scratch, scale.repeats, say)
    wrong = {name: taken.rows for name, taken in measured.items() if taken.rows != rows}
    assert not wrong, f"{rows:,} changes, but these moved others: {wrong}"
    what, beside = f"MariaDB, {rows:,} changes", measured["library"]
    yield Row("mariadb_changes", what, measured["ours"], "mysql-replication into Arrow tables", beside, 1.0)
    yield Row("mariadb_changes", f"{what}, their first copy", measured["copy"], "the same, of its log", beside)


def _address(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {"host": parts.hostname, "port": parts.port, "user": parts.username}


def _source(url: str) -> MysqlChanges:
    table = SqlTable(key=["id"], contract="platform_tests.benchmarks.contracts.Order")
    return MysqlChanges(url, {"orders": table}, Changes(), "shop")


def _start(url: str) -> dict[str, str]:
    """The position after the first copy of the empty table."""
    with _source(url).reading(["orders"], {}) as reading:
        position: dict[str, str] = {}
        for batch in reading:
            position |= batch.position or {}
    return position


class _From:
    """A source that is read from a position, whatever the ledger says."""

    def __init__(self, source: MysqlChanges, start: Position) -> None:
        self._source, self._start = source, start
        self.probe = source.probe

    def reading(self, tables: list[str], after: Position) -> Any:
        return self._source.reading(tables, {**self._start, **after})


def ours(folder: str, url: str, start: str) -> Callable[[], int]:
    """Our load of the changes after a position, into a lakehouse that is opened and closed."""
    settings = lakehouse_in(folder)
    source: Any = _From(_source(url), json.loads(start))
    tables = _source(url).options

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            return load_tables(lake, "shop", source, "changes", tables, run_id="benchmark")["orders"].rows_landed

    return timed


def library(folder: str, url: str, start: str) -> Callable[[], int]:
    """mysql-replication as it is: a dictionary for each row, and tables of them."""
    import pymysqlreplication.binlogstream
    from pymysqlreplication import BinLogStreamReader
    from pymysqlreplication.event import XidEvent
    from pymysqlreplication.row_event import WriteRowsEvent

    # It would connect again in silence, and give rows twice.
    pymysqlreplication.binlogstream.MYSQL_EXPECTED_ERROR_CODES[:] = []
    position = json.loads(start)

    def timed() -> int:
        stream = BinLogStreamReader(
            connection_settings=_address(url),
            server_id=900,
            blocking=False,
            log_file=position["file"],
            log_pos=int(position["place"]),
            resume_stream=True,
            only_events=[WriteRowsEvent, XidEvent],
            only_schemas=["shop"],
            enable_logging=False,
        )
        rows: list[dict[str, Any]] = []
        count: int = 0
        for event in stream:
            if isinstance(event, WriteRowsEvent):
                rows += [row["values"] for row in event.rows]
            elif len(rows) >= CHUNK:
                count += pa.Table.from_pylist(rows).num_rows
                rows = []
        count += pa.Table.from_pylist(rows).num_rows if rows else 0
        stream.close()
        return int(count)

    return timed
