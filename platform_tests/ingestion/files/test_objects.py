"""Files in a bucket, against moto's emulator of S3: it speaks the protocol, it is not the real thing."""

import gzip
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import obstore
import pytest
from moto.s3.models import FakeBucket, s3_backends
from moto.server import ThreadedMotoServer
from platform_tests.ingestion.deliveries import Reader
from platform_tests.ingestion.reading import probe
from platform_tests.proxy import proxy_to
from werkzeug import serving

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.files.storage import objects
from data_platform.ingestion.files.storage.exact_keys import ExactKeys
from data_platform.ingestion.files.storage.objects import Bucket
from data_platform.ingestion.files.storage.options import StorageOptions

KEYS = {"access_key_id": "key", "secret_access_key": "top-secret", "region": "us-east-1"}


@dataclass
class Store:
    """A bucket in the emulator, and the requests that its server saw."""

    endpoint: str
    name: str
    requests: list[str] = field(default_factory=list)

    @property
    def bucket(self) -> FakeBucket:
        return s3_backends["123456789012"]["aws"].buckets[self.name]

    def put(self, key: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        s3_backends["123456789012"]["aws"].put_object(self.name, key, data)

    def reader(
        self, folder: str = "in", endpoint: str = "", name: str = "", table: Any = None, **options: Any
    ) -> Reader:
        url = f"s3://{name or self.name}/{folder}"
        given = {**KEYS, "endpoint": endpoint or self.endpoint, "max_retries": 1, "timeout": 5, **options}
        return Reader(Bucket(url, StorageOptions.model_validate(given)), **(table or {}))

    def listings(self) -> int:
        return sum("list-type=2" in request for request in self.requests)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[str]]]:
    requests: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        # Each request as it comes over the wire.
        patch.setattr(
            serving.WSGIRequestHandler, "log_request", lambda self, *_: requests.append(f"{self.command} {self.path}")
        )
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=True)
        moto.start()
        host, port = moto.get_host_and_port()
        yield f"http://{host}:{port}", requests
        moto.stop()


@pytest.fixture
def store(server: tuple[str, list[str]]) -> Store:
    endpoint, requests = server
    name = f"landing-{uuid.uuid4()}"
    s3_backends["123456789012"]["aws"].create_bucket(name, "us-east-1")
    requests.clear()
    return Store(endpoint, name, requests)


def test_objects_below_the_prefix_are_each_loaded_once_and_an_overwritten_one_again(store: Store) -> None:
    store.put("in/a.csv", "id\n1\n")
    store.put("in/b.csv.gz", gzip.compress(b"id\n2\n"))
    store.put("in/sub/c.csv", "id\n3\n")
    store.put("in/.hidden.csv", "id\n4\n")
    store.put("inside/d.csv", "id\n5\n")
    reader = store.reader(table={"path": "*.csv*"})
    assert sorted(reader.ids()) == ["1", "2"]
    assert probe(reader.source, "t", reader.position) == {}
    assert reader.batches() == []
    store.put("in/a.csv", "id\n7\n")
    assert list(probe(reader.source, "t", reader.position) or {}) == ["a.csv"]
    assert reader.ids() == ["7"]
    assert sorted(store.reader(table={"path": "**/*.csv"}).ids()) == ["3", "7"]


def test_an_object_written_anew_with_the_same_content_moves_its_position_alone(store: Store) -> None:
    store.put("in/a.csv", "id\n1\n")
    reader = store.reader()
    assert reader.ids() == ["1"]
    before = dict(reader.position)
    store.bucket.keys["in/a.csv"].last_modified += timedelta(seconds=5)
    assert reader.ids() == []
    assert reader.position != before


def test_objects_of_the_same_second_as_the_newest_loaded_or_an_earlier_one_are_not_missed(store: Store) -> None:
    store.put("in/b.csv", "id\n1\n")
    reader = store.reader()
    assert reader.ids() == ["1"]
    at = store.bucket.keys["in/b.csv"].last_modified
    for name, seconds in (("a", 0), ("c", 0), ("d", 60)):
        store.put(f"in/{name}.csv", f"id\n{name}\n")
        store.bucket.keys[f"in/{name}.csv"].last_modified = at - timedelta(seconds=seconds)
    assert reader.ids() == ["d", "a", "c"]


