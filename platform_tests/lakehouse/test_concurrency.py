"""Several processes, one lakehouse: nothing is lost, nothing lands twice, no reader ever sees a half of anything.

`CONCURRENCY_SECONDS` makes the long test as long as one likes; by default it is short.
"""

import os
import time
from pathlib import Path

import pytest
from platform_tests import workers

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.settings import Settings

SECONDS = float(os.environ.get("CONCURRENCY_SECONDS", "3"))


def prepare(settings: Settings) -> None:
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)


def wait_for(condition: str, folder: Path, number: int) -> None:
    until = time.monotonic() + 60
    while len(list(folder.glob(condition))) < number:
        assert time.monotonic() < until, f"waited in vain for {number} of {condition}"
        time.sleep(0.02)


def test_of_two_processes_that_load_from_one_position_one_lands_and_the_other_is_told(
    settings: Settings, tmp_path: Path
) -> None:
    prepare(settings)
    racers = [workers.start(settings, "race", tmp_path) for _ in range(2)]
    wait_for("asked-*", tmp_path, 2)
    (tmp_path / "go").touch()
    outcomes = [workers.outcome(racer) for racer in racers]
    assert sorted(key for outcome in outcomes for key in outcome) == ["landed", "refused"]
    assert "another run landed first" in next(o["refused"] for o in outcomes if "refused" in o)
    with open_lakehouse(settings, read_only=True) as lake:
        rows = lake.connection.execute("SELECT count(*), count(DISTINCT number) FROM raw_growing.entries").fetchone()
        assert rows == (40, 20)
        assert lake.connection.execute("SELECT load_id, rows_landed FROM platform.loads").fetchall() == [(1, 40)]
    assert len(list(Path(settings.data).rglob("raw_growing/**/*.parquet"))) == 1


def test_processes_that_create_one_lakehouse_at_once_do_not_meet_halfway(settings: Settings) -> None:
    outcomes = [workers.outcome(one) for one in [workers.start(settings, "load", f"t{i}", 0.1) for i in range(3)]]
    assert all(outcome["landed"] > 0 for outcome in outcomes)


def test_eight_processes_load_eight_tables_while_readers_look_and_no_commit_is_lost(
    settings: Settings, tmp_path: Path
) -> None:
    prepare(settings)
    reader = workers.start(settings, "read", tmp_path)
    loaders = {name: workers.start(settings, "load", name, SECONDS) for name in (f"t{i}" for i in range(8))}
    landed = {name: workers.outcome(loader)["landed"] for name, loader in loaders.items()}
    (tmp_path / "stop").touch()
    seen = workers.outcome(reader)
    assert seen["wrong"] == []
    assert seen["looks"] > 0
    with open_lakehouse(settings, read_only=True) as lake:
        for name, rows in landed.items():
            assert rows > 0
            found = lake.connection.execute(
                f"SELECT count(*), count(DISTINCT number), max(number) + 1 FROM raw_growing.{name}"
            ).fetchone()
            assert found == (rows, rows // 2, rows // 2)
            figures = lake.connection.execute(
                "SELECT sum(rows_landed)::BIGINT, max(load_id) = count(*) FROM platform.loads WHERE table_name = ?",
                [name],
            ).fetchone()
            assert figures == (rows, True)


def test_a_writer_that_never_ends_is_reported_instead_of_waited_for(settings: Settings) -> None:
    prepare(settings)
    with (
        writer_lock(settings),
        pytest.raises(PlatformError, match=r"has been writing to the lakehouse .* for 0.1 s.*Look for a run"),
        writer_lock(settings, 0.1),
    ):
        pass


def test_the_message_about_a_lock_shows_no_password(home: Path, tmp_path: Path) -> None:
    unreachable = Settings(home, "postgresql://me:top-secret@127.0.0.1:1/x", str(tmp_path))
    with (
        pytest.raises(PlatformError, match=r"me:\*\*\*@127.0.0.1:1/x does not answer") as caught,
        writer_lock(unreachable),
    ):
        pass
    assert "top-secret" not in str(caught.value)


def test_readers_do_not_wait_for_a_writer(settings: Settings) -> None:
    prepare(settings)
    with open_lakehouse(settings) as writer, writer_lock(settings):
        writer.connection.execute("BEGIN")
        writer.connection.execute("INSERT INTO platform.pins VALUES ('p', 1, 'r', now())")
        with open_lakehouse(settings, read_only=True) as reader:
            assert reader.connection.execute("SELECT count(*) FROM platform.pins").fetchone() == (0,)
        writer.connection.execute("COMMIT")
