"""What the lakehouse stands on fails: the message says which disk, server or file, and never is a bare traceback."""

import errno
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from platform_tests.lakehouse.test_transaction import TABLE, create, values, write
from platform_tests.servers import Postgres, kill_postgres, start_postgres, stop_postgres
from platform_tests.staging.steps import ON_SQLITE

from data_platform.errors import PlatformError, TransientError
from data_platform.lakehouse import connect, failures, ledger, transaction
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.failures import explain
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.transaction import CommitError, commit, register

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
if sys.argv[3] == "until told":
    sys.stdin.read()
else:
    import time
    time.sleep(float(sys.argv[3]))
connection.execute("ROLLBACK")
"""


@contextmanager
def locked(settings: Settings, how: str = "SELECT 1", until: str = "until told") -> Iterator[None]:
    """Another program has the SQLite catalog locked for writing, until the block ends or for some seconds."""
    command = [sys.executable, "-c", HOLD, settings.catalog, how, until]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "held\n"
        try:
            yield
        finally:
            program.communicate()


def advance(connection: duckdb.DuckDBPyConnection) -> None:
    ledger.advance(connection, ledger.Head("raw", "shop", "orders", 0, {}), {}, datetime.now(UTC))


@ON_SQLITE
def test_a_catalog_that_another_program_has_locked_is_named(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.ensure_ledger(lake)
    monkeypatch.setattr(transaction, "LOCKED_SECONDS", 0.2)
    with locked(lake.settings), pytest.raises(CommitError, match=r"catalog\.sqlite is locked by another program"):
        commit(lake, advance)
    commit(lake, advance)


@ON_SQLITE
def test_a_commit_waits_for_a_program_that_has_the_catalog_locked_for_a_while(lake: Lakehouse) -> None:
    ledger.ensure_ledger(lake)
    with locked(lake.settings, until="4"):
        commit(lake, advance)
    assert ledger.head(lake, "raw", "shop", "orders").number == 1


@ON_SQLITE
def test_a_catalog_that_another_program_keeps_to_itself_cannot_be_opened_and_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_lakehouse(settings):
        pass
    monkeypatch.setattr(connect, "BUSY_MILLISECONDS", 100)
    with (
        locked(settings, "PRAGMA locking_mode = EXCLUSIVE"),
        pytest.raises(TransientError, match=r"catalog\.sqlite is locked by another program"),
        open_lakehouse(settings, read_only=True),
    ):
        pass


@ON_SQLITE
@pytest.mark.parametrize("content", [b"not a database at all, but text" * 400, None])
def test_a_catalog_that_is_damaged_is_named(settings: Settings, content: bytes | None) -> None:
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    catalog = Path(settings.catalog)
    whole = catalog.read_bytes()
    catalog.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096) if content is None else content)
    with (
        pytest.raises(PlatformError, match=r"catalog\.sqlite is damaged.* restore it from its backup"),
        open_lakehouse(settings) as lake,
    ):
        ledger.head(lake, "raw", "shop", "orders")


def commit_and_read_while_it_stops(settings: Settings, server: Postgres) -> None:
    with open_lakehouse(settings) as lake:
        commit(lake, create)
        file = write(lake, 1)
        kill_postgres(server)
        with pytest.raises(TransientError, match=SERVER_NAMED):
            commit(lake, lambda connection: register(connection, TABLE, [file]))
        values(lake)


SERVER_NAMED = r"postgresql://postgres:\*\*\*@127"


@pytest.mark.servers
def test_a_server_that_is_lost_is_named_by_commits_reads_and_whoever_opens_the_lakehouse(
    home: Path, tmp_path: Path
) -> None:
    server = start_postgres()
    try:
        url = server.url.replace("postgres@", "postgres:secret@")
        settings = Settings(home, url, str(tmp_path / "data"))
        with pytest.raises(TransientError, match=f"server at {SERVER_NAMED}") as lost:
            commit_and_read_while_it_stops(settings, server)
        assert "secret" not in str(lost.value)
        with pytest.raises(TransientError, match=f"server at {SERVER_NAMED}"), open_lakehouse(settings):
            pass
    finally:
        stop_postgres(server)


@ON_SQLITE
def test_a_lost_or_damaged_data_file_is_named_with_what_to_do(lake: Lakehouse) -> None:
    commit(lake, create)
    file = write(lake, 1)
    commit(lake, lambda connection: register(connection, TABLE, [file]))
    path = Path(file.path)
    whole = path.read_bytes()
    path.write_bytes(b"x" * len(whole))
    damaged = pytest.raises(PlatformError, match=r"parquet of the lakehouse is damaged .* `dp doctor --deep`")
    with damaged, open_lakehouse(lake.settings) as other:
        values(other)
    path.unlink()
    lost = pytest.raises(PlatformError, match=r"parquet of the lakehouse is lost\. .* `dp doctor --deep`")
    with lost, open_lakehouse(lake.settings) as other:
        values(other)


SQLITE = Settings(Path("/nowhere/home"), "/nowhere/lake/catalog.sqlite", "/nowhere/lake/data")
SERVER = replace(SQLITE, catalog="postgresql://me:secret@db:5432/lake")


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        (SQLITE, duckdb.IOException("Could not write: No space left on device"), r"^The disk is full: .* free in /"),
        (SQLITE, duckdb.Error("PRAGMA journal_mode=WAL: database or disk is full"), r"^The disk is full: .* free in /"),
        (SQLITE, OSError(errno.ENOSPC, "No space left on device"), r"^The disk is full: .* free in /"),
        (SQLITE, OSError(errno.EDQUOT, "Disk quota exceeded"), r"^The disk is full: .* free in /"),
        (SQLITE, duckdb.Error("attempt to write a readonly database"), r"catalog\.sqlite cannot be read or written"),
        (
            SQLITE,
            duckdb.IOException('Cannot open file "/nowhere/lake/data/raw_a/b/c.parquet": Permission denied'),
            r"^The file /nowhere/lake/data/raw_a/b/c\.parquet of the lakehouse may not be read or written by this user",
        ),
        (
            SQLITE,
            duckdb.IOException('Cannot open file "/nowhere/lake/data/a/b/3f2a4041-404.parquet": Permission denied'),
            r"3f2a4041-404\.parquet of the lakehouse may not be read or written by this user",
        ),
        (
            SQLITE,
            duckdb.IOException(
                'Cannot open file "/nowhere/lake/data/raw_thrift_shop/b/c.parquet": No such file or directory'
            ),
            r"c\.parquet of the lakehouse is lost",
        ),
        (SQLITE, duckdb.Error("disk I/O error"), r"catalog\.sqlite cannot be read or written: disk I/O error"),
        (
            SERVER,
            duckdb.Error('ERROR:  could not extend file "base/1/2": No space left on device'),
            r"disk of the catalog's server at postgresql://me:\*\*\*@db:5432/lake is full",
        ),
        (SERVER, duckdb.Error("FATAL:  the database system is shutting down"), r"server at .*@db:5432/lake does not"),
        (SERVER, duckdb.Error("FATAL:  sorry, too many clients already"), r"server at .*@db:5432/lake does not answer"),
        (SERVER, duckdb.Error("could not connect to postgresql://me:secret@db:5432/lake"), r"does not answer"),
    ],
)
def test_each_failure_has_words_of_its_own(settings: Settings, error: Exception, said: str) -> None:
    with pytest.raises(PlatformError, match=said) as told:
        raise explain(error, settings) or error
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "error",
    [
        duckdb.BinderException("column x not found"),
        duckdb.IOException('Cannot open file "/elsewhere/x.parquet": No such file or directory'),
        duckdb.IOException('Cannot open file "/nowhere/lake/data/raw_thrift_shop/b/c.parquet": Too many open files'),
        duckdb.InvalidInputException('"/nowhere/lake/data/a/b/x.parquet" lacks the column x'),
        OSError(errno.EACCES, "Permission denied"),
        KeyError("x"),
    ],
)
def test_what_is_about_something_else_stays_as_it_is(error: Exception) -> None:
    assert explain(error, SQLITE) is None
    assert explain(error, SERVER) is None


def test_what_sqlite_could_not_write_is_a_full_disk_if_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 4096))
    told = explain(duckdb.Error("disk I/O error"), SQLITE)
    assert str(told).startswith("The disk is full: 4.0 KiB free in /. Nothing was changed.")
    assert failures.FULL_BELOW > 4096