def test_a_store_that_does_not_mind_what_it_is_asked_to_match_gives_no_other_object(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the emulators of some stores do.
    get = obstore.get
    monkeypatch.setattr(obstore, "get", lambda *given, options: get(*given, options={"range": options["range"]}))
    store.put("in/a.csv", "id\n1\n")
    bucket = Bucket(f"s3://{store.name}/in", StorageOptions.model_validate({**KEYS, "endpoint": store.endpoint}))
    (found,) = bucket.find("*", 0)
    store.put("in/a.csv", "id\n2\n")
    with pytest.raises(PlatformError, match="it changed while it was read"), bucket.opened(found, None):
        pass


def test_an_object_that_is_overwritten_between_the_listing_and_the_read_is_read_next_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("in/a.csv", "id\n1\n")
    store.put("in/b.csv", "id\n2\n")
    find = Bucket.find

    def find_then_overwrite(*args: Any) -> Any:
        found = find(*args)
        store.put("in/a.csv", "id\n8\n")
        return found

    reader = store.reader()
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "find", find_then_overwrite)
        with pytest.raises(PlatformError, match=r"a\.csv: it changed while it was read; it is read next time"):
            reader.batches()
    assert reader.landed_ids() == ["2"]
    assert reader.ids() == ["8"]


def test_an_object_that_is_overwritten_between_two_of_its_parts_is_no_mixture(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART", 6)
    store.put("in/a.csv", "id\n" + "1\n" * 10)
    read = Bucket._read_part

    def read_then_overwrite(*args: Any) -> None:
        read(*args)
        store.put("in/a.csv", "id\n" + "2\n" * 10)

    reader = store.reader()
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "_read_part", read_then_overwrite)
        with pytest.raises(PlatformError, match="changed while it was read"):
            reader.batches()
    assert reader.landed_ids() == []
    assert reader.ids() == ["2"] * 10


def test_an_object_that_vanishes_before_it_is_read_is_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("in/a.csv", "id\n1\n")
    store.put("in/b.csv", "id\n2\n")
    find = Bucket.find

    def find_then_delete(*args: Any) -> Any:
        found = find(*args)
        store.bucket.keys.pop("in/a.csv")
        return found

    monkeypatch.setattr(Bucket, "find", find_then_delete)
    assert store.reader().ids() == ["2"]


def test_the_empty_objects_that_stand_for_folders_are_no_files(store: Store) -> None:
    store.put("in/", "")
    store.put("in/sub/", "")
    store.put("in/sub/a.csv", "id\n1\n")
    assert list(probe(store.reader(table={"path": "**"}).source, "t") or {}) == ["sub/a.csv"]
    assert list(probe(store.reader(table={"path": "*"}).source, "t") or {}) == []


NAMES = ["a b.csv", "ä€.csv", "a+b.csv", "100%.csv", "a%20b.csv", "it's=1&2.csv", "#?.csv", "a:b.csv"]


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_any_characters_are_read(store: Store, name: str) -> None:
    store.put(f"in/{name}", "id\n1\n")
    reader = store.reader()
    assert reader.ids() == ["1"]
    assert list(reader.position) == [name]
    assert reader.batches() == []


def test_only_the_newest_partitions_are_listed(store: Store) -> None:
    for day in range(100):
        for part in range(100):
            store.put(f"in/dt=2024-{1 + day // 28:02}-{1 + day % 28:02}/{part}.csv", f"id\n{day}-{part}\n")
    reader = store.reader(table={"path": "dt=*/*.csv", "partitions": {"by": "dt=%Y-%m-%d", "late": "2d"}})
    reader.position = {
        f"dt=2024-04-{day:02}/{part}.csv": f"1:2:3:{day}{part}" for day in range(12, 17) for part in range(99)
    }
    store.requests.clear()
    changed = probe(reader.source, "t", reader.position) or {}
    assert store.listings() == 1
    assert {path[:13] for path in changed} == {"dt=2024-04-14", "dt=2024-04-15", "dt=2024-04-16"}
    store.requests.clear()
    everything = probe(store.reader(table={"path": "dt=*/*.csv"}).source, "t", {}) or {}
    assert (len(everything), store.listings()) == (10_000, 10)


def test_names_that_grow_are_listed_from_the_last_one_on(store: Store) -> None:
    for number in range(10_000):
        store.put(f"in/events/{number:06}.csv", f"id\n{number}\n")
    reader = store.reader(table={"path": "events/*.csv", "partitions": {"by": "name"}})
    everything = sorted((probe(reader.source, "t", {}) or {}).items())
    assert (len(everything), store.listings()) == (10_000, 10)
    reader.position = {path: f"{version}:x" for path, version in [*everything[:9_998], ("old/z.csv", "1:2:3")]}
    store.requests.clear()
    assert reader.ids() == ["9998", "9999"]
    store.put("in/events/010000.csv", "id\n10000\n")
    store.requests.clear()
    assert list(probe(reader.source, "t", reader.position) or {}) == ["events/010000.csv"]
    assert store.listings() == 1


