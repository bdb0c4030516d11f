"""Catalogs and data that do not belong together: what is refused, and that nothing is deleted."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import adbc_driver_postgresql.dbapi
import pytest
from platform_tests import workers

from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import METADATA, Lakehouse, open_lakehouse
from data_platform.lakehouse.identity import KEY, MARKER
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import Settings

NOW = timedelta(0)


def fill(settings: Settings) -> set[Path]:
    """Load 40 rows; the files there are then, made old."""
    with open_lakehouse(settings) as lake:
        load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="r")
    old = time.time() - timedelta(days=9).total_seconds()
    for file in files(settings):
        os.utime(file, (old, old))
    return files(settings)


def files(settings: Settings) -> set[Path]:
    return set(Path(settings.data).rglob("*.parquet"))


def rows(settings: Settings) -> int:
    with open_lakehouse(settings, read_only=True) as lake:
        row = lake.connection.execute("SELECT count(*) FROM raw_growing.entries").fetchone()
    assert row is not None
    return int(row[0])


def lose(settings: Settings) -> None:
    """Lose all that the catalog holds, but not the database."""
    if settings.catalog_is_sqlite:
        Path(settings.catalog).write_bytes(b"")
        return
    connect = adbc_driver_postgresql.dbapi.connect
    with connect(settings.catalog, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE")
        cursor.execute("CREATE SCHEMA public")


def test_the_identity_of_a_lakehouse_is_in_its_catalog_beside_its_data_and_in_the_names_of_its_files(
    settings: Settings,
) -> None:
    written = fill(settings)
    with open_lakehouse(settings) as lake, open_lakehouse(settings, read_only=True) as reader:
        assert len({lake.identity, lake.duplicate().identity, reader.identity}) == 1
        marker = json.loads((Path(settings.data) / MARKER).read_text())
        assert marker["lakehouse"] == lake.identity
        assert "password" not in marker["catalog"]
        assert {file.name.split("-")[0] for file in written} == {lake.identity}


def test_a_second_catalog_on_the_same_data_is_refused_and_deletes_nothing(settings: Settings, tmp_path: Path) -> None:
    written = fill(settings)
    second = replace(settings, catalog=str(tmp_path / "second.sqlite"))
    for _ in range(2):
        with pytest.raises(PlatformError, match=r"holds no lakehouse yet, but .* holds the data of lakehouse \w{12}"):
            fill(second)
    (Path(settings.data) / MARKER).unlink()
    with pytest.raises(PlatformError, match=r"holds no lakehouse yet, but .* holds files already"):
        fill(second)
    assert files(settings) == written
    assert rows(settings) == 40


def test_a_catalog_that_was_emptied_is_not_made_anew(settings: Settings) -> None:
    written = fill(settings)
    lose(settings)
    with pytest.raises(PlatformError, match="restore it from its backup"):
        fill(settings)
    assert files(settings) == written


def test_maintenance_refuses_data_that_is_marked_as_another_s_and_marks_what_is_not_marked(lake: Lakehouse) -> None:
    marker = Path(lake.settings.data) / MARKER
    load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="r")
    marker.unlink()
    maintain(lake, keep_snapshots=NOW, keep_files=NOW)
    assert json.loads(marker.read_text())["lakehouse"] == lake.identity
    marker.write_text('{"lakehouse": "0123456789ab"}')
    written = files(lake.settings)
    with pytest.raises(PlatformError, match=r"marked as that of 0123456789ab .*two catalogs share one folder"):
        maintain(lake, keep_snapshots=NOW, keep_files=NOW)
    assert files(lake.settings) == written


def test_a_lakehouse_of_an_earlier_release_gets_an_identity_when_it_is_opened_to_write(settings: Settings) -> None:
    fill(settings)
    with open_lakehouse(settings) as lake:
        lake.connection.execute(f"DELETE FROM {METADATA}.ducklake_metadata WHERE key = '{KEY}'")
    (Path(settings.data) / MARKER).unlink()
    with open_lakehouse(settings, read_only=True) as lake:
        assert lake.identity == ""
    assert rows(settings) == 40
    with open_lakehouse(settings) as lake:
        first = lake.identity
    with open_lakehouse(settings) as lake:
        assert lake.identity == first != ""
    # The catalogs of two such lakehouses may share a folder: the one that comes second learns of it.
    with open_lakehouse(settings) as lake:
        lake.connection.execute(f"DELETE FROM {METADATA}.ducklake_metadata WHERE key = '{KEY}'")
    with pytest.raises(PlatformError, match=f"belongs to another lakehouse, {first}"):
        fill(settings)


def test_processes_that_make_a_lakehouse_at_once_make_one(settings: Settings) -> None:
    def identity(_: int) -> str:
        with open_lakehouse(settings) as lake:
            return lake.identity

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(identity, range(4)))) == 1
