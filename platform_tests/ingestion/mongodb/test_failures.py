"""What fails is said in words, and nothing is lost by it: addresses and collections that are not there, cursors that
are lost, servers that stop in the middle of a reading."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from platform_tests.ingestion.mongodb.documents import Documents, load, position, rows
from platform_tests.ingestion.reading import probe, read_all, reading
from platform_tests.mongo_servers import Mongodb as Server
from platform_tests.mongo_servers import running_mongodb
from platform_tests.proxy import proxy_to
from platform_tests.servers import free_port
from pymongo.errors import CursorNotFound

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.mongodb import reading as reading_module
from data_platform.ingestion.mongodb.reading import CollectionReading
from data_platform.ingestion.mongodb.values import Document, decoded
from data_platform.lakehouse.connect import Lakehouse

FIRST_ANSWER = 101
"""Documents that the server gives at once when it is asked for some: more of them it gives by a cursor."""


@pytest.fixture
def own() -> Iterator[Server]:
    """A server that a test may kill."""
    with running_mongodb() as server:
        yield server


def lost(monkeypatch: pytest.MonkeyPatch, at: int, times: int = 1) -> list[int]:
    """Have the server lose its cursor when so many documents came of it. The documents at which it did."""
    plain, came = CollectionReading._next, [0]
    done: list[int] = []

    def give(self: CollectionReading, documents: Any) -> Any:
        came[0] += 1
        if came[0] % at == 0 and len(done) < times and documents.cursor_id:
            ended = documents.collection.database.command(
                "killCursors", documents.collection.name, cursors=[documents.cursor_id]
            )
            assert ended["cursorsKilled"]
            done.append(came[0])
        return plain(self, documents)

    monkeypatch.setattr(CollectionReading, "_next", give)
    return done


def test_a_collection_that_is_not_there_is_named_beside_those_that_are(documents: Documents) -> None:
    documents.numbers(1)
    for attempt in (read_all, probe):
        with pytest.raises(PlatformError, match=rf"no collection nosuch that .*It has: .*{documents.name}"):
            attempt(documents.source(collection="nosuch"))


def test_a_server_that_is_not_there_is_said_soon(documents: Documents) -> None:
    source = documents.source(
        url=f"mongodb://127.0.0.1:{free_port()}", server={"connect_timeout": timedelta(seconds=0.3)}
    )
    for attempt in (read_all, probe):
        with pytest.raises(TransientError, match=r"did not answer within 0\.3 s \(`connect_timeout`\): .*refused"):
            attempt(source)


def test_a_server_that_says_nothing_holds_nobody_up(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "BATCH_ROWS", 10)
    monkeypatch.setattr(reading_module, "ATTEMPTS", 1)
    documents.put(*({"_id": n, "v": "x" * 100} for n in range(FIRST_ANSWER * 2)))
    with proxy_to(documents.url) as proxy:
        source = documents.source(
            url=proxy.url, server={"idle_timeout": timedelta(seconds=0.5), "connect_timeout": timedelta(seconds=0.5)}
        )
        with reading(source) as batches:
            next(batches)
            proxy.stall()
            with pytest.raises(
                TransientError,
                match=r"said nothing for 0\.5 s|did not answer within 0\.5 s|broke off: operation cancelled",
            ):
                list(batches)


@pytest.mark.parametrize("cursor", [None, {"column": "at"}])
def test_a_cursor_that_the_server_lost_is_opened_again_after_the_last_document(
    documents: Documents, monkeypatch: pytest.MonkeyPatch, cursor: Any
) -> None:
    documents.numbers(*range(250))
    source = documents.source(key=["id"], cursor=cursor)
    after = {} if cursor is None else {"cursor": '{"$date":{"$numberLong":"0"}}'}
    done = lost(monkeypatch, 70, times=2)
    found = [key for batch in read_all(source, after=after) for key in batch.rows["id"].to_pylist()]
    assert len(done) == 2
    assert found == [str(n) for n in range(250)]


def test_a_cursor_that_is_always_lost_ends_the_reading(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    documents.numbers(1)
    asked = []

    def fail(self: CollectionReading, documents: Any) -> Any:
        asked.append(documents)
        raise CursorNotFound("cursor id 5 not found", 43)

    monkeypatch.setattr(CollectionReading, "_next", fail)
    with pytest.raises(TransientError, match=r"broke off: cursor id 5 not found.*\(code 43\)"):
        read_all(documents.source())
    assert len(asked) == reading_module.ATTEMPTS + 1


def test_a_collection_that_is_dropped_in_the_middle_is_no_short_table(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents.numbers(*range(300))
    monkeypatch.setattr(reading_module, "BATCH_ROWS", 50)
    with reading(documents.source()) as batches:
        next(batches)
        documents.there.drop()
        with pytest.raises(PlatformError, match="no collection"):
            list(batches)


@pytest.mark.servers
def test_a_server_that_is_started_again_in_the_middle_is_gone_on_with(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "BATCH_ROWS", 50)
    documents = Documents(own.url)
    documents.numbers(*range(300))
    with reading(documents.source()) as batches:
        came = [next(batches)]
        own.kill()
        own.start()
        came.extend(batches)
    assert [key for batch in came for key in batch.rows["id"].to_pylist()] == [str(n) for n in range(300)]


@pytest.mark.servers
def test_what_came_before_a_server_died_is_kept_and_gone_on_from(
    lake: Lakehouse, own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "BATCH_ROWS", 50)
    monkeypatch.setattr(reading_module, "ATTEMPTS", 0)
    documents = Documents(own.url)
    documents.numbers(*range(300))
    source = documents.source(key=["id"], cursor={"column": "at"}, server={"connect_timeout": timedelta(seconds=0.3)})
    plain = CollectionReading._next

    def killed(self: CollectionReading, documents: Any) -> Any:
        if self._use.rows == FIRST_ANSWER:
            own.kill()
        return plain(self, documents)

    with monkeypatch.context() as within:
        within.setattr(CollectionReading, "_next", killed)
        with pytest.raises(TransientError):
            load(lake, source)
    assert rows(lake) == [str(n) for n in range(100)]
    assert position(lake).keys() == {"pass", "place"}
    own.start()
    load(lake, source)
    assert rows(lake) == [str(n) for n in range(300)]


def test_a_document_with_text_that_is_no_text_is_a_reject(
    lake: Lakehouse, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents.put(*({"_id": n, "v": "spoilt" if n == 3 else "v"} for n in range(40)))

    def spoil(raw: bytes) -> Document:
        return decoded(bytes(raw).replace(b"spoilt", b"spoi\xfft"))

    monkeypatch.setattr(reading_module, "decoded", spoil)
    assert load(lake, documents.source(cursor={"column": "id"}, key=["id"])).rows_landed == 39
    found = lake.connection.execute("SELECT file, record, reasons::VARCHAR FROM quarantine_shop.t").fetchall()
    ((place, record, reasons),) = found
    assert place == f"{documents.name}, _id 3"
    assert record == '{"_id":3,"v":"spoi\ufffdt"}'
    assert "no UTF-8" in reasons


def test_an_account_that_is_refused_is_said_without_its_password(documents: Documents) -> None:
    url = documents.url.replace("mongodb://", "mongodb://reader:a-secret-word@")
    with pytest.raises(PlatformError, match=r"reader:\*\*\*@.* refuses: .*\(code 18\)") as failed:
        read_all(documents.source(url=url))
    assert "a-secret-word" not in str(failed.value)
    with pytest.raises(PlatformError, match=r"refuses: .not shown"):
        read_all(documents.source(url=url, mask=["v"]))


@pytest.mark.parametrize(
    ("url", "database", "words"),
    [
        ("http://127.0.0.1", "shop", "is no address of MongoDB: those begin with mongodb://"),
        ("mongodb://127.0.0.1:port", "shop", "has characters in the user name or password"),
        ("mongodb://user:pass/word@127.0.0.1", "shop", "Percent-encode them"),
        ("mongodb://127.0.0.1/?nosuch=1", "shop", "cannot be read as an address of MongoDB: Unknown option"),
        ("mongodb://127.0.0.1/?readPreference=near", "shop", "cannot be read as an address of MongoDB"),
        ("mongodb://127.0.0.1:99999", "shop", "port"),
    ],
)
def test_an_address_that_is_none_is_said(url: str, database: str, words: str) -> None:
    with pytest.raises(PlatformError, match=words) as failed:
        read_all(Documents("mongodb://127.0.0.1").source(url=url, server={"database": database}))
    assert "pass/word" not in str(failed.value)


def test_an_address_without_a_database_is_said_with_those_that_there_are(documents: Documents) -> None:
    documents.numbers(1)
    with pytest.raises(PlatformError, match=r"names no database.*It has: .*shop"):
        read_all(documents.source(server={"database": None}))
    (batch,) = read_all(documents.source(url=f"{documents.url}/shop", server={"database": None}))
    assert batch.rows.num_rows == 1