def test_what_a_pattern_begins_with_is_all_that_is_listed(store: Store) -> None:
    for number in range(3_000):
        store.put(f"in/events/{number:05}.csv", "id\n1\n")
    store.put("in/prices/p_1.csv", "id\n1\n")
    store.requests.clear()
    for pattern, count in (("prices/p_*.csv", 1), ("events/001*.csv", 100), ("events/00000.csv", 1)):
        assert len(probe(store.reader(table={"path": pattern}).source, "t", {}) or {}) == count
        assert store.listings() == 1, pattern
        store.requests.clear()


def test_a_late_file_below_the_partitions_that_are_listed_comes_with_a_full_look(store: Store) -> None:
    table = {"path": "dt=*/*.csv", "partitions": {"by": "dt=%Y-%m-%d", "late": "1d"}}
    store.put("in/dt=2024-03-10/a.csv", "id\n1\n")
    reader = store.reader(table=table)
    assert reader.ids() == ["1"]
    store.put("in/dt=2024-03-08/late.csv", "id\n2\n")
    store.put("in/dt=2024-03-09/in-time.csv", "id\n3\n")
    store.put("in/dt=2024-03-11/new.csv", "id\n4\n")
    assert sorted(reader.ids()) == ["3", "4"]
    assert sorted(store.reader(table=table).ids()) == ["1", "2", "3", "4"]


def test_a_bucket_that_is_gone_is_named_with_what_to_do(store: Store) -> None:
    with pytest.raises(TransientError, match=r"There is no bucket gone-1, .*s3://gone-1/in.* at http://127.*`folder`"):
        store.reader(name="gone-1").batches()


def test_a_store_that_nobody_answers_for_is_named_and_no_secret_is(store: Store) -> None:
    reader = store.reader(endpoint="http://127.0.0.1:9")
    with pytest.raises(
        TransientError, match=r"s3://.*/in does not answer.*127\.0\.0\.1:9.*`max_retries` \(1\)"
    ) as error:
        reader.batches()
    assert "top-secret" not in str(error.value)


def test_a_connection_that_is_cut_amid_an_object_lands_nothing_of_it_and_what_came_before_lands(store: Store) -> None:
    store.put("in/a.csv", "id\n1\n")
    store.bucket.keys["in/a.csv"].last_modified -= timedelta(seconds=60)
    store.put("in/b.csv", "id\n" + "2\n" * 500_000)
    with proxy_to(store.endpoint) as proxy:
        reader = store.reader(endpoint=proxy.url)
        proxy.cut_after = 300_000
        with pytest.raises(TransientError, match="does not answer as it should"):
            reader.batches()
    assert reader.landed_ids() == ["1"]
    again = store.reader()
    again.position = reader.position
    assert again.ids() == ["2"] * 500_000


def test_a_store_that_stalls_is_given_up_after_the_time_out(store: Store) -> None:
    store.put("in/a.csv", "id\n1\n")
    with proxy_to(store.endpoint) as proxy:
        reader = store.reader(endpoint=proxy.url, timeout=0.5, max_retries=0)
        proxy.stall()
        began = time.monotonic()
        with pytest.raises(TransientError, match=r"`timeout` \(0\.5 s\)"):
            reader.batches()
        assert time.monotonic() - began < 20


@contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, status: int, code: str, times: int, path: str = "") -> Iterator[None]:
    """The server answers so many requests with an error of S3's, of those whose paths end so."""
    left = [times]
    answer = serving.WSGIRequestHandler.run_wsgi

    def run_wsgi(handler: serving.WSGIRequestHandler) -> None:
        if left[0] <= 0 or not handler.path.endswith(path):
            return answer(handler)
        left[0] -= 1
        body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return None

    with monkeypatch.context() as patch:
        patch.setattr(serving.WSGIRequestHandler, "run_wsgi", run_wsgi)
        yield


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (400, "ExpiredToken", r"not valid, or not any more \(400 ExpiredToken: No\)"),
        (403, "RequestTimeTooSkewed", r"clock of this machine .*differ too much .*Set the clock"),
        (301, "PermanentRedirect", "another region than `region`.*Set `region`"),
    ],
)
def test_what_is_wrong_with_every_request_is_said_as_what_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, status: int, code: str, said: str
) -> None:
    store.put("in/a.csv", "id\n1\n")
    with answering(monkeypatch, status, code, 100), pytest.raises(TransientError, match=said):
        store.reader(max_retries=0).batches()


