"""What jobs of other orchestrators leave when they have ended, and how it is known from what was there before."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_tests.ingestion.files.test_objects import KEYS, Store, server, store
from platform_tests.ingestion.http.server import Answer, Api, running_api

from data_platform.errors import PlatformError
from data_platform.external.markers import file_version, http_value, query_value
from data_platform.external.options import HttpMarker, QueryMarker
from data_platform.ingestion.files.storage.local import LocalFolder
from data_platform.ingestion.files.storage.objects import Bucket
from data_platform.ingestion.files.storage.options import StorageOptions

__all__ = ["server", "store"]


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api(lambda _: Answer()) as server:
        yield server


def value(api: Api, **more: Any) -> str | None:
    given = {"type": "http", "url": api.url, "path": "/runs", "value": "last.id", "timeout": 5, **more}
    return http_value(HttpMarker.model_validate(given))


def test_a_value_of_an_api_is_seen_once_it_is_there_and_is_what_is_waited_for(api: Api) -> None:
    answers: list[tuple[Answer, str | None]] = [
        (Answer({"detail": "no such job"}, status=404), None),
        (Answer({"last": None}), None),
        (Answer({"last": {"id": None}}), None),
        (Answer({"last": {"id": {}}}), None),
        (Answer({"last": {"id": 7}}), "7"),
        (Answer({"last": {"id": "r-8"}}), "r-8"),
    ]
    for answer, expected in answers:
        api.script(answer)
        assert value(api) == expected
    assert value(api, equals="r-9") is None
    assert value(api, equals="r-8") == "r-8"
    api.script(Answer({"last": {"id": [{"run": number} for number in range(99)]}}))
    assert len(value(api) or "") == 64


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer({"why": "no token"}, status=401), "refused: 401 Unauthorized.*no token"),
        (Answer(b"<html>", status=200), "something else than JSON"),
        (Answer(status=500), "500"),
    ],
)
def test_an_api_that_does_not_tell_is_no_job_that_has_not_ended(api: Api, answer: Answer, reason: str) -> None:
    api.script(answer)
    with pytest.raises(PlatformError, match=reason):
        value(api)


def test_a_file_is_seen_when_it_appears_and_when_it_is_written_anew(tmp_path: Path) -> None:
    place = LocalFolder(tmp_path)
    assert file_version(place, "*/_SUCCESS") is None
    (tmp_path / "2024").mkdir()
    file = tmp_path / "2024" / "_SUCCESS"
    file.touch()
    first = file_version(place, "*/_SUCCESS")
    assert first is not None
    assert first == file_version(place, "*/_SUCCESS")
    os.utime(file, ns=(1, 1))
    assert file_version(place, "*/_SUCCESS") != first
    with pytest.raises(PlatformError, match="does not exist"):
        file_version(LocalFolder(tmp_path / "nowhere"), "_SUCCESS")


def test_a_file_in_a_bucket_is_seen(store: Store) -> None:
    place = Bucket(f"s3://{store.name}/out", StorageOptions.model_validate({**KEYS, "endpoint": store.endpoint}))
    assert file_version(place, "*/_SUCCESS") is None
    store.put("out/2024/_SUCCESS", "")
    first = file_version(place, "*/_SUCCESS")
    store.put("out/2024/_SUCCESS", "again")
    assert first not in (None, file_version(place, "*/_SUCCESS"))


RUNS = "select max(ended) from runs where state = 'done';"


def test_a_value_of_a_database_is_seen(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        connection.execute("create table runs (ended text, state text)")
    url = f"sqlite://{tmp_path / 'runs.sqlite'}"
    wanted = QueryMarker(type="query", url=url, query=RUNS)
    assert query_value(wanted) is None
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        connection.execute("insert into runs values ('2024-01-01', 'done'), ('2024-01-02', 'failed')")
    assert query_value(wanted) == "2024-01-01"
    assert query_value(QueryMarker(type="query", url=url, query=RUNS, equals="2024-01-02")) is None
    with pytest.raises(PlatformError, match="no such table: nowhere"):
        query_value(QueryMarker(type="query", url=url, query="select 1 from nowhere"))
    with pytest.raises(PlatformError, match="is no database that is asked here"):
        query_value(QueryMarker(type="query", url="oracle://host", query="select 1"))


def test_a_number_of_postgresql_is_seen(postgres_url: str) -> None:
    assert query_value(QueryMarker(type="query", url=postgres_url, query="select 40 + 2")) == "42"
    assert query_value(QueryMarker(type="query", url=postgres_url, query="select 1 where false")) is None
