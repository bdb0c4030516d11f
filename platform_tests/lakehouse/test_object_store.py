"""Data on an object store, against moto's emulator of S3: it speaks the protocol, it is not the real thing."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from platform_tests import workers
from platform_tests.modelling.project import SALES, small_project

from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import object_store_secret, open_lakehouse
from data_platform.lakehouse.guard import restrict
from data_platform.lakehouse.history import read_table
from data_platform.lakehouse.inspection import file_system, inspect, stored_files
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import ObjectStore, Settings
from data_platform.staging.step import stage_table


@pytest.fixture
def on_s3(settings: Settings) -> Iterator[Settings]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    store = ObjectStore("key", "top-secret", endpoint=f"http://{host}:{port}")
    # The emulator's buckets live as long as this process, in all its servers.
    bucket = f"company-{uuid.uuid4()}"
    s3_backends["123456789012"]["aws"].create_bucket(bucket, "us-east-1")
    try:
        yield replace(settings, data=f"s3://{bucket}/lakehouse", object_store=store)
    finally:
        server.stop()


def test_rows_are_loaded_staged_and_maintained_on_an_object_store(on_s3: Settings, tmp_path: Path) -> None:
    for _ in range(3):
        with open_lakehouse(on_s3) as lake:
            load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="r")
            stage_table(lake, workers.RECIPE, run_id="r")
    with open_lakehouse(on_s3) as lake:
        assert maintain(lake).files_merged > 0
        listed = lake.connection.execute("FROM ducklake_list_files('lake', 'entries', schema => 'raw_growing')")
        assert [row[0].startswith(f"{on_s3.data}/raw_growing/entries/") for row in listed.fetchall()] == [True]
        found = lake.connection.execute("SELECT key, side, number FROM staged_growing.entries ORDER BY ALL").fetchall()
        assert found == workers.expected_staged(60)
    with open_lakehouse(on_s3, read_only=True) as lake:
        restrict(lake)
        assert read_table(lake, "raw/growing/entries").aggregate("count(*)").fetchone() == (120,)
        with pytest.raises(duckdb.Error, match="file system operations are disabled"):
            lake.connection.execute("FROM read_text('s3://elsewhere/file')")
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_lost_on_an_object_store_is_found(on_s3: Settings) -> None:
    with open_lakehouse(on_s3) as lake:
        load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="r")
        stage_table(lake, workers.RECIPE, run_id="r")
        files = stored_files(lake)
        assert list(inspect(lake, files)) == []
        lost = next(file for file in files if str(file.table) == "staged_growing.entries")
        file_system(on_s3).delete_file(lost.path.removeprefix("s3://"))
        assert [(one.file, one.kind) for one in inspect(lake, files)] == [(lost, "lost")]
        assert stage_table(lake, workers.RECIPE, run_id="r", rebuild=True).rows_deleted == lost.rows
        found = lake.connection.execute("SELECT key, side, number FROM staged_growing.entries ORDER BY ALL").fetchall()
    assert found == workers.expected_staged(20)


def test_a_bucket_that_is_not_there_is_an_error_that_names_it_and_makes_nothing(on_s3: Settings) -> None:
    elsewhere = replace(on_s3, data="s3://nowhere/lakehouse")
    for _ in range(2):
        with (
            pytest.raises(PlatformError, match=r"data s3://nowhere/lakehouse: .*404.*a bucket must exist") as caught,
            open_lakehouse(elsewhere),
        ):
            raise AssertionError("it opened")
        assert "top-secret" not in str(caught.value)
    with open_lakehouse(on_s3) as lake:
        assert lake.identity


def test_a_bucket_that_is_gone_is_an_error_that_names_the_table_and_lands_nothing(on_s3: Settings) -> None:
    with open_lakehouse(on_s3) as lake:
        gone = replace(lake, settings=replace(on_s3, data="s3://nowhere/lakehouse"))
        with pytest.raises(PlatformError, match="s3://nowhere/lakehouse/raw_growing/entries/") as caught:
            load_table(gone, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="r")
        assert "top-secret" not in str(caught.value)
        assert lake.connection.execute("SELECT count(*) FROM platform.loads").fetchone() == (0,)


def test_missing_credentials_are_named() -> None:
    with pytest.raises(PlatformError, match="needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"):
        object_store_secret(ObjectStore())


def test_models_are_built_on_an_object_store(on_s3: Settings, tmp_path: Path) -> None:
    small = small_project(tmp_path / "project", on_s3)
    query = "{{ config(materialized='incremental', unique_key='number') }} select * from " + SALES
    assert small.publish("sales", query) == [(1, "a"), (2, "b"), (3, "c")]
    small.stage("INSERT INTO staged_shop.sales VALUES (4, 'd')")
    assert small.publish("sales", query) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    with open_lakehouse(on_s3, read_only=True) as lake:
        listed = lake.connection.execute("FROM ducklake_list_files('lake', 'sales', schema => 'modelled')").fetchall()
    assert listed
    assert all(row[0].startswith(f"{on_s3.data}/modelled/sales/") for row in listed)
    assert not (tmp_path / "data").exists()