def test_an_object_that_the_store_does_not_give_holds_up_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("in/a.csv", "id\n1\n")
    s3_backends["123456789012"]["aws"].put_object(store.name, "in/b.csv", b"id\n2\n", storage="GLACIER")
    store.put("in/c.csv", "id\n3\n")
    reader = store.reader(max_retries=0)
    find = Bucket.find

    def find_then_refuse(*args: Any) -> Any:
        found = find(*args)
        stack.enter_context(answering(monkeypatch, 400, "InvalidRequest", 1, "a.csv"))
        return found

    with ExitStack() as stack, monkeypatch.context() as patch:
        patch.setattr(Bucket, "find", find_then_refuse)
        with pytest.raises(PlatformError) as error:
            reader.batches()
    assert "a.csv: the store refuses to give it (400 InvalidRequest: No)" in str(error.value)
    assert "b.csv: it is archived" in str(error.value)
    assert reader.landed_ids() == ["3"]


def test_a_store_that_lists_in_no_order_hides_no_object(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("orders-1.csv", "orders-2.csv", "orders/x.csv", "z.csv")):
        store.put(f"in/{name}", f"id\n{number}\n")
    in_order = obstore.list

    def backwards(*args: Any, offset: str | None = None, **given: Any) -> Any:  # which begins where it likes to
        found = [meta for page in in_order(*args, **given) for meta in page]
        return [found[::-1][:2], found[::-1][2:]]

    monkeypatch.setattr(obstore, "list", backwards)
    reader = store.reader(table={"path": "orders-*.csv", "partitions": {"by": "name"}})
    reader.position = {"orders-1.csv": "1:1:1:x"}
    assert reader.ids() == ["0", "1"]
    assert not Bucket("s3://lake--use1-az4--x-s3/in", StorageOptions())._lists_in_order


def test_many_empty_objects_take_no_request_each(store: Store) -> None:
    for number in range(30):
        store.put(f"in/{number}.csv", "")
    store.put("in/folder.csv/", "")
    reader = store.reader()
    reader.batches()
    store.requests.clear()
    assert probe(reader.source, "t", reader.position) == {}
    assert store.requests == [one for one in store.requests if "list-type=2" in one]
    assert len(reader.position) == 30


def test_a_store_that_is_to_be_slowed_down_for_is_asked_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("in/a.csv", "id\n1\n")
    with answering(monkeypatch, 503, "SlowDown", 1):
        assert store.reader().ids() == ["1"]
    with (
        answering(monkeypatch, 503, "SlowDown", 100),
        pytest.raises(TransientError, match=r"does not answer as it should.*503"),
    ):
        store.reader().batches()


def test_wrong_credentials_are_said_with_where_they_are_set_and_without_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        answering(monkeypatch, 403, "InvalidAccessKeyId", 100),
        pytest.raises(TransientError, match=r"may not be read at http.*403.*`access_key_id`.*AWS_ACCESS_KEY") as error,
    ):
        store.reader().batches()
    assert "top-secret" not in str(error.value)


def test_a_public_bucket_is_read_without_a_signature(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("in/a.csv", "id\n1\n")
    signed: list[bool] = []
    answer = serving.WSGIRequestHandler.run_wsgi

    def run_wsgi(handler: serving.WSGIRequestHandler) -> None:
        signed.append("Authorization" in handler.headers)
        answer(handler)

    monkeypatch.setattr(serving.WSGIRequestHandler, "run_wsgi", run_wsgi)
    assert store.reader().ids() == ["1"]
    assert set(signed) == {True}
    signed.clear()
    url = f"s3://{store.name}/in"
    anonymous = StorageOptions.model_validate({"endpoint": store.endpoint, "anonymous": True})
    assert list(probe(Reader(Bucket(url, anonymous)).source)) == ["a.csv"]
    assert set(signed) == {False}


# None with a line end: the emulator finds no object by such a key.
ODD = ["x//b.csv", "/b.csv", "x///b.csv", "tab\tb.csv", "x/b\x01.csv", "ä//b ö+%.csv"]


@pytest.mark.parametrize("name", ODD)
def test_a_key_that_is_no_path_is_read_as_it_is_and_hides_no_other(store: Store, name: str) -> None:
    store.put("in/a.csv", "id\n1\n")
    reader = store.reader(table={"path": "**/*.csv"})
    assert reader.ids() == ["1"]
    store.put(f"in/{name}", "id\n2\n")
    store.put("in/sub/", "")
    store.put("in/z.csv", "id\n3\n")
    assert sorted(reader.ids()) == ["2", "3"]
    assert name in reader.position
    assert reader.batches() == []
    store.put(f"in/{name}", "id\n4\n")
    assert reader.ids() == ["4"]


def test_an_object_of_an_odd_key_that_is_overwritten_or_deleted_meanwhile_is_no_mixture(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("in/x//a.csv", "id\n1\n")
    store.put("in/x//b.csv", "id\n2\n")
    find = Bucket.find

    def find_then_change(*args: Any) -> Any:
        found = find(*args)
        store.put("in/x//a.csv", "id\n8\n")
        store.bucket.keys.pop("in/x//b.csv")
        return found

    reader = store.reader(table={"path": "**/*.csv"})
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "find", find_then_change)
        with pytest.raises(PlatformError, match=r"could not be read.*\n  x//a\.csv: it changed while it was read"):
            reader.batches()
    assert reader.ids() == ["8"]


def test_keys_by_which_nothing_can_be_read_are_passed_over_with_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("a.csv", "a.csv/", "x//b.csv", "./c.csv", "../d.csv"):
        store.put(f"in/{key}", f"id\n{len(key)}\n")
    reader = store.reader(table={"path": "**/*.csv"})
    assert sorted(reader.ids()) == ["5", "8"]
    assert "1 of its objects are not read" in caplog.text
    assert "'a.csv/'" in caplog.text
    caplog.clear()
    hidden = store.reader(table={"path": ".*/*.csv"})
    assert hidden.ids() == []
    assert "2 of its objects are not read" in caplog.text
    assert "'../d.csv', './c.csv'" in caplog.text


def test_content_under_the_key_of_a_folder_is_said_and_stops_no_file(store: Store) -> None:
    store.put("in/a.csv", "id\n1\n")
    store.put("in/b.csv/", "id\n2\n")
    reader = store.reader()
    with pytest.raises(PlatformError, match=r"1 file below .*\n  b\.csv: its key ends in a slash"):
        reader.batches()
    assert reader.landed_ids() == ["1"]


def test_failures_of_the_client_of_odd_keys_are_said_like_all_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("in/x//a.csv", "id\n1\n")
    reader = store.reader(table={"path": "**/*.csv"}, max_retries=0)
    listed = ExactKeys.listed

    def listed_then(status: int, code: str) -> Any:
        def refuse(*args: Any) -> Any:
            with answering(monkeypatch, status, code, 9):
                yield from listed(*args)

        return refuse

    for status, code, said in (
        (403, "AccessDenied", r"may not be read .*with the credentials"),
        (404, "NoSuchBucket", "There is no bucket"),
        (503, "SlowDown", r"does not answer as it should.*503"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(ExactKeys, "listed", listed_then(status, code))
            with pytest.raises(TransientError, match=said) as error:
                reader.batches()
        assert "top-secret" not in str(error.value)
    assert reader.ids() == ["1"]


@pytest.mark.parametrize("url", ["gs://bucket/in", "az://container/in"])
def test_what_other_clouds_lack_is_said_without_a_traceback(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)
    with pytest.raises(PlatformError, match=re.escape(url)):
        Bucket(url, StorageOptions(max_retries=0, timeout=0.5)).find("*", 0)


def test_the_variables_of_aws_are_what_is_taken_where_the_source_says_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("in/a.csv", "id\n1\n")
    for name, value in (("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "s"), ("ENDPOINT_URL", store.endpoint)):
        monkeypatch.setenv(f"AWS_{name}", value)
    assert Reader(Bucket(f"s3://{store.name}/in", StorageOptions())).ids() == ["1"]


def test_an_object_that_may_not_be_read_leaves_the_others_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("in/a.csv", "id\n1\n")
    store.put("in/b.csv", "id\n2\n")
    reader = store.reader()
    find = Bucket.find

    def find_then_refuse(*args: Any) -> Any:
        found = find(*args)
        stack.enter_context(answering(monkeypatch, 403, "AccessDenied", 1, "a.csv"))
        return found

    with ExitStack() as stack, monkeypatch.context() as patch:
        patch.setattr(Bucket, "find", find_then_refuse)
        with pytest.raises(PlatformError, match=r"a\.csv: it may not be read with these credentials"):
            reader.batches()
    assert reader.landed_ids() == ["2"]
